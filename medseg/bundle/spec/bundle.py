"""The whole of ``bundle.json``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated

from pydantic import Field, model_validator

from medseg.bundle.spec.data import (
    ChannelSpec,
    DataSpec,
    LabelSpec,
    RegionSpec,
)
from medseg.bundle.spec.described import DescribedSpec
from medseg.bundle.spec.intensity import Intensity
from medseg.bundle.spec.network import LevelledSpec, NetworkSpec, UNetSpec
from medseg.bundle.spec.parts import (
    Contradiction,
    ContradictionError,
    ShortText,
    Text,
)
from medseg.bundle.spec.preprocessing import RAS, PreprocessingSpec
from medseg.bundle.spec.refinement import RefinementSpec
from medseg.bundle.spec.regions import check_regions, resolve_regions
from medseg.bundle.spec.training import (
    CLICK_CHANNELS,
    TAKEN_BY_VIEWERS,
    InferenceSpec,
    QualitySpec,
    TrackingSpec,
    TrainingSpec,
)
from medseg.labels import (
    Code,
    Label,
    LabelSet,
    default_colour,
)

BACKGROUND = "background"
"""Name of the background where it has a weight."""

SCHEMA_ID = "medseg-bundle-1.json"
"""How the JSON Schema of ``bundle.json`` calls itself."""


class BundleSpec(DescribedSpec):
    """A medseg bundle: what to train, or what was trained."""

    channels: Annotated[
        tuple[ChannelSpec, ...], Field(min_length=1, max_length=64)
    ]
    """The network's input channels, in order."""
    labels: Annotated[
        tuple[LabelSpec, ...], Field(min_length=1, max_length=1000)
    ]
    """The structures to segment."""
    regions: Annotated[tuple[RegionSpec, ...], Field(max_length=100)] = ()
    """Structures that may overlap, made of the labels; the larger before those inside it. Then the
    network learns, and tables measure, these instead of the labels. Label maps are made of them in
    this order (nnU-Net's `regions_class_order`): each region shows its label where its probability
    is above one half, over the regions before it."""
    data: DataSpec = DataSpec()
    preprocessing: PreprocessingSpec = PreprocessingSpec()
    network: NetworkSpec = UNetSpec()
    training: TrainingSpec
    refinement: RefinementSpec | None = None
    """Correction of the network's masks, or adversarial training; `null` for neither."""
    inference: InferenceSpec = InferenceSpec()
    quality: QualitySpec = QualitySpec()
    tracking: TrackingSpec = TrackingSpec()
    notes: Annotated[dict[ShortText, Text], Field(max_length=200)] = Field(
        default={}
    )
    """Why a field has its value: `training.patch` → a sentence. For people; `medseg plan` writes
    them."""

    @model_validator(mode="after")
    def _check_consistency(self) -> BundleSpec:
        contradictions = [
            *self._check_patch(),
            *self._check_preprocessing(),
            *self._check_label_names(),
            *self._check_ignore_label(),
            *check_regions(self.regions, self.labels),
            *self._check_use_of_regions(),
            *self._check_refinement(),
            *self._check_clicks(),
        ]
        if contradictions:
            raise ContradictionError(contradictions)
        return self

    def _check_patch(self) -> Iterator[Contradiction]:
        patch = self.training.patch
        divisor = self.network.divisor
        sections, where = ("training", "network"), "training.patch"
        if len(patch) != self.network.dims:
            what = f"has {len(patch)} sizes and network.dims is {self.network.dims}"
            yield sections, where, what
            return
        divisible = [
            math.ceil(size / by) * by
            for size, by in zip(patch, divisor, strict=True)
        ]
        if divisible != list(patch):
            what = (
                f"{list(patch)} must be divisible by {list(divisor)}, the product of "
                f"network.strides; {divisible} is"
            )
            yield sections, where, what
        elif isinstance(self.network, LevelledSpec) and patch == divisor:
            what = (
                f"{list(patch)} shrinks to one voxel at the lowest level, which cannot be "
                f"normalised; make an axis larger than {list(divisor)}"
            )
            yield sections, where, what

    def _check_preprocessing(self) -> Iterator[Contradiction]:
        preprocessing = self.preprocessing
        intensity = preprocessing.intensity
        channels = len(self.channels)
        if isinstance(intensity, tuple) and len(intensity) != channels:
            what = (
                f"lists {len(intensity)} normalisations for {channels} channels"
            )
            yield ("preprocessing", "channels"), "preprocessing.intensity", what
        if preprocessing.input != "picture":
            return
        if self.network.dims != 2:
            what = "'picture' needs network.dims 2"
            yield ("preprocessing", "network"), "preprocessing.input", what
        if preprocessing.axes != RAS:
            what = "pictures are seen as they are stored; leave it out"
            yield ("preprocessing",), "preprocessing.axes", what
        if preprocessing.spacing_mm is not None:
            what = "must be null for pictures, which have no spacing in mm"
            yield ("preprocessing",), "preprocessing.spacing_mm", what

    def _check_label_names(self) -> Iterator[Contradiction]:
        labels = {label.name for label in self.labels}
        unknown = sorted(set(self.inference.keep_largest or ()) - labels)
        if unknown:
            what = f"no label of this bundle is named {', '.join(unknown)}"
            yield ("inference", "labels"), "inference.keep_largest", what
        if self.regions:
            kind, weighable = "region", {region.name for region in self.regions}
        else:
            kind, weighable = "label", {BACKGROUND, *labels}
        unknown = sorted(set(self.training.class_weights or ()) - weighable)
        if unknown:
            what = f"no {kind} of this bundle is named {', '.join(unknown)}"
            yield (
                ("training", "labels", "regions"),
                "training.class_weights",
                what,
            )

    def _check_use_of_regions(self) -> Iterator[Contradiction]:
        if not self.regions:
            return
        if self.refinement is not None:
            what = (
                "refiner and critic know labels that exclude each other, not regions; set it to "
                "null, or leave regions out"
            )
            yield ("refinement", "regions"), "refinement", what
        if self.inference.keep_largest:
            what = (
                "a component removed from one region would be missing in those around it; with "
                "regions it is null or []"
            )
            yield ("inference", "regions"), "inference.keep_largest", what

    def _check_ignore_label(self) -> Iterator[Contradiction]:
        """Find values and colours that mean a label, and something else."""
        for field, codes in (
            ("data.ignore", self.data.ignored),
            ("data.background", self.data.background),
        ):
            for label, code in itertools.product(self.labels, codes):
                for what in _find_conflicts(label, code):
                    yield ("data", "labels"), field, what

    def _check_refinement(self) -> Iterator[Contradiction]:
        refinement = self.refinement
        if refinement is None or not refinement.has_critic:
            return
        dims = self.network.dims
        patch = self.training.patch
        smallest = refinement.smallest_patch(dims)
        if min(patch) < smallest:
            what = (
                f"{refinement.critic_layers(dims)} layers need patches of {smallest} voxels along "
                f"each axis, and training.patch is {list(patch)}; use fewer layers, or an "
                "adversarial_weight of 0"
            )
            yield (
                ("refinement", "training", "network"),
                "refinement.critic.layers",
                what,
            )

    def _check_clicks(self) -> Iterator[Contradiction]:
        if self.training.clicks is None:
            return
        if self.refinement is not None:
            what = (
                "a refiner and a critic know nothing of clicks and would undo what a person "
                "corrects; set refinement to null, or leave clicks out"
            )
            yield ("training", "refinement"), "training.clicks", what
        if self.regions:
            what = (
                "a click corrects one label, and of regions that overlap several would change "
                "with it; leave regions out, or clicks"
            )
            yield ("training", "regions"), "training.clicks", what
        for label in self.labels:
            if label.name in TAKEN_BY_VIEWERS:
                what = (
                    f"viewers send clicks under the names of labels, and '{label.name}' is a "
                    "parameter of theirs; rename the label"
                )
                yield ("training", "labels"), "training.clicks", what

    @property
    def input_channels(self) -> int:
        """What the network sees: the channels, and behind them what clicks are shown by."""
        shows_clicks = self.training.clicks is not None
        return len(self.channels) + shows_clicks * len(CLICK_CHANNELS)

    @property
    def label_set(self) -> LabelSet:
        """The labels with every default filled in."""
        return _build_label_set(
            self.labels,
            self.regions,
            self.data.ignored,
            self.data.background,
            self.data.colour_coded,
        )

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        """Weight of each output channel in the loss; ``None`` where all weigh the same.

        Scaled so that the mean of labels or regions is 1: weights shift what is learned between
        them, and not between Dice and cross-entropy.
        """
        given = self.training.class_weights
        if given is None:
            return None
        weights = [
            given.get(region.name, 1.0) for region in self.label_set.regions
        ]
        mean = sum(weights) / len(weights)
        if not self.regions:
            weights = [given.get(BACKGROUND, 1.0), *weights]
        return tuple(weight / mean for weight in weights)

    @property
    def intensities(self) -> tuple[Intensity, ...]:
        """The normalisation of each channel."""
        intensity = self.preprocessing.intensity
        if isinstance(intensity, tuple):
            return intensity
        return (intensity,) * len(self.channels)

    @property
    def mirror_axes(self) -> tuple[int, ...]:
        """The axes of a window that mirroring flips, 0 to ``network.dims`` - 1."""
        axes = self.inference.mirror_axes
        if axes is None:
            axes = self.training.augmentation.mirror_axes
        return tuple(axis for axis in axes if axis < self.network.dims)


