"""How fast a CPU may compute a bundle's networks, decided on held-out cases by the users' path.

In two stages: the precision first, then the overlap of windows. Taken is the fastest setting whose
mean Dice over held-out cases and labels, paired with that of fp32, and that of each label, keep
within the bundle's limits. What was tried is kept, so that a decision that was interrupted goes on.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from medseg._support.files import write_atomically
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
from medseg.errors import MedsegError
from medseg.events import Listener, Progress, notify
from medseg.inference.backends.processor import (
    describe_processor,
    fit_to_processor,
)
from medseg.inference.backends.quantised import (
    QUANTISED,
    is_installed,
    write_quantised,
)
from medseg.inference.segmenter import Segmenter
from medseg.metrics.metrics import score_dice
from medseg.training.held_out import HeldOutCase, HeldOutCases
from medseg.volume import Array

MIN_CASES = 5
"""Fewer held-out cases say too little about the next one."""

SHARE = 0.1
"""Share of the time of a training that the decision may take."""

FAST_FACTOR = 5.0
"""How many times the limits ``fast`` may lose."""

_TASK = "trying speed settings"
_PRECISIONS: tuple[Arithmetic, ...] = ("fp32", "bf16", "int8", "int8_bf16")
_OVERLAPS = (0.375, 0.25)
_MOST_CASES = 40
_LEAST_SECONDS = 15.0
"""To convert, quantise and compile a small network takes about as long."""
_CASE_COST = 3.0
"""All that is tried with a case, in times that ``exact`` takes for it."""

_log = logging.getLogger(__name__)

Dice = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SpeedCases:
    """What a decision rests on.

    Attributes:
        held_out: Cases that the networks have not learned from.
        draw_windows: Returns windows of scans that they have learned from, as the network sees
            them, float32 ``(1, channels, *size)``.
    """

    held_out: HeldOutCases
    draw_windows: Callable[[], Sequence[Array]]


@dataclass(frozen=True, slots=True)
class SpeedDecision:
    """What came of it.

    Attributes:
        finding: What was decided; ``None`` if nothing could be.
        reason: Why not.
    """

    finding: SpeedFinding | None
    reason: str = ""


def decide_speed(
    bundle: Bundle,
    cases: SpeedCases,
    seconds: float,
    memory: Path,
    listeners: Sequence[Listener] = (),
) -> SpeedDecision:
    """Decide which speed settings keep the Dice of held-out cases, and write it into the bundle.

    Args:
        bundle: A trained bundle in a folder that may be written to. It gets networks in int8
            where a setting has them, and ``trained.json`` the finding.
        cases: What to decide on.
        seconds: Time that it may take.
        memory: File for what was tried; removed at the end.
        listeners: Notified of progress.
    """
    obstacle = _find_obstacle(bundle, cases)
    if obstacle:
        return SpeedDecision(None, obstacle)
    remembered = _Memory(memory, hash_network(bundle))
    seconds = max(seconds, remembered.seconds)
    too_short = (
        f"a tenth of the run's time, {seconds:.0f} s, is too little for it"
    )
    if seconds < _LEAST_SECONDS:
        return SpeedDecision(None, too_short)
    remembered.keep_seconds(seconds)
    began = time.monotonic()
    exact = _ExactResults(bundle)
    exact.add(cases.held_out.open_case(0))
    affordable = (seconds - _LEAST_SECONDS) / (_CASE_COST * exact.seconds)
    count = min(int(affordable), len(cases.held_out), _MOST_CASES)
    if count < MIN_CASES:
        memory.unlink()
        return SpeedDecision(None, too_short)
    for number in range(1, count):
        notify(listeners, Progress(_TASK, number, count))
        exact.add(cases.held_out.open_case(number))
    notify(listeners, Progress(_TASK, count, count))
    trials = _Trials(bundle, cases, exact, remembered, began + seconds)
    finding = trials.decide()
    memory.unlink(missing_ok=True)
    return SpeedDecision(finding)


def _find_obstacle(bundle: Bundle, cases: SpeedCases) -> str:
    """Return why nothing can be decided; nothing if it can."""
    if bundle.spec.inference.speed == "exact":
        return "the bundle asks for exact"
    if not is_installed():
        return "OpenVINO and NNCF are not installed"
    if len(cases.held_out) < MIN_CASES:
        return f"fewer than {MIN_CASES} cases were held out"
    return ""


class _ExactResults:
    """What ``exact`` makes of held-out cases.

    Args:
        bundle: The bundle.

    Attributes:
        dice: Of each case, label → Dice.
        seconds: What all cases took.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.dice: list[Dice] = []
        self.seconds = 0.0
        self._bundle = bundle
        self._segmenter = Segmenter(bundle, "cpu", speed="exact")
        # Compressed: the label maps of many scans do not fit the memory.
        self._labels: list[bytes] = []

    def add(self, case: HeldOutCase) -> None:
        """Segment and score one more case."""
        labels, seconds = _segment(self._segmenter, case)
        self.dice.append(_score(labels, case.reference, self._bundle))
        self._labels.append(zlib.compress(labels.tobytes(order="F"), 1))
        self.seconds += seconds

    def compare(self, number: int, labels: Array) -> float:
        """Return the mean Dice of a label map of a case to that of ``exact``."""
        stored = zlib.decompress(self._labels[number])
        exact = np.frombuffer(stored, labels.dtype)
        exact = exact.reshape(labels.shape, order="F")
        return _mean(_score(labels, exact, self._bundle))


