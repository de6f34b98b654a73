"""The command line as a whole; start-up measured in processes of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.bundles import content, write_json
from support.cli import call
from support.processor_time import measure_python

from medseg.testing import write_dataset

COMMANDS = [
    "download",
    "plan",
    "train",
    "segment",
    "report",
    "evaluate",
    "review",
    "label",
    "user",
    "export",
    "import",
    "calibrate",
    "check",
    "demo",
    "bundles",
    "plugins",
    "schema",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(
        tmp_path_factory.mktemp("cli") / "data",
        3,
        shape=(24, 20, 16),
        spacing=9.0,
    )


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys; sys.argv = ['medseg', '--help']\n"
        "from medseg import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'monai', 'mlflow', 'numpy', 'pydantic', 'nibabel', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Usage: medseg" in done.stdout


def test_help_starts_within_four_times_typer() -> None:
    def fastest(*command: str) -> float:
        """Return seconds of processor time: a busy machine does not count."""
        return min(measure_python(*command) for _ in range(5))

    ours = fastest("-m", "medseg", "--help")
    typer = fastest("-c", "import typer")
    assert ours < 4 * typer
    assert ours < 0.5


def test_every_one_line_help_fits_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call(monkeypatch, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    commands = lines[lines.index("Commands:") + 1 : -2]
    assert [line.split()[0] for line in commands] == COMMANDS
    assert all(
        line.endswith(".") and not line.endswith("..") for line in commands
    )
    assert max(len(line) for line in lines) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, command, "-h") == 0
    assert f"Usage: medseg {command}" in capsys.readouterr().out


def test_train_segment_evaluate_end_to_end(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    made = content(data={"folds": 3}, preprocessing={"spacing_mm": [9, 9, 9]})
    bundle = write_json(tmp_path, made)
    run = tmp_path / "runs" / "made_up"
    assert (
        call(monkeypatch, "train", bundle, "--data", data, "--device", "cpu")
        == 0
    )
    out = capsys.readouterr().out
    (folder,) = run.iterdir()
    assert f"Trained bundle: runs/made_up/{folder.name}" in out
    assert (tmp_path / "runs" / "mlflow.db").is_file()
    scans = data / "imagesTr"
    assert (
        call(monkeypatch, "segment", folder, scans, "out", "--device", "cpu")
        == 0
    )
    assert "3 of 3 scans segmented" in capsys.readouterr().out
    assert (
        call(
            monkeypatch,
            "evaluate",
            "out",
            data,
            "-o",
            "scores",
            "--bundle",
            folder,
        )
        == 0
    )
    table = capsys.readouterr().out
    assert "liver" in table
    assert "Dice" in table
    assert (tmp_path / "scores" / "evaluation.csv").is_file()


def test_a_wrong_bundle_is_exit_code_2_with_every_fault_and_no_traceback(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = write_json(tmp_path, content(training={"lr": 1, "steps": 0}))
    assert call(monkeypatch, "train", bundle) == 2
    error = capsys.readouterr().err
    assert error.startswith("medseg: ")
    assert "training.lr: is not a known field" in error
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


def test_schema_is_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "schema") == 0
    assert json.loads(capsys.readouterr().out)["title"] == "BundleSpec"


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "s3://key:secret@bucket/in"),
        ("evaluate", "here", "gs://secret@bucket/out"),
        ("label", "bundle", "az://container/in?sig=secret"),
        # Folders of these names would be made.
        ("evaluate", "here", "there", "--out=S3:/key:secret@bucket/out"),
        ("demo", "--out", "gcs:/bucket/out?sig=secret"),
    ],
)
def test_commands_for_files_here_refuse_addresses(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *arguments) == 2
    told = capsys.readouterr().err
    assert "segment and report alone take addresses" in told
    assert "secret" not in told
