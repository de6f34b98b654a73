"""``medseg demo``: everything once, on phantoms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.evaluate import print_evaluation
from medseg.cli.options import Overrides
from medseg.cli.output import open_terminal

if TYPE_CHECKING:
    from medseg.cli.terminal import Terminal
    from medseg.commands.demo import Demo


def demo(
    out: Annotated[Path, typer.Option(help="Folder to leave everything in.")] = Path("demo"),
    bundle: Annotated[
        Path, typer.Option(help="A bundle for CT phantoms.", metavar="BUNDLE")
    ] = Path("bundles/phantom_ct"),
    overrides: Overrides = None,
) -> None:
    """Make phantoms, train on them, segment and evaluate: everything once, in minutes.

    Run it in the folder of medseg's source, where bundles/phantom_ct is.
    """
    with open_terminal() as terminal:
        from medseg.commands.demo import demo as run

        left = run(bundle, out, overrides=overrides or (), listeners=[terminal])
    _print_demo(terminal, left)


def _print_demo(terminal: Terminal, demo: Demo) -> None:
    """Print the demo's scores and what there is to look at."""
    print_evaluation(terminal, demo.evaluation, None)
    out = demo.run.parent
    for what, where in (
        ("a scan, segmented", demo.picture),
        ("learning curves", demo.run / "curves.png"),
        ("model card", demo.run / "docs" / "README.md"),
        ("label maps, volumes", demo.results),
        ("scores", out / "evaluation" / "evaluation.csv"),
    ):
        terminal.say(f"  {what:20} {where}")
    store = f"sqlite:///{out / 'mlflow.db'}"
    terminal.say(f"  {'the run in MLflow':20} mlflow ui --backend-store-uri {store}")
