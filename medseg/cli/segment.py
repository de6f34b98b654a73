"""``medseg segment``: label maps of scans, and which to look at first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.batch_output import print_batch, summarise
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
from medseg.cli.output import end_command, open_terminal, print_json


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
        print_batch(terminal, batch, counts, has_report=report)
    end_command(terminal, summarise(counts), is_whole=counts.has_all_results)
