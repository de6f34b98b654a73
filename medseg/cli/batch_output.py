"""What a batch of scans came to, in the words of the command line."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from medseg._support.platform.shells import quote_argument
from medseg.cli.output import format_count
from medseg.errors import MOST_ALIKE, Fault, find_kind, join_faults
from medseg.names import abbreviate, split_channel, split_suffix

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.commands.batch import Batch
    from medseg.inference.ledger_entry import Entry
    from medseg.inference.scan_counts import ScanCounts

_MAX_NAMED = 5
"""Scans named in one line; the report has them all."""


def print_batch(
    terminal: Terminal, batch: Batch, counts: ScanCounts, *, has_report: bool
) -> None:
    """Print how many scans were segmented; name those that were not, or not in all formats."""
    _print_failures(terminal, batch, counts)
    reasons = Counter(entry.reason for entry in batch.results if entry.reason)
    for reason, count in reasons.items():
        scans = format_count(count, "scan")
        terminal.say(f"  skipped: {scans}: {reason}")
    if batch.gone:
        results = format_count(batch.gone, "result")
        terminal.say(
            f"  {results} of earlier calls kept, whose scans are not here any more"
        )
    report = f"{batch.place}/report.html"
    has_report = has_report and batch.shard is None
    _print_review(terminal, batch, counts)
    warned = _list_names(batch, lambda entry: bool(entry.warnings))
    if warned:
        scans = format_count(len(warned), "scan")
        told_in = report if has_report else batch.ledger
        names = abbreviate(warned, _MAX_NAMED)
        terminal.say(f"  {scans} with warnings, told in {told_in}: {names}")
    if has_report:
        terminal.say(f"  report  {report}")
    if batch.shard is not None:
        out = quote_argument(batch.place)
        terminal.say(f"  report and volumes of all shards: medseg report {out}")


def _print_review(terminal: Terminal, batch: Batch, counts: ScanCounts) -> None:
    """Print which results to look at first, and why; and if nobody can know how good they are."""
    if counts.flagged:
        flagged = _list_names(batch, lambda entry: entry.needs_review)
        names = abbreviate(flagged, _MAX_NAMED)
        terminal.say(f"  look at these first: {names}")
        reasons = {}
        for entry in batch.results:
            if entry.needs_review and entry.scan in flagged[:_MAX_NAMED]:
                reasons[entry.scan] = entry.review_reasons
        for name in flagged[:_MAX_NAMED]:
            for reason in reasons[name]:
                terminal.say(f"    {name}: {reason}")
    if counts.why_unjudged:
        terminal.say(f"  note: {counts.why_unjudged}")


def _list_names(batch: Batch, is_meant: Callable[[Entry], bool]) -> list[str]:
    """Return the names of some of the results, worst first; of very many, entries are too much."""
    from medseg.inference.ledger_entry import get_review_order

    keys = []
    for entry in batch.results:
        if entry.is_good and is_meant(entry):
            keys.append((get_review_order(entry), entry.scan))
    return [name for _, name in sorted(keys)]


def _print_failures(
    terminal: Terminal, batch: Batch, counts: ScanCounts
) -> None:
    """Print the summary, and what failed; on a quiet terminal nothing unless something failed."""
    from medseg.datasets.input_checks import OTHER_MODALITY

    say = terminal.say if counts.has_all_results else terminal.say_failure
    say(f"{summarise(counts)} → {batch.place}")
    if counts.has_all_results:
        return
    for line in _list_missing(batch):
        say(f"  lacks {line}")
    failed = batch.failed
    for line in _list_failures(batch, failed):
        say(f"  failed: {line}")
    if any(OTHER_MODALITY in entry.error for entry in failed):
        say("  series of other modalities can be skipped: see --modality")


def _list_missing(batch: Batch) -> Iterator[str]:
    """Yield a line for each format that a scan lacks, or one for many scans."""
    by_format: dict[str, list[Fault]] = defaultdict(list)
    for entry in batch.incomplete:
        where = _locate(batch, entry)
        for format_name, why in entry.missing.items():
            by_format[format_name].append(Fault(where, why))
    for format_name, faults in by_format.items():
        for line in join_faults(faults, "scans"):
            yield f"{format_name}: {line}"


def _list_failures(batch: Batch, failed: Iterable[Entry]) -> Iterator[str]:
    """Yield a line for each scan that failed, or one for many that failed for the same reason."""
    by_kind: dict[str, list[Entry]] = defaultdict(list)
    for entry in failed:
        by_kind[find_kind(entry.error)].append(entry)
    for alike in by_kind.values():
        places = [_locate(batch, entry) for entry in alike]
        texts = [batch.full_errors.get(e.scan, e.error) for e in alike]
        if len(alike) > MOST_ALIKE:
            named = abbreviate(places)
            yield f"{len(alike)} scans ({named}): the first: {texts[0]}"
            continue
        for place, text in zip(places, texts, strict=True):
            yield f"{place}: {text}"


def _locate(batch: Batch, entry: Entry) -> str:
    """Return a scan's name in results, and where it was found, each once."""
    place = batch.places.get(entry.scan, "")
    stem, _ = split_suffix(place)
    if entry.scan in (place, stem, split_channel(stem)[0]):
        return place
    return f"{entry.scan} ({place})" if place else entry.scan


def summarise(counts: ScanCounts) -> str:
    """Say in one line how many scans were segmented."""
    asked = counts.total - counts.skipped
    text = f"{counts.good} of {asked} scans segmented"
    if not counts.total:
        text = "no scan found"
    if counts.kept:
        text += f" ({counts.kept} of them before, and unchanged)"
    if counts.incomplete:
        text += f", {counts.incomplete} of them without a format asked for"
    if counts.skipped:
        text += f", {counts.skipped} skipped"
    return text