class _Memory:
    """What an interrupted decision has tried.

    Args:
        file: Where it is kept.
        network: Hash of the network that it is about.
    """

    def __init__(self, file: Path, network: str) -> None:
        self._file = file
        self._content: dict[str, Any] = {"network": network, "trials": {}}
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if isinstance(content, dict) and content.get("network") == network:
            self._content.update(content)

    @property
    def seconds(self) -> float:
        """The time that was given first: a run that is resumed has trained for a moment."""
        return float(self._content.get("seconds", 0.0))

    def keep_seconds(self, seconds: float) -> None:
        """Keep the time that was given."""
        self._content["seconds"] = seconds
        self._write()

    def find_trial(
        self, setting: SpeedSetting, cases: int
    ) -> SpeedTrial | None:
        """Return what a setting did to the same cases, if it was tried."""
        stored = self._content["trials"].get(f"{setting.name}, {cases} cases")
        if stored is None:
            return None
        try:
            return SpeedTrial.model_validate(stored)
        except ValidationError:
            return None

    def keep_trial(self, trial: SpeedTrial, cases: int) -> None:
        """Keep what a setting did."""
        name = f"{trial.setting.name}, {cases} cases"
        self._content["trials"][name] = trial.model_dump(mode="json")
        self._write()

    def _write(self) -> None:
        write_atomically(self._file, json.dumps(self._content, indent=2))


@dataclass(slots=True)
class _Trials:
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
    exact: _ExactResults
    memory: _Memory
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
            if smaller < overlap:
                self._try(SpeedSetting(precision=precision, overlap=smaller))
        return self._write(limits)

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
            _log.warning("the network is not tried in int8: %s", error)
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
            dice.append(_score(labels, case.reference, self.bundle))
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
        made_with = {name: version(name) for name in ("openvino", "nncf")}
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


def describe_finding(finding: SpeedFinding) -> list[str]:
    """Say what was decided, one sentence each."""
    sentences = []
    for speed in ("balanced", "fast"):
        setting = finding.get_setting(speed)
        if setting is None:
            sentences.append(
                f"{speed}: as exact, since none was faster and as good"
            )
            continue
        (trial,) = (each for each in finding.trials if each.setting == setting)
        sentences.append(
            f"{speed}: {setting.name} ({1 / trial.relative_time:.1f} times as fast as exact; Dice "
            f"{trial.dice:.4f}, {trial.dice_change:+.4f} on {finding.cases} held-out cases)"
        )
    return sentences


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
