"""What a data set looks like → a bundle for it, with a reason for every choice.

``inspection`` opens a data set, once. The rules (``grid``, ``intensity``, ``network``,
``schedule``) are functions of its fingerprint and of the constraints, and open nothing; ``draft``
applies them in turn. Where nnU-Net's rules (Isensee et al., Nat Methods 2021) are good they are
taken: the median spacing, the coarse axis, CT windows, kernels and strides that follow the
spacing. Plans that nnU-Net itself has written are converted (``from_nnunet``).
"""

from medseg.interop.nnunet.plans import (
    NnunetPlans,
    is_nnunet_plans,
    read_nnunet_plans,
)
from medseg.planning.choices import list_choices
from medseg.planning.constraints import Constraints, Notes, parse_minutes
from medseg.planning.description import (
    DatasetDescription,
    parse_channel,
    read_description,
)
from medseg.planning.device_limits import adapt_constraints, make_constraints
from medseg.planning.draft import draft_bundle
from medseg.planning.fingerprint import Fingerprint
from medseg.planning.fingerprint_cache import extract_fingerprint
from medseg.planning.from_nnunet import ConvertedPlans, convert_plans
from medseg.planning.grid import Grid, choose_grid
from medseg.planning.inspection import (
    InspectedDataset,
    inspect_dataset,
    make_provisional_spec,
)
from medseg.planning.intensity import choose_intensity
from medseg.planning.label_requests import (
    parse_label_requests,
)
from medseg.planning.mask_labels import LabelWishes
from medseg.planning.network import choose_network, compute_max_patch_voxels
from medseg.planning.nnunet_bundle import draft_converted
from medseg.planning.schedule import choose_training

__all__ = [
    "Constraints",
    "ConvertedPlans",
    "DatasetDescription",
    "Fingerprint",
    "Grid",
    "InspectedDataset",
    "LabelWishes",
    "NnunetPlans",
    "Notes",
    "adapt_constraints",
    "choose_grid",
    "choose_intensity",
    "choose_network",
    "choose_training",
    "compute_max_patch_voxels",
    "convert_plans",
    "draft_bundle",
    "draft_converted",
    "extract_fingerprint",
    "inspect_dataset",
    "is_nnunet_plans",
    "list_choices",
    "make_constraints",
    "make_provisional_spec",
    "parse_channel",
    "parse_label_requests",
    "parse_minutes",
    "read_description",
    "read_nnunet_plans",
]
