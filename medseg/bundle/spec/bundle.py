"""The whole of ``bundle.json``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from medseg.bundle.spec.data import ChannelSpec, DataSpec, LabelSpec, RegionSpec
from medseg.bundle.spec.network import NetworkSpec, UNetSpec
from medseg.bundle.spec.parts import (
    Contradiction,
    ContradictionError,
    Name,
    ShortText,
    Spec,
    Text,
)
from medseg.bundle.spec.preprocessing import MinMax, PreprocessingSpec, Window, ZScore
from medseg.bundle.spec.refinement import RefinementSpec
from medseg.bundle.spec.regions import check_regions, resolve_regions
from medseg.bundle.spec.training import (
    InferenceSpec,
    QualitySpec,
    TrackingSpec,
    TrainingSpec,
)
from medseg.labels import BACKGROUND_COLOUR, Label, LabelSet, default_colour

BACKGROUND = "background"
"""How background is called where it has a weight."""

SCHEMA_ID = "medseg-bundle-1.json"
"""How the JSON Schema of ``bundle.json`` calls itself."""


class BundleSpec(Spec):
    """A medseg bundle: what to train, or what was trained."""

    schema_: Annotated[str, Field(max_length=500)] | None = Field(default=None, alias="$schema")
    """Where editors find this schema."""
    name: Name
    """Letters, digits, `_` and `-`; names run folders, experiments and models."""
    version: Annotated[str, Field(pattern=r"^[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}$")] = "0.1.0"
    """Version of the bundle."""
    description: Text = ""
    """What it segments, in one sentence."""
    intended_use: Text = "Research only; not a medical device."
    """For the model card."""
    authors: Text = "unknown"
    """For the model card."""
    licence: Text = "unknown"
    """Licence of the weights, which may follow from the data's."""
    references: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    """Publications and sources of the data."""
    channels: Annotated[tuple[ChannelSpec, ...], Field(min_length=1, max_length=64)]
    """The network's input channels, in order."""
    labels: Annotated[tuple[LabelSpec, ...], Field(min_length=1, max_length=1000)]
    """The structures to segment."""
    regions: Annotated[tuple[RegionSpec, ...], Field(max_length=100)] = ()
    """Structures that may overlap, made of the labels; the larger before those inside it. Then the
    network learns, and tables measure, these instead of the labels. Label maps are painted in this
    order: each region shows its label where its probability is above one half, over what was there
    before."""
    data: DataSpec = DataSpec()
    preprocessing: PreprocessingSpec = PreprocessingSpec()
    network: NetworkSpec = UNetSpec()
    training: TrainingSpec
    refinement: RefinementSpec | None = None
    """Correction of the network's masks, or adversarial training; `null` for neither."""
    inference: InferenceSpec = InferenceSpec()
    quality: QualitySpec = QualitySpec()
    tracking: TrackingSpec = TrackingSpec()
    notes: Annotated[dict[ShortText, Text], Field(max_length=200)] = Field(default={})
    """Why a field has its value: `training.patch` → a sentence. For people; `medseg plan` writes
    them."""

    @field_validator("labels")
    @classmethod
    def _labels_are_distinct(cls, labels: tuple[LabelSpec, ...]) -> tuple[LabelSpec, ...]:
        indices = [label.index for label in labels]
        if sorted(indices) != list(range(1, len(labels) + 1)):
            raise ValueError(
                f"indices must be 1 to {len(labels)} without gaps, got {indices}; where label "
                "files hold other numbers, give each label its 'value'"
            )
        _refuse_repeats("name", [label.name.lower() for label in labels])
        if any(label.name.lower() == "mean" for label in labels):
            raise ValueError("no label can be named 'mean': tables have the mean under this name")
        _refuse_repeats("value", [label.value or label.index for label in labels])
        colours = [label.colour for label in labels if label.colour]
        _refuse_repeats("colour", colours)
        if BACKGROUND_COLOUR in colours:
            raise ValueError("colour [0, 0, 0] is background")
        return tuple(sorted(labels, key=lambda label: label.index))

    @model_validator(mode="after")
    def _consistent(self) -> BundleSpec:
        found = [
            *self._patch_faults(),
            *self._preprocessing_faults(),
            *self._label_faults(),
            *check_regions(self.regions, self.labels),
            *self._unlike_regions(),
            *self._refinement_faults(),
        ]
        if found:
            raise ContradictionError(found)
        return self

    def _patch_faults(self) -> Iterator[Contradiction]:
        patch, dims, divisor = self.training.patch, self.network.dims, self.network.divisor
        about, where = ("training", "network"), "training.patch"
        if len(patch) != dims:
            yield about, where, f"has {len(patch)} sizes and network.dims is {dims}"
        elif any(size % by for size, by in zip(patch, divisor, strict=True)):
            nearest = [math.ceil(size / by) * by for size, by in zip(patch, divisor, strict=True)]
            what = (
                f"{list(patch)} must be divisible by {list(divisor)}, the product of "
                f"network.strides; {nearest} is"
            )
            yield about, where, what
        elif isinstance(self.network, UNetSpec) and tuple(patch) == divisor:
            what = (
                f"{list(patch)} shrinks to one voxel at the lowest level, which cannot be "
                f"normalised; make an axis larger than {list(divisor)}"
            )
            yield about, where, what

    def _preprocessing_faults(self) -> Iterator[Contradiction]:
        prep, count = self.preprocessing, len(self.channels)
        if isinstance(prep.intensity, tuple) and len(prep.intensity) != count:
            what = f"lists {len(prep.intensity)} normalisations for {count} channels"
            yield ("preprocessing", "channels"), "preprocessing.intensity", what
        if prep.input == "picture" and self.network.dims != 2:
            what = "'picture' needs network.dims 2"
            yield ("preprocessing", "network"), "preprocessing.input", what
        if prep.input == "picture" and prep.spacing_mm is not None:
            what = "must be null for pictures, which have no spacing in mm"
            yield ("preprocessing",), "preprocessing.spacing_mm", what

    def _label_faults(self) -> Iterator[Contradiction]:
        known = {label.name for label in self.labels}
        unknown = sorted(set(self.inference.keep_largest or ()) - known)
        if unknown:
            what = f"no label of this bundle is named {', '.join(unknown)}"
            yield ("inference", "labels"), "inference.keep_largest", what
        weighted, kind = set(self.training.class_weights or ()), "label"
        if self.regions:
            known, kind = {region.name for region in self.regions}, "region"
        else:
            weighted -= {BACKGROUND}
        unknown = sorted(weighted - known)
        if unknown:
            what = f"no {kind} of this bundle is named {', '.join(unknown)}"
            yield ("training", "labels", "regions"), "training.class_weights", what
        yield from self._ignore_faults()

    def _unlike_regions(self) -> Iterator[Contradiction]:
        """Yield what cannot be had together with regions."""
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
                "a piece taken away from one region would be missing in those around it; with "
                "regions it is null or []"
            )
            yield ("inference", "regions"), "inference.keep_largest", what

    def _ignore_faults(self) -> Iterator[Contradiction]:
        ignore = self.data.ignore
        same = [la.name for la in self.labels if (la.value or la.index) == ignore]
        if ignore is not None and same:
            what = f"{ignore} is the value of the label {same[0]}; what is ignored has its own"
            yield ("data", "labels"), "data.ignore", what
        if ignore is not None and (ignore, ignore, ignore) in [la.colour for la in self.labels]:
            what = f"the grey of {ignore} is the colour of a label; give the label another colour"
            yield ("data", "labels"), "data.ignore", what

    def _refinement_faults(self) -> Iterator[Contradiction]:
        refinement, patch = self.refinement, self.training.patch
        if refinement is None or not refinement.has_critic:
            return
        dims = self.network.dims
        least = refinement.smallest_patch(dims)
        if min(patch) < least:
            what = (
                f"{refinement.critic_layers(dims)} layers need patches of {least} voxels along "
                f"each axis, and training.patch is {list(patch)}; use fewer layers, or an "
                "adversarial_weight of 0"
            )
            yield ("refinement", "training", "network"), "refinement.critic.layers", what

    @property
    def label_set(self) -> LabelSet:
        """The labels with every default filled in."""
        return LabelSet(
            [
                Label(
                    index=label.index,
                    name=label.name,
                    value=label.value or label.index,
                    colour=label.colour or default_colour(label.index),
                    code=label.code,
                )
                for label in self.labels
            ],
            ignore=self.data.ignore,
            regions=resolve_regions(self.regions, self.labels),
        )

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        """What each output channel weighs in the loss, where they do not weigh the same.

        Scaled so that the mean of labels or regions is 1: weights shift what is learned between
        them, and not between Dice and cross-entropy.
        """
        given = self.training.class_weights
        if given is None:
            return None
        weights = [given.get(region.name, 1.0) for region in self.label_set.regions]
        mean = sum(weights) / len(weights)
        if not self.regions:
            weights = [given.get(BACKGROUND, 1.0), *weights]
        return tuple(weight / mean for weight in weights)

    @property
    def intensities(self) -> tuple[ZScore | Window | MinMax, ...]:
        """The normalisation of each channel."""
        intensity = self.preprocessing.intensity
        return intensity if isinstance(intensity, tuple) else (intensity,) * len(self.channels)


def _refuse_repeats(what: str, values: list[Any]) -> None:
    repeated = sorted({str(value) for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"two labels have the same {what}: {', '.join(repeated)}")
