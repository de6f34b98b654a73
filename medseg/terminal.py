"""What a person sees: progress while work goes on, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

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

from medseg.words import events

if TYPE_CHECKING:
    from medseg.tools.evaluation import Evaluation
    from medseg.tools.mask_review import MaskReview
    from medseg.verbs.check import Report
    from medseg.verbs.demo import Demo
    from medseg.verbs.export import Export
    from medseg.verbs.plan import Plan
    from medseg.verbs.segment import Batch

MOST_NAMED = 5
"""Scans named in one line; the report has them all."""

MOST_ROWS = 25
"""Masks shown in a table; the file has them all."""


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
            case events.CrossValidated(rows):
                self._show_table(rows)
            case events.Shortened(steps):
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

    def print_run(self, folder: Path) -> None:
        """Say where a trained bundle is and what to do with it."""
        out = self._results
        out.print(f"Trained bundle: {folder}", highlight=False)
        out.print(f"  scores    {folder / 'docs' / 'README.md'}", highlight=False)
        pictures = {"curves": "curves.png", "previews": "previews/validation.png"}
        for what, name in pictures.items():
            if (folder / name).is_file():  # a bundle of all folds has them in each fold's run
                out.print(f"  {what:9} {folder / name}", highlight=False)
        out.print(f"  use it    medseg segment {folder} SCANS OUT", highlight=False)

    def print_batch(self, batch: Batch) -> None:
        """Say how many scans were segmented, and name those that were not."""
        done = len(batch.results) - len(batch.failed)
        kept = sum(entry.state == "skipped" for entry in batch.results)
        unchanged = f" ({kept} of them before, and unchanged)" if kept else ""
        self._results.print(
            f"{done} of {len(batch.results)} scans segmented{unchanged} → {batch.out}",
            markup=False,
            highlight=False,
        )
        for entry in batch.failed:
            place = batch.places.get(entry.scan, "")
            where = f"{entry.scan} ({place})" if place else entry.scan
            self._results.print(f"  failed: {where}: {entry.error}", markup=False, highlight=False)
        if batch.to_review:
            names = ", ".join(entry.scan for entry in batch.to_review[:MOST_NAMED])
            more = len(batch.to_review) - MOST_NAMED
            self._results.print(
                f"  look at these first: {names}{f' and {more} more' if more > 0 else ''}",
                markup=False,
                highlight=False,
            )
        if (batch.out / "report.html").is_file():
            self._results.print(f"  report  {batch.out / 'report.html'}", highlight=False)

    def print_export(self, made: Export) -> None:
        """Say where an export is, and how far its label maps agree."""
        out = self._results
        out.print(f"Exported: {made.folder}", highlight=False)
        found = made.agreement
        if found is None:
            return
        what = f"{found.scans} {'phantom' if found.made_up else 'scan'}{'s' * (found.scans != 1)}"
        out.print(
            f"  {found.differ} of {found.labelled} labelled voxels differ from PyTorch's "
            f"({what}); agreement {found.agreement:.6f}",
            highlight=False,
        )
        if found.is_close:
            out.print("  --backend auto uses it on a CPU", highlight=False)
        elif not found.labelled:
            out.print("  nothing was labelled, so nothing is known: give --scans", highlight=False)
        else:
            out.print("  too little for --backend auto; --backend openvino uses it")

    def print_evaluation(self, evaluation: Evaluation, out: Path | None) -> None:
        """Print the summary table, and name the pairs that could not be scored."""
        heading, *rows = evaluation.summary_rows()
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for position, name in enumerate(heading):
            table.add_column(name, justify="left" if position == 0 else "right")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        self._results.print(table)
        if evaluation.differences:
            self._print_differences(evaluation)
        for fault in evaluation.faults:
            self._results.print(f"  not scored: {fault}", markup=False, highlight=False)
        if out is not None:
            self._results.print(f"Every case: {out / 'evaluation.csv'}", highlight=False)
            self._results.print(f"  page      {out / 'evaluation.html'}", highlight=False)

    def print_mask_review(self, review: MaskReview, out: Path | None) -> None:
        """Print the masks that a bundle agrees with least, and name those it could not judge."""
        heading, *rows = review.summary_rows()
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for position, name in enumerate(heading):
            table.add_column(name, justify="left" if position in (0, 2) else "right")
        for row in rows[:MOST_ROWS]:
            table.add_row(*(escape(cell) for cell in row))
        self._results.print(table)
        if len(rows) > MOST_ROWS:
            self._results.print(f"and {len(rows) - MOST_ROWS} more, which agree better")
        said = (
            "This bundle is not calibrated: the numbers order masks, their values can be far off."
            if review.coverage is None
            else "The order is that of Dice with the bundle's own masks, which is not calibrated. "
            "The expected Dice was calibrated on those; for other masks it can be far off."
        )
        self._results.print(said, markup=False, highlight=False)
        flagged = len(review.to_review)
        self._results.print(f"{flagged} of {len(review.cases)} to review", highlight=False)
        for fault in review.faults:
            self._results.print(f"  not judged: {fault}", markup=False, highlight=False)
        if out is not None:
            self._results.print(f"Every mask: {out / 'agreement.csv'}", highlight=False)

    def _print_differences(self, evaluation: Evaluation) -> None:
        for one in evaluation.differences:
            if one.metric == "dice" and one.n:
                low, high = one.interval.low, one.interval.high
                self._results.print(
                    f"Dice of {one.label} minus the others': {one.mean:+.4f} ({low:+.4f} to "
                    f"{high:+.4f}), better in {one.better} and worse in {one.worse} of {one.n} "
                    f"cases, p = {one.p:.2g}",
                    markup=False,
                    highlight=False,
                )

    def print_plan(self, plan: Plan, explain: bool) -> None:
        """Say what was planned; with every choice and its reason if that is wanted."""
        spec, training = plan.spec, plan.spec.training
        labels = ", ".join(label.name for label in spec.labels)
        regions = ", ".join(region.name for region in spec.regions)
        patch = " × ".join(str(size) for size in training.patch)
        budget = f" in {training.budget_minutes:g} minutes" if training.budget_minutes else ""
        seen = len(plan.survey.cases)
        cases = f"{seen} cases" if seen else "nnU-Net's plans"
        for line in (
            f"{cases}; {len(spec.labels)} labels: {labels}",
            *([f"{len(spec.regions)} regions: {regions}"] if regions else []),
            f"{spec.network.dims}D, patch {patch}, batch {training.batch_size}, about "
            f"{training.steps} steps{budget}",
        ):
            self._results.print(line, markup=False, highlight=False)
        if explain:
            table = Table("field", "value", "why", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
            for row in plan.rows():
                table.add_row(*(escape(cell) for cell in row))
            Console().print(table)
        self._results.print(f"Bundle: {plan.file}", highlight=False)
        self._results.print(f"  train it  medseg train {plan.file}", highlight=False)

    def print_report(self, report: Report) -> None:
        """Print every fault and warning of a check, or that there is none."""
        for warning in report.warnings:
            self._results.print(f"note: {warning}", markup=False, highlight=False)
        for fault in report.faults:
            self._results.print(f"fault: {fault}", markup=False, highlight=False)
        cases = "" if report.cases is None else f"; {report.cases} good cases"
        count = len(report.faults)
        verdict = "no fault" if not count else f"{count} fault{'s' * (count > 1)}"
        self._results.print(f"{verdict}{cases}", highlight=False)

    def print_demo(self, demo: Demo) -> None:
        """Print the demo's scores and what there is to look at."""
        self.print_evaluation(demo.evaluation, None)
        out = demo.run.parent
        for what, where in (
            ("a scan, segmented", demo.picture),
            ("learning curves", demo.run / "curves.png"),
            ("model card", demo.run / "docs" / "README.md"),
            ("label maps, volumes", demo.results),
            ("scores", out / "evaluation" / "evaluation.csv"),
        ):
            self._results.print(f"  {what:20} {where}", highlight=False)
        store = f"sqlite:///{out / 'mlflow.db'}"
        self._results.print(
            f"  {'the run in MLflow':20} mlflow ui --backend-store-uri {store}", highlight=False
        )


def _lines(event: events.Event) -> list[str]:
    """Return what there is to say of an event in words."""
    match event:
        case events.BudgetFitted(minutes, steps, seconds):
            return [f"{steps} steps of {seconds:.2f} s fit into {minutes:g} minutes"]
        case events.StartedFrom(name, decisions):
            return [f"starting from [bold]{escape(name)}[/]", *_indented(decisions)]
        case events.Decided(what, decisions):
            return [f"held-back cases decided: [bold]{escape(what)}[/]", *_indented(decisions)]
        case events.Warned(message):
            return [f"[yellow]note[/] {escape(message)}"]
        case events.RunDone() if event.stopped_early:
            return ["stopped early: nothing improved any more"]
    return []


def _indented(sentences: Sequence[str]) -> list[str]:
    return [f"  {escape(sentence)}" for sentence in sentences]
