"""An assembly on its way over one scan: which bundles run, where they look, what is painted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medseg.bundle.bundle import Step
from medseg.bundle.spec import BundleSpec, CropSpec
from medseg.inference.label_writer import choose_label_type
from medseg.inference.prediction import Prediction, measure_volumes_ml
from medseg.inference.segmentation import Segmentation
from medseg.labels import LabelSet
from medseg.quality.estimates import join_qualities
from medseg.volume import Array, Volume

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, slots=True)
class View:
    """What some bundles look at.

    Attributes:
        box: Of the scan's grid.
        steps: The bundles.
    """

    box: Box
    steps: tuple[Step, ...]

    def is_whole(self, scan: Volume) -> bool:
        """Tell whether the box holds all of a scan."""
        return all(
            part == slice(0, count)
            for part, count in zip(self.box, scan.shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Painting:
    """What one part of an assembly has found.

    Attributes:
        step: The part.
        box: Where it looked.
        prediction: Its answer, on the grid of the box.
        names: Those of its labels that are painted → their names in the result.
    """

    step: Step
    box: Box
    prediction: Prediction
    names: Mapping[str, str]


class AssemblyRun:
    """Says which bundles can run, and keeps what they find.

    Whoever runs them asks until nothing is left::

        while views := run.take_ready():
            for view in views:
                for step in view.steps:
                    run.add(step, view.box, predict(step, scan.crop(view.box)))
        prediction = run.finish()

    Args:
        steps: The bundles, in the order in which they run.
        scan: The scan.
        spec: The assembly as a bundle.
        chosen: Names of the labels to paint.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        scan: Volume,
        spec: BundleSpec,
        chosen: Collection[str],
    ) -> None:
        self._scan = scan
        self._spec = spec
        self._chosen = chosen
        self._waiting = list(steps)
        self._order = [step.spec.name for step in steps]
        self._boxes: dict[str, Box | None] = {}
        self._paintings: list[Painting] = []
        self._warnings: list[str] = []

    def take_ready(self) -> list[View]:
        """Return the bundles whose place is known, by where they look; nothing at the end."""
        self._skip_blind()
        views: dict[str, View] = {}
        waiting = []
        for step in self._waiting:
            box = self._find_place(step)
            if box is None:
                waiting.append(step)
                continue
            view = views.get(str(box), View(box, ()))
            views[str(box)] = replace(view, steps=(*view.steps, step))
        self._waiting = waiting
        return list(views.values())

    def add(self, step: Step, box: Box, prediction: Prediction) -> None:
        """Keep what a bundle has found, as far as others or the result need it."""
        name = step.spec.name
        followers = [
            each
            for each in self._waiting
            if each.spec.crop and each.spec.crop.source == name
        ]
        if followers:
            labels = prediction.finish().labels
            label_set = step.bundle.spec.label_set
            for each in followers:
                self._boxes[each.spec.name] = self._place(
                    each.spec.crop, labels, label_set, box
                )
        names = {
            own: painted
            for own, painted in step.names.items()
            if painted in self._chosen
        }
        if names:
            self._paintings.append(Painting(step, box, prediction, names))

    def finish(self) -> AssemblyPrediction:
        """Return what all have found."""
        self._paintings.sort(
            key=lambda each: self._order.index(each.step.spec.name)
        )
        return AssemblyPrediction(
            self._scan, self._spec, self._paintings, tuple(self._warnings)
        )

    def _find_place(self, step: Step) -> Box | None:
        """Return where a bundle looks; ``None`` if that is not known yet."""
        if step.spec.crop is None:
            i, j, k = self._scan.shape
            return slice(0, i), slice(0, j), slice(0, k)
        return self._boxes.get(step.spec.name)

    def _skip_blind(self) -> None:
        """Leave out what would look around something that was not found; say so."""
        blind: set[str] = set()
        seeing = []
        for step in self._waiting:
            crop = step.spec.crop
            name = step.spec.name
            is_blind = name in self._boxes and self._boxes[name] is None
            if crop is not None and (is_blind or crop.source in blind):
                blind.add(name)
                self._warnings.append(_say_blind(name, crop))
            else:
                seeing.append(step)
        self._waiting = seeing

    def _place(
        self,
        crop: CropSpec | None,
        labels: Array,
        label_set: LabelSet,
        box: Box,
    ) -> Box | None:
        """Return the box around labels that were found, with its margin."""
        if crop is None:
            return None
        indices = [
            label.index for label in label_set if label.name in crop.labels
        ]
        found = find_label_box(labels, indices)
        if found is None:
            return None
        return grow_box(found, box, self._scan, crop.margin_mm)


