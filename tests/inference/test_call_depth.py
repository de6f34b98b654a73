"""From the command to the network a scan passes few calls in few files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from support.killed_batches import write_scans
from torch.nn.modules.module import register_module_forward_pre_hook

import medseg

PACKAGE = Path(medseg.__file__).parent
MOST_CALLS, MOST_FILES = 10, 4


def calls_of_medseg() -> list[tuple[str, str]]:
    """Return file and function of medseg's frames on the stack, from the command downwards."""
    calls, frame = [], sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(PACKAGE):
            calls.append(
                (file.relative_to(PACKAGE).as_posix(), frame.f_code.co_name)
            )
        frame = frame.f_back
    return calls[::-1]


def test_a_scan_passes_few_calls_in_few_files(
    untrained_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    seen: list[list[tuple[str, str]]] = []

    def note(network: torch.nn.Module, windows: object) -> None:
        seen.append(calls_of_medseg())

    scans = write_scans(tmp_path / "scans", 1)
    hook = register_module_forward_pre_hook(note)
    try:
        medseg.segment(
            untrained_bundle(),
            scans,
            tmp_path / "out",
            device="cpu",
            backend="torch",
        )
    finally:
        hook.remove()
    calls = next(calls for calls in seen if calls)
    assert calls[0] == ("commands/segment.py", "segment")
    assert calls[-1] == ("inference/backends/pytorch.py", "__call__")
    assert len(calls) <= MOST_CALLS, calls
    assert len({file for file, _ in calls}) <= MOST_FILES, calls