@lru_cache(maxsize=64)
def _build_label_set(
    labels: tuple[LabelSpec, ...],
    regions: tuple[RegionSpec, ...],
    ignored: tuple[Code, ...],
    background: tuple[Code, ...],
    colour_coded: bool,
) -> LabelSet:
    """Build the labels of a bundle; cached, as each part of a run asks for them."""
    return LabelSet(
        [_fill_in(label) for label in labels],
        ignore=ignored,
        regions=resolve_regions(regions, labels),
        background=background,
        colour_coded=colour_coded,
    )


def _fill_in(label: LabelSpec) -> Label:
    """Return a label with every default filled in."""
    value, *other_values = label.file_values
    colours = label.file_colours or (default_colour(label.index),)
    return Label(
        index=label.index,
        name=label.name,
        value=value,
        colour=colours[0],
        code=label.code,
        other_values=tuple(other_values),
        other_colours=colours[1:],
    )


def _find_conflicts(label: LabelSpec, code: Code) -> Iterator[str]:
    """Say how a value or colour with another meaning is a label's."""
    if not isinstance(code, int):
        if code in label.file_colours:
            yield f"{list(code)} is the colour of the label {label.name}; choose another"
        return
    if code in label.file_values:
        yield f"{code} is the value of the label {label.name}; choose another"
    if (code, code, code) in label.file_colours:
        yield (
            f"the grey of {code} is the colour of the label {label.name}; give the label another "
            "colour"
        )
