"""The commands and units of the guide to nightly batches do what it says."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import dicom as made
from support.cli import call

from medseg._support.threads import VARIABLES
from medseg.cli.output import BUSY, FAILED, INTERRUPTED, INVALID
from medseg.inference.ledger import read_ledger

GUIDE = (
    Path(__file__).resolve().parents[2] / "docs" / "how-to/nightly-batches.md"
)
TEXT = GUIDE.read_text("utf-8")
PROGRAM = "/opt/medseg/.venv/bin/medseg"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)


def commands() -> Iterator[list[str]]:
    """Yield the arguments of every ``medseg segment`` that the guide shows."""
    joined = TEXT.replace("\\\n", " ")
    for line in re.findall(r"medseg(?:\.exe)? (segment .*)", joined):
        if "--allow-empty" in line and "(" not in line:
            text, _, _ = line.partition(" 2>>")
            yield shlex.split(text, posix="\\" not in text)


def test_every_command_of_the_guide_runs(
    untrained_bundle: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # The option for threads sets them for libraries that are loaded later.
    for name in VARIABLES:
        monkeypatch.setenv(name, "1")
    bundle = untrained_bundle()
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    shown = list(commands())
    assert len(shown) == 4
    for number, arguments in enumerate(shown):
        made.save(inbox / f"{number}", made.series(name=f"{number}"))
        made.save(inbox / "mr", made.series(name="mr", Modality="MR"))
        order, _, _, _, *options = arguments
        own = []
        for option in options:
            is_path = "/" in option or "\\" in option
            name = re.split(r"[/\\]", option)[-1]
            own.append(tmp_path / name if is_path else option)
        code = call(
            monkeypatch, order, bundle, inbox, tmp_path / "results", *own
        )
        assert (code, capfd.readouterr()) == (0, ("", ""))
    entries, _ = read_ledger(tmp_path / "results/ledger.jsonl")
    states = sorted(entry.state for entry in entries.values())
    assert states == [*("done" for _ in shown), "skipped"]
    log = (tmp_path / "segment.log").read_text()
    assert log.count("ends with exit code 0") == len(shown)
    assert (tmp_path / "sources.csv").is_file()


def test_the_guide_names_the_exit_codes() -> None:
    codes = re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)
    assert [int(code) for code in codes] == [
        *(0, FAILED, INVALID, BUSY, INTERRUPTED)
    ]


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    names = re.findall(r"/etc/systemd/system/([\w@.-]+)", TEXT)
    files = []
    for name, unit in zip(names, blocks("ini"), strict=True):
        file = tmp_path / name
        file.write_text(unit.replace(PROGRAM, "/bin/true"))
        files.append(file)
    done = subprocess.run(
        ["systemd-analyze", "verify", *files], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow  # two programs that talk, and a study that is waited for
def test_the_receiver_moves_whole_studies_to_the_inbox(tmp_path: Path) -> None:
    if shutil.which("storescp") is None or shutil.which("storescu") is None:
        pytest.skip("DCMTK is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    (block,) = (each for each in blocks("sh") if "storescp" in each)
    command = block.replace("/srv", str(tmp_path)).replace("11112", port)
    command = command.replace("timeout 60", "timeout 1").replace("--fork", "")
    for name in ("incoming", "inbox"):
        (tmp_path / name).mkdir()
    shown = made.save(tmp_path / "sent", made.series())
    receiver = subprocess.Popen(
        ["/bin/sh", "-c", command.replace("&& storescp", "&& exec storescp")],
        stderr=subprocess.DEVNULL,
    )
    send = ["storescu", "--scan-directories", "127.0.0.1", port, str(shown)]
    try:
        deadline = time.monotonic() + 30
        for _ in range(2):  # a study that is sent again replaces itself
            while subprocess.run(send, capture_output=True).returncode:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            while list((tmp_path / "incoming").iterdir()) or not list(
                (tmp_path / "inbox").rglob("CT.*")
            ):
                assert time.monotonic() < deadline
                time.sleep(0.1)
    finally:
        receiver.kill()
        receiver.wait()
    (study,) = (tmp_path / "inbox").iterdir()
    assert len(list(study.iterdir())) == len(list(shown.iterdir()))
