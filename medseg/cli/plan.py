"""``medseg plan``: a bundle for a data set, with every reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.options import Device
from medseg.cli.output import open_terminal
from medseg.errors import MedsegError

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.commands.plan import Plan


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

      medseg plan --explain liver/bundle.json
    """
    if dims not in (None, "2", "3", "both"):
        raise MedsegError(f"--dims takes 2, 3 or both; got '{dims}'")
    wanted = {out: int(dims) if dims in ("2", "3") else None}
    if dims == "both":
        wanted = {out.with_stem(f"{out.stem}-{n}d"): n for n in (2, 3)}
    with open_terminal() as terminal:
        from medseg.bundle.bundle import is_bundle
        from medseg.commands.plan import plan_bundles

        if explain and is_bundle(dataset):
            if any((data, channels, dims, memory, budget, class_weights)):
                raise MedsegError(
                    f"{dataset} is planned already: --explain prints its reasons, and no other "
                    "option goes with it"
                )
            _explain(terminal, dataset)
            return
        plans = plan_bundles(
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
        _print_plan(terminal, made, explain)


def _print_plan(terminal: Terminal, plan: Plan, explain: bool) -> None:
    """Say what was planned; with every choice and its reason if that is wanted."""
    spec, training = plan.spec, plan.spec.training
    labels = ", ".join(label.name for label in spec.labels)
    regions = ", ".join(region.name for region in spec.regions)
    patch = " × ".join(str(size) for size in training.patch)
    budget = f" in {training.budget_minutes:g} minutes" if training.budget_minutes else ""
    seen = len(plan.fingerprint.cases)
    cases = _counted(seen, "case") if seen else "nnU-Net's plans"
    for line in (
        f"{cases}; {_counted(len(spec.labels), 'label')}: {labels}",
        *([f"{_counted(len(spec.regions), 'region')}: {regions}"] if regions else []),
        f"{spec.network.dims}D, patch {patch}, batch {training.batch_size}, about "
        f"{training.steps} steps{budget}",
    ):
        terminal.say(line)
    if explain:
        _show(terminal, plan.rows())
    terminal.say(f"Bundle: {plan.file}")
    terminal.say(f"  train it  medseg train {plan.file}")


def _explain(terminal: Terminal, bundle: Path) -> None:
    """Print why a bundle that is there already is as it is."""
    from medseg.bundle.bundle import load_bundle
    from medseg.commands.plan import list_choices

    rows = list_choices(load_bundle(bundle).spec)
    if not rows:
        raise MedsegError(f"{bundle} says no reasons: its notes are empty")
    _show(terminal, rows)


def _show(terminal: Terminal, rows: Sequence[tuple[str, str, str]]) -> None:
    terminal.show_table([("field", "value", "why"), *rows], left=range(3), wrapped=True)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
