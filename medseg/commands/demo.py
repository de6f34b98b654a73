"""``medseg demo``: phantom → train → segment → evaluate → a picture, in minutes on a CPU."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo left.

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
    bundle: Path, out: Path, *, overrides: Sequence[str] = (), listeners: Sequence[Listener] = ()
) -> Demo:
    """Run everything medseg does once, on made-up scans.

    Args:
        bundle: The bundle to train, for CT phantoms.
        out: The folder to leave everything in; what an earlier demo left there is replaced.
        overrides: Assignments such as ``training.steps=20``.
        listeners: Told what happens.

    Raises:
        OutputError: If ``out`` holds something that no demo left there.
    """
    _clear(out)
    data = write_dataset(out / "data", TRAINING_CASES)
    tests = write_dataset(out / "test", TEST_CASES, seed=TEST_SEED)
    run = train(
        bundle, data=data, out=out / "run", fold=0, overrides=overrides, listeners=listeners
    )
    results = out / "results"
    segment(run, tests / "imagesTr", results, listeners=listeners)
    evaluation = evaluate(results, tests, out / "evaluation", labels=load_bundle(run).spec)
    scan = sorted((tests / "imagesTr").iterdir())[0]
    picture = out / "segmented.png"
    labels = read_labels(results / scan.name).array[0]
    draw_overview(
        picture,
        read_image(scan),
        np.asarray(labels),
        load_bundle(run).spec.label_set,
        title="A made-up scan, segmented",
    )
    return Demo(run, results, evaluation, picture)


def _clear(out: Path) -> None:
    known = {"data", "test", "run", "results", "evaluation", "segmented.png"}
    known |= {"mlflow.db", "mlflow.db.lock", "mlartifacts", "preprocessed"}
    if not out.exists():
        return
    foreign = sorted(path.name for path in out.iterdir() if path.name not in known)
    if foreign:
        raise OutputError(f"{out} holds what no demo left there ({foreign[0]}); give another --out")
    shutil.rmtree(out)
