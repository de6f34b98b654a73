"""Learning from submitted labels: a new version beside the served one, compared before it serves.

The cases are split once and for good: a case that was ever learned from is never held back later,
so a version is compared on cases that none of its ancestors since the first has learned from.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from medseg import events
from medseg._support.files import write_atomically
from medseg.bundle.bundle import Bundle
from medseg.bundle.spec import BundleSpec
from medseg.commands.train import train
from medseg.datasets.cases import Case, Scan, find_cases, split_cases
from medseg.datasets.integrity import open_case
from medseg.errors import DatasetError
from medseg.events import Listener, Progress, notify
from medseg.inference.segmenter import Segmenter
from medseg.io import read_labels, write_labels
from medseg.label_server.audit import Audit
from medseg.label_server.cases import viewable
from medseg.label_server.state import State
from medseg.label_server.versions import Facts, Version, Versions
from medseg.metrics.metrics import CaseScores, score_case
from medseg.metrics.statistics import summarise

HELD_BACK = 4
"""One case of this many is held back."""
STEPS = 200
"""Steps of a training unless the client says otherwise."""

TASK = "comparing versions"
Labelled = Sequence[tuple[Scan, Path]]
"""Scans with the files of their submitted labels."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a training.

    Attributes:
        version: The new version.
        dice: Its mean Dice on the held-back cases.
        parent_dice: The served version's on the same cases.
        promoted: Whether the new version is served now.
    """

    version: Version
    dice: float
    parent_dice: float
    promoted: bool


def learn(
    state: State,
    labelled: Labelled,
    *,
    steps: int = STEPS,
    learning_rate: float | None = None,
    device: str = "auto",
    listeners: Sequence[Listener] = (),
) -> Outcome:
    """Train a new version from the served one on the submitted labels, and serve the better one.

    Args:
        state: The state folder.
        labelled: Every case with a submitted label.
        steps: Optimiser steps.
        learning_rate: Highest learning rate; the bundle's unless given.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        listeners: Told what happens.

    Raises:
        DatasetError: If there are too few labels, or some cannot be used; every one is named.
        TrainingError: If the training could not go on.
    """
    versions, audit = Versions(state), Audit(state.audit)
    parent, fresh = versions.served, versions.begin()
    spec = parent.bundle().spec
    held_back = choose_held_back(state, [scan.name for scan, _ in labelled])
    listing = write_listing(state, fresh, labelled, held_back, spec)
    audit.write("training started", version=fresh.name, parent=parent.name, labels=len(labelled))
    train(
        parent.folder,
        start_from=parent.folder,
        data=listing,
        out=fresh.folder,
        fold=0,
        device=device,
        overrides=_overrides(steps, learning_rate),
        listeners=listeners,
    )
    ours, theirs = compare(fresh.bundle(), parent.bundle(), listing, device, listeners)
    facts = Facts(
        parent=parent.number,
        labels=len(labelled) - len(held_back),
        held_back=len(held_back),
        dice=ours,
        parent_dice=theirs,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    fresh.note(facts)
    better = ours >= theirs
    if better:
        versions.promote(fresh.number)
    audit.write(
        "training ended", version=fresh.name, dice=ours, parent_dice=theirs, promoted=better
    )
    return Outcome(fresh, ours, theirs, better)


def _overrides(steps: int, learning_rate: float | None) -> list[str]:
    rate = [] if learning_rate is None else [f"training.learning_rate={learning_rate}"]
    return [
        f"training.steps={steps}",
        "training.budget_minutes=null",  # a planned bundle's would set the steps anew
        f"training.validate_every={max(1, steps // 4)}",
        f"training.checkpoint_every={max(1, steps)}",
        "training.warmup_steps=0",
        "data.format=csv",
        "data.group_by=null",
        "data.group_pattern=null",
        *rate,
    ]


def choose_held_back(state: State, cases: Sequence[str]) -> frozenset[str]:
    """Choose the cases to compare versions on, by a hash of their names, once and for good.

    Returns:
        At least one of the cases, and never all.

    Raises:
        DatasetError: If there are fewer than two cases.
    """
    if len(cases) < 2:
        raise DatasetError(
            f"a training needs at least two submitted labels, one to learn from and one to "
            f"compare on; there {'is one' if cases else 'is none'}. Submit more labels first"
        )
    chosen = _chosen_before(state)
    for case in sorted(set(cases) - set(chosen), key=_place):
        others = {held for name, held in chosen.items() if name in cases}
        chosen[case] = True not in others or (False in others and _place(case) % HELD_BACK == 0)
    write_atomically(state.split, json.dumps(chosen, indent=1) + "\n")
    return frozenset(case for case in cases if chosen[case])


def _chosen_before(state: State) -> dict[str, bool]:
    if not state.split.is_file():
        return {}
    try:
        found = json.loads(state.split.read_text(encoding="utf-8"))
        return {str(case): bool(held) for case, held in found.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{state.split} says which cases are held back, and is damaged ({error}); restore it"
        ) from error


def _place(case: str) -> int:
    return int(hashlib.sha256(case.encode()).hexdigest(), 16)


def write_listing(
    state: State,
    version: Version,
    labelled: Labelled,
    held_back: frozenset[str],
    spec: BundleSpec,
) -> Path:
    """Write the list of cases that a version is trained on; held-back ones are its fold 0.

    Returns:
        The CSV file.
    """
    folder = state.trainings / version.name
    channels = len(spec.channels)
    several = [f"image_{number}" for number in range(channels)]
    rows = []
    for scan, label in labelled:
        images = training_files(state, scan)
        columns = several if len(images) > 1 else ["image"]
        rows.append(
            {
                **dict(zip(columns, map(str, images), strict=True)),
                "label": str(_with_values(label, folder / f"{scan.name}.nii.gz", spec)),
                "name": scan.name,
                "fold": str(int(scan.name not in held_back)),
            }
        )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    listing = folder / "cases.csv"
    write_atomically(listing, text.getvalue())
    return listing


def training_files(state: State, scan: Scan) -> list[Path]:
    """Return one file for each part of a scan; a DICOM series becomes a NIfTI copy."""
    return [
        part[0]
        if len(part) == 1 and part[0].is_file() and not scan.volume
        else viewable(state, scan, number)
        for number, part in enumerate(scan.parts)
    ]


def _with_values(label: Path, copy: Path, spec: BundleSpec) -> Path:
    """Return a label file with the values that the bundle's own data has for its labels."""
    values = {label.index: label.value for label in spec.label_set}
    if all(index == value for index, value in values.items()):
        return label
    volume = read_labels(label)
    table = np.array([0, *values.values()], np.uint32)
    write_labels(copy, table[volume.array[0]], volume)
    return copy


