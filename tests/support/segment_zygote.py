"""Segments in forked processes, so that a test can kill them without paying for imports.

Reads one JSON object per line: the arguments of ``medseg.segment``, under ``after`` the seconds
after which the child gets a signal, and under ``signal`` which one (9 unless given). It prints the
child's exit status and how many seconds it lived. It computes nothing itself, so that children
start with a clean torch.
"""

import json
import os
import signal
import sys
import threading
import time
import traceback

# What segmenting loads when it is first needed: here once, not in each child.
import jinja2  # noqa: F401
import monai.inferers
import monai.networks.nets
import monai.transforms  # noqa: F401
import torch

import medseg.networks.building
import medseg.plots.thumbnails  # noqa: F401
from medseg.commands.segment import segment

INTERRUPTED, LEFT_A_THREAD = 130, 3


def _run(arguments: dict) -> int:
    try:
        torch.set_num_threads(1)
        segment(**arguments)
    except KeyboardInterrupt:
        return INTERRUPTED if threading.active_count() == 1 else LEFT_A_THREAD
    except Exception:  # noqa: BLE001 - a child must end here, whatever happens
        traceback.print_exc()
        return 1
    return 0


def _watch(child: int, number: int, after: float | None) -> tuple[int, float]:
    began = time.perf_counter()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        lived = time.perf_counter() - began
        if ended:
            return os.waitstatus_to_exitcode(status), lived
        if after is not None and lived >= after:
            os.kill(child, number)
            after = None
        time.sleep(0.001)


# A shell that starts this in the background has it ignore Ctrl-C, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    after, number = (
        order.pop("after", None),
        order.pop("signal", signal.SIGKILL),
    )
    child = os.fork()
    if child == 0:
        os._exit(_run(order))
    print(json.dumps(_watch(child, number, after)), flush=True)
