"""Speed settings tried on held-out cases, against ``exact``, and the fastest that is as good."""

from __future__ import annotations

import logging
import math
import shutil
import time
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np

from medseg.bundle.bundle import Bundle, with_trained
from medseg.bundle.hashes import hash_network
from medseg.bundle.spec import (
    SpeedFinding,
    SpeedLimitsSpec,
    SpeedSetting,
    SpeedTrial,
)
from medseg.bundle.spec.speed import Arithmetic
from medseg.bundle.spec_files import write_trained
from medseg.errors import MedsegError, recordable_text
from medseg.inference.backends import openvino
from medseg.inference.backends.processor import (
    describe_processor,
    fit_to_processor,
)
from medseg.inference.backends.quantised import QUANTISED, write_quantised
from medseg.inference.segmenter import Segmenter
from medseg.inference.time_estimate import count_windows, estimate_seconds
from medseg.metrics.metrics import score_dice
from medseg.training.held_out import HeldOutCase, HeldOutCases
from medseg.training.speed_memory import SpeedMemory
from medseg.volume import Array

FAST_FACTOR = 5.0
"""How many times the limits ``fast`` may lose."""

_PRECISIONS: tuple[Arithmetic, ...] = ("fp32", "bf16", "int8", "int8_bf16")
_OVERLAPS = (0.375, 0.25)
_FEWEST_LARGE_CASES = 5
"""Where fewer take fewer windows with a smaller overlap, it shows nothing of what it costs."""

_log = logging.getLogger(__name__)

Dice = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SpeedCases:
    """What a decision rests on.

    Attributes:
        held_out: Cases that the networks have not learned from.
        draw_windows: Returns windows of scans on which nothing is decided, as the network sees
            them, float32 ``(1, channels, *size)``.
        undrawn: Names of structures that nobody drew in any case, which do not count.
    """

    held_out: HeldOutCases
    draw_windows: Callable[[], Sequence[Array]]
    undrawn: Collection[str] = ()


class ExactResults:
    """What ``exact`` makes of held-out cases.

    Args:
        bundle: The bundle.
        undrawn: Structures that do not count.

    Attributes:
        dice: Of each case, label → Dice.
        seconds: What all cases took.
        windows: Of each case, overlap → how many windows it takes.
    """

    def __init__(self, bundle: Bundle, undrawn: Collection[str] = ()) -> None:
        self.dice: list[Dice] = []
        self.seconds = 0.0
        self.windows: list[Mapping[float, int]] = []
        self._bundle = bundle
        self._undrawn = undrawn
        self._segmenter = Segmenter(bundle, "cpu", speed="exact")
        # Compressed: the label maps of many scans do not fit the memory.
        self._labels: list[bytes] = []

    def estimate_seconds(self, case: HeldOutCase) -> float:
        """Estimate how long a case takes, from one window of it."""
        return estimate_seconds(self._segmenter, case.volume)

    def add(self, case: HeldOutCase) -> None:
        """Segment and score one more case."""
        labels, seconds = _segment(self._segmenter, case)
        self.dice.append(self.score(labels, case))
        self._labels.append(zlib.compress(labels.tobytes(order="F"), 1))
        self.seconds += seconds
        overlaps = (self._bundle.spec.inference.overlap, *_OVERLAPS)
        counts = count_windows(self._segmenter, case.volume, overlaps)
        self.windows.append(dict(zip(overlaps, counts, strict=True)))

    def score(self, labels: Array, case: HeldOutCase) -> Dice:
        """Return the Dice of each structure that counts, of any label map of a case."""
        dice = _score(labels, case.reference, self._bundle)
        return {
            name: value
            for name, value in dice.items()
            if name not in self._undrawn
        }

    def compare(self, number: int, labels: Array) -> float:
        """Return the mean Dice of a label map of a case to that of ``exact``."""
        stored = zlib.decompress(self._labels[number])
        exact = np.frombuffer(stored, labels.dtype)
        exact = exact.reshape(labels.shape, order="F")
        return _mean(_score(labels, exact, self._bundle))


