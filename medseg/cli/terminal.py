"""What a person sees: progress while work goes on, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from medseg import events


class Terminal:
    """A listener that draws bars on stderr and prints results on stdout.

    Used as a context: the bars live inside it, the results are printed after it.
    """

    def __init__(self) -> None:
        self._results = Console(soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}
        self._smooth_loss = math.nan

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress.live.is_started:  # stopping what never started prints an empty line
            self._progress.stop()

    def __call__(self, event: events.Event) -> None:
        """Show what happened."""
        match event:
            case events.Progress(task, done, total):
                self._show(task, done, total)
            case events.StepDone():
                self._show_step(event)
            case events.RunStarted():
                self._start(event)
            case events.ValidationDone():
                self._show_validation(event)
            case events.CrossValidationDone(rows):
                self._show_table(rows)
            case events.ScheduleShortened(steps):
                self._total = steps
                self._line(f"slower than measured: {steps} steps end in time")
            case _:
                for line in _lines(event):
                    self._line(line)

    def _line(self, text: str) -> None:
        self._progress.console.print(text, highlight=False, soft_wrap=True)

    def _show(self, task: str, done: int, total: int, note: str = "") -> None:
        self._progress.start()
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(task, total=total, note=note)
        self._progress.update(self._tasks[task], completed=done, total=total, note=note)

    def _start(self, event: events.RunStarted) -> None:
        self._total, self._smooth_loss = event.total_steps, math.nan
        at = f", resumed at step {event.resumed_at}" if event.resumed_at is not None else ""
        self._line(
            f"training [bold]{escape(event.name)}[/] on {escape(event.provenance['device'])}"
            f"{at} → {escape(str(event.folder))}"
        )

    def _show_table(self, rows: Sequence[Sequence[str]]) -> None:
        heading, *rest = rows
        names = (escape(name) for name in heading)
        table = Table(*names, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for row in rest:
            table.add_row(*(escape(cell) for cell in row))
        self._progress.console.print(table)

    def _show_step(self, event: events.StepDone) -> None:
        old = event.loss if math.isnan(self._smooth_loss) else self._smooth_loss
        self._smooth_loss = 0.95 * old + 0.05 * event.loss
        self._show("training", event.step, self._total, f"loss {self._smooth_loss:.3f}")

    def _show_validation(self, event: events.ValidationDone) -> None:
        dice = event.scores["dice"]
        labels = ", ".join(f"{name} {value:.3f}" for name, value in dice.items() if name != "mean")
        best = "  [green]best so far[/]" if event.is_best else ""
        self._line(
            f"step {event.step}: Dice {dice['mean']:.3f} ({escape(labels)}), "
            f"HD95 {event.scores['hd95']['mean']:.1f} mm{best}"
        )

    def say(self, text: str) -> None:
        """Print a line of a result, as it is."""
        self._results.print(text, markup=False, highlight=False)

    def show_table(
        self,
        rows: Sequence[Sequence[str]],
        *,
        left: Container[int] = (0,),
        wrapped: bool = False,
    ) -> None:
        """Print a table of a result.

        Args:
            rows: Its heading, and its rows.
            left: Columns of texts, which begin at the left; numbers end at the right.
            wrapped: Whether long cells go on in further lines, rather than beyond the edge.
        """
        heading, *rest = rows
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for position, name in enumerate(heading):
            table.add_column(escape(name), justify="left" if position in left else "right")
        for row in rest:
            table.add_row(*(escape(cell) for cell in row))
        (Console() if wrapped else self._results).print(table)


def _lines(event: events.Event) -> list[str]:
    """Return what there is to say of an event in words."""
    match event:
        case events.TimeBudgetFitted(minutes, steps, seconds):
            return [f"{steps} steps of {seconds:.2f} s fit into {minutes:g} minutes"]
        case events.FineTuningStarted(name, decisions):
            return [f"starting from [bold]{escape(name)}[/]", *_indented(decisions)]
        case events.HeldOutDecision(what, decisions):
            return [f"held-back cases decided: [bold]{escape(what)}[/]", *_indented(decisions)]
        case events.Notice(message):
            return [f"[yellow]note[/] {escape(message)}"]
        case events.RunDone() if event.stopped_early:
            return ["stopped early: nothing improved any more"]
    return []


def _indented(sentences: Sequence[str]) -> list[str]:
    return [f"  {escape(sentence)}" for sentence in sentences]