def compare(
    one: Bundle, other: Bundle, listing: Path, device: str, listeners: Sequence[Listener] = ()
) -> tuple[float, float]:
    """Return two bundles' mean Dice on the held-back cases of a listing."""
    cases = find_cases(listing, one.spec).cases
    _, held_back = split_cases(cases, one.spec.data, 0)
    total = 2 * len(held_back)

    def told(done: int) -> None:
        notify(listeners, Progress(TASK, done, total))

    return (
        mean_dice(one, held_back, device, told),
        mean_dice(other, held_back, device, lambda done: told(done + len(held_back))),
    )


def mean_dice(
    bundle: Bundle,
    cases: Sequence[Case],
    device: str,
    told: Callable[[int], None] = lambda done: None,
) -> float:
    """Segment cases as users do and return the mean Dice over them and the bundle's labels."""
    segmenter = Segmenter(bundle, device)
    scored = []
    for done, case in enumerate(cases, start=1):
        volume, reference = open_case(case, bundle.spec)
        found = segmenter.segment(volume)
        scored.append(
            score_case(
                found.labels,
                reference,
                bundle.spec.label_set,
                volume.spacing,
                case=case.name,
                voxel_ml=volume.voxel_ml,
            )
        )
        told(done)
    return mean_of(scored)


def mean_of(scored: Sequence[CaseScores]) -> float:
    """Return the mean Dice; where nothing was to be found and nothing was, all is right: 1."""
    mean = float(summarise(scored)["dice"]["mean"])
    return 1.0 if math.isnan(mean) else mean


class TrainingProgress:
    """A listener that notes a training's progress where viewers ask for it.

    Args:
        state: The state folder.
    """

    def __init__(self, state: State) -> None:
        self._file = state.progress
        self._stats: dict[str, float | int | str] = {"total_epochs": 1, "epoch": 0}

    def __call__(self, event: events.Event) -> None:
        """Take note of steps and validations."""
        match event:
            case events.RunStarted():
                self._note(total_epochs=event.total_steps, epoch=0, total_time="")
            case events.StepDone() if event.step % 5 == 0:
                self._note(epoch=event.step)
            case events.ValidationDone():
                self._note(best_metric=self._best(event.scores["dice"]["mean"]))
            case events.RunDone():
                self._note(total_time="done")

    def _best(self, dice: float) -> float:
        return max(float(self._stats.get("best_metric", 0)), dice)

    def _note(self, **stats: float | int | str) -> None:
        self._stats |= stats
        write_atomically(self._file, json.dumps(self._stats) + "\n")


def training_stats(state: State) -> Mapping[str, float | int | str]:
    """Return what the last training noted of its progress."""
    try:
        found = json.loads(state.progress.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
