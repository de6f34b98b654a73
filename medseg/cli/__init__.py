"""The command line: argv → one call. The only place that prints and picks exit codes.

One file per command holds its options and what it says. Heavy libraries are imported inside the
commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import logging
import os
import sys

import typer

from medseg.cli.check import check
from medseg.cli.demo import demo
from medseg.cli.evaluate import evaluate
from medseg.cli.export import export
from medseg.cli.label import label
from medseg.cli.output import INTERRUPTED, WRONG, print_error
from medseg.cli.plan import plan
from medseg.cli.review import review
from medseg.cli.schema import schema
from medseg.cli.segment import segment
from medseg.cli.train import train
from medseg.errors import MedsegError

__all__ = ["app", "main"]

app = typer.Typer(
    name="medseg",
    help="Medical image segmentation: train a bundle, segment scans, evaluate the results.",
    epilog="A bundle is a folder with a bundle.json. Try: medseg demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)

for _command in (plan, train, segment, evaluate, review, label, export, check, demo, schema):
    app.command()(_command)


@app.callback()
def _settings() -> None:
    """Set what holds for every command."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")


def main() -> None:
    """Run the command line and exit with its code."""
    # Before torch is loaded: threads that wait in a loop take the processor from other programs,
    # and on a busy machine that slows both down several times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(prog_name="medseg", standalone_mode=False)
    except MedsegError as error:
        print_error(str(error))
        sys.exit(WRONG)
    except KeyboardInterrupt:
        print_error("interrupted; a training goes on with --resume")
        sys.exit(INTERRUPTED)
    except Exception as error:
        # Typer's own complaints about the call carry their text and code; all else is a bug.
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        error.show()
        sys.exit(error.exit_code)
    # Out of standalone mode the code of typer.Exit is returned, not raised.
    sys.exit(code if isinstance(code, int) else 0)
