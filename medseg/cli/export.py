"""``medseg export``: a trained bundle for other software."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.options import AsJson, BundlePath
from medseg.cli.output import open_terminal, print_json

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.commands.export import Export


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
    with open_terminal() as terminal:
        from medseg.commands.export import export as run

        made = run(bundle, out, to=to, scans=scans, listeners=[terminal])
    if as_json:
        found = made.agreement
        content = {"folder": made.folder, "agreement": found and found.model_dump(mode="json")}
        print_json(content)
    else:
        _print_export(terminal, made)


def _print_export(terminal: Terminal, made: Export) -> None:
    """Say where an export is, and how far its label maps agree."""
    terminal.say(f"Exported: {made.folder}")
    found = made.agreement
    if found is None:
        return
    what = f"{found.scans} {'phantom' if found.made_up else 'scan'}{'s' * (found.scans != 1)}"
    terminal.say(
        f"  {found.differ} of {found.labelled} labelled voxels differ from PyTorch's "
        f"({what}); agreement {found.agreement:.6f}",
    )
    if found.is_close:
        terminal.say("  --backend auto uses it on a CPU")
    elif not found.labelled:
        terminal.say("  nothing was labelled, so nothing is known: give --scans")
    else:
        terminal.say("  too little for --backend auto; --backend openvino uses it")
