"""The weights of a MONAI Bundle: which file its config loads, and what that holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from medseg.bundle.foreign_checkpoints import read_foreign_checkpoint
from medseg.errors import CheckpointError
from medseg.interop.monai_config.config import Config, Unknown
from medseg.interop.state_dicts import Weights, parse_state_dict

MODELS = "models"
RUN = ("initialize", "run", "evaluating", "inferring")
"""Entries whose expressions MONAI runs."""

_DEFAULT_WEIGHTS = f"{MODELS}/model.pt"

_CALL = re.compile(r"\$@(\w+)\(@evaluator\)")

_LOADER = "CheckpointLoader"


def read_weights(config: Config, folder: Path) -> tuple[Path, Weights]:
    """Return the file of weights that the config loads, and what it holds."""
    path, key = _DEFAULT_WEIGHTS, "model"
    for loader in _list_loaders(config):
        loads = loader.get("load_dict")
        if isinstance(loads, dict) and len(loads) == 1:
            key = next(iter(loads))
        given = loader.get("load_path")
        if isinstance(given, Unknown) and _holds_several(folder):
            raise config.refuse(f"{_LOADER}::load_path", given.text[:100])
        if isinstance(given, str):
            path = given
    file = _locate_weights(folder, path)
    content: Any = read_foreign_checkpoint(file)
    if isinstance(content.get(key), dict):
        content = content[key]
    return file, parse_state_dict(content, file, "weights")


def loads_weights(text: str, config: Config) -> bool:
    """Tell whether an expression calls what loads weights, and nothing else."""
    call = _CALL.fullmatch(text)
    called = None if call is None else config.get(call.group(1))
    return isinstance(called, dict) and _is_loader(called)


def _is_loader(component: Mapping[str, Any]) -> bool:
    target = str(component.get("_target_", ""))
    return target in (_LOADER, f"monai.handlers.{_LOADER}")


def _holds_several(folder: Path) -> bool:
    """Tell whether a bundle holds more than one file of weights."""
    inner = (folder / MODELS).glob("*")
    files = [file for file in inner if file.suffix in (".pt", ".pth")]
    return len(files) > 1


def _list_loaders(config: Config) -> Iterator[Mapping[str, Any]]:
    called = []
    for entry in RUN:
        texts = (text for _, text in config.list_texts(entry))
        called += [
            call.group(1) for call in map(_CALL.fullmatch, texts) if call
        ]
    for entry in dict.fromkeys(("handlers", "checkpointloader", *called)):
        found = config.get(entry)
        for item in found if isinstance(found, list) else [found]:
            if isinstance(item, dict) and _is_loader(item):
                yield item


def _locate_weights(folder: Path, path: str) -> Path:
    """Return a file of the bundle, whatever folder its config was written for."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    if ".." in parts or not parts:
        raise CheckpointError(
            "its configuration names weights outside its own folder",
            source=folder,
            detail=path[:200],
        )
    is_inside = not PurePosixPath(path).is_absolute() and ":" not in path
    file = folder.joinpath(*parts) if is_inside else folder
    if not is_inside or not file.is_file():
        file = folder / MODELS / parts[-1]
    if not file.is_file():
        raise CheckpointError(
            "the bundle's weights are not there; download them first, as large_files.yml beside "
            "its configs says, or by python -m monai.bundle download",
            source=file,
        )
    return file
