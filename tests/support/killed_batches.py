"""A batch that is killed again and again, and what must hold each time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medseg.inference.batch_state import STATE
from medseg.inference.ledger import read_ledger
from medseg.inference.ledger_entry import Entry
from medseg.testing import make_phantom

VARYING = {"seconds", "finished"}


class Zygote:
    """Forks batches that can be killed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._answer()

    def run(self, **order: Any) -> tuple[int, float]:
        """Run one batch; return its exit status (−9 if killed) and how long it lived."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order, default=str) + "\n")
        self._process.stdin.flush()
        status, lived = json.loads(self._answer())
        return status, lived

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def zygote() -> Iterator[Zygote]:
    """Start the process that forks batches."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("segment_zygote.py")),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as one:
        try:
            yield Zygote(one)
        finally:
            one.kill()


def write_scans(
    folder: Path, count: int, shape: tuple[int, int, int] = (20, 18, 16)
) -> Path:
    """Write small phantoms, one file each; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        volume, _ = make_phantom(number, shape)
        image = nib.Nifti1Image(
            np.rint(volume.array[0]).astype(np.int16), np.array(volume.affine)
        )
        nib.save(image, folder / f"scan_{number:02d}.nii.gz")
    return folder


def results(out: Path) -> dict[str, bytes]:
    """Return every result file but those that hold times."""
    files = (p for p in out.rglob("*") if p.is_file() and p.name not in TIMED)
    return {
        file.relative_to(out).as_posix(): file.read_bytes() for file in files
    }


TIMED = {"ledger.jsonl", "report.html", STATE}


def facts(entries: dict[str, Entry]) -> dict[str, dict[str, Any]]:
    """Return entries without what differs from run to run."""
    return {
        name: entry.model_dump(exclude=VARYING)
        for name, entry in sorted(entries.items())
    }


class Wreck:
    """Checks a folder of results after each kill.

    Args:
        out: The folder.
        whole: What a run that nobody kills leaves.
    """

    def __init__(self, out: Path, whole: Path) -> None:
        self._out = out
        self._whole = results(whole)
        self._facts = facts(read_ledger(whole / "ledger.jsonl")[0])
        self._done: dict[str, str] = {}

    def check(self) -> int:
        """Check that nothing is half there and nothing was lost; return how many are done."""
        if not (self._out / "ledger.jsonl").exists():
            return 0
        for name, content in results(self._out).items():
            if ".part-" not in name:
                assert content == self._whole[name], f"{name} is not whole"
        entries, damaged = read_ledger(self._out / "ledger.jsonl")
        assert damaged == 0
        for name, entry in entries.items():
            assert facts({name: entry})[name] == self._facts[name]
            assert set(entry.files) <= set(results(self._out))
        finished = {name: entry.finished for name, entry in entries.items()}
        assert self._done.items() <= finished.items(), (
            "a result was lost or made twice"
        )
        self._done = finished
        return len(finished)

    def check_whole(self) -> None:
        """Check that the folder is what a run that nobody kills leaves."""
        assert results(self._out) == self._whole
        assert facts(read_ledger(self._out / "ledger.jsonl")[0]) == self._facts
        assert len(
            (self._out / "ledger.jsonl").read_text().splitlines()
        ) == len(self._facts)
        assert (self._out / "report.html").is_file()
