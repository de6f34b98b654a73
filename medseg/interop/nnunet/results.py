"""nnU-Net's results folders: which trained models are there, and their folds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg._support.folders import explain_unreadable
from medseg.errors import MedsegError

PLANS, DATASET = "plans.json", "dataset.json"
CHECKPOINTS = ("final", "best")
"""What a fold may hold: its last weights, and those that validated best."""

_FOLD = "fold_"
_ALL = "all"
_MOST_FOLDERS = 2000
_MOST_LEVELS = 3
"""Levels below a parent at which models are looked for: ``DatasetNNN_x/trainer__plans__config``."""
_MOST_LISTED = 20


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """One of nnU-Net's trained models: a folder ``trainer__plans__configuration``.

    Attributes:
        folder: With plans, ``dataset.json`` and a folder for each fold.
        trainer: nnU-Net's trainer, by name.
        plans: Name of the plans.
        configuration: Such as ``3d_fullres``.
    """

    folder: Path
    trainer: str
    plans: str
    configuration: str

    def list_folds(self, checkpoint: str) -> tuple[str, ...]:
        """Return the folds that have such a checkpoint: numbers, and ``all``."""
        folds = []
        for path in self.folder.glob(f"{_FOLD}*"):
            name = path.name.removeprefix(_FOLD)
            is_fold = name == _ALL or (name.isdecimal() and len(name) < 4)
            if is_fold and self.locate(name, checkpoint).is_file():
                folds.append(name)
        return tuple(sorted(folds, key=lambda name: (len(name), name)))

    def locate(self, fold: str, checkpoint: str) -> Path:
        """Return the file of a fold's weights."""
        return self.folder / f"{_FOLD}{fold}" / f"checkpoint_{checkpoint}.pth"


def find_model(folder: Path, configuration: str = "") -> TrainedModel:
    """Return the one trained model in a folder.

    Args:
        folder: The model's folder, or one above it.
        configuration: Which to take, where there are several.

    Raises:
        MedsegError: If there is none, or there are several; says how to choose.
    """
    if not folder.is_dir():
        raise MedsegError(
            "is neither a folder nor a model's file (model.pt); give nnU-Net's results folder, "
            "such as nnUNet_results/Dataset001_x/nnUNetTrainer__nnUNetPlans__3d_fullres, a MONAI "
            "Bundle, or a model of Auto3DSeg; unpack archives first",
            source=folder,
        )
    models = list(itertools.islice(_find_models(folder), _MOST_FOLDERS))
    fitting = [
        model
        for model in models
        if not configuration or model.configuration == configuration
    ]
    if len(fitting) == 1:
        return fitting[0]
    if not models:
        raise MedsegError(
            "no trained model was found here: of nnU-Net v2, a folder "
            "trainer__plans__configuration with plans.json, dataset.json and fold_0; of Auto3DSeg, "
            "model.pt; or a MONAI Bundle with configs/inference.json",
            source=folder,
        )
    listed = _list_choices(fitting or models, folder)
    if not fitting:
        raise MedsegError(
            f"none of the {len(models)} trained models here has the configuration "
            f"'{configuration}'",
            source=folder,
            detail=listed,
        )
    raise MedsegError(
        f"{len(fitting)} trained models are here; give the folder of one of them, or "
        "--configuration where that tells them apart",
        source=folder,
        detail=listed,
    )


def choose_folds(
    model: TrainedModel, wanted: str, checkpoint: str
) -> tuple[str, ...]:
    """Return the folds to import.

    Args:
        model: The model.
        wanted: Numbers with commas between, ``all`` for the fold of this name (trained on all
            cases), or nothing: all that are there, as nnU-Net predicts by default.
        checkpoint: ``final`` or ``best``.

    Raises:
        MedsegError: If one is not there, or none is.
    """
    there = model.list_folds(checkpoint)
    listed = ", ".join(there) or "none"
    if not wanted:
        numbered = tuple(fold for fold in there if fold != _ALL)
        folds = numbered or there
    else:
        folds = tuple(part.strip() for part in wanted.split(","))
    absent = [fold for fold in folds if fold not in there]
    if absent or not folds:
        raise MedsegError(
            f"--folds takes folds that hold checkpoint_{checkpoint}.pth, such as 0,1 or all; "
            f"here: {listed}",
            source=model.folder,
        )
    if len(set(folds)) < len(folds):
        raise MedsegError(f"--folds names a fold twice; here: {listed}")
    return folds


def _find_models(folder: Path, level: int = 0) -> Iterator[TrainedModel]:
    """Yield the models in a folder and below; links are not followed."""
    model = _as_model(folder)
    if model is not None:
        yield model
        return
    if level == _MOST_LEVELS:
        return
    for inner in _list_folder(folder):
        if explain_unreadable(inner, by_name=True):
            continue
        if inner.is_dir() and not inner.is_symlink():
            yield from _find_models(inner, level + 1)


def _list_folder(folder: Path) -> list[Path]:
    """Return what is in a folder; nothing of one that may not be read."""
    try:
        return sorted(itertools.islice(folder.iterdir(), _MOST_FOLDERS))
    except PermissionError:
        return []


def _as_model(folder: Path) -> TrainedModel | None:
    if not ((folder / PLANS).is_file() and (folder / DATASET).is_file()):
        return None
    # A folder that was renamed says its configuration in its checkpoints alone.
    parts = folder.resolve().name.split("__")
    trainer, plans, configuration = parts if len(parts) == 3 else ("", "", "")
    return TrainedModel(folder, trainer, plans, configuration)


def _list_choices(models: Sequence[TrainedModel], folder: Path) -> str:
    names = [model.folder.relative_to(folder).as_posix() for model in models]
    shown = ", ".join(names[:_MOST_LISTED])
    return f"{shown}, …" if len(names) > _MOST_LISTED else shown
