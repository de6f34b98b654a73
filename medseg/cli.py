"""The command line: argv → one call. The only place that prints and picks exit codes.

Exit codes: 0 all done; 1 some scans or cases failed, each named; 2 the call or the bundle is
wrong. Heavy libraries are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from medseg.words.errors import MedsegError

if TYPE_CHECKING:
    from medseg.terminal import Terminal

FAILED, WRONG, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="medseg",
    help="Medical image segmentation: train a bundle, segment scans, evaluate the results.",
    epilog="A bundle is a folder with a bundle.json. Try: medseg demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)

BundlePath = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or a bundle.json.")
]
Device = Annotated[
    str, typer.Option(help="auto (a GPU if there is one), cpu, cuda or cuda:N.", metavar="NAME")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=VALUE",
        help="Change a field of the bundle for this call, as in training.steps=200. Repeatable.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]


def main() -> None:
    """Run the command line and exit with its code."""
    # Before torch is loaded: threads that wait in a loop take the processor from other programs,
    # and on a busy machine that slows both down several times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(prog_name="medseg", standalone_mode=False)
    except MedsegError as error:
        _complain(str(error))
        sys.exit(WRONG)
    except KeyboardInterrupt:
        _complain("interrupted; a training goes on with --resume")
        sys.exit(INTERRUPTED)
    except Exception as error:
        # Typer's own complaints about the call carry their text and code; all else is a bug.
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        error.show()
        sys.exit(error.exit_code)
    # Out of standalone mode the code of typer.Exit is returned, not raised.
    sys.exit(code if isinstance(code, int) else 0)


@app.callback()
def _settings() -> None:
    """Set what holds for every command."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")


@app.command()
def plan(
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET",
            help="The data folder, or its list of cases; or nnU-Net's nnUNetPlans.json.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The bundle to write.", metavar="FILE")
    ] = Path("bundle.json"),
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With nnU-Net's plans: the raw data; else dataset.json lies beside the plans.",
        ),
    ] = None,
    channels: Annotated[
        list[str] | None,
        typer.Option(
            "--channel",
            metavar="NAME[:MODALITY]",
            help="A channel, such as T1 or uptake:PT: of BIDS and DICOM which to take, of others "
            "what it is called. Repeatable.",
        ),
    ] = None,
    dims: Annotated[
        str | None,
        typer.Option(metavar="2|3|both", help="Else the data decide; both writes two bundles."),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="GB", help="Memory for a step; else what the device has."),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Time for a training: 20m, 2h.")
    ] = None,
    class_weights: Annotated[
        str | None,
        typer.Option(metavar="balanced", help="Let small labels weigh more in the loss."),
    ] = None,
    device: Device = "auto",
    explain: Annotated[
        bool, typer.Option("--explain", help="Print every choice with its reason.")
    ] = False,
) -> None:
    """Plan a bundle for a data set: look at every case, and write a bundle.json with reasons.

    Examples:

      medseg plan Task04_Hippocampus --budget 20m --explain

      medseg plan nnUNet_raw/Dataset001_Liver -o liver/bundle.json --dims both

      medseg plan studies/ --channel CT --channel PET

      medseg plan nnUNet_preprocessed/Dataset001_Liver/nnUNetPlans.json --dims 3
    """
    if dims not in (None, "2", "3", "both"):
        raise MedsegError(f"--dims takes 2, 3 or both; got '{dims}'")
    wanted = {out: int(dims) if dims in ("2", "3") else None}
    if dims == "both":
        wanted = {out.with_stem(f"{out.stem}-{n}d"): n for n in (2, 3)}
    with _terminal() as terminal:
        from medseg.verbs.plan import plan_each

        plans = plan_each(
            dataset,
            wanted,
            data=data,
            channels=channels or (),
            memory_gb=memory,
            budget=budget,
            class_weights=class_weights,
            device=device,
            listeners=[terminal],
        )
    for made in plans:
        terminal.print_plan(made, explain)


