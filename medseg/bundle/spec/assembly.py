"""The whole of ``assembly.json``: bundles that segment one scan together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from medseg.bundle.spec.data import LabelSpec
from medseg.bundle.spec.described import DescribedSpec
from medseg.bundle.spec.parts import (
    Contradiction,
    ContradictionError,
    Name,
    ShortText,
    Spec,
    equals,
)

ASSEMBLY_SCHEMA_ID = "medseg-assembly-1.json"
"""How the JSON Schema of ``assembly.json`` calls itself."""


class CropSpec(Spec):
    """Where a bundle looks: at the box around what an earlier one has found."""

    source: Name
    """The stage, or earlier part, that finds it, by name."""
    labels: Annotated[
        tuple[ShortText, ...], Field(min_length=1, max_length=1000)
    ]
    """Which of its labels the box holds. Where none of them is found, nothing is looked for."""
    margin_mm: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """How far the box reaches beyond them on each side, in whole voxels."""


class StepSpec(Spec):
    """One bundle of an assembly."""

    name: Name
    """What the assembly calls it; no other stage or part has this name."""
    bundle: Annotated[str, Field(min_length=1, max_length=300)]
    """Its folder, relative to the assembly's and inside it."""
    crop: Annotated[CropSpec | None, Field(exclude_if=equals(None))] = None
    """Where it looks; at the whole scan unless given."""

    @field_validator("bundle")
    @classmethod
    def _check_bundle(cls, bundle: str) -> str:
        path = PurePosixPath(bundle)
        is_inside = not path.is_absolute() and ".." not in path.parts
        is_plain = bundle.isprintable() and not set(bundle) & set('\\:*?"<>|')
        if is_inside and is_plain and path.parts:
            return bundle
        raise ValueError(
            "must be a folder inside the assembly's, with / between names, such as 'parts/organs'"
        )


class StageSpec(StepSpec):
    """A bundle whose labels only say where others look, such as a coarse one that finds organs."""


class PartSpec(StepSpec):
    """A bundle whose labels stand in the result."""

    labels: Annotated[
        dict[ShortText, ShortText] | None,
        Field(min_length=1, max_length=1000, exclude_if=equals(None)),
    ] = None
    """Its labels that stand in the result → what the assembly calls them; others are left out.
    Unless given, each of its labels, by its own name."""


class AssemblySpec(DescribedSpec):
    """A medseg assembly: bundles that segment one scan together."""

    labels: Annotated[
        tuple[LabelSpec, ...], Field(min_length=1, max_length=1000)
    ]
    """The structures of the result. Each comes from one part."""
    stages: Annotated[tuple[StageSpec, ...], Field(max_length=16)] = ()
    """Bundles that run first, in this order, to say where others look."""
    parts: Annotated[tuple[PartSpec, ...], Field(min_length=1, max_length=32)]
    """Bundles whose labels stand in the result. They are painted in this order: where two have
    found something, the later one stands."""

    @model_validator(mode="after")
    def _check_consistency(self) -> AssemblySpec:
        contradictions = [
            *self._check_names(),
            *self._check_crops(),
            *self._check_painting(),
        ]
        if contradictions:
            raise ContradictionError(contradictions)
        return self

    @property
    def steps(self) -> tuple[StageSpec | PartSpec, ...]:
        """Every bundle, in the order in which they run."""
        return (*self.stages, *self.parts)

    @property
    def places(self) -> tuple[str, ...]:
        """Where in the JSON each of ``steps`` stands."""
        stages = [f"stages.{number}" for number in range(len(self.stages))]
        parts = [f"parts.{number}" for number in range(len(self.parts))]
        return (*stages, *parts)

    def _check_names(self) -> Iterator[Contradiction]:
        seen: set[str] = set()
        for place, step in zip(self.places, self.steps, strict=True):
            if step.name in seen:
                what = f"{step.name} is the name of an earlier one, too; choose another"
                yield ("stages", "parts"), f"{place}.name", what
            seen.add(step.name)

    def _check_crops(self) -> Iterator[Contradiction]:
        earlier: list[str] = []
        for place, step in zip(self.places, self.steps, strict=True):
            if step.crop is not None and step.crop.source not in earlier:
                what = f"must name an earlier stage or part; {_list(earlier)}"
                yield ("stages", "parts"), f"{place}.crop.source", what
            earlier.append(step.name)

    def _check_painting(self) -> Iterator[Contradiction]:
        """Find labels that no name table may hold: unknown ones, and those of two parts."""
        known = {label.name for label in self.labels}
        painted: set[str] = set()
        for number, part in enumerate(self.parts):
            for own, name in (part.labels or {}).items():
                where = f"parts.{number}.labels.{own}"
                if name not in known:
                    what = f"no label of the assembly is named {name}"
                    yield ("parts", "labels"), where, what
                elif name in painted:
                    what = (
                        f"{name} is painted twice; a label comes from one part"
                    )
                    yield ("parts", "labels"), where, what
                painted.add(name)


def _list(earlier: Sequence[str]) -> str:
    return f"these are {', '.join(earlier)}" if earlier else "there is none"
