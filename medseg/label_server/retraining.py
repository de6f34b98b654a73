"""Training on submitted labels: a new version beside the served one, compared before it serves.

The cases are split once and for good: a case that was ever trained on is never held out later,
so a version is compared on cases that none of its ancestors since the first has been trained on.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from medseg._support.files import write_atomically
from medseg.bundle.bundle import Bundle
from medseg.bundle.spec import BundleSpec
from medseg.commands.train import train
from medseg.datasets.cases import Case, Scan, find_cases
from medseg.datasets.folds import split_cases
from medseg.datasets.integrity import open_case
from medseg.errors import DatasetError
from medseg.events import Listener, Progress, notify
from medseg.inference.segmenter import Segmenter
from medseg.io import read_labels, write_labels
from medseg.label_server.audit import AuditLog
from medseg.label_server.cases import get_training_copy, make_nifti_copy
from medseg.label_server.state import StateFolder
from medseg.label_server.versions import Version, VersionInfo, Versions
from medseg.metrics.metrics import CaseScores, score_case
from medseg.metrics.statistics import summarise

HELD_OUT_ONE_IN = 4
"""One case in this many is held out."""
STEPS = 200
"""Steps of a training run unless the client says otherwise."""

TASK = "comparing versions"
LabelledScans = Sequence[tuple[Scan, Path]]
"""Scans with the files of their submitted labels."""


@dataclass(frozen=True, slots=True)
class RetrainingResult:
    """What came of a training run.

    Attributes:
        version: The new version.
        dice: Its mean Dice on the held-out cases.
        parent_dice: The served version's on the same cases.
        promoted: Whether the new version is served now.
    """

    version: Version
    dice: float
    parent_dice: float
    promoted: bool


def train_new_version(
    state: StateFolder,
    labelled: LabelledScans,
    *,
    steps: int = STEPS,
    learning_rate: float | None = None,
    device: str = "auto",
    listeners: Sequence[Listener] = (),
) -> RetrainingResult:
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
        TrainingError: If the training run could not go on.
    """
    versions = Versions(state)
    audit = AuditLog(state.audit_log)
    parent = versions.find_served()
    fresh = versions.next_version()
    spec = parent.load_bundle().spec
    held_out = choose_held_out(state, [scan.name for scan, _ in labelled])
    case_table = write_case_table(state, fresh, labelled, held_out, spec)
    audit.write(
        "training started",
        version=fresh.name,
        parent=parent.name,
        labels=len(labelled),
    )
    train(
        parent.folder,
        start_from=parent.folder,
        data=case_table,
        out=fresh.folder,
        fold=0,
        device=device,
        overrides=make_overrides(steps, learning_rate),
        listeners=listeners,
    )
    dice, parent_dice = compare_bundles(
        fresh.load_bundle(), parent.load_bundle(), case_table, device, listeners
    )
    info = VersionInfo(
        parent=parent.number,
        labels=len(labelled) - len(held_out),
        held_out=len(held_out),
        dice=dice,
        parent_dice=parent_dice,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    promoted = serve_unless_worse(versions, fresh, info)
    audit.write(
        "training ended",
        version=fresh.name,
        dice=dice,
        parent_dice=parent_dice,
        promoted=promoted,
    )
    return RetrainingResult(fresh, dice, parent_dice, promoted)


def serve_unless_worse(
    versions: Versions, version: Version, info: VersionInfo
) -> bool:
    """Write what is known of a new version, and serve it unless its parent is better.

    Args:
        versions: All versions.
        version: The new one.
        info: What is known of it; the Dice of both decides.

    Returns:
        Whether it is served now.
    """
    version.write_info(info)
    if (
        info.dice is None
        or info.parent_dice is None
        or info.dice < info.parent_dice
    ):
        return False
    versions.promote(version.number)
    return True


def make_overrides(steps: int, learning_rate: float | None) -> list[str]:
    """Return what a training run on submitted labels changes of the served bundle's fields."""
    overrides = [
        f"training.steps={steps}",
        "training.budget_minutes=null",  # a planned bundle's would set the steps anew
        f"training.validate_every={max(1, steps // 4)}",
        f"training.checkpoint_every={max(1, steps)}",
        "training.warmup_steps=0",
        # The table has columns of its own, and lists what the bundle's data was searched for.
        "data.format=csv",
        "data.columns=null",
        "data.images=[]",
        "data.labels=null",
        "data.group_by=null",
        "data.group_pattern=null",
        "data.splits=null",
    ]
    if learning_rate is not None:
        overrides.append(f"training.learning_rate={learning_rate}")
    return overrides


def choose_held_out(state: StateFolder, cases: Sequence[str]) -> frozenset[str]:
    """Choose the cases to compare versions on, by a hash of their names, once and for good.

    Args:
        state: The state folder; the choice is kept there.
        cases: Every case with a submitted label.

    Returns:
        At least one of the cases, and never all.

    Raises:
        DatasetError: If there are fewer than two cases, or the earlier choice was damaged.
    """
    if len(cases) < 2:
        raise DatasetError(
            "training needs at least two submitted labels, one to train on and one to compare "
            f"on; there {'is one' if cases else 'is none'}. Submit more labels first"
        )
    choice = _read_choice(state)
    new_cases = set(cases) - set(choice)
    for case in sorted(new_cases, key=_hash_name):
        chosen = {choice[other] for other in cases if other in choice}
        choice[case] = _is_held_out(case, chosen)
    write_atomically(state.split, json.dumps(choice, indent=1) + "\n")
    return frozenset(case for case in cases if choice[case])


def _is_held_out(case: str, chosen: set[bool]) -> bool:
    """Choose for one case, given what was chosen for any of the others."""
    if True not in chosen:
        return True  # there must be one to compare on,
    if False not in chosen:
        return False  # and one to train on
    return _hash_name(case) % HELD_OUT_ONE_IN == 0


def _read_choice(state: StateFolder) -> dict[str, bool]:
    if not state.split.is_file():
        return {}
    try:
        choice = json.loads(state.split.read_text(encoding="utf-8"))
        return {str(case): bool(held_out) for case, held_out in choice.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise DatasetError(
            "the file that says which cases are held out is damaged; restore it",
            source=state.split,
            detail=str(error),
        ) from error


def _hash_name(case: str) -> int:
    return int(hashlib.sha256(case.encode()).hexdigest(), 16)


def write_case_table(
    state: StateFolder,
    version: Version,
    labelled: LabelledScans,
    held_out: frozenset[str],
    spec: BundleSpec,
) -> Path:
    """Write the table of cases that a version is trained on; held-out ones are its fold 0.

    Args:
        state: The state folder.
        version: The new version.
        labelled: Every case with a submitted label.
        held_out: The names of those that are held out.
        spec: The bundle's spec.

    Returns:
        The CSV file.
    """
    folder = state.trainings / version.name
    rows = []
    for scan, label in labelled:
        row = _name_images(list_training_files(state, scan))
        copy = folder / f"{scan.name}.nii.gz"
        row["label"] = str(_with_dataset_values(label, copy, spec))
        row["name"] = scan.name
        row["fold"] = "0" if scan.name in held_out else "1"
        rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    case_table = folder / "cases.csv"
    write_atomically(case_table, text.getvalue())
    return case_table


def _name_images(images: Sequence[Path]) -> dict[str, str]:
    """Return a row's columns for the image of each channel."""
    if len(images) == 1:
        return {"image": str(images[0])}
    return {
        f"image_{number}": str(image) for number, image in enumerate(images)
    }


def list_training_files(state: StateFolder, scan: Scan) -> list[Path]:
    """Return one file for each channel of a scan; a DICOM series becomes a NIfTI copy."""
    files = []
    for channel, part in enumerate(scan.parts):
        file = part[0]
        is_whole_image = len(part) == 1 and file.is_file() and not scan.volume
        if not is_whole_image:
            file = make_nifti_copy(state, scan, channel)
            marked = get_training_copy(file)
            file = marked if marked.is_file() else file
        files.append(file)
    return files


def _with_dataset_values(label: Path, copy: Path, spec: BundleSpec) -> Path:
    """Return a label file with the values that the bundle's own data has for its labels."""
    values = [each.value for each in spec.label_set]
    indices = [each.index for each in spec.label_set]
    if values == indices:
        return label
    volume = read_labels(label)
    # Where 0 is a label, what was left unpainted is not annotated.
    unpainted = 0
    if 0 in values:
        known = spec.label_set.values.items()
        ignored = [value for value, index in known if index > len(values)]
        unpainted = ignored[0] if ignored else 0
    table = np.array([unpainted, *values], np.uint32)
    encoded = table[volume.array[0]]
    write_labels(copy, encoded, volume)
    return copy


def compare_bundles(
    bundle: Bundle,
    other: Bundle,
    case_table: Path,
    device: str,
    listeners: Sequence[Listener] = (),
) -> tuple[float, float]:
    """Return two bundles' mean Dice on the held-out cases of a table."""
    cases = find_cases(case_table, bundle.spec).cases
    _, held_out = split_cases(cases, bundle.spec.data, 0)
    count = len(held_out)

    def report(done: int) -> None:
        notify(listeners, Progress(TASK, done, 2 * count))

    dice = measure_dice(bundle, held_out, device, report)
    other_dice = measure_dice(
        other, held_out, device, lambda done: report(count + done)
    )
    return dice, other_dice


def measure_dice(
    bundle: Bundle,
    cases: Sequence[Case],
    device: str,
    report: Callable[[int], None],
) -> float:
    """Segment cases as users do and return the mean Dice over them and the bundle's labels.

    Args:
        bundle: A trained bundle.
        cases: Cases with references.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        report: Called with how many cases are done.
    """
    segmenter = Segmenter(bundle, device)
    scores = []
    for done, case in enumerate(cases, start=1):
        volume, reference = open_case(case, bundle.spec)
        # Training has checked the cases already.
        segmentation = segmenter.predict(volume).finish()
        scores.append(
            score_case(
                segmentation.labels,
                reference,
                bundle.spec.label_set,
                volume.spacing,
                case=case.name,
                voxel_ml=volume.voxel_ml,
            )
        )
        report(done)
    return average_dice(scores)


def average_dice(scores: Sequence[CaseScores]) -> float:
    """Return the mean Dice; 1 if no reference and no result has any label, which is all right."""
    mean = float(summarise(scores)["dice"]["mean"])
    return 1.0 if math.isnan(mean) else mean
