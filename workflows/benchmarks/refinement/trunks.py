"""Networks for comparing refinement's parts: a trunk of each seed, and what is grown from it.

Everything is trained in memory by medseg's own parts; what a training came to is one file, and a
file that is there is not made again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medseg.bundle.spec import BundleSpec, RefinementSpec
from medseg.datasets.cache import CachedCase
from medseg.events import Event, StepDone
from medseg.networks.building import build_network
from medseg.preprocessing.transforms import get_padding_value
from medseg.training.learner import Callbacks
from medseg.training.patches import PatchBatches
from medseg.training.refinement.mask_pool import MaskPool
from medseg.training.refinement.refiner_trainer import RefinerTrainer
from medseg.training.session import build_stages
from medseg.training.stages import select_learner_factory

CPU = torch.device("cpu")
SNAPSHOTS = (2, 4, 8)
"""Weights are kept after these parts of a trunk's steps, for the bank of imperfect masks."""

LAST = 4
"""A critic's gap is the mean over the last one of so many parts of its steps."""

Weights = Mapping[str, torch.Tensor]
MakeCritic = Callable[[BundleSpec, RefinementSpec], nn.Module]


@dataclass(frozen=True, slots=True)
class Grown:
    """What a training came to.

    Attributes:
        weights: Of the U-Net, or of the refiner.
        snapshots: Earlier weights of a U-Net, the oldest first.
        seconds: CPU time that it took.
        gap: How far apart the critic scored true and made masks; NaN without one.
    """

    weights: Weights
    snapshots: Sequence[Weights]
    seconds: float
    gap: float


class Gap:
    """A listener that adds up how far apart a critic's scores lie towards the end.

    Args:
        after: The step after which it begins.
    """

    def __init__(self, after: int) -> None:
        self._after, self._found = after, list[float]()

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.step > self._after:
            self._found.extend(
                [event.parts["critic_gap"]]
                if "critic_gap" in event.parts
                else []
            )

    @property
    def mean(self) -> float:
        """The mean gap; NaN where there was no critic."""
        return (
            sum(self._found) / len(self._found) if self._found else float("nan")
        )


@dataclass(frozen=True, slots=True)
class Trunk:
    """Weights that a training starts from."""

    weights: Weights

    def load_into(self, network: nn.Module) -> None:
        """Let a new network have them."""
        network.load_state_dict(self.weights)


def kept(file: Path, make: Callable[[], Grown]) -> Grown:
    """Return what a file holds, or make it and write the file."""
    if not file.is_file():
        made = make()
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        torch.save(
            {name: getattr(made, name) for name in Grown.__slots__}, part
        )
        part.rename(file)
    return Grown(**torch.load(file, weights_only=True))


def grow_unet(
    spec: BundleSpec,
    cases: Sequence[CachedCase],
    trunk: Grown | None = None,
) -> Grown:
    """Train a U-Net, against a critic where the bundle says so, from a trunk if one is given."""
    training, snapshots = spec.training, list[Weights]()
    gap = Gap(training.steps - training.steps // LAST)
    begun = Trunk(trunk.weights) if trunk else None
    began = time.process_time()
    build_learner = select_learner_factory(build_stages(spec))
    # A trunk is the same network, so nothing is matched by name as ``InitialWeights`` does.
    learner = build_learner(spec, cases, CPU, [gap], initial_weights=begun)  # type: ignore[arg-type]

    def keep(_: int) -> None:
        snapshots.append(_copied(learner.network))

    callbacks = Callbacks(
        validate=lambda _: True,
        save=lambda _: None,
        snapshot=keep,
        snapshot_steps=[]
        if trunk
        else sorted(training.steps // part for part in SNAPSHOTS),
    )
    learner.learn(callbacks)
    seconds = time.process_time() - began
    return Grown(
        _copied(learner.inference_network), snapshots, seconds, gap.mean
    )


def grow_refiner(
    spec: BundleSpec,
    cases: Sequence[CachedCase],
    trunk: Grown,
    make_critic: MakeCritic | None = None,
) -> Grown:
    """Train a refiner of a trunk's masks.

    Args:
        spec: A bundle with a refiner.
        cases: Training cases.
        trunk: The U-Net.
        make_critic: Makes the critic; medseg's own unless given.
    """
    refinement = spec.refinement
    if refinement is None:
        raise ValueError("the bundle has no refiner")
    gap = Gap(spec.training.steps + refinement.steps - refinement.steps // LAST)
    began = time.process_time()
    batches = PatchBatches(
        cases,
        spec.training,
        dims=spec.network.dims,
        padding=get_padding_value(spec),
        device=CPU,
    )
    networks = [
        _network(spec, weights) for weights in (*trunk.snapshots, trunk.weights)
    ]
    bank = MaskPool(
        spec,
        refinement.bank,
        batches,
        networks,
        steps=refinement.steps,
        device=CPU,
    )
    corrector = RefinerTrainer(spec, refinement, bank, CPU, [gap])
    if make_critic is not None:
        _replace_critic(corrector, spec, refinement, make_critic)
    corrector.learn(lambda: None)
    seconds = time.process_time() - began
    return Grown(dict(corrector.weights), [], seconds, gap.mean)


def _replace_critic(
    corrector: RefinerTrainer,
    spec: BundleSpec,
    refinement: RefinementSpec,
    make: MakeCritic,
) -> None:
    critic: Any = corrector.critic
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.training.seed)
        critic.network = critic.learner = make(spec, refinement)
    critic.optimizer = torch.optim.Adam(
        critic.network.parameters(),
        lr=refinement.critic.learning_rate,
        betas=(0.5, 0.999),
    )


def _network(spec: BundleSpec, weights: Weights) -> nn.Module:
    network = build_network(spec, supervised=False)
    network.load_state_dict(weights)
    return network


def _copied(network: nn.Module) -> Weights:
    return {
        name: value.detach().clone()
        for name, value in network.state_dict().items()
    }
