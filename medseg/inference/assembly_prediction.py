"""What the parts of an assembly have found in one scan, painted into one label map."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medseg.bundle.bundle import Step
from medseg.bundle.spec import BundleSpec
from medseg.inference.label_writer import choose_label_type
from medseg.inference.prediction import Prediction, measure_volumes_ml
from medseg.inference.segmentation import Segmentation
from medseg.labels import LabelSet
from medseg.metrics.confusion import count_voxels
from medseg.metrics.label_boxes import Box
from medseg.quality.estimates import Quality, join_qualities
from medseg.volume import Array, Volume


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


class AssemblyPrediction(Prediction):
    """What all parts of an assembly have found in one scan, before postprocessing.

    Args:
        scan: The scan; its voxels are not needed any more.
        spec: The assembly as a bundle.
        paintings: What each part has found, in the order in which they are painted.
        chosen: Names of the labels that the result has.
        blind: Bundles that did not run, as nothing was found of what they look at.
        warnings: What was not looked for, and why.
        is_judging: Whether labels were given to be judged.
    """

    def __init__(
        self,
        scan: Volume,
        spec: BundleSpec,
        paintings: Sequence[Painting],
        *,
        chosen: Collection[str],
        blind: Sequence[Step] = (),
        warnings: tuple[str, ...] = (),
        is_judging: bool = False,
    ) -> None:
        self._scan = scan.grid
        self._spec = spec
        self._paintings = paintings
        self._chosen = frozenset(chosen)
        self._blind = blind
        self._warnings = warnings
        self._is_judging = is_judging

    @property
    def labels(self) -> Array:
        """Label indices ``(i, j, k)`` on the scan's grid, no component removed."""
        return self.finish(keep_largest=()).labels

    @property
    def given_dice(self) -> dict[str, float]:
        """Name → the Dice to be expected of the labels that were given to be judged."""
        if not self._is_judging:
            raise ValueError("this prediction was made without labels to judge")
        dice = {}
        for each in self._paintings:
            of_part = each.prediction.given_dice
            has_regions = each.step.bundle.spec.label_set.has_regions
            for own, name in each.names.items():
                if own in of_part:
                    dice[name] = of_part[own]
                elif has_regions and of_part:
                    dice[name] = sum(of_part.values()) / len(of_part)
        return dice

    def finish(
        self,
        *,
        keep_largest: Collection[str] | None = None,
        error_map: bool = False,
    ) -> Segmentation:
        """Finish what each part has found, and paint one over the other."""
        label_set = self._spec.label_set
        canvas = _Canvas(self._scan.shape, label_set, error_map)
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
        return self._join(canvas, parts)

    def _join_qualities(
        self,
        parts: Mapping[str, Segmentation],
        names: Mapping[str, Mapping[str, str]],
    ) -> Quality:
        """Return the estimate for the whole; where no part has run, by what their bundles know."""
        qualities = {part: found.quality for part, found in parts.items()}
        for step in self._blind:
            if not set(step.names.values()).isdisjoint(self._chosen):
                qualities[step.spec.name] = _describe_blind(step)
        return join_qualities(qualities, names)

    def _join(
        self, canvas: _Canvas, parts: Mapping[str, Segmentation]
    ) -> Segmentation:
        """Put together what is known of the parts."""
        label_set = self._spec.label_set
        voxels = count_voxels(canvas.labels, label_set.classes)
        volumes = measure_volumes_ml(voxels, label_set, self._scan.voxel_ml)
        volumes = {
            name: volumes[name] for name in volumes if name in self._chosen
        }
        # What a later part has painted over is not in the result.
        left = {
            each.step.spec.name: _drop_absent(each.names, volumes)
            for each in self._paintings
        }
        return Segmentation(
            canvas.labels,
            label_set,
            volumes,
            quality=self._join_qualities(parts, left),
            confidence=_join_confidence(parts, left),
            error_map=canvas.errors,
            seconds=_add_seconds(parts),
            warnings=(
                *self._scan.warnings,
                *self._warnings,
                *_list_warnings(parts),
            ),
            grid=self._scan,
            spec=self._spec,
        )


def _describe_blind(step: Step) -> Quality:
    """Return what is known of results of a bundle that has not run."""
    trained = step.bundle.trained
    return Quality(
        is_calibrated=trained.quality is not None,
        is_made_up=step.bundle.is_made_up,
        is_range_known=trained.validated is not None,
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
