"""``medseg demo``: everything once, on phantoms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.evaluate import print_evaluation
from medseg.cli.options import Overrides
from medseg.cli.output import START_OVER, open_terminal

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.commands.demo import Demo


def demo(
    out: Annotated[
        Path, typer.Option(help="The folder to write everything to.")
    ] = Path("demo"),
    bundle: Annotated[
        Path, typer.Option(metavar="BUNDLE", help="A bundle for CT phantoms.")
    ] = Path("phantom_ct"),
    overrides: Overrides = None,
) -> None:
    """Train, segment and evaluate once on made-up scans, in minutes."""
    with open_terminal(START_OVER) as terminal:
        from medseg.commands.demo import demo as run

        written = run(
            bundle, out, overrides=overrides or (), listeners=[terminal]
        )
    _print_demo(terminal, written)


def _print_demo(terminal: Terminal, demo: Demo) -> None:
    """Print the demo's scores and what there is to look at."""
    print_evaluation(terminal, demo.evaluation, None)
    out = demo.run.parent
    files = {
        "a scan, segmented": demo.picture,
        "learning curves": demo.run / "curves.png",
        "model card": demo.run / "docs" / "README.md",
        "label maps, volumes": demo.results,
        "scores": out / "evaluation" / "evaluation.csv",
    }
    for what, file in files.items():
        terminal.say(f"  {what:20} {file}")
    store = f"sqlite:///{out / 'mlflow.db'}"
    terminal.say(
        f"  {'the run in MLflow':20} mlflow ui --backend-store-uri {store}"
    )
