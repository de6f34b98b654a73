"""The network of a trained bundle, with its refiner where it has one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from medseg.bundle.bundle import REFINER_FILE, Bundle
from medseg.bundle.safe_weights import load_bundle_weights
from medseg.errors import CheckpointError
from medseg.networks.building import build_network
from medseg.networks.refiner import (
    build_refined,
    load_refined,
    select_coarse_weights,
)


@dataclass(frozen=True, slots=True)
class OutputLayout:
    """What the output channels of a network are.

    Attributes:
        classes: Channels of one estimate: background and labels, or regions.
        estimates: How many estimates of all classes follow each other as channels: the coarse
            one, and the refined one where there is a refiner.
        chosen: Position of the estimate that labels are taken from.
    """

    classes: int
    estimates: int = 1
    chosen: int = 0

    @property
    def channels(self) -> int:
        """Channels in all."""
        return self.classes * self.estimates

    @property
    def parts(self) -> tuple[slice, ...]:
        """The channels of each estimate."""
        starts = range(0, self.channels, self.classes)
        return tuple(slice(start, start + self.classes) for start in starts)

    @property
    def labelled(self) -> slice:
        """The channels that labels are taken from."""
        return self.parts[self.chosen]


def get_output_layout(bundle: Bundle) -> OutputLayout:
    """Return what the output channels of a trained bundle's networks are.

    Raises:
        CheckpointError: If the refiner whose masks are used is absent.
    """
    classes = bundle.spec.label_set.channels
    if not _has_refiner(bundle):
        return OutputLayout(classes)
    return OutputLayout(
        classes, estimates=2, chosen=int(_is_refiner_applied(bundle))
    )


def load_network(bundle: Bundle, file: Path) -> nn.Module:
    """Return a trained bundle's network with the weights of a file, in evaluation mode.

    With a refiner it returns ``(batch, 2 · classes, *patch)``: coarse logits, then refined ones.

    Raises:
        CheckpointError: If the weights are absent, damaged, or of another network.
    """
    if not file.is_file():
        raise CheckpointError(
            "the bundle has no weights; train it first: medseg train BUNDLE",
            source=file,
        )
    spec = bundle.spec
    weights = select_coarse_weights(load_bundle_weights(bundle, file))
    if _has_refiner(bundle):
        refined = build_refined(spec, both=True)
        refiner = load_bundle_weights(bundle, bundle.folder / REFINER_FILE)
        load_refined(refined, weights, refiner)
        return refined.eval()
    network = build_network(spec, supervised=False)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            "the weights are of another network than bundle.json describes",
            source=file,
            detail=str(error).splitlines()[-1].strip(),
        ) from error
    return network.eval()


def _has_refiner(bundle: Bundle) -> bool:
    """Tell whether there is a refiner.

    Raises:
        CheckpointError: If its masks are those to be used, and it is absent.
    """
    if bundle.spec.refinement is None:
        return False
    file = bundle.folder / REFINER_FILE
    if file.is_file():
        return True
    if _is_refiner_applied(bundle):
        raise CheckpointError(
            "the bundle has no refiner, and its refined masks are those to be used "
            "(models/trained.json); copy the file beside the weights, or train the bundle again",
            source=file,
        )
    return False


def _is_refiner_applied(bundle: Bundle) -> bool:
    finding = bundle.trained.refinement
    return finding is not None and finding.applied
