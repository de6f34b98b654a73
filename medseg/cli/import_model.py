"""``medseg import``: a model that other software trained becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.options import AsJson
from medseg.cli.output import format_count, open_terminal, print_json
from medseg.errors import MedsegError

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.commands.import_totalsegmentator import AssemblyImport
    from medseg.commands.imported_bundle import Import


def import_model(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="nnU-Net's folder of a trained model, trainer__plans__configuration, or one above "
            "it; with several models in it they are listed. A MONAI Bundle, such as those of the "
            "model zoo. Or a model of Auto3DSeg, such as those of 3D Slicer: model.pt or its "
            "folder. Which of these it is, is recognised.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="A new folder: the bundle."),
    ],
    folds: Annotated[
        str,
        typer.Option(
            metavar="0,1,…|all",
            help="Of nnU-Net: which folds; scores of several are averaged. all: the one network "
            "trained on all cases. Default: every numbered fold that is there.",
            show_default=False,
        ),
    ] = "",
    configuration: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Of nnU-Net: which configuration, where there are several: 2d, 3d_lowres, "
            "3d_fullres.",
            show_default=False,
        ),
    ] = "",
    checkpoint: Annotated[
        str,
        typer.Option(
            metavar="final|best",
            help="Of nnU-Net: the last weights of each fold, or those that validated best.",
        ),
    ] = "final",
    totalsegmentator: Annotated[
        str,
        typer.Option(
            metavar="TASK",
            help="Make an assembly of a task of TotalSegmentator, such as total or total_fast, "
            "from the weights it has downloaded: MODEL is their folder.",
            show_default=False,
        ),
    ] = "",
    licence: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Licence of the weights, such as 'CC BY 4.0'; stands in the model card and in "
            "results. Default: what the model's own files tell.",
            show_default=False,
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Make a bundle or an assembly of others' trained models.

    The software itself is not needed. The bundle prepares scans, slides its window and makes labels
    as that software does, so its label maps are the same. It segments, serves, exports and is
    fine-tuned like any other. Nothing in the files is run: they are read as data, and what could be
    code, or is not known, is refused.

    Examples:

      medseg import nnUNet_results/Dataset009_Spleen spleen --folds all

      medseg import MODEL_FOLDER spleen --licence "CC BY 4.0"

      medseg import spleen_ct_segmentation spleen

      medseg segment spleen scans/ label_maps/

      medseg import ~/.totalsegmentator/nnunet/results total --totalsegmentator total
    """
    with open_terminal("Nothing was imported.") as terminal:
        if totalsegmentator:
            from medseg.commands.import_totalsegmentator import (
                import_totalsegmentator as run_task,
            )

            _refuse_choices(folds, configuration, checkpoint)
            assembly = run_task(
                totalsegmentator,
                model,
                out,
                licence=licence,
                listeners=[terminal],
            )
            _say_assembly(terminal, assembly, as_json)
            return
        from medseg.commands.import_model import import_model as run

        imported = run(
            model,
            out,
            folds=folds,
            configuration=configuration,
            checkpoint=checkpoint,
            licence=licence,
            listeners=[terminal],
        )
    if as_json:
        print_json(_to_json(imported))
    else:
        _print_import(terminal, imported)


def _refuse_choices(folds: str, configuration: str, checkpoint: str) -> None:
    """Refuse options that the table of TotalSegmentator's tasks decides."""
    if folds or configuration or checkpoint != "final":
        raise MedsegError(
            "--folds, --configuration and --checkpoint do not go with --totalsegmentator: its "
            "tasks say which networks they use"
        )


def _say_assembly(
    terminal: Terminal, assembly: AssemblyImport, as_json: bool
) -> None:
    spec = assembly.spec
    if as_json:
        print_json(
            {
                "folder": assembly.folder,
                "name": spec.name,
                "labels": [label.name for label in spec.labels],
                "bundles": [step.bundle for step in spec.steps],
                "licence": assembly.licence,
                "remarks": assembly.remarks,
            }
        )
        return
    terminal.say(f"Imported: {assembly.folder}")
    bundles = format_count(len(spec.steps), "bundle")
    labels = format_count(len(spec.labels), "label")
    terminal.say(f"  {spec.name}: {bundles} → {labels}")
    terminal.say(f"  licence of the weights: {assembly.licence}")


def _to_json(imported: Import) -> dict[str, Any]:
    return {
        "folder": imported.folder,
        "name": imported.spec.name,
        "members": imported.members,
        "origin": imported.origin.model_dump(mode="json"),
        "remarks": imported.remarks,
    }


def _print_import(terminal: Terminal, imported: Import) -> None:
    """Print where the bundle is, and what it is."""
    spec = imported.spec
    terminal.say(f"Imported: {imported.folder}")
    networks = format_count(imported.members, "network")
    channels = ", ".join(channel.name for channel in spec.channels)
    labels = format_count(len(spec.labels), "label")
    terminal.say(
        f"  {spec.name}: {networks} ({spec.network.kind}), {channels} → {labels}"
    )
    terminal.say(f"  from {spec.origin}")
    if imported.origin.licence == "unknown":
        terminal.say("  licence of the weights unknown; state it by --licence")
