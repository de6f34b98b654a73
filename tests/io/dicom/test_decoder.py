"""The decoding process: one request in, frames or an error out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid as uids
from support import dicom as made

from medseg.io.dicom import decoder, pixels

DECODER = Path(pixels.__file__).with_name("decoder.py")
KEYWORDS = [
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
]
KEYWORDS += [
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
]


def ask(files: list[list[object]], memory: int = 4 << 30) -> bytes:
    request = {
        "memory": memory,
        "seconds": 30,
        "keywords": KEYWORDS,
        "files": files,
    }
    answer = subprocess.run(
        [sys.executable, "-P", DECODER],
        input=json.dumps(request).encode(),
        capture_output=True,
        check=False,
    )
    return answer.stdout


def test_frames_come_in_the_order_asked_for(tmp_path):
    ds = made.enhanced()
    ds.compress(uids.RLELossless)
    made.save(tmp_path, [ds])
    answer = ask([[str(tmp_path / "IM0000"), [2, 0]]])
    for k in (2, 0):
        head, answer = answer.split(b"\n", 1)
        assert json.loads(head) == {"shape": [5, 6], "dtype": "<u2"}
        stored = np.frombuffer(answer[:60], "<u2").reshape(5, 6)
        assert np.array_equal(stored.T, made.voxels()[:, :, k])
        answer = answer[60:]
    assert answer == b""


def test_an_error_is_named_by_its_class_alone_and_comes_last(tmp_path):
    lost = str(tmp_path / "MUSTERFRAU")
    answer = ask([[lost, [0]], [lost, [0]]])
    assert json.loads(answer) == {"error": "FileNotFoundError"}


def test_more_memory_than_allowed_ends_the_decoder_and_not_us(tmp_path):
    ds = made.enhanced()
    ds.compress(uids.RLELossless)
    made.save(tmp_path, [ds])
    answer = ask([[str(tmp_path / "IM0000"), [0]]], memory=1 << 20)
    assert b"shape" not in answer


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limits")
def test_macos_refuses_a_limit_of_memory_and_the_others_are_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import resource

    def setrlimit(kind: int, limits: tuple[int, int]) -> None:
        if kind == resource.RLIMIT_AS:
            raise ValueError("current limit exceeds maximum limit")
        limited[kind] = limits

    limited: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    decoder._limit(1000, 7)
    assert limited == {
        resource.RLIMIT_CPU: (7, 7),
        resource.RLIMIT_CORE: (0, 0),
    }
