"""``medseg download``: an open data set to train on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg._support.platform.shells import quote_argument
from medseg.cli.options import AsJson
from medseg.cli.output import open_terminal, print_json
from medseg.errors import MedsegError

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.downloads.catalogue import OpenDataset


def download(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="The data set, such as hippocampus. Without it, all are listed.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            help="The folder to make. Default: the data set's own, such as Task04_Hippocampus.",
        ),
    ] = None,
    url: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            envvar="MEDSEG_DOWNLOAD_URL",
            help="A mirror: the archive's address, or that of a folder that holds it, ending in /; "
            "or an archive on this machine. Its checksum must be that of the data set.",
            show_default=False,
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Fetch an open data set to train on, or list them.

    What arrives is verified before it is unpacked. A download that broke off goes on where it was
    when the command is run again; one that is there already is left alone. Proxies are taken from
    HTTPS_PROXY and the like. Read the licence: it binds those who use the data.

    Examples:

      medseg download

      medseg download hippocampus

      medseg download spleen -o /data/spleen

      medseg download liver --url https://mirror.example.org/msd/
    """
    from medseg.downloads.catalogue import list_open_datasets

    if name is None:
        if out is not None:
            raise MedsegError(
                "-o goes with the name of a data set; medseg download alone lists them"
            )
        _list_datasets(list(list_open_datasets().values()), as_json)
        return
    advice = "Run the same command again: what has arrived is kept."
    with open_terminal(advice) as terminal:
        from medseg.commands.download import download as run
        from medseg.downloads.catalogue import get_open_dataset

        dataset = get_open_dataset(name)
        folder = run(name, out, url=url, listeners=[terminal])
    if as_json:
        print_json({**asdict(dataset), "path": str(folder)})
    else:
        _print_next_steps(terminal, dataset, folder)


def _list_datasets(datasets: list[OpenDataset], as_json: bool) -> None:
    """Print what can be downloaded."""
    from medseg.cli.terminal import Terminal
    from medseg.commands.download import list_bundles_for
    from medseg.downloads.installation import format_size

    bundles = {dataset.name: list_bundles_for(dataset) for dataset in datasets}
    if as_json:
        listed = [
            {**asdict(dataset), "bundles": bundles[dataset.name]}
            for dataset in datasets
        ]
        print_json(listed)
        return
    rows = [("name", "size", "licence", "what", "bundle")]
    for dataset in datasets:
        bundle = ", ".join(bundles[dataset.name])
        size = format_size(dataset.bytes)
        row = (dataset.name, size, dataset.licence, dataset.about, bundle)
        rows.append(row)
    terminal = Terminal()
    terminal.show_table(rows, left=(0, 2, 3, 4), wrapped=True)
    sources = {dataset.collection: dataset for dataset in datasets}
    for collection, dataset in sources.items():
        terminal.say(f"{collection}: {dataset.home}")
        terminal.say(f"  cite  {dataset.citation}")


def _print_next_steps(
    terminal: Terminal, dataset: OpenDataset, folder: Path
) -> None:
    """Print where a data set is, what binds its users, and what to do with it."""
    from medseg.commands.download import list_bundles_for

    data = quote_argument(folder)
    terminal.say(f"Data set: {folder}")
    terminal.say(f"  licence   {dataset.licence}, see {dataset.home}")
    terminal.say(f"  cite      {dataset.citation}")
    for bundle in list_bundles_for(dataset):
        terminal.say(f"  train it  medseg train {bundle} --data {data}")
    terminal.say(f"  plan it   medseg plan {data}")
