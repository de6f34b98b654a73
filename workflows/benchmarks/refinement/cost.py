"""What refinement costs: a forward pass against the U-Net's, a step against the supervised one.

    python workflows/benchmarks/refinement/cost.py bundles/hippocampus_mr bundles/cardiac_mr_2d

Made-up images of the bundle's own patch and batch size; all arms take turns in one process, and a
ratio is the median of the ratios of neighbouring rounds, in CPU seconds, which stay comparable on
a machine that others use.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from medseg._support.provenance import collect_provenance
from medseg.bundle.bundle import load_bundle
from medseg.bundle.spec import BundleSpec, RefinementSpec
from medseg.datasets.cache import CachedCase
from medseg.events import Event, StepDone
from medseg.networks.building import build_network
from medseg.networks.refiner import build_refined
from medseg.training.learner import Callbacks
from medseg.training.patches import PatchBatches
from medseg.training.refinement.mask_pool import MaskPool
from medseg.training.refinement.refiner_trainer import RefinerTrainer
from medseg.training.session import build_stages
from medseg.training.stages import select_learner_factory

CPU = torch.device("cpu")
MOST_FORWARD, MOST_STEP = 2.0, 4.0


def made_up_case(spec: BundleSpec) -> CachedCase:
    """Return a case of noise with a block of each label, a little larger than a patch."""
    rng = np.random.default_rng(0)
    x, y, z = (*(n + 8 for n in spec.training.patch), 8)[:3]
    label = np.zeros((x, y, z), np.uint8)
    for index in range(1, spec.label_set.channels):
        label[8 * index : 8 * index + 8, 8:24] = index
    flat = label.reshape(-1)
    return CachedCase(
        "0123456789",
        "0123456789",
        torch.from_numpy(
            rng.normal(size=(len(spec.channels), x, y, z)).astype(np.float16)
        ),
        torch.from_numpy(label[None]),
        {int(i): np.flatnonzero(flat == i) for i in np.unique(flat) if i},
        (1.0, 1.0, 1.0),
    )


def cpu_seconds(act: Callable[[], object]) -> float:
    began = time.process_time()
    act()
    return time.process_time() - began


class Laps:
    """A listener that notes the CPU time between steps."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = time.process_time()

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            now = time.process_time()
            self.seconds.append(now - self._last)
            self._last = now

    @property
    def typical(self) -> float:
        """Median, the first step left out: it warms up."""
        return statistics.median(self.seconds[1:])


def forwards(spec: BundleSpec) -> dict[str, Callable[[], object]]:
    """Return one window's pass through the U-Net, and through U-Net and refiner."""
    image = torch.randn(1, len(spec.channels), *spec.training.patch)
    plain = build_network(spec, supervised=False).eval()
    refined = build_refined(spec, both=True).eval()
    return {"U-Net": lambda: plain(image), "U-Net + R": lambda: refined(image)}


def steps(
    spec: BundleSpec, refinement: RefinementSpec, count: int
) -> dict[str, Callable[[], float]]:
    """Return trainings of a few steps; each gives its typical CPU seconds per step."""
    case = made_up_case(spec)
    short = spec.training.model_copy(update={"steps": count, "warmup_steps": 0})
    spec = spec.model_copy(update={"training": short})

    def batches() -> PatchBatches:
        return PatchBatches(
            [case],
            spec.training,
            dims=spec.network.dims,
            padding=0.0,
            device=CPU,
        )

    def supervised(adversarial: bool) -> float:
        joint = refinement.model_copy(
            update={"kind": "joint", "start": 0.0, "ramp": 0.0}
        )
        laps = Laps()
        chosen = spec.model_copy(
            update={"refinement": joint if adversarial else None}
        )
        build_learner = select_learner_factory(build_stages(chosen))
        callbacks = Callbacks(validate=lambda _: True, save=lambda _: None)
        build_learner(chosen, [case], CPU, [laps]).learn(callbacks)
        return laps.typical

    def corrector(weight: float) -> float:
        update = {
            "steps": count,
            "start": 0.0,
            "ramp": 0.0,
            "adversarial_weight": weight,
        }
        chosen, laps = refinement.model_copy(update=update), Laps()
        networks = [build_network(spec, supervised=False) for _ in range(4)]
        bank = MaskPool(
            spec, chosen.bank, batches(), networks, steps=count, device=CPU
        )
        RefinerTrainer(spec, chosen, bank, CPU, [laps]).learn(lambda: None)
        return laps.typical

    return {
        "supervised": lambda: supervised(adversarial=False),
        "joint": lambda: supervised(adversarial=True),
        "corrector": lambda: corrector(0.0),
        "corrector + critic": lambda: corrector(refinement.adversarial_weight),
    }


def table(rounds: list[Mapping[str, float]], most: float) -> bool:
    """Print seconds and ratios to the first arm; return whether all are within the limit."""
    first = next(iter(rounds[0]))
    within = True
    print(
        "| arm | CPU s, median | ratio, median | ratio, range |\n| --- | ---: | ---: | --- |"
    )
    for arm in rounds[0]:
        ratios = [one[arm] / one[first] for one in rounds]
        median = statistics.median(ratios)
        within &= median <= most
        seconds = statistics.median(one[arm] for one in rounds)
        print(
            f"| {arm} | {seconds:.4f} | {median:.2f} | {min(ratios):.2f}–{max(ratios):.2f} |"
        )
    return within


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args()

    torch.set_num_threads(1)
    within = True
    for path in given.bundles:
        bundle = load_bundle(path).spec
        refinement = bundle.refinement or RefinementSpec()
        spec = bundle.model_copy(update={"refinement": refinement})
        print(f"\n## {spec.name}: one window, {given.rounds} rounds\n")
        arms = forwards(spec)
        with torch.inference_mode():
            for act in arms.values():
                act()
            rounds = [
                {arm: cpu_seconds(act) for arm, act in arms.items()}
                for _ in range(given.rounds)
            ]
        within &= table(rounds, MOST_FORWARD)
        print(f"\n## {spec.name}: one step, {given.rounds} rounds\n")
        trainings = steps(spec, refinement, given.steps)
        within &= table(
            [
                {arm: act() for arm, act in trainings.items()}
                for _ in range(given.rounds)
            ],
            MOST_STEP,
        )
    print(
        f"\nwithin {MOST_FORWARD:g}× forward and {MOST_STEP:g}× step: {within}"
    )
    print(json.dumps(collect_provenance(CPU), indent=1))


if __name__ == "__main__":
    main()
