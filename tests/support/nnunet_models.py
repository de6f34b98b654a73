"""Tiny models that nnU-Net itself trained, the scans they segment, and forged copies of them.

``workflows/benchmarks/import/train_nnunet.py --freeze`` made the files; it makes up the scans anew.
"""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

MODELS = Path(__file__).parents[1] / "interop" / "nnunet" / "models"
_SCRIPT = (
    Path(__file__).parents[2]
    / "workflows"
    / "benchmarks"
    / "import"
    / "train_nnunet.py"
)


@cache
def load_script() -> Any:
    """Return the module that made the models."""
    spec = importlib.util.spec_from_file_location("train_nnunet", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def make_scans(
    name: str, folder: Path, grids: Sequence[str]
) -> dict[str, list[Path]]:
    """Make test scans of a model again, as the files that nnU-Net segmented."""
    script = load_script()
    model = next(item for item in script.MODELS if item.name == name)
    scans: dict[str, list[Path]] = {}
    for seed, (grid, place) in enumerate(
        script.list_test_grids(model).items(), start=100
    ):
        if grid not in grids:
            continue
        images, _ = script.make_case(model, seed, *place)
        scans[grid] = []
        for channel, image in enumerate(images):
            file = folder / f"{grid}_{channel:04d}.nii.gz"
            script.save(image, place[1], file)
            scans[grid].append(file)
    return scans


def read_expected(name: str, kind: str) -> dict[str, np.ndarray]:
    """Return nnU-Net's label maps of these scans.

    Args:
        name: The model's.
        kind: ``expected``, as nnU-Net gives them; ``exact``, with its scores added up in float32.
    """
    with np.load(MODELS / name / f"{kind}.npz") as content:
        return dict(content)


def copy_model(name: str, target: Path) -> Path:
    """Copy a results folder to change it; return the model's folder in the copy."""
    source = next((MODELS / name).glob("*__*"))
    return Path(shutil.copytree(source, target / source.name))


def edit_json(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def edit_checkpoint(
    model: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    """Change what a checkpoint holds, and save it as nnU-Net does."""
    file = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    change(content)
    torch.save(content, file)


def write_program(model: Path, *instructions: bytes, storage: int = 16) -> None:
    """Write a checkpoint whose pickle is written by hand, with one record of numbers."""
    file = model / "fold_0" / "checkpoint_final.pth"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(
            "c/data.pkl", b"\x80\x02" + b"".join(instructions) + b"."
        )
        archive.writestr("c/byteorder", b"little")
        archive.writestr("c/data/0", bytes(storage))
        archive.writestr("c/version", b"3\n")


def program_of_tensor(
    numbers: int, offset: int, size: Sequence[int], stride: Sequence[int]
) -> bytes:
    """Return a pickle's instructions for a dict of one tensor, whatever its sizes say."""
    stored = _tuple(
        _text("storage"),
        b"ctorch\nFloatStorage\n",
        _text("0"),
        _text("cpu"),
        _number(numbers),
    )
    arguments = _tuple(
        stored + b"Q",
        _number(offset),
        _tuple(*map(_number, size)),
        _tuple(*map(_number, stride)),
        b"\x89",
        b"ccollections\nOrderedDict\n)R",
    )
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"
    weights = b"}" + _text("encoder.x") + tensor + b"s"
    return b"}" + _text("network_weights") + weights + b"s"


def program_of_call(module: str, name: str, argument: bytes) -> bytes:
    """Return a pickle's instructions that call a function."""
    return f"c{module}\n{name}\n".encode() + argument + b"\x85R"


def text(value: str) -> bytes:
    """Return the instruction that pushes text."""
    return _text(value)


def number(value: int) -> bytes:
    """Return the instruction that pushes an integer of any size."""
    return _number(value)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _number(value: int) -> bytes:
    encoded = pickle.encode_long(value)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def overlap_records(content: bytes) -> bytes:
    """Return an archive in which the last record's place is the first's."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = archive.infolist()
    directory = content.rfind(b"PK\x01\x02")
    assert records[-1].filename.encode() in content[directory:]
    place = directory + 42
    return content[:place] + struct.pack("<I", 0) + content[place + 4 :]
