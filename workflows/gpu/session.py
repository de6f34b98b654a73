"""What rows have in common: the time that is left, where results go, and what a GPU was doing."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

GPU = torch.device("cuda")


@dataclass
class Session:
    """One session on a machine with a GPU.

    Attributes:
        out: The folder for results.
        minutes: How long it may last.
        data: The folder of the hippocampus data set, if it is there.
        dry: Whether sizes are tiny and the GPU is pretended.
        rows: What was found so far.
        learned: The learner of the hippocampus and its held-out cases, once it has learned.
    """

    out: Path
    minutes: float
    data: Path | None = None
    dry: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)
    learned: Any = None
    _began: float = field(default_factory=time.monotonic)

    @property
    def has_failed(self) -> bool:
        """Whether a row is not as it should be."""
        return any(row["ok"] is False for row in self.rows)

    @property
    def seconds_left(self) -> float:
        """How long the session may still last."""
        return 60 * self.minutes - (time.monotonic() - self._began)

    def attempt(self, act: Callable[[Session], None], seconds: float) -> None:
        """Do a row, if there is time for it; whatever it raises becomes its result."""
        if self.seconds_left < seconds and not self.dry:
            self.add(act.__name__, "no time was left")
            return
        try:
            act(self)
        except Exception as error:  # noqa: BLE001 - the next row goes on
            traceback.print_exc()
            self.add(
                act.__name__, f"{type(error).__name__}: {error}"[:300], ok=False
            )

    def add(
        self, name: str, value: object, *, ok: bool | None = None, **more: Any
    ) -> None:
        """Add a row, and write all of them.

        Args:
            name: What was looked at.
            value: What was found.
            ok: Whether it is as it should be; ``None`` where it is only a figure.
            more: Further figures.
        """
        at = round(time.monotonic() - self._began, 1)
        row = {"name": name, "value": value, "ok": ok, "at": at, **more}
        self.rows.append(row)
        print(f"{_MARKS[ok]} {name}: {value} {more or ''}", flush=True)
        content = json.dumps(self.rows, indent=1, default=str)
        (self.out / "gpu.json").write_text(content)
        (self.out / "gpu.md").write_text(self._make_table())

    def _make_table(self) -> str:
        lines = ["| what | found | more | ok |", "| --- | --- | --- | --- |"]
        for row in self.rows:
            more = [f"{key} {row[key]}" for key in row if key not in _COLUMNS]
            cells = (row["name"], row["value"], ", ".join(more))
            texts = [str(cell).replace("|", "\\|") for cell in cells]
            lines.append(f"| {' | '.join(texts)} | {_MARKS[row['ok']]} |")
        return "\n".join(lines) + "\n"

    def wait(self) -> None:
        """Wait until the GPU has done what it was given."""
        torch.cuda.synchronize()

    def measure_peak(self) -> float:
        """Return the largest memory held since the last call, in GB."""
        peak = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.reset_peak_memory_stats()
        return round(peak, 2)

    @contextlib.contextmanager
    def watch(self) -> Iterator[dict[str, float]]:
        """Measure wall time, and the share of it in which a kernel or a copy ran.

        The share is what the profiler saw; it slows many small kernels down a little.
        """
        found: dict[str, float] = {}
        self.wait()
        began = time.perf_counter()
        if self.dry:
            yield found
            found["wall"] = round(time.perf_counter() - began, 3)
            return
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            yield found
            self.wait()
            wall = time.perf_counter() - began
        spans = []
        for event in profiler.events():
            if event.device_type.name == "CUDA":
                spans.append((event.time_range.start, event.time_range.end))
        found["wall"] = round(wall, 3)
        found["busy"] = round(_add_up(spans) / 1e6 / wall, 3)
        found["kernels"] = len(spans)


_MARKS = {True: "ok", False: "FAILED", None: ""}
_COLUMNS = ("name", "value", "ok")


def _add_up(spans: list[tuple[float, float]]) -> float:
    """Return how long at least one of some spans lasted."""
    total, end = 0.0, float("-inf")
    for first, last in sorted(spans):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total
