"""The arithmetic that each network of a training run learns in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from medseg.bundle.spec import BundleSpec
from medseg.errors import MedsegError
from medseg.networks.building import build_network
from medseg.networks.critic import Critic
from medseg.networks.devices import choose_precision
from medseg.networks.gradient_check import find_unsound_layers
from medseg.networks.refiner import build_refiner

_CHOSEN: dict[tuple[str, ...], TrainingPrecisions] = {}


@dataclass(frozen=True, slots=True)
class TrainingPrecisions:
    """What each network learns in.

    Attributes:
        network: Of the network that makes the coarse labels.
        refiner: Of the refiner, if there is one.
        critic: Of the critic, if there is one.
        notes: What a person should know about the choice, one sentence each.
    """

    network: torch.dtype
    refiner: torch.dtype
    critic: torch.dtype
    notes: tuple[str, ...] = ()


def choose_training_precisions(
    spec: BundleSpec, device: torch.device
) -> TrainingPrecisions:
    """Choose the arithmetic of every network that will learn, before anything is learned.

    ``training.precision`` says which; ``auto`` is bf16 where the hardware computes in it. On a
    CPU, a network whose gradients would be wrong in bf16 (``medseg.networks.gradient_check``)
    learns in fp32 instead.

    Args:
        spec: The bundle.
        device: Where the networks will learn.

    Raises:
        MedsegError: If the bundle asks for bf16 and a network's gradients would be wrong in it.
    """
    precision = choose_precision(spec.training.precision, device)
    if device.type != "cpu" or precision != torch.bfloat16:
        return TrainingPrecisions(precision, precision, precision)
    # Each part of a training run asks, and with other threads other kernels may be taken.
    key = _key(spec)
    if key not in _CHOSEN:
        _CHOSEN[key] = _try_networks(spec)
    return _CHOSEN[key]


def _key(spec: BundleSpec) -> tuple[str, ...]:
    """Return all that the networks, their sizes and the kernels taken depend on."""
    sizes = [spec.input_channels, spec.label_set.channels, *spec.training.patch]
    refinement = (
        "" if spec.refinement is None else spec.refinement.model_dump_json()
    )
    return (
        spec.network.model_dump_json(),
        refinement,
        spec.training.precision,
        str(sizes),
        str(torch.get_num_threads()),
    )


def _try_networks(spec: BundleSpec) -> TrainingPrecisions:
    precisions = {
        "network": torch.bfloat16,
        "refiner": torch.bfloat16,
        "critic": torch.bfloat16,
    }
    notes = []
    for candidate in _list_candidates(spec):
        unsound = _try_candidate(candidate, spec.training.patch)
        if unsound:
            notes.append(_explain(spec, candidate.role, unsound))
            precisions[candidate.role] = torch.float32
    return TrainingPrecisions(**precisions, notes=tuple(notes))


class _Candidate(NamedTuple):
    """A network that will learn: its role, how it is built, and the channels of its inputs."""

    role: str
    build: Callable[[], nn.Module]
    channels: tuple[int, ...]


def _list_candidates(spec: BundleSpec) -> list[_Candidate]:
    images = spec.input_channels
    classes = spec.label_set.channels
    candidates = [
        _Candidate("network", partial(build_network, spec), (images,))
    ]
    refinement = spec.refinement
    if refinement is None:
        return candidates
    if refinement.kind == "corrector":
        build = partial(build_refiner, spec)
        candidates.append(_Candidate("refiner", build, (images + classes,)))
    if refinement.has_critic:
        build_critic = partial(Critic, spec, refinement)
        candidates.append(_Candidate("critic", build_critic, (images, classes)))
    return candidates


def _try_candidate(candidate: _Candidate, patch: Sequence[int]) -> list[str]:
    """Return the layers of a network whose bf16 gradients are wrong on patches of this size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = candidate.build()
        inputs = [
            torch.randn(1, channels, *patch) for channels in candidate.channels
        ]
        return find_unsound_layers(network, inputs)


def _explain(spec: BundleSpec, role: str, unsound: list[str]) -> str:
    """Say that a network learns in fp32.

    Raises:
        MedsegError: If the bundle asks for bf16.
    """
    more = len(unsound) - 1
    others = f" and {more} more" if more else ""
    wrong = f"this CPU computes wrong bf16 gradients for the {role}'s layer {unsound[0]}{others}"
    if spec.training.precision != "auto":
        raise MedsegError(f"{wrong}; set training.precision to auto or fp32")
    return f"{wrong}; the {role} trains in fp32"
