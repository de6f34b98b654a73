"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg._support.threads import announce_threads


def _announce_threads(count: int | None) -> int | None:
    """Tell libraries before a command loads them."""
    announce_threads(count)
    return count


BundlePath = Annotated[
    Path,
    typer.Argument(
        metavar="BUNDLE", help="A bundle: its folder or its bundle.json."
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="auto (a GPU if there is one), cpu, cuda or cuda:N.",
    ),
]
Devices = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="NAMES",
        help="auto (a GPU if there is one), cpu, cuda or cuda:N. Several GPUs share the scans: "
        "cuda:0,1 for two of them, all for every one.",
    ),
]
Speed = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="On a CPU: exact (fp32, as stock MONAI), balanced (as fast as held-out cases "
        "showed to keep the Dice) or fast (faster, at some cost). Default: as the bundle "
        "says: balanced.",
        show_default=False,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=VALUE",
        help="Override a field of the bundle, e.g. training.steps=200. Repeatable.",
    ),
]
Split4D = Annotated[
    str,
    typer.Option(
        "--split-4d",
        metavar="HOW",
        help="instance-number: split a DICOM series whose headers do not tell its volumes (time "
        "points, echoes, b-values) apart by the numbers of its slices, if they run through one "
        "volume after the other, or one position after the other. Refused otherwise.",
        show_default=False,
    ),
]
TrustValues = Annotated[
    bool,
    typer.Option(
        "--trust-values",
        help="Go by the bundle's values and order of channels, whatever names the data give them: "
        "dataset.json, dseg.tsv, the segments of a .seg.nrrd.",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Print nothing but what failed, on stderr: nothing at all if all is well.",
    ),
]
Log = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Append to a log: a line per scan, with the time and no patient's name.",
        show_default=False,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        callback=_announce_threads,
        help="CPU threads to compute with. Default: one per core.",
        show_default=False,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON.")
]