@app.command()
def train(
    bundle: BundlePath,
    data: Annotated[
        Path | None, typer.Option(help="The data folder; else the bundle's data.root.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run folder, new or empty; else runs/NAME/TIME-foldK."),
    ] = None,
    fold: Annotated[
        str,
        typer.Option(
            metavar="K",
            help="Fold to validate on; 'none' trains on every case; 'all' trains each fold and "
            "makes one bundle that averages over them.",
        ),
    ] = "0",
    device: Device = "auto",
    overrides: Overrides = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="TRAINED",
            help="Fine-tune: start from this trained bundle's weights, matched by name.",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run that was stopped or killed.")
    ] = False,
    skip_bad_cases: Annotated[
        bool, typer.Option("--skip-bad-cases", help="Go on without cases that have a fault.")
    ] = False,
) -> None:
    """Train a bundle on a data set; writes a trained bundle.

    Examples:

      medseg train bundles/hippocampus_mr --data Task04_Hippocampus

      medseg train bundle.json --fold 2 --set training.steps=2000

      medseg train bundle.json --from runs/hippocampus_mr/20260101-120000-fold0

      medseg train bundle.json --fold all --out runs/liver/all-folds

      medseg train bundle.json --resume
    """
    with _terminal() as terminal:
        from medseg.verbs.train import train as run

        run_folder = run(
            bundle,
            data=data,
            out=out,
            fold=_fold(fold),
            device=device,
            overrides=overrides or (),
            start_from=start_from,
            resume=resume,
            skip_bad_cases=skip_bad_cases,
            listeners=[terminal],
        )
    if os.environ.get("RANK", "0") == "0":  # torchrun starts several; the first speaks
        terminal.print_run(run_folder)


