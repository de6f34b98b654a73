"""Which device and which arithmetic a call gets."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support.pretend_gpu import pretend_gpus

from medseg import MedsegError
from medseg.networks.devices import (
    CPU_BF16,
    choose_device,
    choose_devices,
    choose_precision,
)
from medseg.networks.gpu_arithmetic import full_float32, training_arithmetic

CPU = torch.device("cpu")


def test_a_device_that_is_not_there_is_an_error_that_says_what_is_allowed() -> (
    None
):
    with pytest.raises(MedsegError, match="choose auto, cpu, or cuda:N"):
        choose_device("abacus")


def test_half_precision_needs_a_gpu() -> None:
    with pytest.raises(MedsegError, match="needs a GPU"):
        choose_precision("fp16", CPU)


@pytest.mark.parametrize(
    ("forced", "precision"), [("1", torch.bfloat16), ("0", torch.float32)]
)
def test_whether_the_cpu_counts_as_one_with_bf16_can_be_forced(
    forced: str, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CPU_BF16, forced)
    assert choose_precision("auto", CPU) == precision
    assert choose_precision("bf16", CPU) == torch.bfloat16
    assert choose_precision("fp32", CPU) == torch.float32


@pytest.mark.parametrize("name", ["mps", "meta", "xpu:0"])
def test_a_kind_of_device_that_medseg_was_not_made_for_is_refused(
    name: str,
) -> None:
    kind = name.partition(":")[0]
    with pytest.raises(
        MedsegError, match=f"does not compute on a device of the kind '{kind}'"
    ):
        choose_device(name)


def test_a_gpu_whose_memory_is_taken_is_not_called_absent() -> None:
    with (
        pretend_gpus(memory=0),
        pytest.raises(MedsegError, match="memory of device 'cuda' is taken"),
    ):
        choose_device("auto")


@pytest.mark.parametrize(
    ("names", "indices"),
    [
        ("cuda:0,1", [0, 1]),
        ("cuda:2, cuda:0", [2, 0]),
        ("all", [0, 1, 2]),
        ("cuda:1", [1]),
        ("auto", [None]),
    ],
)
def test_several_gpus_are_named_by_their_numbers(
    names: str, indices: list[int | None]
) -> None:
    with pretend_gpus(count=3):
        found = choose_devices(names)
    assert [device.index for device in found] == indices
    assert {device.type for device in found} == {"cuda"}


@pytest.mark.parametrize(
    "names", ["cuda:0,0", "cuda,1", "cpu,cuda:0", "cuda:0,7", "0,1", "cuda:0,"]
)
def test_gpus_that_cannot_share_are_refused(names: str) -> None:
    with (
        pretend_gpus(count=2),
        pytest.raises(MedsegError, match=r"choose|write"),
    ):
        choose_devices(names)


def test_all_gpus_are_none_without_one() -> None:
    with pytest.raises(MedsegError, match="there is none; choose auto or cpu"):
        choose_devices("all")


def modes() -> tuple[str, str]:
    convolutions = torch.backends.cudnn.conv.fp32_precision
    return convolutions, torch.backends.cuda.matmul.fp32_precision


def test_float32_is_full_until_the_last_that_wants_it_leaves() -> None:
    before = modes()
    inside: list[tuple[str, str]] = []
    other = ThreadPoolExecutor(1)
    with full_float32():
        leaving = threading.Event()

        def stay() -> None:
            with full_float32():
                inside.append(modes())
                leaving.wait(20)
                inside.append(modes())

        staying = other.submit(stay)
    leaving.set()
    staying.result()
    other.shutdown()
    assert inside == [("ieee", "ieee")] * 2
    assert modes() == before


def test_who_has_set_tf32_in_the_older_way_keeps_it_and_is_not_refused() -> (
    None
):
    on_cpu = torch.backends.mkldnn.matmul.fp32_precision
    try:
        for older in ("high", "medium"):
            torch.set_float32_matmul_precision(older)
            before = modes()
            with full_float32():
                # A GPU asks for this before each product, which raises where settings disagree.
                assert not torch.backends.cuda.matmul.allow_tf32
                assert modes() == ("ieee", "ieee")
            assert modes() == before
            assert torch.get_float32_matmul_precision() == older
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.mkldnn.matmul.fp32_precision = on_cpu
        torch.backends.cuda.matmul.fp32_precision = "none"


def test_training_takes_tf32_and_the_fastest_algorithm_on_a_gpu_alone() -> None:
    before = modes()
    with training_arithmetic(torch.device("cuda")):
        assert modes() == ("tf32", "ieee")
        assert torch.backends.cudnn.benchmark
    assert modes() == before
    assert not torch.backends.cudnn.benchmark
    with training_arithmetic(CPU):
        assert modes() == before


@pytest.mark.parametrize("was_on", [False, True])
def test_trainings_that_end_out_of_order_leave_what_was_set_before(
    was_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", was_on)
    gpu = torch.device("cuda")
    first, second = training_arithmetic(gpu), training_arithmetic(gpu)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.backends.cudnn.benchmark
    second.__exit__(None, None, None)
    assert torch.backends.cudnn.benchmark == was_on


def test_full_float32_wins_whoever_comes_and_goes_first() -> None:
    before = modes()
    gpu = torch.device("cuda")
    segmenting, training = full_float32(), training_arithmetic(gpu)
    segmenting.__enter__()
    training.__enter__()
    assert modes() == ("ieee", "ieee")
    segmenting.__exit__(None, None, None)
    assert modes() == ("tf32", "ieee")
    with full_float32():
        assert modes() == ("ieee", "ieee")
    assert modes() == ("tf32", "ieee")
    training.__exit__(None, None, None)
    assert modes() == before
