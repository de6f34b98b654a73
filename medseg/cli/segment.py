"""``medseg segment``: label maps of scans, and which to look at first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.options import AsJson, BundlePath, Device, Split4D
from medseg.cli.output import FAILED, format_count, open_terminal, print_json

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.commands.segment import Batch
    from medseg.inference.ledger import Entry

_MAX_NAMED = 5
"""Scans named in one line; the report has them all."""


def segment(
    bundle: BundlePath,
    scans: Annotated[
        Path,
        typer.Argument(
            metavar="SCANS",
            help="A scan, a folder (searched recursively) or a CSV.",
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The folder for the results.")
    ],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="nifti, png (pictures), dicom-seg or rtstruct (DICOM scans). Repeatable.",
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
    device: Device = "auto",
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
    as_json: AsJson = False,
) -> None:
    """Segment scans: NIfTI, DICOM series, NRRD, MHA or pictures.

    A folder is searched with all below it. Label maps beside its scans are left out and named.

    Label maps lie on the scans' own grids. OUT/report.html shows every scan, the worst results
    first; OUT/volumes.csv has the millilitres and the expected Dice of each structure, and
    OUT/ledger.jsonl one line per scan. After an interruption, or when scans were added, run the
    same command again: finished scans are kept.

    Exit code 1: some scans failed, or lack a format asked for.

    Examples:

      medseg segment runs/hippocampus_mr/20260101-120000-fold0 scans/ results/

      medseg segment BUNDLE study/ results/ --format dicom-seg --format rtstruct
    """
    with open_terminal("Run the same command again to resume.") as terminal:
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
            formats=formats or (),
            report=report,
            error_maps=error_maps,
            resample_uneven=resample_uneven,
            split_4d=split_4d,
            names_from_headers=names_from_headers,
            listeners=[terminal],
        )
    if as_json:
        print_json([entry.model_dump(mode="json") for entry in batch.results])
    else:
        _print_batch(terminal, batch)
    is_whole = not batch.failed and not batch.incomplete
    raise typer.Exit(0 if is_whole else FAILED)


def _print_batch(terminal: Terminal, batch: Batch) -> None:
    """Print how many scans were segmented; name those that were not, or not in all formats."""
    terminal.say(f"{_summarise(batch)} → {batch.out}")
    for entry in batch.incomplete:
        where = _locate(batch, entry)
        for name, why in entry.missing.items():
            terminal.say(f"  lacks {name}: {where}: {why}")
    for entry in batch.failed:
        where = _locate(batch, entry)
        what = batch.full_errors.get(entry.scan, entry.error)
        terminal.say(f"  failed: {where}: {what}")
    report = batch.out / "report.html"
    has_report = report.is_file()
    _print_review(terminal, batch)
    if batch.warned:
        count = format_count(len(batch.warned), "scan")
        told_in = report if has_report else batch.out / "ledger.jsonl"
        names = _name_scans(batch.warned)
        terminal.say(f"  {count} with warnings, told in {told_in}: {names}")
    if has_report:
        terminal.say(f"  report  {report}")


def _print_review(terminal: Terminal, batch: Batch) -> None:
    """Print which results to look at first, and why; and if nobody can know how good they are."""
    flagged = batch.to_review
    if flagged:
        terminal.say(f"  look at these first: {_name_scans(flagged)}")
    for entry in flagged[:_MAX_NAMED]:
        for reason in entry.review_reasons:
            terminal.say(f"    {entry.scan}: {reason}")
    if batch.unjudged:
        terminal.say(f"  note: {batch.unjudged}")


def _locate(batch: Batch, entry: Entry) -> str:
    """Return a scan's name in results, and where it was found."""
    place = batch.places.get(entry.scan, "")
    return f"{entry.scan} ({place})" if place else entry.scan


def _summarise(batch: Batch) -> str:
    done = len(batch.results) - len(batch.failed)
    kept = sum(entry.state == "skipped" for entry in batch.results)
    text = f"{done} of {len(batch.results)} scans segmented"
    if kept:
        text += f" ({kept} of them before, and unchanged)"
    if batch.incomplete:
        text += f", {len(batch.incomplete)} of them without a format asked for"
    return text


def _name_scans(entries: Sequence[Entry]) -> str:
    names = [entry.scan for entry in entries]
    text = ", ".join(names[:_MAX_NAMED])
    if len(names) > _MAX_NAMED:
        text += f" and {len(names) - _MAX_NAMED} more"
    return text
