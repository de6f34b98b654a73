"""The command line: argv → one call. The only place that prints and picks exit codes.

One file per command holds its options and what it prints. Heavy libraries are imported inside the
commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import medseg
from medseg._support.addresses import find_store_address, hide_credentials
from medseg.cli.bundles import bundles
from medseg.cli.calibrate import calibrate
from medseg.cli.check import check
from medseg.cli.consoles import show_all_signs
from medseg.cli.demo import demo
from medseg.cli.download import download
from medseg.cli.evaluate import evaluate
from medseg.cli.export import export
from medseg.cli.import_model import import_model
from medseg.cli.label import label
from medseg.cli.output import (
    INTERRUPTED,
    get_exit_code,
    print_error,
    print_interruption,
)
from medseg.cli.plan import plan
from medseg.cli.plugins import plugins
from medseg.cli.report import report
from medseg.cli.review import review
from medseg.cli.schema import schema
from medseg.cli.segment import segment
from medseg.cli.train import train
from medseg.cli.user import user
from medseg.errors import MedsegError

__all__ = ["app", "main"]

app = typer.Typer(
    name="medseg",
    help="Medical image segmentation: train a bundle, segment scans, evaluate the results.",
    epilog="A bundle is a folder with a bundle.json. To see everything once: medseg demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)

_COMMANDS = (
    download,
    plan,
    train,
    segment,
    report,
    evaluate,
    review,
    label,
    user,
    export,
    import_model,
    calibrate,
    check,
    demo,
    bundles,
    plugins,
    schema,
)
_TAKES_ADDRESSES = ("segment", "report")
_NAMES: dict[Any, str] = {import_model: "import"}  # a word of Python's
for _command in _COMMANDS:
    app.command(_NAMES.get(_command))(_command)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"medseg {medseg.__version__}")
        raise typer.Exit


@app.callback()
def _configure(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Configure what all commands share."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")


def main() -> None:
    """Run the command line and exit with its code."""
    # To be set before torch is loaded: threads that spin while they wait take the processor from
    # other programs, and on a busy machine that slows both down several times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    show_all_signs()
    sys.exit(_run())


def _run() -> int:
    """Run the command line and return its exit code."""
    try:
        _refuse_addresses(sys.argv[1:])
        code = app(prog_name="medseg", standalone_mode=False)
    except MedsegError as error:
        print_error(str(error))
        return get_exit_code(error)
    except KeyboardInterrupt:
        # Before or after a command's own work; during it, the command says how to go on.
        print_interruption("")
        return INTERRUPTED
    except Exception as error:
        # Typer's own errors about the call have a text and a code; anything else is a bug.
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        error.show()
        return int(error.exit_code)
    # Out of standalone mode the code of typer.Exit is returned, not raised.
    return code if isinstance(code, int) else 0


def _refuse_addresses(arguments: Sequence[str]) -> None:
    """Refuse addresses of object stores where only folders and files of this machine are meant.

    Raises:
        MedsegError: If there is one.
    """
    command = next(iter(arguments), "")
    if command in _TAKES_ADDRESSES:
        return
    for argument in arguments:
        address = find_store_address(argument)
        if address:
            raise MedsegError(
                f"{command} works on files and folders of this machine; of all commands, "
                f"{' and '.join(_TAKES_ADDRESSES)} alone take addresses. Copy the objects here "
                "first",
                source=hide_credentials(address),
            )
