"""The run folder: what a training leaves, and what it needs to go on after being killed.

Everything is written whole or not at all, and weights are read without running pickled code.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from medseg._support.files import write_atomically
from medseg.bundle.weights import load_tensors, save_tensors
from medseg.errors import CheckpointError, OutputError


class RunFolder:
    """The paths of one run, and how its files are written and read.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bundle = path / "bundle.json"
        self.run = path / "run.json"
        self.weights = path / "models" / "model.pt"
        self.refiner = path / "models" / "refiner.pt"
        self.critic = path / "models" / "critic.pt"
        self.checkpoint = path / "checkpoints" / "last.pt"
        self.metrics = path / "metrics.json"
        self.curves = path / "curves.png"
        self.previews = path / "previews"
        self.card = path / "docs" / "README.md"

    @property
    def has_begun(self) -> bool:
        """Whether a training began here."""
        return self.run.is_file()

    @property
    def is_finished(self) -> bool:
        """Whether the training here ended well."""
        return self.metrics.is_file()

    def require_empty(self) -> None:
        """Make sure that a new run would overwrite nothing.

        Raises:
            OutputError: If the folder holds something already, or is a file.
        """
        if self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir())):
            raise OutputError(
                f"{self.path} is not empty; give another --out, or --resume to continue its run"
            )

    def write_info(self, facts: Mapping[str, Any]) -> None:
        """Note what a resume needs to know: identity, data folder, fold."""
        write_atomically(self.run, json.dumps(dict(facts), indent=2) + "\n")

    def read_info(self) -> dict[str, Any]:
        """Return what ``begin`` noted.

        Raises:
            CheckpointError: If no run began here, or the note is damaged.
        """
        if not self.has_begun:
            raise CheckpointError(f"{self.path} holds no run to resume; start one without --resume")
        try:
            found = json.loads(self.run.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.run} is damaged: {error}") from error
        kinds = {"run_id": str, "data": str, "fold": int | str | None}
        if (
            not isinstance(found, dict)
            or not all(
                name in found and isinstance(found[name], kind) for name, kind in kinds.items()
            )
            or (isinstance(found["fold"], str) and found["fold"] != "all")
        ):
            raise CheckpointError(
                f"{self.run} is damaged: it must name the run's {', '.join(kinds)}"
            )
        return found

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder; a killed process frees it.

        Raises:
            CheckpointError: If another process trains here now.
        """
        with self.run.open() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise CheckpointError(
                    f"another process is training in {self.path}; wait for it or stop it"
                ) from error
            yield

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Keep tensors and plain values in one step; the former checkpoint is replaced."""
        save_tensors(self.checkpoint, dict(state))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the last checkpoint, or ``None`` if the run was killed before the first.

        Raises:
            CheckpointError: If the file is damaged.
        """
        if not self.checkpoint.is_file():
            return None
        found = load_tensors(self.checkpoint)
        if not isinstance(found, dict):
            raise CheckpointError(f"{self.checkpoint} is no checkpoint of a training")
        return found

    def snapshot(self, step: int) -> Path:
        """Return where the weights after a step are kept for a refiner's bank."""
        return self.checkpoint.parent / f"snapshot_{step:09d}.pt"

    def snapshots(self) -> list[Path]:
        """Return the snapshots there are, by step."""
        return sorted(self.checkpoint.parent.glob("snapshot_*.pt"))

    def save_weights(self, weights: Mapping[str, torch.Tensor], file: Path | None = None) -> None:
        """Keep weights, the best ones of the network unless a file is given, as a state dict."""
        save_tensors(
            file or self.weights, {name: value.detach().cpu() for name, value in weights.items()}
        )
