"""``BundlePrediction``: what the networks of one bundle answer for one scan."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from medseg.bundle.spec import BundleSpec, QualityFinding
from medseg.datasets.validated_range import RangeCheck
from medseg.inference.chosen_labels import (
    keep_chosen,
    keep_labels,
    select_values,
)
from medseg.inference.confidence import (
    PERCENT,
    ConfidenceSums,
    map_errors,
    sample_errors,
)
from medseg.inference.label_writer import LabelWriter
from medseg.inference.largest_components import keep_largest_components
from medseg.inference.pass_plan import HOST, PassResult
from medseg.inference.prediction import Prediction, measure_volumes_ml
from medseg.inference.segmentation import Segmentation
from medseg.labels import LabelSet
from medseg.metrics.confusion import Mask
from medseg.metrics.label_summary import LabelSummary, summarise_labels
from medseg.quality.calibration import estimate_quality
from medseg.quality.estimates import Quality
from medseg.volume import Array, Volume


class BundlePrediction(Prediction):
    """What the networks of one bundle answer for one scan, before postprocessing.

    Args:
        scan: The scan's grid and warnings; its voxels are not needed any more.
        result: Of the pass over the scan.
        label_set: What the label indices mean.
        calibration: What confidence meant on held-out cases, if the bundle knows.
        keep_largest: The labels of which the bundle keeps only the largest component.
        spec: The bundle, which result formats name.
        measure_range: Measures the scan for the comparison of the result with what the bundle was
            validated on, if it knows. Called by who finishes: on a GPU's thread it would hold up
            the next scan.
        is_made_up: Whether the bundle was trained on made-up data.
        chosen: Names of the labels that segmentations have; all unless given.
    """

    def __init__(
        self,
        scan: Volume,
        result: PassResult,
        label_set: LabelSet,
        calibration: QualityFinding | None = None,
        keep_largest: Collection[str] = (),
        spec: BundleSpec | None = None,
        measure_range: Callable[[], RangeCheck | None] = lambda: None,
        is_made_up: bool = False,
        chosen: Collection[str] | None = None,
    ) -> None:
        self._scan = scan
        self._result = result
        self._label_set = label_set
        self._calibration = calibration
        self._keep_largest = keep_largest
        self._spec = spec
        self._measure_range = measure_range
        self._is_made_up = is_made_up
        self._chosen = frozenset(label_set.names if chosen is None else chosen)
        self._errors: Array | None = None

    @property
    def labels(self) -> Array:
        """Label indices ``(i, j, k)`` on the scan's grid, no component removed."""
        return keep_labels(self._result.labels, self._label_set, self._chosen)

    @property
    def given_dice(self) -> dict[str, float]:
        """Name → the Dice to be expected of the labels that were given to be judged."""
        if self._result.given is None:
            raise ValueError("this prediction was made without labels to judge")
        dice = self._result.given.expected_dice(self._label_set)
        return select_values(dice, self._label_set, self._chosen)

    def finish(
        self,
        *,
        keep_largest: Collection[str] | None = None,
        error_map: bool = False,
    ) -> Segmentation:
        """Make a segmentation of the prediction."""
        names = self._keep_largest if keep_largest is None else keep_largest
        kept, sums = self._apply_keep_largest(names)
        label_set = self._label_set
        confidence = sums.expected_dice(label_set)
        confidence_at = {}
        for which, temperature in enumerate(
            self._result.temperatures[1:], start=1
        ):
            confidence_at[temperature] = sums.expected_dice(label_set, which)
        seconds = {
            stage: round(took, 4)
            for stage, took in self._result.seconds.items()
        }
        found = Segmentation(
            kept.labels,
            label_set,
            measure_volumes_ml(kept.voxels, label_set, self._scan.voxel_ml),
            quality=self._estimate_quality(kept, confidence),
            confidence=confidence,
            confidence_at=confidence_at,
            error_map=self._error_map() if error_map else None,
            probabilities=self._result.probabilities,
            seconds=seconds,
            warnings=(*self._scan.warnings, *self._result.warnings),
            grid=self._scan,
            spec=self._spec,
        )
        found = keep_chosen(found, self._chosen)
        if found.labels is self._result.labels:
            # Whoever edits them changes no later result.
            found = replace(found, labels=found.labels.copy(order="K"))
        return found

    @cached_property
    def _found(self) -> LabelSummary:
        return summarise_labels(self._result.labels, self._label_set.classes)

    @cached_property
    def _range_check(self) -> RangeCheck | None:
        return self._measure_range()

    def _estimate_quality(
        self, found: LabelSummary, confidence: Mapping[str, float]
    ) -> Quality:
        quality = estimate_quality(confidence, self._calibration)
        quality = replace(quality, is_made_up=self._is_made_up)
        if self._range_check is None:
            return quality
        departures = self._range_check.find_departures(found)
        return quality.with_departures(departures)

    def _apply_keep_largest(
        self, names: Collection[str]
    ) -> tuple[LabelSummary, ConfidenceSums]:
        """Return the labels with small components removed, and the sums over what is left."""
        sums = self._result.confidence
        indices = [
            label.index for label in self._label_set if label.name in names
        ]
        if not indices:
            return self._found, sums
        kept = self._remove_smaller_components(indices)
        shares = self._compute_shares_kept(kept.labels, indices)
        return kept, sums.with_share_kept(shares)

    def _remove_smaller_components(
        self, indices: Sequence[int]
    ) -> LabelSummary:
        """Return the labels on the scan's grid, components taken where the bundle says."""
        result = self._result
        if result.on_grid is None:
            return keep_largest_components(self._found, indices)
        classes = self._label_set.classes
        seen = summarise_labels(result.on_grid, classes)
        on_grid = keep_largest_components(seen, indices).labels
        kept = np.zeros_like(result.labels)
        box = result.grid.crop(kept[None])[0]
        # As all labels came there, so that nothing but small components is missing.
        writer = LabelWriter(result.grid.network_to_scan, box, HOST)
        writer.write_nearest(on_grid)
        return summarise_labels(kept, classes)

    def _compute_shares_kept(
        self, after: Array, indices: Sequence[int]
    ) -> Mapping[int, float]:
        """Return class → share of its mask's probability that lies in what is kept of it."""
        before = self._result.labels
        if after is before:
            return {}
        grid = self._result.grid
        before_seen = grid.crop(before[None])[0]
        after_seen = grid.crop(after[None])[0]
        shares = {}
        for index in indices:
            box = self._found.boxes.get(index)
            if box is None:
                continue
            part = grid.locate(box, before.shape)
            was_there = before_seen[part] == index
            is_kept = after_seen[part] == index
            if np.array_equal(was_there, is_kept):
                continue
            either = was_there | is_kept
            sums = self._result.confidence
            right = PERCENT - sample_errors(sums, grid, either, part)
            total = _sum_within(right, was_there, either)
            kept = _sum_within(right, is_kept, either)
            shares[index] = kept / total if total else 1.0
        return shares

    def _error_map(self) -> Array:
        if self._errors is None:
            result = self._result
            self._errors = map_errors(
                result.confidence, result.grid, self._scan.shape
            )
        # Whoever edits it changes no later result.
        return self._errors.copy(order="K")


def _sum_within(values: Array, mask: Mask, of: Mask) -> int:
    """Add up what the voxels of a mask have, of values that ``sample_errors`` took of another."""
    return int(values[mask.T[of.T]].sum(dtype=np.int64))