@app.command()
def segment(
    bundle: BundlePath,
    scans: Annotated[
        Path,
        typer.Argument(
            metavar="SCANS", help="A scan, a folder (searched with all below it) or a CSV."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder for results.")],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="nifti, png (pictures), dicom-seg or rtstruct (DICOM scans). Repeatable.",
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option(help="Draw a picture of each scan and write OUT/report.html.")
    ] = True,
    error_maps: Annotated[
        bool,
        typer.Option(
            "--error-maps",
            help="Also write OUT/error_maps: for each voxel, how probably its label is wrong (%).",
        ),
    ] = False,
    resample_uneven: Annotated[
        bool,
        typer.Option(
            "--resample-uneven",
            help="Interpolate DICOM slices at uneven distances onto a regular grid; "
            "they are refused otherwise.",
        ),
    ] = False,
    names_from_headers: Annotated[
        bool,
        typer.Option(
            "--names-from-headers",
            help="Name results of DICOM series by patient, study and series; these names "
            "identify the patient. A hash otherwise.",
        ),
    ] = False,
    device: Device = "auto",
    backend: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="torch, openvino, or auto: openvino on a CPU where it was exported and agrees.",
        ),
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="fp32, bf16, fp16 (GPU), or auto: fp32 on a CPU, fast on a GPU."
        ),
    ] = "auto",
    mirror: Annotated[
        bool | None,
        typer.Option(
            "--mirror/--no-mirror",
            help="Average over flips: 2 to 8 times as slow. Else as the bundle says.",
            show_default=False,
        ),
    ] = None,
    fold_ensemble: Annotated[
        bool,
        typer.Option(help="Average over the networks of all folds, where a bundle has several."),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Segment scans with a trained bundle: NIfTI, DICOM series, NRRD, MHA or pictures.

    Label maps lie on the scans' own grids. OUT/report.html shows every scan, the worst results
    first, OUT/volumes.csv has the millilitres and the expected Dice of each structure, and
    OUT/ledger.jsonl one line per scan. After being
    stopped, or when scans were added, the same call goes on with what is not done. Exit code 1:
    some scans failed.

    Examples:

      medseg segment runs/hippocampus_mr/20260101-120000-fold0 scans/ results/

      medseg segment BUNDLE study/ results/ --format dicom-seg --format rtstruct
    """
    with _terminal() as terminal:
        from medseg.verbs.segment import segment as run

        try:
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
                names_from_headers=names_from_headers,
                listeners=[terminal],
            )
        except KeyboardInterrupt:
            _complain("interrupted; the same call goes on where this one stopped")
            raise typer.Exit(INTERRUPTED) from None
    if as_json:
        _print_json([entry.model_dump(mode="json") for entry in batch.results])
    else:
        terminal.print_batch(batch)
    raise typer.Exit(FAILED if batch.failed else 0)


@app.command()
def evaluate(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="A folder of label maps, or one.")
    ],
    references: Annotated[
        Path | None,
        typer.Argument(metavar="[REFERENCES]", help="The same by hand, or a data set with labels."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for evaluation.csv and summaries.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Bundle whose labels name the values; else every value is a label."),
    ] = None,
    ignore: Annotated[
        int | None,
        typer.Option(min=1, metavar="VALUE", help="Value of voxels that nobody annotated."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="MM", help="Tolerance of the NSD in mm; 1 unless given."),
    ] = None,
    lesions: Annotated[
        bool, typer.Option("--lesions", help="Count lesions found, missed and made up.")
    ] = False,
    versus: Annotated[
        Path | None,
        typer.Option(metavar="OTHER", help="Another method's predictions, to compare with."),
    ] = None,
    without_references: Annotated[
        bool,
        typer.Option(
            "--without-references",
            help="Judge masks from any source by how far a trained --bundle agrees.",
        ),
    ] = False,
    scans: Annotated[
        Path | None,
        typer.Option(metavar="SCANS", help="What the masks were drawn on, without references."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Without references: as for segment; else auto."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score label maps against references: Dice, IoU, HD95, NSD and volume error.

    Without references masks are judged by their agreement with a trained bundle, worst first.

    Exit code 1: some pairs could not be scored.

    Example:

      medseg evaluate results/ Task04_Hippocampus/labelsTr -o scores

      medseg evaluate results/ labelsTr --versus nnunet/ -o scores

      medseg evaluate --without-references masks/ --bundle BUNDLE --scans scans/ -o scores
    """
    if without_references:
        if references or versus or lesions or ignore is not None or tolerance is not None:
            raise MedsegError(
                "--without-references compares with a bundle alone; leave out REFERENCES, "
                "--versus, --lesions, --ignore and --tolerance"
            )
        _judge_masks(predictions, bundle, scans, out, device or "auto", as_json)
        return
    if scans is not None or device is not None:
        raise MedsegError(
            "--scans and --device go with --without-references; with REFERENCES no network is run"
        )
    if references is None:
        raise MedsegError(
            "give REFERENCES to score against, or --without-references with --bundle and --scans"
        )
    with _terminal() as terminal:
        from medseg.tools.bundle import load_bundle
        from medseg.tools.metrics import TOLERANCE_MM
        from medseg.verbs.evaluate import evaluate as run

        labels = load_bundle(bundle).spec if bundle else None
        evaluation = run(
            predictions,
            references,
            out,
            labels=labels,
            ignore=ignore,
            tolerance_mm=TOLERANCE_MM if tolerance is None else tolerance,
            lesions=lesions,
            versus=versus,
            listeners=[terminal],
        )
    if as_json:
        _print_json({"scores": evaluation.scores, "cases": evaluation.rows()})
    else:
        terminal.print_evaluation(evaluation, out)
    raise typer.Exit(FAILED if evaluation.faults else 0)


def _judge_masks(
    predictions: Path,
    bundle: Path | None,
    scans: Path | None,
    out: Path | None,
    device: str,
    as_json: bool,
) -> None:
    if bundle is None or scans is None:
        raise MedsegError(
            "--without-references needs a trained --bundle to agree with, and --scans for it to see"
        )
    with _terminal() as terminal:
        from medseg.verbs.evaluate_without_references import evaluate_without_references as run

        review = run(predictions, bundle, scans, out, device=device, listeners=[terminal])
    if as_json:
        _print_json({"coverage": review.coverage, "cases": review.rows()})
    else:
        terminal.print_mask_review(review, out)
    raise typer.Exit(FAILED if review.faults else 0)


@app.command()
def label(
    bundle: BundlePath,
    studies: Annotated[
        str,
        typer.Argument(metavar="STUDIES", help="A folder of scans, or a DICOMweb server's URL."),
    ],
    state: Annotated[
        Path | None,
        typer.Option(help="Folder for labels, versions and logs; else label/NAME."),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; others need --users.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, metavar="N")] = 8000,
    modality: Annotated[
        list[str] | None,
        typer.Option(metavar="CT", help="List only these of a DICOMweb server. Repeatable."),
    ] = None,
    device: Device = "auto",
    users: Annotated[
        Path | None, typer.Option(metavar="FILE", help="One 'name: password' a line.")
    ] = None,
    max_upload: Annotated[
        int, typer.Option(min=1, metavar="MB", help="Largest upload in megabytes.")
    ] = 2000,
    promote: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Serve version N from now on, and start no server."),
    ] = None,
) -> None:
    """Let clinicians correct results in 3D Slicer or a browser, and learn from them.

    Starts MONAI Label's server. Scans are never written to; a training makes a new version, which
    is served if it is not worse. `make label` installs what it needs.

    Examples:

      medseg label runs/liver/20260101-120000-fold0 scans/

      medseg label BUNDLE http://127.0.0.1:8042/dicom-web --modality CT

      medseg label BUNDLE scans/ --promote 3
    """
    with _terminal() as terminal:
        from medseg.label import server

        if promote is not None:
            version = server.promote(bundle, promote, state=state)
            typer.echo(f"version {version.name} is served now")
            return
        server.serve(
            bundle,
            studies,
            state=state,
            host=host,
            port=port,
            modalities=modality or (),
            device=device,
            users=users,
            max_upload_mb=max_upload,
            listeners=[terminal],
        )


