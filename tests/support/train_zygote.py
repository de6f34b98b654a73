"""Runs trainings in forked processes, so that a test can kill them without paying for imports.

Reads one JSON object per line: the arguments of ``medseg.train``, and under ``kill_at`` the text of
the event at which the child kills itself, by the signal under ``kill_by`` (SIGKILL unless given: no
handler, no clean-up). A run that can be resumed after it exits with 130. For each it forks,
waits and prints the child's exit status. It computes nothing itself, so that the children start
with a clean torch.
"""

import json
import os
import signal
import sys
import traceback

import mlflow.pyfunc
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - once here, not in each child
import torch
from mlflow.utils import requirements_utils

from medseg.commands.train import train
from medseg.events import Event
from medseg.training.interruption import RunInterrupted


def _run(arguments: dict) -> int:
    kill_at = arguments.pop("kill_at", None)
    kill_by = arguments.pop("kill_by", signal.SIGKILL)

    def listen(event: Event) -> None:
        if kill_at is not None and repr(event).startswith(kill_at):
            os.kill(os.getpid(), kill_by)

    try:
        torch.set_num_threads(1)
        train(**arguments, listeners=[listen])
    except RunInterrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return 130
    except Exception:  # noqa: BLE001 - a child must end here, whatever happens
        traceback.print_exc()
        return 1
    return 0


# What MLflow asks about the installed packages, once for all children.
requirements_utils._init_packages_to_modules_map()
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os._exit(_run(json.loads(line)))
    print(os.waitpid(child, 0)[1], flush=True)
