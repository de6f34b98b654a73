"""``medseg demo``: phantoms → train → segment → evaluate → a picture, in minutes on a CPU."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg._support.folders import refuse_file
from medseg.bundle.bundle import load_bundle
from medseg.commands.evaluate import evaluate
from medseg.commands.segment import segment
from medseg.commands.train import train
from medseg.errors import OutputError
from medseg.evaluation.results import Evaluation
from medseg.events import Listener
from medseg.io import read_image, read_labels
from medseg.plots.previews import draw_overview
from medseg.testing import write_dataset

TRAINING_CASES, TEST_CASES = 16, 4
TEST_SEED = 1000
"""Seed of the first test phantom, far from those of training."""

_WRITTEN = {"data", "test", "run", "results", "evaluation", "segmented.png"}
# What the training run writes beside its folder: MLflow's store and the cache.
_WRITTEN |= {"mlflow.db", "mlflow.db.lock", "mlartifacts", "preprocessed"}


@dataclass(frozen=True, slots=True)
class Demo:
    """What a demo wrote.

    Attributes:
        run: The trained bundle.
        results: Label maps of the test phantoms.
        evaluation: Their scores.
        picture: One segmented phantom in three planes.
    """

    run: Path
    results: Path
    evaluation: Evaluation
    picture: Path


def demo(
    bundle: Path,
    out: Path,
    *,
    overrides: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
) -> Demo:
    """Do once everything that medseg does, on made-up scans.

    Args:
        bundle: The bundle to train, for CT phantoms.
        out: The folder to write to; what an earlier demo wrote there is replaced.
        overrides: Assignments such as ``training.steps=20``.
        listeners: Told what happens.

    Raises:
        OutputError: If ``out`` holds anything that is not of a demo.
    """
    clear_demo(out)
    data = write_dataset(out / "data", TRAINING_CASES)
    tests = write_dataset(out / "test", TEST_CASES, seed=TEST_SEED)
    scans = tests / "imagesTr"
    results = out / "results"
    run = train(
        bundle,
        data=data,
        out=out / "run",
        fold=0,
        overrides=overrides,
        listeners=listeners,
    )
    segment(run, scans, results, listeners=listeners)
    spec = load_bundle(run).spec
    evaluation = evaluate(results, tests, out / "evaluation", labels=spec)
    picture = out / "segmented.png"
    scan = min(scans.iterdir())
    labels = read_labels(results / scan.name)
    draw_overview(
        picture,
        read_image(scan),
        np.asarray(labels.array[0]),
        spec.label_set,
        title="A made-up scan, segmented",
    )
    return Demo(run, results, evaluation, picture)


def clear_demo(out: Path) -> None:
    """Remove what an earlier demo wrote.

    Raises:
        OutputError: If the folder holds anything else, or is a file; nothing is removed then.
    """
    if not out.exists():
        return
    refuse_file(out)
    others = sorted(
        path.name for path in out.iterdir() if path.name not in _WRITTEN
    )
    if others:
        raise OutputError(
            "the folder holds something that is not of a demo; choose another --out",
            source=out,
            detail=others[0],
        )
    shutil.rmtree(out)
