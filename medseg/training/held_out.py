"""Scores of held-out scans, segmented as users will segment, and of corrupted copies of them.

They show how good results are, and how well that can be estimated without a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.bundle.bundle import Bundle
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Case
from medseg.datasets.integrity import open_case
from medseg.events import Listener, Progress, notify
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

ByPostprocessing = list[CaseResults]
"""Results of one case with each postprocessing that may be chosen."""

_TASK = "scoring held-out cases"


def score_held_out(session: TrainingSession) -> HeldOutResults:
    """Segment the held-out scans of a session with its best weights, and score them.

    Args:
        session: A session whose run folder has the weights; its listeners are notified of the
            progress.
    """
    spec = session.spec
    return score_bundle(
        Bundle(spec, session.run.folder.path),
        list_held_out(session),
        str(session.device),
        copies=count_corrupted_copies(spec, session.calibrating),
        listeners=session.listeners,
    )


def list_held_out(session: TrainingSession) -> HeldOutCases:
    """Return a session's held-out cases."""
    dataset = session.dataset
    ids = [cached.case_id for cached in dataset.validation]
    return HeldOutCases(dataset.held_out, ids, session.spec)


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


@dataclass(frozen=True, slots=True)
class HeldOutCases:
    """Cases that a bundle has not learned from, each opened when it is needed.

    Attributes:
        cases: As they lie on disk.
        ids: What results call them: the ids of ``hash_content``.
        spec: The bundle by which they are read.
    """

    cases: Sequence[Case]
    ids: Sequence[str]
    spec: BundleSpec

    def __len__(self) -> int:
        return len(self.cases)

    def open_case(self, position: int) -> HeldOutCase:
        """Read one of them.

        Raises:
            ScanError: If it has changed since it was checked.
        """
        case = self.cases[position]
        volume, reference = open_case(case, self.spec)
        return HeldOutCase(self.ids[position], volume, reference)


def score_bundle(
    bundle: Bundle,
    cases: HeldOutCases,
    device: str,
    *,
    copies: int,
    listeners: Sequence[Listener] = (),
    known: Sequence[ByPostprocessing] = (),
    keep: Callable[[ByPostprocessing], None] | None = None,
) -> HeldOutResults:
    """Segment held-out scans and corrupted copies of them with a bundle, and score them.

    Args:
        bundle: With weights, and without a calibration.
        cases: The cases.
        device: Where to compute.
        copies: Corrupted copies to make in all.
        listeners: Notified of the progress.
        known: Results of the first cases, from a call that was interrupted.
        keep: Called with the results of each further case, so that they can be passed as
            ``known``.
    """
    spec = bundle.spec
    count = len(cases)
    postprocessings = list_postprocessings(spec)
    scored = list(known)
    if count > len(scored):
        segmenter = Segmenter(bundle, device)
        notify(listeners, Progress(_TASK, len(scored), count))
    for position in range(len(scored), count):
        results = score_case_and_copies(
            segmenter,
            cases.open_case(position),
            position,
            postprocessings,
            count=count,
            copies=copies,
            seed=spec.training.seed,
        )
        if keep is not None:
            keep(results)
        scored.append(results)
        notify(listeners, Progress(_TASK, len(scored), count))
    joined = []
    for number in range(len(postprocessings)):
        of_cases = [results[number] for results in scored]
        joined.append(join_results(of_cases))
    return HeldOutResults(*joined)


def list_postprocessings(spec: BundleSpec) -> list[tuple[str, ...]]:
    """Return of which labels to keep the largest component: as requested, then what to try."""
    requested = spec.inference.keep_largest
    if requested is not None:
        return [requested]
    if spec.regions:
        return [()]
    return [(), spec.label_set.names]


def score_case_and_copies(
    segmenter: Segmenter,
    case: HeldOutCase,
    position: int,
    keep_largest: Sequence[Collection[str]],
    *,
    count: int,
    copies: int,
    seed: int,
) -> ByPostprocessing:
    """Segment and score one of several held-out cases, and corrupted copies of it.

    Args:
        segmenter: With the weights to score.
        case: The case.
        position: Its place among the cases.
        keep_largest: Of which labels to keep only the largest component; every scan is scored
            with each of these.
        count: How many cases there are.
        copies: Corrupted copies to make in all, shared out evenly over cases and kinds.
        seed: Of the corruptions.
    """
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
    return results


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
) -> ByPostprocessing:
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
