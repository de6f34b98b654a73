"""``medseg segment``: label maps of scans, and which to look at first."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg._support.platform.shells import quote_argument
from medseg.cli.options import (
    AsJson,
    BundlePath,
    Devices,
    Log,
    Quiet,
    Speed,
    Split4D,
    Threads,
)
from medseg.cli.output import (
    end_command,
    format_count,
    open_terminal,
    print_json,
)
from medseg.errors import MOST_ALIKE, Fault, find_kind, join_faults
from medseg.names import abbreviate, split_channel, split_suffix

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.commands.batch import Batch
    from medseg.inference.ledger_entry import Entry
    from medseg.inference.scan_counts import ScanCounts

_MAX_NAMED = 5
"""Scans named in one line; the report has them all."""


def _require_text(shard: str | None) -> str | None:
    """Refuse an empty shard: with a variable that is not set, nobody means all scans."""
    if shard is not None and not shard.strip():
        raise typer.BadParameter(
            "it is empty; write I/N or auto, or leave the option out to do all scans"
        )
    return shard


def segment(
    bundle: BundlePath,
    scans: Annotated[
        str,
        typer.Argument(
            metavar="SCANS",
            help="A scan, a folder (searched recursively), or a list of scans: CSV or Parquet. Or "
            "an address of these: s3://, gs://, az://, https://.",
        ),
    ],
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="The folder for the results, or its address: s3://, gs://, az://.",
        ),
    ],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="nifti, nrrd, mha, png (pictures), dicom-seg or rtstruct (DICOM scans). "
            "Repeatable.",
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            help="Draw a picture of each scan and write OUT/report.html."
        ),
    ] = True,
    error_maps: Annotated[
        bool,
        typer.Option(
            "--error-maps",
            help="Also write OUT/error_maps: how probably each voxel's label is wrong (%).",
        ),
    ] = False,
    resample_uneven: Annotated[
        bool,
        typer.Option(
            "--resample-uneven",
            help="Resample DICOM slices at uneven distances to a regular grid; they are refused "
            "otherwise.",
        ),
    ] = False,
    split_4d: Split4D = "",
    names_from_headers: Annotated[
        bool,
        typer.Option(
            "--names-from-headers",
            help="Name results of DICOM series by patient, study and series, which identifies the "
            "patient. Default: by a hash.",
        ),
    ] = False,
    device: Devices = "auto",
    backend: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="torch, openvino, or auto: openvino on a CPU if it was exported and agrees.",
        ),
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="fp32, bf16, fp16 (GPU), or auto: fp32 on a CPU, a faster one on a GPU.",
        ),
    ] = "auto",
    mirror: Annotated[
        bool | None,
        typer.Option(
            "--mirror/--no-mirror",
            help="Test-time augmentation: average over flips, 2 to 8 times as slow. Default: as "
            "the bundle says.",
            show_default=False,
        ),
    ] = None,
    fold_ensemble: Annotated[
        bool,
        typer.Option(
            help="Average over the networks of all folds, if a bundle has several."
        ),
    ] = True,
    speed: Speed = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="Results with these labels alone, such as liver,spleen; of an assembly, only the "
            "bundles that find them are run. Repeatable, or with commas.",
            show_default=False,
        ),
    ] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE",
            help="Segment DICOM series of this modality (CT, MR, PT, …) alone and skip others; "
            "without it those that the bundle does not take fail. Repeatable, or with commas.",
            show_default=False,
        ),
    ] = None,
    allow_empty: Annotated[
        bool,
        typer.Option(
            "--allow-empty",
            help="Where there is nothing to segment, end with exit code 0.",
        ),
    ] = False,
    sources: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write a CSV of what each result was made from: paths, study and series "
            "UIDs. May name patients; only you can read it. Not within OUT.",
            show_default=False,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            callback=_require_text,
            help="Do part I of N, from 1/N to N/N, beside other machines that do the others into "
            "the same OUT; auto: as a Slurm, Kubernetes or AWS Batch array says. Then: medseg "
            "report OUT.",
            show_default=False,
        ),
    ] = None,
    on: Annotated[
        str,
        typer.Option(
            "--on",
            metavar="ray[=ADDRESS]",
            help="Give the scans out to the nodes of a Ray cluster: that of this machine, or of "
            "this head's HOST:PORT. BUNDLE, SCANS and OUT must lie on a disk that all nodes "
            "share. Each scan takes --threads CPUs of its node.",
            show_default=False,
        ),
    ] = "",
    tasks_per_gpu: Annotated[
        int,
        typer.Option(
            "--tasks-per-gpu",
            metavar="N",
            min=1,
            help="How many scans share a GPU of the cluster: reading and writing of one then "
            "overlap with the network of another.",
        ),
    ] = 1,
    threads: Threads = None,
    log: Log = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Segment scans: NIfTI, DICOM series, NRRD, MHA or pictures.

    A folder is searched with all below it. Label maps beside its scans are left out and named.

    Label maps lie on the scans' own grids. OUT/report.html shows every scan, the worst results
    first; OUT/volumes.csv has the millilitres and the expected Dice of each structure, and
    OUT/ledger.jsonl one line per scan. After an interruption, or when scans were added, run the
    same command again: finished scans are kept.

    Exit code 1: some scans failed, or lack a format asked for. 2: the call, the bundle or a
    folder is wrong. 75: another call is segmenting into OUT, or the cluster was lost. 130: stopped
    by Ctrl-C or SIGTERM.

    Examples:

      medseg segment runs/hippocampus_mr/20260101-120000-fold0 scans/ results/

      medseg segment BUNDLE study/ results/ --format dicom-seg --format rtstruct

      medseg segment total/ scans/ results/ --labels liver,spleen

      medseg segment BUNDLE inbox/ results/ --modality CT --allow-empty --quiet --log night.log

      medseg segment BUNDLE scans/ results/ --on ray=10.0.0.1:6379
    """
    with open_terminal(
        "Run the same command again to resume.",
        quiet=quiet,
        log=log,
        command="segment",
    ) as terminal:
        from medseg._support.optional_packages import forgo_engines

        forgo_engines()
        from medseg.commands.segment import segment as run

        batch = run(
            bundle,
            scans,
            out,
            device=device,
            backend=backend,
            precision=precision,
            mirror=mirror,
            fold_ensemble=fold_ensemble,
            speed=speed,
            labels=labels or None,
            formats=formats or (),
            report=report,
            error_maps=error_maps,
            resample_uneven=resample_uneven,
            split_4d=split_4d,
            names_from_headers=names_from_headers,
            modalities=modality or (),
            allow_empty=allow_empty,
            threads=threads,
            sources=sources,
            shard=shard or "",
            on=on,
            tasks_per_gpu=tasks_per_gpu,
            listeners=terminal.listeners,
        )
    from medseg.inference.scan_counts import count_scans

    counts = count_scans(batch.results)
    if as_json:
        print_json([entry.model_dump(mode="json") for entry in batch.results])
    else:
        _print_batch(terminal, batch, counts, has_report=report)
    end_command(terminal, _summarise(counts), is_whole=counts.has_all_results)


def _print_batch(
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
    say(f"{_summarise(counts)} → {batch.place}")
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


def _summarise(counts: ScanCounts) -> str:
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
