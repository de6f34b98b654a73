"""The run folder: what a training run leaves, and what it needs to resume after being killed.

Files are written atomically, and weights are read without running pickled code.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from medseg._support.files import PART, write_atomically
from medseg._support.folders import refuse_file
from medseg._support.platform.locks import LockedError, lock_folder
from medseg.bundle.weights import load_tensors, save_tensors
from medseg.errors import CheckpointError, OutputError

_INFO_TYPES = {"run_id": str, "data": str, "fold": int | str | None}
"""What ``run.json`` holds at least, and of which type."""


class RunFolder:
    """The paths of one run, and how its files are written and read.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bundle = path / "bundle.json"
        self.info = path / "run.json"
        self.weights = path / "models" / "model.pt"
        self.checkpoint = path / "checkpoints" / "last.pt"
        self.speed_trials = path / "checkpoints" / "speed.json"
        self.metrics = path / "metrics.json"
        self.curves = path / "curves.png"
        self.previews = path / "previews"
        self.card = path / "docs" / "README.md"

    @property
    def has_begun(self) -> bool:
        """Whether a training run began here."""
        return self.info.is_file()

    @property
    def was_killed_at_birth(self) -> bool:
        """Whether a run began here and was killed before anything but its information was there."""
        has_more = self.bundle.exists() or self.checkpoint.exists()
        return self.has_begun and not has_more

    @property
    def is_finished(self) -> bool:
        """Whether the training run here is complete."""
        return self.metrics.is_file()

    def require_empty(self) -> None:
        """Make sure that a new run would overwrite nothing.

        Raises:
            OutputError: If the folder is not empty, or is a file.
        """
        refuse_file(self.path)
        is_empty = not self.path.exists()
        if self.path.is_dir():
            # What was half-written as a run was killed is of no use to anybody.
            is_empty = all(
                file.name.startswith(PART) for file in self.path.iterdir()
            )
        if not is_empty:
            raise OutputError(
                "the run folder is not empty; give another --out, or --resume to continue its run",
                source=self.path,
            )

    def claim(self) -> RunFolder:
        """Make the folder; where another run has it already, one with a number behind its name.

        The system makes a folder in one step, so that of two runs that begin at the same moment
        only one has it.

        Raises:
            OutputError: If it cannot be made.
        """
        path = self.path
        for number in itertools.count(2):
            try:
                path.mkdir(parents=True)
                return RunFolder(path)
            except FileExistsError as error:
                if not path.exists():  # what its parent is called is no folder
                    raise _make_folder_error(path, error) from error
                path = self.path.with_name(f"{self.path.name}-{number}")
            except OSError as error:
                raise _make_folder_error(path, error) from error
        raise AssertionError("numbers do not end")

    def release(self) -> None:
        """Remove the folder where nothing was put into it, and the one above likewise."""
        with contextlib.suppress(OSError):
            self.path.rmdir()
            self.path.parent.rmdir()

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Write what a resume needs to know: identity, data folder, fold."""
        text = json.dumps(dict(info), indent=2)
        write_atomically(self.info, text + "\n")

    def read_info(self) -> dict[str, Any]:
        """Return what ``write_info`` wrote.

        Raises:
            CheckpointError: If no run began here, or the file is damaged.
        """
        if not self.has_begun:
            raise CheckpointError(
                "the folder holds no run to resume; start one without --resume",
                source=self.path,
            )
        try:
            text = self.info.read_text(encoding="utf-8")
            info: dict[str, Any] = json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(
                "run.json is damaged; start a new run",
                source=self.info,
                detail=str(error),
            ) from error
        if not _is_run_info(info):
            keys = ", ".join(_INFO_TYPES)
            raise CheckpointError(
                f"run.json is damaged: it must hold the run's {keys}; start a new run",
                source=self.info,
            )
        return info

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder; a killed process frees it.

        Raises:
            CheckpointError: If another process is training here, or the folder cannot be locked.
        """
        try:
            lock = lock_folder(self.path)
        except LockedError as error:
            raise CheckpointError(
                "another process is training in this folder; wait for it or stop it",
                source=self.path,
            ) from error
        except OSError as error:
            raise CheckpointError(
                "the run folder cannot be locked against other processes; check its "
                "permissions, or train on another disk",
                source=self.path,
                detail=error.strerror,
            ) from error
        with lock:
            yield

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Save tensors and plain values atomically; the former checkpoint is replaced."""
        save_tensors(self.checkpoint, dict(state))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the last checkpoint, or ``None`` if the run was killed before the first.

        Raises:
            CheckpointError: If the file is damaged.
        """
        if not self.checkpoint.is_file():
            return None
        state = load_tensors(self.checkpoint)
        if not isinstance(state, dict):
            raise CheckpointError(
                "the file is not a checkpoint of a training run",
                source=self.checkpoint,
            )
        return state

    def snapshot(self, step: int) -> Path:
        """Return the file for the network's weights after a step of its training."""
        return self.checkpoint.parent / f"snapshot_{step:09d}.pt"

    def save_weights(
        self, weights: Mapping[str, torch.Tensor], file: Path | None = None
    ) -> None:
        """Save a state dict.

        Args:
            weights: The weights, on any device.
            file: Where to; ``models/model.pt``, the best weights of the network, unless given.
        """
        on_cpu = {}
        for name, value in weights.items():
            on_cpu[name] = value.detach().cpu()
        save_tensors(file or self.weights, on_cpu)


def _make_folder_error(path: Path, error: OSError) -> OutputError:
    return OutputError(
        "the run folder cannot be made; give another --out",
        source=path,
        detail=error.strerror,
    )


def _is_run_info(info: object) -> bool:
    if not isinstance(info, dict):
        return False
    for key, expected in _INFO_TYPES.items():
        if key not in info:
            return False
        if not isinstance(info[key], expected):
            return False
    fold = info["fold"]
    return fold == "all" or not isinstance(fold, str)
