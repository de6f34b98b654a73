"""``medseg calibrate`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.bundles import made_spec, trained_bundle
from support.cli import call

from medseg.bundle.spec import TrainedSpec
from medseg.bundle.spec_files import write_trained
from medseg.testing import write_dataset


def test_it_says_what_numbers_mean_and_refuses_what_has_no_place(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = write_dataset(tmp_path / "data", 8, shape=(16, 16, 16), spacing=9.0)
    spec = made_spec(inference={"speed": "exact"})
    bundle = trained_bundle(tmp_path / "bundle", spec)
    write_trained(TrainedSpec(made_up=True), bundle)
    common = ["calibrate", str(bundle), "--data", str(data), "--device", "cpu"]
    assert call(monkeypatch, *common) == 2
    assert "--in-place" in capsys.readouterr().err
    common += ["--set", "quality.corrupted_copies=0"]
    out = tmp_path / "out"
    assert call(monkeypatch, *common, str(out)) == 0
    printed = capsys.readouterr().out
    assert f"Calibrated bundle: {out}" in printed
    assert "over 8 cases" in printed
    assert "at or above it in 89 % of scans like these" in printed
    assert call(monkeypatch, *common, "--in-place", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["folder"] == str(bundle.resolve())
    assert content["cases"] == 8
    assert content["keep_largest"] is None
