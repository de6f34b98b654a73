"""The trainings that benchmarks of quality and refinement share: split, arms, resumable runs.

The split is by patient and has three parts: cases to learn from, held-back cases to choose weights
and to calibrate on, and test cases that no training has seen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import medseg
from medseg.bundle.bundle import load_bundle
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Case, find_cases
from medseg.datasets.folds import assign_folds
from medseg.events import Listener
from medseg.training.run_folder import RunFolder

HELD_BACK, TEST = 0, 1
"""Folds of the data set's own list; all others are learned from. What was chosen by looking at one
test fold is confirmed on another."""

INTENSITY = (
    "noise",
    "blur",
    "brightness",
    "contrast",
    "low_resolution",
    "gamma",
    "bias_field",
)
"""What ``standard`` does to intensities, besides ghosting."""

ARMS: dict[str, tuple[str, ...]] = {
    "standard": (),
    "no corruptions": tuple(
        f"training.augmentation.{name}=0" for name in (*INTENSITY, "ghosting")
    ),
    "none": ("training.augmentation=none",),
}
"""What an arm changes in the bundle: all variations, only those of geometry, or none."""


def split_cases(
    data: Path, spec: BundleSpec, test: int = TEST
) -> tuple[list[Case], list[Case], list[Case]]:
    """Return the cases to learn from, the held-back ones and the test cases.

    Raises:
        ValueError: If a patient's cases would be in two parts, or a fold has two parts to play.
    """
    if test == HELD_BACK:
        raise ValueError(
            f"fold {test} is held back to calibrate on, and cannot be the test"
        )
    cases = find_cases(data, spec).cases
    parts: tuple[list[Case], list[Case], list[Case]] = ([], [], [])
    for case, fold in zip(cases, assign_folds(cases, spec.data), strict=True):
        parts[{HELD_BACK: 1, test: 2}.get(fold, 0)].append(case)
    patients = [{case.group for case in part} for part in parts]
    if patients[0] & patients[1] or (patients[0] | patients[1]) & patients[2]:
        raise ValueError(f"{data}: the listed folds tear patients apart")
    return parts


def list_without_test(
    parts: Sequence[Sequence[Case]], spec: BundleSpec, out: Path
) -> Path:
    """Write a data list from which the test cases are missing; return the file."""
    learning, held_back, _ = parts
    field = spec.data.group_by or "group"
    rows = [
        _row(case, fold, field)
        for fold, part in ((1, learning), (0, held_back))
        for case in part
    ]
    file = out / "cases.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"training": rows}, indent=1) + "\n")
    return file


def _row(case: Case, fold: int, field: str) -> dict[str, Any]:
    image = case.scan.parts[0][0].resolve()
    label = case.label.resolve()
    return {
        "image": str(image),
        "label": str(label),
        "fold": fold,
        field: case.group,
    }


def trained(
    bundle: Path,
    arm: str,
    data: Path,
    out: Path,
    *,
    steps: int,
    seed: int,
    overrides: Iterable[str] = (),
    listeners: Sequence[Listener] = (),
) -> Path:
    """Train one arm, or go on with it where it was stopped; return its run folder."""
    folder = out / f"{arm.replace(' ', '-')}-seed{seed}"
    run = RunFolder(folder)
    if run.is_finished:
        return folder
    changes = (
        f"training.steps={steps}",
        f"training.seed={seed}",
        f"training.validate_every={max(steps // 2, 1)}",
        # About the last tenth of the steps: a longer average would remember the beginning.
        f"training.ema={max(1 - 10 / steps, 0.5):.4f}",
        f"training.checkpoint_every={max(min(steps // 8, 100), 1)}",
        "tracking.register_model=false",
        *ARMS[arm],
        *overrides,
    )
    return medseg.train(
        bundle,
        data=data,
        out=folder,
        fold=0,
        device="cpu",
        overrides=changes,
        resume=run.checkpoint.is_file(),
        listeners=listeners,
    )


def spec_of(bundle: Path, overrides: Sequence[str] = ()) -> BundleSpec:
    """Return what a bundle says, with some of it changed."""
    return load_bundle(bundle, overrides).spec
