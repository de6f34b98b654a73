"""What ``check.py`` starts under torchrun: a process joins its group and learns for a moment."""

from __future__ import annotations

import sys

from made import TINY, make_cases, make_spec

from medseg.training.distributed import choose_local_device, join_process_group
from medseg.training.learner import Callbacks, Learner

SMALL = {
    "patch": [16, 16, 16],
    "batch_size": 2,
    "steps": 4,
    "warmup_steps": 1,
    "ema": None,
}


def main() -> None:
    device = choose_local_device(sys.argv[1])
    with join_process_group(device) as group:
        spec = make_spec(training=SMALL, network=TINY)
        cases = make_cases(2, (20, 20, 20))
        learner = Learner(spec, cases, device, group=group)
        learner.learn(Callbacks(lambda _: True, lambda _: None))
        agreed = group.broadcast("agreed")
        group.barrier()
        print(
            f"{learner.step} steps on {device}, {group.size} process, {agreed}"
        )


if __name__ == "__main__":
    main()
