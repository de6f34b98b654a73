"""The run folder: what a training leaves, and what it needs to go on after being killed.

Everything is written whole or not at all, and weights are read without running pickled code.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from medseg.tools.files import whole_file, write_whole
from medseg.words.errors import CheckpointError, OutputError

Weights = dict[str, torch.Tensor]

# What torch raises on files that are torn, flipped or forged.
_DAMAGE = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


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
    def is_run(self) -> bool:
        """Whether a training began here."""
        return self.run.is_file()

    @property
    def is_finished(self) -> bool:
        """Whether the training here ended well."""
        return self.metrics.is_file()

    def refuse_full(self) -> None:
        """Make sure that a new run would overwrite nothing.

        Raises:
            OutputError: If the folder holds something already, or is a file.
        """
        if self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir())):
            raise OutputError(
                f"{self.path} is not empty; give another --out, or --resume to continue its run"
            )

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Note what a resume needs to know: identity, data folder, fold."""
        write_whole(self.run, json.dumps(dict(facts), indent=2) + "\n")

    def facts(self) -> dict[str, Any]:
        """Return what ``begin`` noted.

        Raises:
            CheckpointError: If no run began here, or the note is damaged.
        """
        if not self.is_run:
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
        _save(self.checkpoint, dict(state))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the last checkpoint, or ``None`` if the run was killed before the first.

        Raises:
            CheckpointError: If the file is damaged.
        """
        if not self.checkpoint.is_file():
            return None
        found = _load(self.checkpoint)
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
        _save(file or self.weights, {name: value.detach().cpu() for name, value in weights.items()})


def load_weights(path: Path) -> Weights:
    """Read a state dict without running pickled code.

    Args:
        path: A file by ``torch.save``: a state dict, or a dict that holds one under ``model``.

    Raises:
        CheckpointError: If it is absent, damaged, or holds anything but tensors.
    """
    found = _load(path)
    if isinstance(found, dict) and isinstance(found.get("model"), dict):
        found = found["model"]
    if not (
        isinstance(found, dict)
        and found
        and all(isinstance(v, torch.Tensor) for v in found.values())
    ):
        raise CheckpointError(f"{path.name} holds no weights: a dict of tensors is needed")
    return {str(name): value for name, value in found.items()}


def _save(path: Path, content: dict[str, Any]) -> None:
    with whole_file(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OutputError(
                f"cannot write {path}: {_first_line(error)}; is the disk full?"
            ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


_FOLDER = 0x10
"""Mark of a folder in a zip file's attributes."""


def _check_sums(path: Path) -> None:
    # Torch does not compare the checksums it writes, and a flipped bit is a wrong weight.
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as records:
        odd = (
            one.filename
            for one in records.infolist()
            # Torch reads uninitialised memory where a record is packed or marked as a folder.
            if one.compress_size != one.file_size or one.external_attr & _FOLDER
        )
        torn = next(odd, None) or records.testzip()
    if torn is not None:
        raise ValueError(f"the size or checksum of {torn} is wrong")


def _load(path: Path) -> Any:
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is no file")
    try:
        _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} holds more than weights, which could run code, and was not opened"
        ) from error
    except _DAMAGE as error:
        raise CheckpointError(f"{path.name} is damaged: {_first_line(error)}") from error
