"""Runs trainings in forked processes, so that a test can kill them without paying for imports.

Reads one JSON object per line: the arguments of ``medseg.train``. For each it forks, prints the
child's process id, waits for it and prints its exit status. It computes nothing itself, so that
the children start with a clean torch.
"""

import json
import os
import sys
import traceback

import torch

from medseg.verbs.train import train


def _run(arguments: dict) -> int:
    try:
        torch.set_num_threads(1)
        train(**arguments)
    except Exception:  # noqa: BLE001 - a child must end here, whatever happens
        traceback.print_exc()
        return 1
    return 0


print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os._exit(_run(json.loads(line)))
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
