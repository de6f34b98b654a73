"""Each network of a training run learns in bf16 only where its gradients are sound."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.bundles import made_spec
from torch import nn

from medseg import MedsegError
from medseg.bundle.spec import BundleSpec
from medseg.networks import training_precision
from medseg.networks.critic import Critic
from medseg.networks.devices import CPU_BF16
from medseg.networks.training_precision import choose_training_precisions

CPU = torch.device("cpu")


def spec_of(precision: str = "auto", **sections: Any) -> BundleSpec:
    training = {"patch": [16, 16, 16], "precision": precision}
    network = {"kind": "unet", "channels": [4, 8, 8], "strides": [1, 2, 2]}
    return made_spec(network=network, training=training, **sections)


@pytest.fixture(autouse=True)
def hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that counts as one with bf16, and nothing remembered from another test."""
    monkeypatch.setenv(CPU_BF16, "1")
    monkeypatch.setattr(training_precision, "_CHOSEN", {})


def break_networks(
    patch: pytest.MonkeyPatch, *kinds: type[nn.Module]
) -> list[tuple[int, ...]]:
    """Let networks of some kinds count as unsound; return the list of the inputs tried."""
    tried: list[tuple[int, ...]] = []

    def find(network: nn.Module, inputs: list[torch.Tensor]) -> list[str]:
        tried.append(tuple(tensor.shape[1] for tensor in inputs))
        return (
            ["body.0 (Conv3d on 3×3×3)", "body.1"]
            if isinstance(network, kinds)
            else []
        )

    patch.setattr(training_precision, "find_unsound_layers", find)
    return tried


def test_every_network_that_will_learn_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = break_networks(monkeypatch)
    chosen = choose_training_precisions(spec_of(refinement={}), CPU)
    assert {chosen.network, chosen.refiner, chosen.critic} == {torch.bfloat16}
    assert chosen.notes == ()
    # U-Net, refiner, critic: image and three classes.
    assert tried == [
        (1,),
        (1 + 3,),
        (1, 3),
    ]


def test_only_the_network_at_fault_learns_in_fp32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    break_networks(monkeypatch, Critic)
    chosen = choose_training_precisions(spec_of(refinement={}), CPU)
    assert chosen.network == chosen.refiner == torch.bfloat16
    assert chosen.critic == torch.float32
    (note,) = chosen.notes
    assert "critic's layer body.0 (Conv3d on 3×3×3) and 1 more" in note
    assert note.endswith("the critic trains in fp32")


def test_bf16_that_was_asked_for_is_an_error_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    break_networks(monkeypatch, Critic)
    with pytest.raises(
        MedsegError, match=r"set training\.precision to auto or fp32"
    ):
        choose_training_precisions(spec_of("bf16", refinement={}), CPU)
    assert (
        choose_training_precisions(spec_of("bf16"), CPU).network
        == torch.bfloat16
    )


def test_networks_are_tried_once_and_nothing_random_is_used_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = break_networks(monkeypatch)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = choose_training_precisions(spec_of(), CPU)
    assert choose_training_precisions(spec_of(), CPU) is first
    assert len(tried) == 1
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("precision", "device"), [("fp32", "cpu"), ("auto", "cuda")]
)
def test_nothing_is_tried_where_bf16_is_not_computed_by_a_cpu(
    precision: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = break_networks(monkeypatch)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: True
    )
    choose_training_precisions(spec_of(precision), torch.device(device))
    assert tried == []


def test_a_cpu_without_bf16_trains_in_fp32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CPU_BF16, "0")
    assert choose_training_precisions(spec_of(), CPU).network == torch.float32
