"""``medseg plan`` prints what was planned, and why."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.cli import call

import medseg
from medseg.cli.plan import _choose_files
from medseg.errors import MedsegError
from medseg.testing import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("plan") / "data",
        6,
        shape=(24, 20, 16),
        spacing=9.0,
    )


def test_the_command_writes_both_and_explains(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [
        "-o",
        tmp_path / "b.json",
        "--dims",
        "both",
        "--explain",
        "--no-measure",
        "--device",
        "cpu",
    ]
    assert call(monkeypatch, "plan", data, *options) == 0
    dims = {
        n: json.loads((tmp_path / f"b-{n}d.json").read_text())["network"][
            "dims"
        ]
        for n in "23"
    }
    assert dims == {"2": 2, "3": 3}
    out = capsys.readouterr().out
    assert "training.patch" in out
    assert "6 cases; 2 labels: liver, kidney" in out


def test_the_reasons_of_a_bundle_are_printed_again(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "bundle.json"
    medseg.plan(data, out, device="cpu")
    assert call(monkeypatch, "plan", "--explain", out) == 0
    assert "training.patch" in capsys.readouterr().out
    assert call(monkeypatch, "plan", "--explain", out, "--budget", "5m") == 2
    assert "no other option" in capsys.readouterr().err
    assert call(monkeypatch, "plan", out, "-o", tmp_path / "other.json") == 2
    assert "is a bundle, not data" in capsys.readouterr().err
    content = json.loads(out.read_text())
    out.write_text(json.dumps({**content, "notes": {}}))
    assert call(monkeypatch, "plan", "--explain", out) == 2
    assert "notes are empty" in capsys.readouterr().err


def test_dims_choose_the_files() -> None:
    out = Path("a/bundle.json")
    assert _choose_files(out, None) == {out: None}
    assert _choose_files(out, "2") == {out: 2}
    assert _choose_files(out, "both") == {
        Path("a/bundle-2d.json"): 2,
        Path("a/bundle-3d.json"): 3,
    }
    with pytest.raises(MedsegError, match="--dims takes 2, 3 or both; got '4'"):
        _choose_files(out, "4")


def test_it_says_how_long_training_takes_here_and_how_much_memory(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--dims", "2", "--device", "cpu"]
    assert call(monkeypatch, "plan", data, "-o", "a.json", *options) == 0
    out = capsys.readouterr().out
    assert re.search(r"measured on cpu: a step takes .* s \(.* to .* in", out)
    assert re.search(r"training takes about .*, estimated from that", out)
    assert re.search(r"measured: memory grew by .* GB", out)
    content = json.loads((tmp_path / "a.json").read_text())
    assert "cost" not in content
    options += ["--json"]
    assert call(monkeypatch, "plan", data, "-o", "b.json", *options) == 0
    (planned,) = json.loads(capsys.readouterr().out)
    assert planned["cases"] == 6
    assert planned["labels"] == ["liver", "kidney"]
    assert planned["training"]["seconds"] > 0
    assert len(planned["training"]["step_seconds"]) >= 1


def test_labels_are_named_in_one_text_or_several(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--no-measure", "--device", "cpu"]
    forms = {
        "a.json": ["--labels", "1=leber,2=niere"],
        "b.json": ["--labels", "1=leber", "--labels", "niere=2"],
        "c.json": ["--labels", "leber=1;2=niere"],
    }
    for file, labels in forms.items():
        assert (
            call(monkeypatch, "plan", data, "-o", file, *labels, *options) == 0
        )
        named = json.loads((tmp_path / file).read_text())["labels"]
        assert [label["name"] for label in named] == ["leber", "niere"]
