"""Training on a GPU, a pretend one: it resumes, waits seldom, and survives a full memory."""

from __future__ import annotations

import gc
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from support.bundles import made_spec
from support.cases import balls, made_case, numbered_case
from support.pretend_gpu import PretendGpus, pretend_gpus

from medseg.bundle.spec import AUGMENTATIONS, BundleSpec
from medseg.datasets.cache import CachedCase
from medseg.errors import MedsegError, TrainingError
from medseg.events import StepDone
from medseg.networks.building import build_network
from medseg.networks.refiner import build_refined
from medseg.training import patch_extraction, patch_placement, patches
from medseg.training.device_errors import explain_device_errors
from medseg.training.distributed import choose_local_device
from medseg.training.learner import Callbacks, Learner, move_to_gpu
from medseg.training.refinement.acceptance import score_coarse_and_refined
from medseg.training.validation import validate_network

GPU = torch.device("cuda")
CPU = torch.device("cpu")


def cases() -> list[CachedCase]:
    return [made_case(balls(seed=seed)) for seed in range(3)]


def spec_with(**training: Any) -> BundleSpec:
    return made_spec(
        training={
            "steps": 4,
            "patch": [8, 8, 8],
            "validate_every": 4,
            "checkpoint_every": 2,
            "warmup_steps": 1,
            **training,
        }
    )


def to_host(state: Any) -> Any:
    """Return a state as a checkpoint brings it back."""
    if isinstance(state, dict):
        return {key: to_host(value) for key, value in state.items()}
    if isinstance(state, list):
        return [to_host(value) for value in state]
    if isinstance(state, torch.Tensor):
        return state.detach().cpu().clone()
    return deepcopy(state)


def learn(
    spec: BundleSpec,
    state: Any = None,
    device: torch.device = GPU,
    listeners: Any = (),
) -> tuple[Learner, dict[int, Any]]:
    learner = Learner(spec, cases(), device, listeners)
    saved: dict[int, Any] = {}
    if state is not None:
        learner.restore(state)

    def save(step: int) -> None:
        saved[step] = to_host(learner.state())

    learner.learn(Callbacks(lambda _: True, save))
    return learner, saved


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_resumed_run_ends_at_the_same_weights(precision: str) -> None:
    spec = spec_with(precision=precision, ema=0.9, gradient_clip=1.0)
    with pretend_gpus():
        _, unbroken = learn(spec)
        _, resumed = learn(spec, unbroken[2])
    scale = unbroken[2]["scale"]
    assert (scale is not None) == (precision == "fp16")
    if scale is not None:
        assert scale["scale"] > 1
        assert scale["_growth_tracker"] == 2
        assert resumed[4]["scale"] == unbroken[4]["scale"]
    for part in ("network", "average"):
        for name, value in unbroken[4][part].items():
            assert torch.equal(value, resumed[4][part][name]), name


def test_what_is_learned_is_what_a_cpu_learns() -> None:
    spec = spec_with(precision="fp32", augmentation="none", ema=0.9)
    with pretend_gpus():
        _, there = learn(spec)
    _, here = learn(spec, device=CPU)
    for name, value in here[4]["average"].items():
        close = torch.allclose(value, there[4]["average"][name], atol=1e-4)
        assert close, name


def test_the_host_waits_for_the_gpu_once_in_many_steps() -> None:
    spec = spec_with(
        steps=12,
        validate_every=12,
        checkpoint_every=12,
        augmentation="standard",
        precision="bf16",
        ema=0.9,
        gradient_clip=1.0,
        batch_size=2,
    )
    told: list[Any] = []
    with pretend_gpus() as gpus:
        learner = Learner(spec, cases(), GPU, [told.append])
        gpus.forget_counts()
        learner.learn(Callbacks(lambda _: True, lambda _: None))
        assert sum(gpus.waits.values()) <= 0.1 * 12, gpus.waits
        assert gpus.launches <= 12 * LAUNCHES_PER_STEP
    steps = [event for event in told if isinstance(event, StepDone)]
    assert [event.step for event in steps] == list(range(1, 13))
    assert all(np.isfinite(event.loss) for event in steps)
    assert set(steps[0].parts) == {"dice", "ce"}


LAUNCHES_PER_STEP = 800
"""Of this small network, with every augmentation that may happen; they may not become more."""


def test_cases_that_do_not_fit_are_sent_without_a_wait() -> None:
    spec = spec_with(augmentation="standard", precision="fp32")
    there = cases()
    with pretend_gpus(memory=3 * there[0].nbytes) as gpus:
        placed = move_to_gpu(there, GPU)
        assert [case.image.device.type for case in placed] == [
            "cuda",
            "cpu",
            "cpu",
        ]
        batches = patches.PatchBatches(
            placed, spec.training, dims=3, padding=0.0, device=GPU
        )
        gpus.forget_counts()
        for step in range(1, 5):
            batch = batches.batch(step)
        assert not gpus.waits
        assert batch["image"].device.type == "cuda"


