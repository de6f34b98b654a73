"""What a person sees: progress while a command works, and its results."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
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
from medseg._support.log_file import LogFile
from medseg.errors import Fault, join_faults
from medseg.events import Listener
from medseg.names import format_minutes

_MOST_FAULTS = 20
"""Faults that are printed one by one."""

_SMOOTHING = 0.95
"""How much of the shown loss is that of earlier steps."""


class Terminal:
    """A listener that draws bars on stderr and prints results on stdout.

    Used as a context: the bars live inside it, the results are printed after it.

    Args:
        quiet: Whether nothing is shown but what failed, on stderr: for jobs whose every word is
            mailed.
        log: Where a log is kept besides.
    """

    def __init__(
        self, *, quiet: bool = False, log: LogFile | None = None
    ) -> None:
        self.quiet = quiet
        self.log = log
        self._failures = Console(stderr=quiet, soft_wrap=True)
        self._results = Console(soft_wrap=True, quiet=quiet)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=Console(stderr=True, quiet=quiet),
            disable=quiet,
        )
        self._tasks: dict[str, TaskID] = {}
        self._runs: dict[str, _ShownRun] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if (
            self._progress.live.is_started
        ):  # stopping what never started prints an empty line
            self._progress.stop()

    def __call__(self, event: events.Event) -> None:
        """Show what happened."""
        if isinstance(event, events.FoldEvent):
            self._show(event.event, f"fold {event.fold}")
        else:
            self._show(event, "")

    def _show(self, event: events.Event, fold: str) -> None:
        """Show what happened, and in which of the folds that are trained side by side."""
        match event:
            case events.Progress(task, done, total, note):
                self._show_progress(task, done, total, note, fold)
            case events.StepDone():
                self._show_step(event, fold)
            case events.RunStarted():
                self._show_start(event, fold)
            case events.ValidationDone():
                self._show_validation(event, fold)
            case events.CrossValidationDone(rows):
                table = _make_table(rows, left=range(len(rows[0])))
                self._progress.console.print(table)
            case events.ScheduleShortened(steps):
                self._runs.setdefault(fold, _ShownRun(steps)).total = steps
                self._print(
                    f"slower than measured: shortened to {steps} steps to end in time",
                    fold,
                )
            case _:
                for line in _describe(event):
                    self._print(line, fold)

    @property
    def listeners(self) -> list[Listener]:
        """Who is to be told of events: this, and the log if one is kept."""
        return [self] if self.log is None else [self, self.log]

    def say(self, text: str) -> None:
        """Print a line of a result, as it is."""
        self._results.print(text, markup=False, highlight=False)

    def say_failure(self, text: str) -> None:
        """Print a line about what failed: among the results, or alone on stderr."""
        self._failures.print(text, markup=False, highlight=False)

    def say_faults(self, what: str, faults: Sequence[Fault]) -> None:
        """Name the first of the cases that failed, and count the others.

        What many cases have in common is said once.
        """
        lines = list(join_faults(faults))
        for line in lines[:_MOST_FAULTS]:
            self.say_failure(f"  {what}: {line}")
        more = len(lines) - _MOST_FAULTS
        if more > 0:
            self.say_failure(f"  {what}: {more} more; --json names them all")

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
            left: Columns of text, aligned left; numbers are aligned right.
            wrapped: Whether long cells are wrapped, rather than run over the edge.
        """
        console = Console(quiet=self.quiet) if wrapped else self._results
        console.print(_make_table(rows, left))

    def _print(self, text: str, fold: str = "") -> None:
        """Print a line above the bars."""
        if fold:
            text = f"{fold}: {text}"
        self._progress.console.print(text, highlight=False, soft_wrap=True)

    def _show_progress(
        self, task: str, done: int, total: int, note: str = "", fold: str = ""
    ) -> None:
        if not total:
            return
        if fold:
            # One bar for each: what it is at stands beside it.
            task, note = fold, f"{task} {note}".rstrip()
        self._progress.start()
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(
                task, total=total, note=note
            )
        self._progress.update(
            self._tasks[task], completed=done, total=total, note=note
        )

    def _show_start(self, event: events.RunStarted, fold: str) -> None:
        self._runs[fold] = _ShownRun(event.total_steps)
        device = event.provenance["device"]
        text = f"training [bold]{escape(event.name)}[/] on {escape(device)}"
        if event.resumed_at is not None:
            text += (
                f", resuming at step {event.resumed_at} of {event.total_steps}"
            )
        self._print(f"{text} → {escape(str(event.folder))}", fold)

    def _show_step(self, event: events.StepDone, fold: str) -> None:
        run = self._runs[fold]
        run.add_loss(event.loss)
        note = f"loss {run.loss:.3f}"
        self._show_progress("training", event.step, run.total, note, fold)

    def _show_validation(self, event: events.ValidationDone, fold: str) -> None:
        dice = dict(event.scores["dice"])
        mean = dice.pop("mean")
        labels = ", ".join(
            f"{name} {value:.3f}" for name, value in dice.items()
        )
        hd95 = event.scores["hd95"]["mean"]
        text = f"step {event.step}: Dice {mean:.3f} ({escape(labels)}), HD95 {hd95:.1f} mm"
        if event.is_best:
            text += "  [green]best so far[/]"
        self._print(text, fold)


@dataclass(slots=True)
class _ShownRun:
    """A training run that is shown.

    Attributes:
        total: How many steps it is set to take.
        loss: Smoothed over steps.
    """

    total: int
    loss: float = math.nan

    def add_loss(self, loss: float) -> None:
        """Take one more step's loss into account."""
        if math.isnan(self.loss):
            self.loss = loss
        self.loss = _SMOOTHING * self.loss + (1 - _SMOOTHING) * loss


def _make_table(rows: Sequence[Sequence[str]], left: Container[int]) -> Table:
    """Lay out a heading and its rows.

    Args:
        rows: The heading, and the rows.
        left: Columns aligned left; the others are aligned right.
    """
    heading, *rest = rows
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, name in enumerate(heading):
        # Where there is no room, a word is broken rather than cut: it may be a field's name.
        table.add_column(
            escape(name),
            justify="left" if index in left else "right",
            overflow="fold",
        )
    for row in rest:
        table.add_row(*(escape(cell) for cell in row))
    return table


def _describe(event: events.Event) -> list[str]:
    """Return lines that say what happened; none where there is nothing to say."""
    match event:
        case events.TimeBudgetFitted(minutes, steps, seconds):
            budget = format_minutes(minutes)
            return [f"{steps} steps of {seconds:.2f} s fit into {budget}"]
        case events.FineTuningStarted(name, decisions):
            return [
                f"starting from [bold]{escape(name)}[/]",
                *_indent(decisions),
            ]
        case events.HeldOutDecision(what, decisions):
            return [
                f"held-out cases decided: [bold]{escape(what)}[/]",
                *_indent(decisions),
            ]
        case events.Notice(message):
            return [f"[yellow]note[/] {escape(message)}"]
        case events.RunDone() if event.stopped_early:
            return ["stopped early: no further improvement"]
    return []


def _indent(sentences: Sequence[str]) -> list[str]:
    return [f"  {escape(sentence)}" for sentence in sentences]
