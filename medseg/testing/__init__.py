"""Made-up data for demos and tests, and contract test suites for those who extend medseg.

``make_phantom``, ``write_dataset`` and ``write_example_bundle`` need nothing but medseg. The
contract suites are classes that a package subclasses in its own tests; each lies in a module of its
own, and importing that module imports pytest.

* ``medseg.testing.dataset_layouts``: the contract of a layout of data sets.
* ``medseg.testing.image_formats``: the contract of an image format.
* ``medseg.testing.dataset_layouts``: the contract of a data set's layout.
* ``medseg.testing.networks``: the contract of a network.
* ``medseg.testing.losses``: the contract of a loss.
* ``medseg.testing.backends``: the contract of a backend.
* ``medseg.testing.result_formats``: the contract of a result format.
"""

from medseg.testing.bundles import write_example_bundle
from medseg.testing.phantoms import KIDNEY, LIVER, make_phantom, write_dataset

__all__ = [
    "KIDNEY",
    "LIVER",
    "make_phantom",
    "write_dataset",
    "write_example_bundle",
]
