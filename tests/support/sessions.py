"""Training sessions made up in memory: tiny cases, no data folder, no MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cache import CachedCase
from medseg.datasets.dataset import Dataset
from medseg.events import Listener
from medseg.training.distributed import SINGLE_PROCESS
from medseg.training.run_folder import RunFolder
from medseg.training.runs import TrainingRun, begin_run
from medseg.training.session import TrainingSession
from support.cases import balls, made_case

CPU = torch.device("cpu")


def made_cases(count: int, first: int = 0) -> list[CachedCase]:
    """Return cases with names and voxels of their own."""
    seeds = range(first, first + count)
    return [
        replace(made_case(balls(seed=seed)), case_id=f"case-{seed}")
        for seed in seeds
    ]


def made_session(
    folder: Path,
    spec: BundleSpec,
    *,
    training: int = 3,
    validation: int = 2,
    listeners: Sequence[Listener] = (),
) -> TrainingSession:
    """Return a session whose run has begun in a folder."""
    run = TrainingRun(RunFolder(folder), spec, folder / "data", 0, "0" * 32)
    begin_run(run, "hash")
    dataset = Dataset(
        made_cases(training), made_cases(validation, first=100), (), "hash"
    )
    return TrainingSession(run, dataset, CPU, SINGLE_PROCESS, listeners)
