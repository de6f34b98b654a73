"""``medseg plan``: a bundle for a data set, with every reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg._support.platform.shells import quote_argument
from medseg.cli.options import AsJson, Device, Split4D
from medseg.cli.output import format_count, open_terminal, print_json
from medseg.errors import MedsegError

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.planning.plan import Plan


def plan(
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET",
            help="The data folder, or its list of cases; or nnU-Net's nnUNetPlans.json. With "
            "--explain also a bundle.json.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", help="The bundle to write."
        ),
    ] = Path("bundle.json"),
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With nnU-Net's plans: the raw data. Default: dataset.json is beside the plans.",
        ),
    ] = None,
    channels: Annotated[
        list[str] | None,
        typer.Option(
            "--channel",
            metavar="NAME[:MODALITY]",
            help="A channel, such as T1 or uptake:PT: of BIDS and DICOM data, which to use; of "
            "others, its name. Repeatable, in order.",
        ),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--images",
            metavar="PATTERN",
            help="Which files are images, such as 'scans/*.nii.gz', where names do not say it. "
            "What * stands for pairs them with --labels. Repeatable: one for each channel.",
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--labels",
            metavar="PATTERN|NAME=VALUES",
            help="Which files are labels, such as 'truth/*_manual.nii.gz'; one * more than in "
            "--images is the name of a structure with a mask of its own. Or what is in them: "
            "liver=1 or 1=liver,2=kidney; myelin=127,128 makes one label of two values; "
            "road=128,64,128 is a colour of pictures; background=… is nothing, ignore=… what "
            "nobody annotated. Repeatable.",
        ),
    ] = None,
    split_4d: Split4D = "",
    splits: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Which cases are held out: nnU-Net's splits_final.json, a CSV with name and fold "
            "or split, or val.txt beside train.txt. Default: the data set's own split, if any.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD=COLUMN,…",
            help="What the columns of a CSV are called: image=scan,label=seg; also name, patient "
            "and fold. Several images are channels, several labels structures.",
        ),
    ] = None,
    draft_csv: Annotated[
        Path | None,
        typer.Option(
            "--draft-csv",
            metavar="FILE",
            help="Instead of planning, write the cases that were found, or else every image, into "
            "a CSV to correct and fill in.",
        ),
    ] = None,
    dims: Annotated[
        str | None,
        typer.Option(
            metavar="2|3|both",
            help="Dimensions of the network. Default: by the data. both writes two bundles.",
        ),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="GB",
            help="Memory for a training step. Default: what the device has.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Wall-clock time for a training run, such as 20m or 2h.",
        ),
    ] = None,
    network: Annotated[
        str,
        typer.Option(
            metavar="auto|resenc",
            help="resenc: nnU-Net's residual encoder, for a GPU; --memory 10, 24 or 40 makes its "
            "presets M, L and XL. auto: by time and memory.",
        ),
    ] = "auto",
    start_from: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="TRAINED",
            help="Plan for fine-tuning this trained bundle: its network, preprocessing and "
            "windows, with the labels and channels of the data.",
        ),
    ] = None,
    class_weights: Annotated[
        str | None,
        typer.Option(
            metavar="balanced", help="Let small labels weigh more in the loss."
        ),
    ] = None,
    more_labels: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUES",
            hidden=True,
            help="More labels, as after --labels.",
        ),
    ] = None,
    leave_out_stray: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="VOXELS",
            help="Count label values of at most so many voxels, in all cases together, as "
            "background; each is named. Default: every value is a label.",
        ),
    ] = 0,
    device: Device = "auto",
    measure: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure",
            help="Time some steps of the planned network on this device, some 10 seconds, and say "
            "how long training takes and how much memory.",
        ),
    ] = True,
    on: Annotated[
        str,
        typer.Option(
            "--on",
            metavar="ray[=ADDRESS]",
            help="Let the nodes of a Ray cluster, that of this machine or of this head's "
            "HOST:PORT, inspect the cases, a CPU for each. DATASET must lie on a disk that all "
            "nodes share.",
            show_default=False,
        ),
    ] = "",
    as_json: AsJson = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Print every choice with its reason."),
    ] = False,
) -> None:
    """Plan a bundle for a data set, with a reason for every choice.

    Every case is inspected once, and a bundle.json is written.

    Examples:

      medseg plan Task04_Hippocampus --budget 20m --explain

      medseg plan nnUNet_raw/Dataset001_Liver -o liver/bundle.json --dims both

      medseg plan studies/ --channel CT --channel PET

      medseg plan slides/ --labels myelin=127,128 axon=255

      medseg plan CamVid/ --labels road=128,64,128 --labels ignore=0,0,0

      medseg plan data/ --images 'scans/*.nii.gz' --labels 'truth/*_manual.nii.gz'

      medseg plan data/ --draft-csv cases.csv

      medseg plan cases.csv --columns image=scan,label=seg

      medseg plan nnUNet_preprocessed/Dataset001_Liver/nnUNetPlans.json --dims 3

      medseg plan my_data --from imported_spleen -o fine_tuned/bundle.json

      medseg plan --explain liver/bundle.json
    """
    files = _choose_files(out, dims)
    dataset, more = _find_dataset([str(dataset), *(more_labels or ())])
    label_pattern, label_values = _sort_labels([*(labels or ()), *more])
    advice = (
        "Run the same command again; inspected cases are not inspected twice."
    )
    with open_terminal(advice) as terminal:
        from medseg.bundle.bundle import is_bundle
        from medseg.commands.plan import plan_bundles

        of_plan = (channels, dims, memory, budget, class_weights, start_from)
        of_data = (data, columns, leave_out_stray, split_4d, splits, on)
        others = (*of_plan, *of_data, *label_values)
        if explain and is_bundle(dataset):
            has_options = any((*others, images, label_pattern, draft_csv))
            _explain_bundle(terminal, dataset, has_options)
            return
        if draft_csv is not None:
            if any(others):
                raise MedsegError(
                    "--draft-csv writes a list of files and plans nothing: of the other options "
                    "only patterns for --images and --labels go with it; give the rest when you "
                    "plan the list"
                )
            _draft_table(terminal, dataset, draft_csv, images, label_pattern)
            return
        plans = plan_bundles(
            dataset,
            files,
            data=data,
            channels=channels or (),
            images=images or (),
            labels=label_pattern,
            columns=columns,
            split_4d=split_4d,
            splits=splits,
            memory_gb=memory,
            budget=budget,
            class_weights=class_weights,
            network=network,
            label_values=label_values,
            stray_voxels=leave_out_stray,
            device=device,
            measure=measure,
            start_from=start_from,
            on=on,
            listeners=[terminal],
        )
    _print_plans(terminal, plans, explain, as_json, start_from)


def _find_dataset(arguments: list[str]) -> tuple[Path, list[str]]:
    """Return the data set, and the definitions of labels that follow ``--labels``.

    Raises:
        MedsegError: If there are other arguments, too.
    """
    more = [
        text for text in arguments if "=" in text and not Path(text).exists()
    ]
    others = [text for text in arguments if text not in more] or more[:1]
    if len(others) > 1:
        raise MedsegError(
            f"one data set is planned at a time; got {len(others)} arguments: {', '.join(others)}"
        )
    return Path(others[0]), [text for text in more if text not in others]


def _sort_labels(texts: list[str]) -> tuple[str | None, list[str]]:
    """Tell the pattern of label files from definitions of labels.

    Raises:
        MedsegError: If there are several patterns.
    """
    definitions = [text for text in texts if "=" in text]
    patterns = [text for text in texts if "=" not in text]
    if len(patterns) > 1:
        raise MedsegError(
            f"--labels takes one pattern of files; got {', '.join(patterns)}"
        )
    pattern = patterns[0] if patterns else None
    return pattern, definitions


def _choose_files(out: Path, dims: str | None) -> dict[Path, int | None]:
    """Return the bundles to write, each with its dimensions."""
    if dims is None:
        return {out: None}
    if dims in ("2", "3"):
        return {out: int(dims)}
    if dims == "both":
        return {out.with_stem(f"{out.stem}-{n}d"): n for n in (2, 3)}
    raise MedsegError(f"--dims takes 2, 3 or both; got '{dims}'")


def _print_plans(
    terminal: Terminal,
    plans: Sequence[Plan],
    explain: bool,
    as_json: bool,
    parent: Path | None,
) -> None:
    from medseg.commands.plan_summary import list_plan_fields

    if as_json:
        print_json([list_plan_fields(planned) for planned in plans])
        return
    for planned in plans:
        _print_plan(terminal, planned, explain, parent)


def _print_plan(
    terminal: Terminal, plan: Plan, explain: bool, parent: Path | None
) -> None:
    """Print what was planned; with every choice and its reason if asked for."""
    from medseg.commands.plan_summary import describe_plan

    for line in describe_plan(plan):
        terminal.say(line)
    if explain:
        _show_choices(terminal, plan.rows())
    terminal.say(f"Bundle: {plan.file}")
    command = f"medseg train {quote_argument(plan.file)}"
    if parent:
        command += f" --from {quote_argument(parent)}"
    terminal.say(f"  train it  {command}")


def _draft_table(
    terminal: Terminal,
    dataset: Path,
    file: Path,
    images: list[str] | None,
    labels: str | None,
) -> None:
    """Write a table of cases to fill in."""
    from medseg.commands.case_table import draft_table

    complete, count = draft_table(
        dataset, file, images=images or (), labels=labels
    )
    terminal.say(f"{format_count(count, 'line')}: {file}")
    if complete:
        terminal.say(f"  plan it   medseg plan {quote_argument(file)}")
    else:
        terminal.say(
            "  fill in the column label, and remove lines that are no cases; then medseg plan "
            f"{quote_argument(file)}"
        )


def _explain_bundle(
    terminal: Terminal, bundle: Path, has_options: bool
) -> None:
    """Print the reasons that an existing bundle gives.

    Raises:
        MedsegError: If it gives none, or other options were given.
    """
    if has_options:
        raise MedsegError(
            "is planned already: --explain prints its reasons, and no other option goes with it",
            source=bundle,
        )
    from medseg.bundle.bundle import load_bundle
    from medseg.planning.choices import list_choices

    rows = list_choices(load_bundle(bundle).spec)
    if not rows:
        raise MedsegError(
            "gives no reasons: its notes are empty", source=bundle
        )
    _show_choices(terminal, rows)


def _show_choices(
    terminal: Terminal, rows: Sequence[tuple[str, str, str]]
) -> None:
    terminal.show_table(
        [("field", "value", "why"), *rows], left=range(3), wrapped=True
    )
