"""``medseg train``: a trained bundle of a bundle and a data set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medseg._support.platform.shells import quote_argument
from medseg.cli.options import Device, Overrides, Threads, TrustValues
from medseg.cli.output import open_terminal
from medseg.errors import MedsegError

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal


def train(
    bundle: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE|DATASET",
            help="A bundle: its folder or its bundle.json. With --budget also a data set, for "
            "which a bundle is planned first.",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="The data folder. Default: the bundle's data.root."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The run folder, new or empty. Default: runs/NAME/TIME-foldK."
        ),
    ] = None,
    fold: Annotated[
        str,
        typer.Option(
            metavar="K",
            help="The fold to validate on; 'none' trains on every case; 'all' trains each fold and "
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
            help="Fine-tune: start from this trained bundle's weights, labels and channels matched "
            "by name. Network and preprocessing are its own where the bundle leaves them out, and "
            "where a data set is planned first.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Wall-clock time for the run, such as 20m or 2h. Default: the bundle's.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue a run that was stopped or killed. With --out under torchrun or on a "
            "cluster, a run that has not begun begins, so that one command serves both.",
        ),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where preprocessed cases are kept, such as a fast local disk. Default: "
            "preprocessed beside the runs.",
        ),
    ] = None,
    skip_bad_cases: Annotated[
        bool,
        typer.Option(
            "--skip-bad-cases", help="Leave out cases that have a fault."
        ),
    ] = False,
    trust_values: TrustValues = False,
    threads: Threads = None,
    on: Annotated[
        str,
        typer.Option(
            "--on",
            metavar="ray[=ADDRESS]",
            help="Let the nodes of a Ray cluster, that of this machine or of this head's "
            "HOST:PORT, check and preprocess the cases; one network is then trained by this "
            "process, the folds of --fold all by the nodes side by side. DATA, OUT and the cache "
            "must lie on a disk that all nodes share. Each case takes --threads CPUs of its node "
            "(default: 4), each fold also a GPU where there are some.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Train a bundle on a data set, with a report of its scores.

    Examples:

      medseg train hippocampus_mr --data Task04_Hippocampus

      medseg train bundle.json --fold 2 --set training.steps=2000

      medseg train bundle.json --from runs/hippocampus_mr/20260101-120000-fold0

      medseg train bundle.json --fold all --out runs/liver/all-folds

      medseg train bundle.json --fold all --out runs/liver/all-folds --resume --on ray=10.0.0.1:6379

      medseg train bundle.json --resume

      medseg train Task04_Hippocampus --budget 20m

      medseg train Task04_Hippocampus --budget 20m --from imported
    """
    advice = "Run the same command again with --resume to continue."
    with open_terminal(advice) as terminal:
        from medseg.commands.train import train as run

        run_folder = run(
            bundle,
            data=data,
            out=out,
            fold=_parse_fold(fold),
            device=device,
            overrides=overrides or (),
            start_from=start_from,
            budget=budget,
            resume=resume,
            cache=cache,
            skip_bad_cases=skip_bad_cases,
            trust_values=trust_values,
            threads=threads,
            on=on,
            listeners=[terminal],
        )
    # Of the processes that torchrun starts, the first prints.
    if os.environ.get("RANK", "0") == "0":
        _print_run(terminal, run_folder)


def _parse_fold(text: str) -> int | Literal["all"] | None:
    if text.lower() == "none":
        return None
    if text.lower() == "all":
        return "all"
    if text.isdigit():
        return int(text)
    raise MedsegError(
        f"--fold takes a number such as 0, 'all' or 'none'; got '{text}'"
    )


def _print_run(terminal: Terminal, folder: Path) -> None:
    """Print where a trained bundle is and what to do with it."""
    terminal.say(f"Trained bundle: {folder}")
    terminal.say(f"  scores    {folder / 'docs' / 'README.md'}")
    pictures = {
        "curves": folder / "curves.png",
        "previews": folder / "previews/validation.png",
    }
    for what, file in pictures.items():
        if file.is_file():  # a bundle of all folds has them in each fold's run
            terminal.say(f"  {what:9} {file}")
    bundle = quote_argument(folder)
    terminal.say(f"  use it    medseg segment {bundle} SCANS OUT")
