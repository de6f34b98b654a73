"""The command line, called in-process; start-up measured in processes of its own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.bundles import content, made_spec, trained_bundle, write_json

from medseg import cli
from medseg.cli.output import print_json
from medseg.commands.demo import _clear
from medseg.testing import write_dataset


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Call ``medseg`` with arguments; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["medseg", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as done:
        return int(done.code or 0)
    return 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("cli") / "data", 3, shape=(24, 20, 16), spacing=9.0
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_bundle(tmp_path_factory.mktemp("cli-bundle") / "trained", made_spec())


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys; sys.argv = ['medseg', '--help']\n"
        "from medseg import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'monai', 'mlflow', 'numpy', 'pydantic', 'nibabel', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Usage: medseg" in done.stdout


def test_help_starts_within_three_times_typer() -> None:
    def fastest(*command: str) -> float:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
            times.append(time.perf_counter() - began)
        return min(times)

    ours, typer = fastest("-m", "medseg", "--help"), fastest("-c", "import typer")
    assert ours < 3 * typer
    assert ours < 0.5


@pytest.mark.parametrize(
    "command",
    [
        "plan",
        "train",
        "segment",
        "evaluate",
        "review",
        "label",
        "export",
        "check",
        "demo",
        "schema",
    ],
)
def test_every_command_explains_itself(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, command, "-h") == 0
    assert f"Usage: medseg {command}" in capsys.readouterr().out


def test_train_segment_evaluate_end_to_end(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made = content(data={"folds": 3}, preprocessing={"spacing_mm": [9, 9, 9]})
    bundle = write_json(tmp_path, made)
    run = tmp_path / "runs" / "made_up"
    assert call(monkeypatch, "train", bundle, "--data", data, "--device", "cpu") == 0
    out = capsys.readouterr().out
    (folder,) = run.iterdir()
    assert f"Trained bundle: runs/made_up/{folder.name}" in out
    assert (tmp_path / "runs" / "mlflow.db").is_file()
    scans = data / "imagesTr"
    assert call(monkeypatch, "segment", folder, scans, "out", "--device", "cpu") == 0
    assert "3 of 3 scans segmented" in capsys.readouterr().out
    assert call(monkeypatch, "evaluate", "out", data, "-o", "scores", "--bundle", folder) == 0
    table = capsys.readouterr().out
    assert "liver" in table
    assert "Dice" in table
    assert (tmp_path / "scores" / "evaluation.csv").is_file()


def test_an_evaluation_tells_machines_and_people_of_lesions_and_differences(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = data / "labelsTr"
    asked = ("evaluate", masks, masks, "--lesions", "--versus", masks)
    assert call(monkeypatch, *asked) == 0
    out = capsys.readouterr().out
    assert "Lesions of label 1: " in out
    assert "minus the others': +0.0000" in out
    assert call(monkeypatch, "evaluate", masks, masks, "--json", *asked[3:]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {one["n"] for one in said["differences"]} == {3}
    assert said["lesions"]["label 1"]["there"] >= 3
    assert said["faults"] == []


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [math.nan, (1.5, math.inf)], "b": 2, "c": True})
    assert json.loads(capsys.readouterr().out) == {"a": [None, [1.5, None]], "b": 2, "c": True}


def test_a_failed_scan_is_exit_code_1_and_named(
    bundle: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    good = (data / "imagesTr" / "phantom_000.nii.gz").read_bytes()
    (scans / "good.nii.gz").write_bytes(good)
    (scans / "torn.nii.gz").write_bytes(good[: len(good) // 2])
    assert call(monkeypatch, "segment", bundle, scans, tmp_path / "out", "--device", "cpu") == 1
    out = capsys.readouterr().out
    assert "1 of 2 scans segmented" in out
    assert "torn" in out
    assert (tmp_path / "out" / "good.nii.gz").is_file()
    assert not (tmp_path / "out" / "torn.nii.gz").exists()


def test_a_wrong_bundle_is_exit_code_2_with_every_fault_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_json(tmp_path, content(training={"lr": 1, "steps": 0}))
    assert call(monkeypatch, "train", bundle) == 2
    error = capsys.readouterr().err
    assert error.startswith("medseg: ")
    assert "training.lr: is no field" in error
    assert "training.steps" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "arguments",
    [
        ("train",),
        ("train", "nowhere.json"),
        ("train", "bundle.json", "--fold", "x"),
        ("train", "bundle.json", "--device", "abacus"),
        ("train", "bundle.json", "--set", "training.steps"),
        ("segment", "bundle.json", "nowhere", "out"),
        ("segment", "bundle.json", ".", "out", "--precision", "fp99"),
        ("evaluate", "nowhere", "elsewhere"),
        ("export", "bundle.json", "out", "--to", "monai"),
        ("export", "bundle.json", "out", "--to", "paper"),
        ("nonsense",),
    ],
)
def test_a_wrong_call_is_exit_code_2_and_one_clean_message(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path, content())
    assert call(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.strip()
    assert "Traceback" not in captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.json"]


def test_check_tells_machines_in_json(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_json(tmp_path, content(labels=[{"index": 1, "name": "liver"}]))
    assert call(monkeypatch, "check", bundle, "--data", data, "--json") == 2
    report = json.loads(capsys.readouterr().out)
    assert report["cases"] == 0
    assert len(report["faults"]) == 3
    assert "2 (" in report["faults"][0]["what"]


def test_check_says_when_all_is_well(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_json(tmp_path, content())
    assert call(monkeypatch, "check", bundle, "--data", data) == 0
    assert "no fault; 3 good cases" in capsys.readouterr().out


def test_export_says_where_and_how_far_label_maps_agree(
    bundle: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, scans = tmp_path / "out", data / "imagesTr"
    assert call(monkeypatch, "export", bundle, out, "--to", "openvino", "--scans", scans) == 0
    shown = capsys.readouterr().out
    assert f"Exported: {out}" in shown
    assert "labelled voxels differ from PyTorch's (3 scans)" in shown
    asked = ["--backend", "openvino", "--precision", "fp32", "--mirror", "--no-fold-ensemble"]
    assert call(monkeypatch, "segment", out, scans, tmp_path / "maps", *asked, "--json") == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["arithmetic"] for entry in entries] == ["openvino fp32"] * 3
    assert call(monkeypatch, "export", bundle, out, "--to", "monai") == 2
    assert "is not empty" in capsys.readouterr().err


def test_schema_is_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "schema") == 0
    assert json.loads(capsys.readouterr().out)["title"] == "BundleSpec"


def test_demo_leaves_everything_to_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(__file__).resolve().parents[2] / "bundles" / "phantom_ct"
    out = tmp_path / "demo"
    code = call(
        monkeypatch,
        *("demo", "--out", out, "--bundle", source),
        *("--set", "training.steps=5", "--set", "training.warmup_steps=0"),
    )
    assert code == 0
    shown = capsys.readouterr().out
    for path in ("segmented.png", "run/curves.png", "run/docs/README.md", "mlflow.db"):
        assert (out / path).is_file()
        assert str(out / path) in shown
    assert len(list((out / "results").glob("phantom_*.nii.gz"))) == 4
    _clear(out)  # so that a second demo may replace what the first one left
    assert not out.exists()


def test_demo_refuses_a_folder_with_other_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = tmp_path / "thesis.txt"
    keep.write_text("years of work")
    assert call(monkeypatch, "demo", "--out", tmp_path) == 2
    assert keep.read_text() == "years of work"
