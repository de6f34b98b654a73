"""Every Python example of the README runs as it stands, in order."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.testing import write_dataset

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(
    r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL
)


def test_every_example_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    untrained_bundle: Callable[..., Path],
) -> None:
    untrained_bundle("demo/run")
    write_dataset(tmp_path / "demo/test", 1)
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) >= 2
    for block in BLOCKS:
        exec(block, {})  # noqa: S102
    scan = nib.load("demo/test/imagesTr/phantom_000.nii.gz")
    labels = nib.load("labels.nii.gz")
    assert labels.shape == scan.shape
    np.testing.assert_array_equal(labels.affine, scan.affine)