class AssemblyPrediction(Prediction):
    """What all parts of an assembly have found in one scan, before postprocessing.

    Args:
        scan: The scan; its voxels are not needed any more.
        spec: The assembly as a bundle.
        paintings: What each part has found, in the order in which they are painted.
        warnings: What was not looked for, and why.
    """

    def __init__(
        self,
        scan: Volume,
        spec: BundleSpec,
        paintings: Sequence[Painting],
        warnings: tuple[str, ...] = (),
    ) -> None:
        self._scan = scan.grid
        self._spec = spec
        self._paintings = paintings
        self._warnings = warnings

    @property
    def labels(self) -> Array:  # type: ignore[override]
        """Label indices ``(i, j, k)`` on the scan's grid, with nothing removed."""
        return self.finish(keep_largest=()).labels

    @property
    def given_dice(self) -> dict[str, float]:
        """The raw expected Dice of labels that were given to be judged, by label name."""
        dice = {}
        for each in self._paintings:
            of_part = each.prediction.given_dice
            for own, name in each.names.items():
                if own in of_part:
                    dice[name] = of_part[own]
        return dice

    def finish(
        self,
        *,
        keep_largest: Collection[str] | None = None,
        error_map: bool = False,
    ) -> Segmentation:
        """Finish what each part has found as its bundle says, and paint it.

        Args:
            keep_largest: As for a bundle, by the assembly's names; each part's own unless given.
            error_map: As for a bundle; of background, the highest of its parts.
        """
        spec = self._require_spec()
        canvas = _Canvas(self._scan.shape, spec.label_set, error_map)
        parts: dict[str, Segmentation] = {}
        for each in self._paintings:
            kept = keep_largest
            if kept is not None:
                kept = [own for own, name in each.names.items() if name in kept]
            found = each.prediction.finish(
                keep_largest=kept, error_map=error_map
            )
            canvas.paint(each, found)
            # Without its voxels: the memory of one part is needed for the next.
            parts[each.step.spec.name] = replace(
                found, labels=_NOTHING, error_map=None
            )
        return self._join(spec, canvas, parts)

    def _require_spec(self) -> BundleSpec:
        if self._spec is None:
            raise TypeError("an assembly always has a spec")
        return self._spec

    def _join(
        self,
        spec: BundleSpec,
        canvas: _Canvas,
        parts: Mapping[str, Segmentation],
    ) -> Segmentation:
        """Put together what is known of the parts."""
        chosen: set[str] = set()
        for each in self._paintings:
            chosen.update(each.names.values())
        volumes = measure_volumes_ml(
            canvas.labels, spec.label_set, self._scan.voxel_ml
        )
        volumes = {name: volumes[name] for name in volumes if name in chosen}
        # What a later part has painted over is not in the result.
        left = {
            each.step.spec.name: _drop_absent(each.names, volumes)
            for each in self._paintings
        }
        qualities = {part: found.quality for part, found in parts.items()}
        return Segmentation(
            canvas.labels,
            spec.label_set,
            volumes,
            quality=join_qualities(qualities, left),
            confidence=_join_confidence(parts, left),
            error_map=canvas.errors,
            seconds=_add_seconds(parts),
            warnings=(
                *self._scan.warnings,
                *self._warnings,
                *_list_warnings(parts),
            ),
            grid=self._scan,
            spec=spec,
        )


def _drop_absent(
    names: Mapping[str, str], volumes: Mapping[str, float]
) -> dict[str, str]:
    return {own: name for own, name in names.items() if volumes[name]}


def _join_confidence(
    parts: Mapping[str, Segmentation], names: Mapping[str, Mapping[str, str]]
) -> dict[str, float]:
    joined = {}
    for part, found in parts.items():
        for own, name in names[part].items():
            if own in found.confidence:
                joined[name] = found.confidence[own]
    return joined


