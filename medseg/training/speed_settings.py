"""How fast a CPU may compute a bundle's networks, decided on held-out cases by the users' path.

In two stages: the precision first, then the overlap of windows. Taken is the fastest setting whose
mean Dice over held-out cases and labels, paired with that of fp32, and that of each label, keep
within the bundle's limits. What was tried is kept, so that a decision that was interrupted goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from medseg.bundle.bundle import Bundle
from medseg.bundle.hashes import hash_network, hash_texts
from medseg.bundle.spec import SpeedFinding
from medseg.bundle.spec_files import write_trained
from medseg.events import Listener, Progress, notify
from medseg.inference.backends import openvino
from medseg.inference.backends.processor import describe_processor
from medseg.inference.backends.quantised import has_files, is_installed
from medseg.training.speed_memory import SpeedMemory
from medseg.training.speed_trials import ExactResults, SpeedCases, Trials

MIN_CASES = 5
"""Fewer held-out cases say too little about the next one."""

SHARE = 0.1
"""Share of the time of a training that the decision may take."""

_TASK = "trying speed settings"
_MOST_CASES = 40
_LEAST_SECONDS = 15.0
"""To convert, quantise and compile a small network takes about as long."""
_LEAST_PER_CASE = 1e-3
_SECTIONS = {
    "channels",
    "labels",
    "regions",
    "data",
    "preprocessing",
    "network",
}
"""What of a bundle, besides its inference, labels and references follow from."""
_CASE_COST = 3.0
"""All that is tried with a case, in times that ``exact`` takes for it."""


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
        seconds: Time that it may take; infinite where it may take what it needs. Of a training,
            ``SHARE`` of its own.
        memory: File for what was tried and decided, so that a call that was interrupted, or whose
            caller was, goes on; to be removed when what was decided is written where it belongs.
        listeners: Notified of progress.
    """
    obstacle = _find_obstacle(bundle, cases)
    if obstacle:
        return SpeedDecision(None, obstacle)
    limits = bundle.spec.inference.speed_limits
    remembered = SpeedMemory(memory, _hash_conditions(bundle, cases))
    known = remembered.find_finding(limits)
    if known is not None and has_files(bundle, known.files):
        trained = bundle.trained.model_copy(update={"speed": known})
        write_trained(trained, bundle.folder)
        return SpeedDecision(known)
    seconds = max(seconds, remembered.seconds)
    too_short = (
        f"a tenth of the run's time, {seconds:.0f} s, is too little for it"
    )
    if seconds < _LEAST_SECONDS:
        return SpeedDecision(None, too_short)
    began = time.monotonic()
    exact = ExactResults(bundle, cases.undrawn)
    case = cases.held_out.open_case(0)
    # From one window: a whole scan may take longer than all that may be spent.
    expected = exact.estimate_seconds(case)
    if _count_affordable(seconds, expected) < MIN_CASES:
        return SpeedDecision(None, too_short)
    remembered.keep_seconds(seconds)
    exact.add(case)
    affordable = _count_affordable(seconds, exact.seconds)
    count = min(affordable, len(cases.held_out))
    if count < MIN_CASES:
        memory.unlink()
        return SpeedDecision(None, too_short)
    for number in range(1, count):
        notify(listeners, Progress(_TASK, number, count))
        exact.add(cases.held_out.open_case(number))
    notify(listeners, Progress(_TASK, count, count))
    trials = Trials(bundle, cases, exact, remembered, began + seconds)
    finding = trials.decide()
    remembered.keep_finding(finding, limits)
    return SpeedDecision(finding)


def _hash_conditions(bundle: Bundle, cases: SpeedCases) -> str:
    """Return a hash of what trials on the same cases follow from; the limits judge them later."""
    spec = bundle.spec
    chosen = {"speed", "speed_limits"}
    return hash_texts(
        (
            hash_network(bundle),
            spec.model_dump_json(include=_SECTIONS),
            spec.inference.model_dump_json(exclude=chosen),
            str(spec.training.patch),
            *sorted(cases.undrawn),
            describe_processor(),
            openvino.get_version(),
            version("nncf"),
            version("torch"),
        )
    )


def _find_obstacle(bundle: Bundle, cases: SpeedCases) -> str:
    """Return why nothing can be decided; nothing if it can."""
    if bundle.spec.inference.speed == "exact":
        return "the bundle asks for exact"
    if not is_installed():
        return "OpenVINO and NNCF are not installed"
    if len(cases.held_out) < MIN_CASES:
        return f"fewer than {MIN_CASES} cases were held out"
    names = {region.name for region in bundle.spec.label_set.regions}
    if names <= set(cases.undrawn):
        return "no case holds any of the labels"
    return ""


def _count_affordable(seconds: float, per_case: float) -> int:
    """Return how many cases can be tried in a time.

    Args:
        seconds: The time.
        per_case: What ``exact`` takes for one.
    """
    # Of a scan that holds nothing, next to no time is expected.
    cost = _CASE_COST * max(per_case, _LEAST_PER_CASE)
    affordable = (seconds - _LEAST_SECONDS) / cost
    return int(min(affordable, _MOST_CASES))
