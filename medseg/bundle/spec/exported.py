"""What an export to another backend was found to do: ``models/openvino/agreement.json``.

It is data, and is checked as strictly as the bundle: it decides which backend segments.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt

from medseg.bundle.spec.parts import ShortText, Spec

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ModelFile = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}\.(xml|bin)$")]

LEAST_AGREEMENT = 0.999
"""Agreement from which on `--backend auto` takes the exported model on a CPU."""


class AgreementSpec(Spec):
    """How far the label maps of an exported model are those of the weights it was made of."""

    network: Digest
    """Hash of the network and all weights it was made of."""
    files: Annotated[
        dict[ModelFile, Digest], Field(min_length=2, max_length=200)
    ]
    """The exported files beside this one, and their SHA-256."""
    made_with: Annotated[dict[ShortText, ShortText], Field(max_length=20)]
    """Package → version."""
    scans: NonNegativeInt = 0
    """Scans that both segmented, in float32; with none, nothing is known."""
    made_up: bool = False
    """Whether these were phantoms, because no scans were given."""
    voxels: NonNegativeInt = 0
    """Voxels of all scans."""
    labelled: NonNegativeInt = 0
    """Voxels that at least one of both gave a label."""
    differ: NonNegativeInt = 0
    """Voxels whose labels differ."""

    @property
    def agreement(self) -> float:
        """Share of the labelled voxels in which both agree; 0 where nothing was labelled."""
        return 1 - self.differ / self.labelled if self.labelled else 0.0

    @property
    def is_close(self) -> bool:
        """Whether `--backend auto` may use the exported model."""
        return self.agreement >= LEAST_AGREEMENT
