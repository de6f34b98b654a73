"""``medseg label``: the server on which clinicians correct results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.options import BundlePath, Device, Speed, Split4D
from medseg.cli.output import open_terminal


def label(
    bundle: BundlePath,
    studies: Annotated[
        str,
        typer.Argument(
            metavar="STUDIES",
            help="A folder of scans, or a DICOMweb server's URL.",
        ),
    ],
    state: Annotated[
        Path | None,
        typer.Option(
            help="Folder for labels, versions and logs. Default: label/NAME."
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on; any other needs --users.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(min=1, max=65535, metavar="N", help="Port to listen on."),
    ] = 8000,
    modality: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CT",
            help="Of a DICOMweb server, list only these. Repeatable.",
        ),
    ] = None,
    store_proposals: Annotated[
        bool,
        typer.Option(
            "--store-proposals",
            help="Store each proposal in the DICOMweb server, to be corrected in OHIF.",
        ),
    ] = False,
    split_4d: Split4D = "",
    device: Device = "auto",
    speed: Speed = None,
    users: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Who may log in; see: medseg user -h"
        ),
    ] = None,
    max_upload: Annotated[
        int,
        typer.Option(min=1, metavar="MB", help="Largest upload in megabytes."),
    ] = 2000,
    promote: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Serve version N from now on; starts no server.",
        ),
    ] = None,
) -> None:
    """Let clinicians correct results in 3D Slicer or a browser.

    Starts a MONAI Label server. Scans are never written to. A training run on the corrections makes
    a new version, which is served if it is not worse. `make label` installs what the server needs.

    Examples:

      medseg label runs/liver/20260101-120000-fold0 scans/

      medseg label BUNDLE http://127.0.0.1:8042/dicom-web --modality CT --store-proposals

      medseg label BUNDLE scans/ --promote 3
    """
    with open_terminal("The server was stopped.") as terminal:
        from medseg.label_server import server

        if promote is not None:
            version = server.promote(bundle, promote, state=state)
            typer.echo(f"version {version.name} is served from now on")
            return
        server.serve(
            bundle,
            studies,
            state=state,
            host=host,
            port=port,
            modalities=modality or (),
            store_proposals=store_proposals,
            split_4d=split_4d,
            device=device,
            speed=speed,
            users=users,
            max_upload_mb=max_upload,
            listeners=[terminal],
        )