def test_a_patch_made_on_a_gpu_is_the_one_made_on_a_cpu() -> None:
    case = numbered_case((20, 24, 16), spacing=(1.0, 1.0, 1.0))
    strong = AUGMENTATIONS["standard"].model_copy(
        update={"rotation": 1.0, "scaling": 1.0}
    )
    rng = np.random.default_rng(0)
    for patch, dims in (((12, 10, 8), 3), ((12, 10, 1), 2)):
        placement = patch_placement.draw_placement(
            case, patch, strong, rng, foreground=True, dims=dims
        )
        here = patch_extraction.extract_patch(case, patch, placement, -1.0)
        low, high = patch_extraction._find_box(patch, placement)
        grid = patch_extraction._sampling_grid(patch, placement, low, high)
        with pretend_gpus() as gpus:
            made = patch_extraction.make_grid_on(
                GPU, patch, placement, low, high
            )
            # In voxels: the grid goes from -1 to 1.
            apart = (made.cpu() - grid).abs().max() * 12
            assert float(apart) < 1e-4
            there = patch_extraction.extract_patch(
                case, patch, placement, -1.0, GPU
            )
            assert sum(gpus.waits.values()) == 1  # for this very comparison
            image = there[0].cpu()
        assert torch.allclose(image, here[0], atol=2.0)


def test_a_loss_that_is_not_finite_is_found_before_anything_is_saved() -> None:
    spec = spec_with(learning_rate=1e30, warmup_steps=0, precision="fp32")
    saved: list[int] = []
    with pretend_gpus():
        learner = Learner(spec, cases(), GPU)

        def save(step: int) -> None:
            learner.state()
            saved.append(step)

        with pytest.raises(TrainingError, match=r"became \S+ at step [234];"):
            learner.learn(Callbacks(lambda _: True, save))
    assert not saved


LITTLE = 8192
"""Bytes: less than one image of a case, or one layer of a window."""


@pytest.mark.parametrize("where", ["_find_winners", "CaseInferer._try"])
def test_validation_goes_on_in_the_hosts_memory(where: str) -> None:
    spec = made_spec(training={"precision": "fp32"})
    torch.manual_seed(0)
    network = build_network(spec, supervised=False)
    few = cases()[:2]
    wanted = validate_network(network, few, spec, CPU, torch.float32)
    with pretend_gpus() as gpus:
        there = deepcopy(network).to(GPU)
        held = gpus.live
        gpus.fail(where)
        found = validate_network(there, few, spec, GPU, torch.float32)
        assert len(gpus.at_retry) == 1
        assert gpus.at_retry[0] - held < LITTLE
        assert gpus.live - held < LITTLE
    assert found.scores == wanted.scores


def test_the_refiners_decision_goes_on_in_the_hosts_memory() -> None:
    spec = made_spec(refinement={}, training={"precision": "fp32"})
    torch.manual_seed(0)
    network = build_refined(spec, both=True)
    few = cases()[:1]
    wanted = score_coarse_and_refined(spec, network, few, CPU)
    with pretend_gpus() as gpus:
        gpus.fail("_make_both_masks")
        found = score_coarse_and_refined(spec, network, few, GPU)
        assert len(gpus.at_retry) == 1
    assert found == wanted


def test_too_little_memory_for_a_step_says_what_to_do() -> None:
    with pretend_gpus() as gpus:
        learner = Learner(spec_with(), cases(), GPU)
        gpus.fail("SupervisedNetwork.forward")
        with (
            pytest.raises(TrainingError, match="choose a smaller"),
            explain_device_errors(GPU),
        ):
            learner.learn(Callbacks(lambda _: True, lambda _: None))
        gpus.break_down("SupervisedNetwork.forward")
        with (
            pytest.raises(TrainingError, match="continue with --resume"),
            explain_device_errors(GPU),
        ):
            learner.learn(Callbacks(lambda _: True, lambda _: None))


TORCHRUN = {"TORCHELASTIC_RUN_ID": "run", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("name", "rank", "wanted"),
    [
        ("cuda", "1", "cuda:1"),
        ("auto", "0", "cuda:0"),
        ("cpu", "1", "cpu"),
        ("cuda", None, "cuda"),
        ("cuda:1", None, "cuda:1"),
    ],
)
def test_each_process_has_a_gpu_of_its_own_and_touches_no_other(
    name: str, rank: str | None, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in TORCHRUN.items():
        if rank is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
            monkeypatch.setenv("LOCAL_RANK", rank)
    with pretend_gpus(count=2) as gpus:
        chosen = choose_local_device(name)
        touched = set(gpus.by_device)
    assert str(chosen) == wanted
    assert touched <= {chosen.index or 0}


@pytest.mark.parametrize(
    ("name", "rank", "said"),
    [
        ("cuda:0", "1", "with torchrun each process takes a GPU of its own"),
        ("cuda", "2", "more processes than the 2 GPUs"),
    ],
)
def test_processes_do_not_share_a_gpu(
    name: str, rank: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in TORCHRUN.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("LOCAL_RANK", rank)
    with (
        pretend_gpus(count=2),
        pytest.raises(MedsegError, match=said),
    ):
        choose_local_device(name)


def test_nothing_of_a_learner_stays_on_the_gpu() -> None:
    from medseg.networks.devices import release_memory

    def train_and_forget(gpus: PretendGpus) -> int:
        learner, _ = learn(spec_with(ema=0.9))
        assert learner.step == 4
        return gpus.live

    with pretend_gpus() as gpus:
        gc.disable()
        assert train_and_forget(gpus) > 0
        release_memory(GPU)
        gc.enable()
        assert gpus.live == 0
