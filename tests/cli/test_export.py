"""``medseg export`` prints how far label maps agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.bundles import made_spec, trained_bundle
from support.cli import call

from medseg.testing import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("cli") / "data",
        3,
        shape=(24, 20, 16),
        spacing=9.0,
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_bundle(
        tmp_path_factory.mktemp("cli-bundle") / "trained", made_spec()
    )


def test_export_says_where_and_how_far_label_maps_agree(
    bundle: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, scans = tmp_path / "out", data / "imagesTr"
    assert (
        call(
            monkeypatch,
            "export",
            bundle,
            out,
            "--to",
            "openvino",
            "--scans",
            scans,
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert f"Exported: {out}" in shown
    assert "labelled voxels differ from PyTorch's (3 scans)" in shown
    asked = [
        "--backend",
        "openvino",
        "--precision",
        "fp32",
        "--mirror",
        "--no-fold-ensemble",
    ]
    assert (
        call(
            monkeypatch,
            "segment",
            out,
            scans,
            tmp_path / "maps",
            *asked,
            "--json",
        )
        == 0
    )
    entries = json.loads(capsys.readouterr().out)
    assert [entry["arithmetic"] for entry in entries] == ["openvino fp32"] * 3
    assert call(monkeypatch, "export", bundle, out, "--to", "monai") == 2
    assert "is not empty" in capsys.readouterr().err
