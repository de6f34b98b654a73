"""Scores of held-out scans, segmented as users will segment, and of corrupted copies of them.

They show how good results are, and how well that can be estimated without a reference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.bundle.bundle import Bundle
from medseg.bundle.spec import BundleSpec
from medseg.datasets.integrity import open_case
from medseg.events import Progress, notify
from medseg.inference.segmentation import Segmentation
from medseg.inference.segmenter import Segmenter
from medseg.metrics.metrics import score_case, score_dice
from medseg.quality.calibration import TEMPERATURES, CalibrationSample
from medseg.quality.corruptions import CORRUPTIONS, corrupt_volume
from medseg.training.keep_largest import (
    CaseResults,
    HeldOutResults,
    join_results,
)
from medseg.training.session import TrainingSession
from medseg.training.time_budget import count_corrupted_copies
from medseg.volume import Array, Volume

_TASK = "scoring held-out cases"


def score_held_out(session: TrainingSession) -> HeldOutResults:
    """Segment the held-out scans of a session with its best weights, and score them.

    Args:
        session: A session whose run folder has the weights; its listeners are notified of the
            progress.
    """
    spec = session.spec
    count = len(session.dataset.held_out)
    postprocessings = list_postprocessings(spec)
    results = [list[CaseResults]() for _ in postprocessings]
    if count:
        scored_cases = score_held_out_cases(
            Segmenter(
                Bundle(spec, session.run.folder.path), str(session.device)
            ),
            _open_cases(session),
            postprocessings,
            count=count,
            copies=count_corrupted_copies(spec, session.calibrating),
            seed=spec.training.seed,
        )
        notify(session.listeners, Progress(_TASK, 0, count))
        for done, case_results in enumerate(scored_cases, start=1):
            for result, of_case in zip(results, case_results, strict=True):
                result.append(of_case)
            notify(session.listeners, Progress(_TASK, done, count))
    return HeldOutResults(*(join_results(result) for result in results))


def list_postprocessings(spec: BundleSpec) -> list[tuple[str, ...]]:
    """Return of which labels to keep the largest component: as requested, then what to try."""
    requested = spec.inference.keep_largest
    if requested is not None:
        return [requested]
    if spec.regions:
        return [()]
    return [(), spec.label_set.names]


def _open_cases(session: TrainingSession) -> Iterator[HeldOutCase]:
    for number in range(len(session.dataset.held_out)):
        yield open_held_out(session, number)


def open_held_out(session: TrainingSession, number: int) -> HeldOutCase:
    """Open one of a session's held-out cases, by its place among them."""
    dataset = session.dataset
    volume, reference = open_case(dataset.held_out[number], session.spec)
    name = dataset.validation[number].case_id
    return HeldOutCase(name, volume, reference)


@dataclass(frozen=True, slots=True)
class HeldOutCase:
    """One held-out case, open.

    Attributes:
        name: What results call it; no patient's name.
        volume: Its scan.
        reference: Its label indices ``(i, j, k)`` on the scan's grid.
    """

    name: str
    volume: Volume
    reference: Array


def score_held_out_cases(
    segmenter: Segmenter,
    cases: Iterable[HeldOutCase],
    keep_largest: Sequence[Collection[str]],
    *,
    count: int,
    copies: int,
    seed: int,
) -> Iterator[list[CaseResults]]:
    """Segment and score held-out cases and corrupted copies of them.

    Args:
        segmenter: With the weights to score.
        cases: The cases, opened as late as possible.
        keep_largest: Of which labels to keep only the largest component; every scan is scored
            with each of these.
        count: How many cases there are.
        copies: Corrupted copies to make in all, shared out evenly over cases and kinds.
        seed: Of the corruptions.

    Yields:
        For each case, in order, its results with each of ``keep_largest``.
    """
    for position, case in enumerate(cases):
        results = _score_scan(
            segmenter, case, case.volume, keep_largest, is_clean=True
        )
        for copy in range(position, copies, count):
            volume = _corrupt(case.volume, copy, seed)
            of_copy = _score_scan(
                segmenter, case, volume, keep_largest, is_clean=False
            )
            results = [
                _add_samples(result, copy_result)
                for result, copy_result in zip(results, of_copy, strict=True)
            ]
        yield results


def _add_samples(results: CaseResults, of_copy: CaseResults) -> CaseResults:
    samples = [*results.samples, *of_copy.samples]
    return CaseResults(results.cases, samples)


def _corrupt(volume: Volume, copy: int, seed: int) -> Volume:
    """Corrupt a scan; the number of the copy decides how."""
    rng = np.random.default_rng((seed, copy))
    kinds = list(CORRUPTIONS)
    kind = kinds[copy % len(kinds)]
    severity = float(rng.uniform(0.1, 1.0))
    noise_seed = int(rng.integers(2**31))
    return corrupt_volume(volume, kind, severity, noise_seed)


def _score_scan(
    segmenter: Segmenter,
    case: HeldOutCase,
    volume: Volume,
    keep_largest: Sequence[Collection[str]],
    *,
    is_clean: bool,
) -> list[CaseResults]:
    """Segment one scan and score it with each kind of postprocessing."""
    prediction = segmenter.predict(volume, temperatures=TEMPERATURES)
    segmentations = [
        prediction.finish(keep_largest=names) for names in keep_largest
    ]
    results: list[CaseResults] = []
    for number, segmentation in enumerate(segmentations):
        same = _find_same_labels(segmentation, segmentations[:number])
        if same is None:
            results.append(_score(segmentation, case, is_clean))
        else:
            # Surface distances take long, and most results have one component.
            results.append(results[same])
    return results


def _find_same_labels(
    segmentation: Segmentation, earlier: Sequence[Segmentation]
) -> int | None:
    """Return the position of the first segmentation with the same label map."""
    for position, other in enumerate(earlier):
        if np.array_equal(other.labels, segmentation.labels):
            return position
    return None


def _score(
    segmentation: Segmentation, case: HeldOutCase, is_clean: bool
) -> CaseResults:
    labels = segmentation.labels
    label_set = segmentation.label_set
    if not is_clean:
        # Only what calibration needs: surface distances take long.
        dice = score_dice(labels, case.reference, label_set)
        sample = _sample(segmentation, case, dice, is_clean)
        return CaseResults(samples=[sample])
    scores = score_case(
        labels,
        case.reference,
        label_set,
        case.volume.spacing,
        case=case.name,
        voxel_ml=case.volume.voxel_ml,
    )
    sample = _sample(segmentation, case, scores["dice"], is_clean)
    return CaseResults([scores], [sample])


def _sample(
    segmentation: Segmentation,
    case: HeldOutCase,
    dice: Mapping[str, float],
    is_clean: bool,
) -> CalibrationSample:
    return CalibrationSample(
        case=case.name,
        scores=segmentation.confidence,
        dice=dice,
        is_clean=is_clean,
        scores_at=segmentation.confidence_at,
    )
