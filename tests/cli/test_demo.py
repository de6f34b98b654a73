"""``medseg demo``."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli import call

from medseg.commands.demo import clear_demo


def test_demo_leaves_everything_to_look_at(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = Path(__file__).resolve().parents[2] / "bundles" / "phantom_ct"
    out = tmp_path / "demo"
    code = call(
        monkeypatch,
        *("demo", "--out", out, "--bundle", source),
        *("--set", "training.steps=5", "--set", "training.warmup_steps=0"),
        # A third of the time would go into the network, which is not what is looked at.
        *("--set", "network.channels=[4,8,8]"),
    )
    assert code == 0
    shown = capsys.readouterr().out
    for path in (
        "segmented.png",
        "run/curves.png",
        "run/docs/README.md",
        "mlflow.db",
    ):
        assert (out / path).is_file()
        assert str(out / path) in shown
    assert len(list((out / "results").glob("phantom_*.nii.gz"))) == 4
    clear_demo(out)  # so that a second demo may replace what the first one left
    assert not out.exists()


def test_demo_refuses_a_folder_with_other_things(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keep = tmp_path / "thesis.txt"
    keep.write_text("years of work")
    assert call(monkeypatch, "demo", "--out", tmp_path) == 2
    assert call(monkeypatch, "demo", "--out", keep) == 2
    assert "this is a file, and a folder" in capsys.readouterr().err
    assert keep.read_text() == "years of work"