def _add_seconds(parts: Mapping[str, Segmentation]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for found in parts.values():
        for stage, took in found.seconds.items():
            total[stage] += took
    return {stage: round(took, 4) for stage, took in total.items()}


def _list_warnings(parts: Mapping[str, Segmentation]) -> Iterator[str]:
    for part, found in parts.items():
        for text in found.warnings:
            yield f"{part}: {text}"


class _Canvas:
    """The label map of an assembly, part by part.

    Args:
        shape: Voxels of the scan.
        label_set: The assembly's.
        with_errors: Whether errors are mapped, too.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        label_set: LabelSet,
        with_errors: bool,
    ) -> None:
        kind = choose_label_type(label_set.classes)
        self._indices = {label.name: label.index for label in label_set}
        self.labels = np.zeros(shape, kind, order="F")
        self.errors: Array | None = None
        if with_errors:
            self.errors = np.zeros(shape, np.uint8, order="F")

    def paint(self, painting: Painting, found: Segmentation) -> None:
        """Paint what a part has found over what is there."""
        table = np.zeros(found.label_set.classes, self.labels.dtype)
        for label in found.label_set:
            name = painting.names.get(label.name)
            if name is not None:
                table[label.index] = self._indices[name]
        labels = self.labels[painting.box]
        for k in range(labels.shape[2]):
            own = table[found.labels[:, :, k]]
            is_painted = own > 0
            self._paint_errors(painting.box, k, is_painted, found)
            np.copyto(labels[:, :, k], own, where=is_painted)

    def _paint_errors(
        self, box: Box, k: int, is_painted: Array, found: Segmentation
    ) -> None:
        if self.errors is None or found.error_map is None:
            return
        before = self.labels[box][:, :, k]
        errors = self.errors[box][:, :, k]
        own = found.error_map[:, :, k]
        is_higher = (before == 0) & (own > errors)
        np.copyto(errors, own, where=is_painted | is_higher)


_NOTHING: Array = np.zeros((0, 0, 0), np.uint8)


def find_label_box(labels: Array, indices: Sequence[int]) -> Box | None:
    """Return the smallest box that holds some labels; ``None`` if there are none.

    Args:
        labels: Label indices ``(i, j, k)``.
        indices: Which of them.
    """
    is_wanted = np.zeros(int(labels.max(initial=0)) + 1, bool)
    is_wanted[[index for index in indices if index < len(is_wanted)]] = True
    along_i = np.zeros(labels.shape[0], bool)
    along_j = np.zeros(labels.shape[1], bool)
    along_k = np.zeros(labels.shape[2], bool)
    for k in range(labels.shape[2]):
        plane = is_wanted[labels[:, :, k]]
        along_i |= plane.any(axis=1)
        along_j |= plane.any(axis=0)
        along_k[k] = plane.any()
    if not along_k.any():
        return None
    i, j, k_range = (_span(flags) for flags in (along_i, along_j, along_k))
    return i, j, k_range


def _span(flags: Array) -> slice:
    places = np.flatnonzero(flags)
    return slice(int(places[0]), int(places[-1]) + 1)


def grow_box(found: Box, inside: Box, scan: Volume, margin_mm: float) -> Box:
    """Return a box with a margin, in the whole voxels that fit it, within the scan.

    Args:
        found: Counted from the first voxel of ``inside``.
        inside: The box of the scan in which it was found.
        scan: The scan.
        margin_mm: On each side.
    """
    grown = []
    for part, outer, mm, count in zip(
        found, inside, scan.spacing, scan.shape, strict=True
    ):
        # The spacing is computed: 3 mm of 1.5000001 mm are two voxels.
        voxels = int(margin_mm / mm + 1e-3)
        start = outer.start + part.start - voxels
        stop = outer.start + part.stop + voxels
        grown.append(slice(max(0, start), min(count, stop)))
    i, j, k = grown
    return i, j, k


def _say_blind(name: str, crop: CropSpec) -> str:
    shown = ", ".join(crop.labels[:_MOST_NAMED])
    if len(crop.labels) > _MOST_NAMED:
        shown += " and others"
    return (
        f"{name} was not looked for: {crop.source} has found nothing of {shown}"
    )


_MOST_NAMED = 5


def translate_given(
    given: Array | None, spec: BundleSpec, step: Step, box: Box
) -> Array | None:
    """Return labels that are to be judged as one of an assembly's bundles calls them.

    Args:
        given: Label indices ``(i, j, k)`` of the assembly, on the scan's grid.
        spec: The assembly as a bundle.
        step: The bundle; what it does not know is background to it.
        box: Where it looks.
    """
    if given is None:
        return None
    own_set = step.bundle.spec.label_set
    indices = {label.name: label.index for label in own_set}
    own_names = {name: own for own, name in step.names.items()}
    table = np.zeros(spec.label_set.classes, choose_label_type(own_set.classes))
    for label in spec.label_set:
        if label.name in own_names:
            table[label.index] = indices[own_names[label.name]]
    translated: Array = table[given[box]]
    return translated
