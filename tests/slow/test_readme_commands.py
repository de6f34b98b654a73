"""The README's commands work as they stand, in their order.

Nothing of the internet is reached: a catalogue of one's own (``MEDSEG_CATALOGUE``) names a server
on this machine, which has some real cases as the Decathlon packs them. Training is short because
a bundle of the user's comes before one of medseg's of the same name.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cli import call
from support.file_servers import FileServer, pack_folder, serve_file

from medseg.bundle.shipped import list_shipped_bundles
from medseg.testing import write_dataset

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(900)]

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCKS = re.findall(
    r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL
)
CASES = 6


def read_commands() -> list[list[str]]:
    commands = []
    for line in "".join(BLOCKS).splitlines():
        program, *arguments = shlex.split(line, comments=True)
        if program == "make":  # what it calls has tests of its own
            continue
        assert program == ".venv/bin/medseg"
        commands.append(arguments)
    return commands


def pack_as_the_decathlon(shared: Path, home: Path) -> bytes:
    """Pack some real cases with a list as the Decathlon's: no folds, no groups."""
    folder = home / "Task04_Hippocampus"
    listed = json.loads((shared / "hippocampus/dataset.json").read_text())
    items = []
    for item in listed["training"][:CASES]:
        kept = {key: item[key] for key in ("image", "label")}
        items.append(kept)
        for file in kept.values():
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(shared / "hippocampus" / file, target)
            target.with_name(f"._{target.name}").write_bytes(b"macOS")
    content = {
        "name": "Hippocampus",
        "tensorImageSize": "3D",
        "licence": "CC-BY-SA 4.0",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "numTraining": CASES,
        "training": items,
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return pack_folder(folder)


@pytest.fixture
def server(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileServer]:
    archive = pack_as_the_decathlon(shared_data, tmp_path / "packed")
    catalogue = README.parent / "medseg/downloads/catalogue.json"
    content = json.loads(catalogue.read_text())
    with serve_file(archive) as server:
        content["collections"]["msd"]["source"] = server.url
        hippocampus = content["datasets"]["hippocampus"]
        hippocampus["md5"] = hashlib.md5(archive).hexdigest()
        hippocampus["bytes"] = len(archive)
        file = tmp_path / "catalogue.json"
        file.write_text(json.dumps(content))
        monkeypatch.setenv("MEDSEG_CATALOGUE", str(file))
        yield server


def shorten_the_bundle(home: Path) -> None:
    shipped = list_shipped_bundles()["hippocampus_mr"] / "bundle.json"
    content = json.loads(shipped.read_text())
    content["network"]["channels"] = [4, 8, 8, 8]
    content["data"]["folds"] = 2
    content["training"] |= {
        "patch": [24, 24, 24],
        "batch_size": 2,
        "steps": 12,
        "validate_every": 12,
        "checkpoint_every": 4,
        "warmup_steps": 0,
    }
    content.setdefault("quality", {})["corrupted_copies"] = 0
    (home / "hippocampus_mr").mkdir()
    (home / "hippocampus_mr/bundle.json").write_text(json.dumps(content))


def interrupt_after_a_checkpoint(runs: Path, known: set[Path]) -> None:
    """Press Ctrl-C as soon as a new run has saved something."""
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        if set(runs.rglob("checkpoints/last.pt")) - known:
            signal.raise_signal(signal.SIGINT)
            return
        time.sleep(0.01)


def test_the_commands_of_the_readme_work_in_their_order(
    server: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    untrained_bundle: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    shorten_the_bundle(tmp_path)
    untrained_bundle("demo/run")
    write_dataset(tmp_path / "demo/test", 1)
    monkeypatch.chdir(tmp_path)
    commands = read_commands()
    assert [arguments[0] for arguments in commands[:3]] == [
        "download",
        "check",
        "train",
    ]
    for arguments in commands:
        runs = tmp_path / "runs"
        known = set(runs.rglob("checkpoints/last.pt"))
        if "--resume" in arguments:
            # The README speaks of a run that was stopped: here is one.
            arguments_of_run = [a for a in arguments if a != "--resume"]
            stopping = threading.Thread(
                target=interrupt_after_a_checkpoint, args=(runs, known)
            )
            stopping.start()
            assert call(monkeypatch, *arguments_of_run) == 130
            stopping.join()
        code = call(monkeypatch, *arguments)
        output = capsys.readouterr()
        assert code == 0, (arguments, output.err[-2000:])
    assert len(server.requests) == 1
    assert (tmp_path / "results/report.html").is_file()
    assert (tmp_path / "scores").is_dir()


def test_a_real_data_set_is_downloaded_whole_and_found_a_second_time(
    server: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    server.answers = [-65_536]
    assert call(monkeypatch, "download", "hippocampus") == 0
    output = capsys.readouterr()
    assert "trying again" in output.err
    assert "CC BY-SA 4.0" in output.out
    assert "medseg train hippocampus_mr --data Task04_Hippocampus" in output.out
    files = list((tmp_path / "Task04_Hippocampus").rglob("*.nii.gz"))
    assert len(files) == 2 * CASES
    asked = len(server.requests)
    assert call(monkeypatch, "download", "hippocampus") == 0
    assert "nothing was done" in capsys.readouterr().err
    assert len(server.requests) == asked