@dataclass(slots=True)
class Trials:
    """Tries settings on the cases that ``exact`` has segmented.

    Attributes:
        bundle: The bundle.
        cases: The cases.
        exact: What ``exact`` made of the first of them.
        memory: What was tried before.
        deadline: When to try no further, on the monotonic clock.
        tried: What was tried, in order.
        files: Networks in int8 → SHA-256.
    """

    bundle: Bundle
    cases: SpeedCases
    exact: ExactResults
    memory: SpeedMemory
    deadline: float
    tried: list[SpeedTrial] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def decide(self) -> SpeedFinding:
        """Try precisions, then overlaps, and write what came of it into the bundle."""
        overlap = self.bundle.spec.inference.overlap
        for precision in self._list_precisions():
            self._try(SpeedSetting(precision=precision, overlap=overlap))
        limits = self.bundle.spec.inference.speed_limits
        best = choose_fastest(self.tried, limits)
        precision = "fp32" if best is None else best.precision
        for smaller in _OVERLAPS:
            if smaller < overlap and self._shows(smaller):
                self._try(SpeedSetting(precision=precision, overlap=smaller))
        return self._write(limits)

    def _shows(self, overlap: float) -> bool:
        """Whether enough cases are passed over in fewer windows with an overlap."""
        usual = self.bundle.spec.inference.overlap
        fewer = [
            each for each in self.exact.windows if each[overlap] < each[usual]
        ]
        return len(fewer) >= _FEWEST_LARGE_CASES

    def _list_precisions(self) -> list[Arithmetic]:
        """Return the precisions that the processor is fast in, int8 only where it can be made."""
        possible = [
            each for each in _PRECISIONS if fit_to_processor(each) == each
        ]
        if "int8" not in possible:
            return possible
        if self.bundle.spec.training.clicks is not None:
            # Its ranges would be measured on windows in which nobody has clicked.
            return [each for each in possible if not each.startswith("int8")]
        try:
            windows = self.cases.draw_windows()
            self.files = write_quantised(self.bundle, windows)
        except (MedsegError, RuntimeError) as error:
            _log.warning(
                "the network is not tried in int8: %s", recordable_text(error)
            )
            return [each for each in possible if not each.startswith("int8")]
        return possible

    def _bundle_with(self, finding: SpeedFinding) -> Bundle:
        """Return the bundle with a finding, which is not written."""
        trained = self.bundle.trained.model_copy(update={"speed": finding})
        return with_trained(self.bundle, trained)

    def _try(self, setting: SpeedSetting) -> None:
        count = len(self.exact.dice)
        trial = self.memory.find_trial(setting, count)
        if trial is None:
            if time.monotonic() > self.deadline:
                _log.warning("no time is left to try %s", setting.name)
                return
            trial = self._measure(setting)
            self.memory.keep_trial(trial, count)
        self.tried.append(trial)

    def _measure(self, setting: SpeedSetting) -> SpeedTrial:
        tried = SpeedFinding(
            network=hash_network(self.bundle),
            balanced=setting,
            files=self.files,
        )
        segmenter = Segmenter(self._bundle_with(tried), "cpu", speed="balanced")
        dice: list[Dice] = []
        agreements = []
        total = 0.0
        for number in range(len(self.exact.dice)):
            case = self.cases.held_out.open_case(number)
            labels, seconds = _segment(segmenter, case)
            dice.append(self.exact.score(labels, case))
            agreements.append(self.exact.compare(number, labels))
            total += seconds
        changes = compute_changes(self.exact.dice, dice)
        return SpeedTrial(
            setting=setting,
            dice=_mean_of_cases(dice),
            dice_change=changes.mean,
            worst_change=min(changes.labels.values()),
            agreement=float(np.mean(agreements)),
            relative_time=total / self.exact.seconds,
        )

    def _write(self, limits: SpeedLimitsSpec) -> SpeedFinding:
        wide = limits.widened(FAST_FACTOR)
        balanced = choose_fastest(self.tried, limits)
        fast = choose_fastest(self.tried, wide)
        chosen = [each for each in (balanced, fast) if each is not None]
        if not any(setting.is_quantised for setting in chosen):
            shutil.rmtree(self.bundle.folder / QUANTISED, ignore_errors=True)
            self.files = {}
        made_with = {
            "openvino": openvino.get_version(),
            "nncf": version("nncf"),
        }
        finding = SpeedFinding(
            network=hash_network(self.bundle),
            balanced=balanced,
            fast=fast,
            cases=len(self.exact.dice),
            dice=_mean_of_cases(self.exact.dice),
            trials=tuple(self.tried),
            files=self.files,
            made_with=made_with | {"processor": describe_processor()},
        )
        write_trained(self._bundle_with(finding).trained, self.bundle.folder)
        return finding


@dataclass(frozen=True, slots=True)
class DiceChanges:
    """By how much a setting changes the Dice of the same cases.

    Attributes:
        mean: Over cases and labels.
        labels: Label → mean over cases.
    """

    mean: float
    labels: Mapping[str, float]


def compute_changes(
    exact: Sequence[Dice], other: Sequence[Dice]
) -> DiceChanges:
    """Compare the Dice of cases, paired.

    Args:
        exact: Of each case, label → Dice by ``exact``. A label that is neither in the result nor
            in the reference counts as found.
        other: The same by another setting.
    """
    by_label: dict[str, list[float]] = {name: [] for name in exact[0]}
    for before, after in zip(exact, other, strict=True):
        for name, changes in by_label.items():
            changes.append(
                _count_absent(after[name]) - _count_absent(before[name])
            )
    pooled = [change for changes in by_label.values() for change in changes]
    labels = {name: float(np.mean(each)) for name, each in by_label.items()}
    return DiceChanges(float(np.mean(pooled)), labels)


def choose_fastest(
    trials: Sequence[SpeedTrial], limits: SpeedLimitsSpec
) -> SpeedSetting | None:
    """Return the fastest setting within limits; ``None`` if none is faster than ``exact``."""
    good = []
    for trial in trials:
        keeps_mean = trial.dice_change >= -limits.mean
        keeps_labels = trial.worst_change >= -limits.label
        if keeps_mean and keeps_labels and trial.relative_time < 1:
            good.append(trial)
    if not good:
        return None
    return min(good, key=lambda trial: trial.relative_time).setting


def _segment(segmenter: Segmenter, case: HeldOutCase) -> tuple[Array, float]:
    """Return a case's labels, and how many seconds the network and all around it took."""
    began = time.perf_counter()
    prediction = segmenter.predict(case.volume)
    return prediction.labels, time.perf_counter() - began


def _score(labels: Array, reference: Array, bundle: Bundle) -> Dice:
    return score_dice(labels, reference, bundle.spec.label_set)


def _count_absent(dice: float) -> float:
    """Return a Dice; 1 of a label that neither side has, as both agree that it is not there."""
    return 1.0 if math.isnan(dice) else dice


def _mean(dice: Dice) -> float:
    return float(np.mean([_count_absent(value) for value in dice.values()]))


def _mean_of_cases(dice: Sequence[Dice]) -> float:
    return float(np.mean([_mean(each) for each in dice]))