@app.command()
def export(
    bundle: BundlePath,
    to: Annotated[str, typer.Option(metavar="NAME", help="monai, onnx or openvino.")],
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="[OUT]", help="A new folder. For openvino the bundle itself unless given."
        ),
    ] = None,
    scans: Annotated[
        Path | None,
        typer.Option(
            help="openvino: scans to compare label maps on; else phantoms.", metavar="DIR"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Export a trained bundle for other software, or to a faster backend.

    monai: a MONAI Bundle that stock MONAI runs, without medseg. onnx: each network as a file.
    openvino: networks that 'medseg segment' computes faster on a CPU; the label maps of both
    backends are compared, and '--backend auto' uses them only if they agree.

    Examples:

      medseg export runs/liver/20260101-120000-fold0 liver_monai --to monai

      medseg export runs/liver/20260101-120000-fold0 --to openvino --scans some_scans/
    """
    with _terminal() as terminal:
        from medseg.verbs.export import export as run

        made = run(bundle, out, to=to, scans=scans, listeners=[terminal])
    if as_json:
        found = made.agreement
        content = {"folder": made.folder, "agreement": found and found.model_dump(mode="json")}
        _print_json(content)
    else:
        terminal.print_export(made)


@app.command()
def check(
    bundle: BundlePath,
    data: Annotated[
        Path | None, typer.Option(help="The data folder; else the bundle's, if it is there.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Name every fault of a bundle and its data; nothing is trained.

    Exit code 2: there are faults.

    Example:

      medseg check bundle.json --data Task04_Hippocampus
    """
    with _terminal() as terminal:
        from medseg.verbs.check import check as run

        report = run(bundle, data=data, overrides=overrides or (), listeners=[terminal])
    if as_json:
        _print_json(_plain(report))
    else:
        terminal.print_report(report)
    raise typer.Exit(WRONG if report.faults else 0)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to leave everything in.")] = Path("demo"),
    bundle: Annotated[
        Path, typer.Option(help="A bundle for CT phantoms.", metavar="BUNDLE")
    ] = Path("bundles/phantom_ct"),
    overrides: Overrides = None,
) -> None:
    """Make phantoms, train on them, segment and evaluate: everything once, in minutes.

    Run it in the folder of medseg's source, where bundles/phantom_ct is.
    """
    with _terminal() as terminal:
        from medseg.verbs.demo import demo as run

        left = run(bundle, out, overrides=overrides or (), listeners=[terminal])
    terminal.print_demo(left)


@app.command()
def schema() -> None:
    """Print the JSON Schema of bundle.json, for editors."""
    from medseg.tools.bundle import bundle_schema

    _print_json(bundle_schema())


def _fold(text: str) -> int | Literal["all"] | None:
    if text.lower() == "none":
        return None
    if text.lower() == "all":
        return "all"
    if text.isdigit():
        return int(text)
    raise MedsegError(f"--fold takes a number such as 0, 'all' or 'none'; got '{text}'")


def _terminal() -> Terminal:
    from medseg.terminal import Terminal

    return Terminal()


def _complain(message: str) -> None:
    typer.echo(f"medseg: {message}", err=True)


def _print_json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=2, ensure_ascii=False, default=str))


def _plain(record: Any) -> Any:
    from dataclasses import asdict

    return asdict(record)


if __name__ == "__main__":
    main()
