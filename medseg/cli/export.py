"""``medseg export``: a trained bundle for other software."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.options import AsJson, BundlePath
from medseg.cli.output import format_count, open_terminal, print_json

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.commands.export import Export


def export(
    bundle: BundlePath,
    to: Annotated[
        str, typer.Option(metavar="NAME", help="monai, onnx or openvino.")
    ],
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT",
            help="A new folder. Default for openvino: the bundle itself.",
        ),
    ] = None,
    scans: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="openvino: scans to compare label maps on. Default: phantoms.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="LABELLED",
            help="openvino: labelled cases that the bundle has not learned from, 8 or more. It is "
            "calibrated on them first, which decides how fast a CPU may compute the network.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Export a trained bundle: MONAI, ONNX, or OpenVINO for CPUs.

    monai: a MONAI Bundle that stock MONAI runs without medseg. onnx: an ONNX file for each
    network. openvino: networks that 'medseg segment' computes faster on a CPU; the label maps of
    both backends are compared, and OpenVINO is used by default only if they agree. Labelled cases
    (--data) also decide whether bf16, int8 and fewer windows keep the Dice, as in 'calibrate'.

    Examples:

      medseg export runs/liver/20260101-120000-fold0 liver_monai --to monai

      medseg export runs/liver/20260101-120000-fold0 --to openvino --scans s/
    """
    with open_terminal("Nothing was exported.") as terminal:
        from medseg.commands.export import export as run

        exported = run(
            bundle, out, to=to, scans=scans, data=data, listeners=[terminal]
        )
    if as_json:
        print_json(_to_json(exported))
    else:
        _print_export(terminal, exported)


def _to_json(exported: Export) -> dict[str, Any]:
    agreement = exported.agreement
    return {
        "folder": exported.folder,
        "agreement": None
        if agreement is None
        else agreement.model_dump(mode="json"),
    }


def _print_export(terminal: Terminal, exported: Export) -> None:
    """Print where an export is, and how far its label maps agree."""
    terminal.say(f"Exported: {exported.folder}")
    agreement = exported.agreement
    if agreement is None:
        return
    compared = format_count(
        agreement.scans, "phantom" if agreement.made_up else "scan"
    )
    terminal.say(
        f"  {agreement.differ} of {agreement.labelled} labelled voxels differ from PyTorch's "
        f"({compared}); agreement {agreement.agreement:.6f}",
    )
    if agreement.is_close:
        terminal.say("  --backend auto uses it on a CPU")
    elif not agreement.labelled:
        terminal.say(
            "  no voxel was labelled, so nothing is known: use --scans"
        )
    else:
        terminal.say(
            "  too little for --backend auto; --backend openvino uses it"
        )
