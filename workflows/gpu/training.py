"""Rows on training: patches, steps, resuming, a data set, and torchrun."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made import NNUNET, TINY, make_cases, make_spec
from session import GPU, Session

from medseg.bundle.spec import BundleSpec, RefinementSpec
from medseg.datasets.dataset import open_dataset
from medseg.networks.building import select_inference_weights
from medseg.preprocessing.transforms import get_padding_value
from medseg.training.history import TrainingHistory
from medseg.training.interruption import Interruption
from medseg.training.learner import Callbacks, Learner, move_to_gpu
from medseg.training.patches import PatchBatches
from medseg.training.refinement.stage import build_refinement_stages
from medseg.training.run_folder import RunFolder
from medseg.training.speed import make_endless, time_steps
from medseg.training.stages import StageContext

_SMALL = {"patch": [16, 16, 16], "batch_size": 2, "ema": None}
_GOAL = 0.89
"""Mean Dice of the hippocampus after three minutes."""


def count_patches(session: Session) -> None:
    """Patches per second, by themselves: plain, turned as usual, and all of them turned."""
    sizes = [((40, 56, 40), (44, 60, 44), 9), ((128,) * 3, (220, 220, 180), 2)]
    if session.dry:
        sizes = [((8, 8, 8), (12, 12, 12), 2)]
    for patch, shape, batch in sizes:
        on_gpu = move_to_gpu(make_cases(4, shape), GPU)
        for share in (0.0, 0.2, 1.0):
            augmentation = {"rotation": share, "scaling": share}
            training = {
                "patch": list(patch),
                "batch_size": batch,
                "augmentation": augmentation,
            }
            spec = make_spec(training=training, network=TINY)
            rate = _count_per_second(spec, on_gpu, session)
            session.add(
                f"patches of {patch}, {share:.0%} turned", f"{rate:.1f}/s"
            )


def _count_per_second(spec: BundleSpec, cases: Any, session: Session) -> float:
    batches = PatchBatches(
        cases,
        spec.training,
        dims=3,
        padding=get_padding_value(spec),
        device=GPU,
    )
    batches.batch(1)
    session.wait()
    began, made = time.perf_counter(), 0
    longest = 0.0 if session.dry else 2.0
    while made < 2 or time.perf_counter() - began < longest:
        made += 1
        batches.batch(1 + made)
    session.wait()
    seconds = time.perf_counter() - began
    return made * spec.training.batch_size / seconds


def time_steps_of_networks(session: Session) -> None:
    """Time of a step, samples per second, how busy the GPU was, and the share of making batches."""
    large = {"patch": [128] * 3, "batch_size": 2, "ema": None}
    kinds: list[Any] = [
        ("hippocampus", {}, {}, (44, 60, 44)),
        ("128³, nnU-Net's size", large, NNUNET, (200, 200, 180)),
    ]
    if session.dry:
        kinds = [("tiny", _SMALL, TINY, (20, 20, 20))]
    for name, training, network, shape in kinds:
        for precision in ("bf16", "fp32"):
            chosen = {**training, "precision": precision}
            spec = make_spec(training=chosen, network=network)
            _time_network(
                f"step of {name} in {precision}", spec, shape, session
            )


def _time_network(
    name: str, spec: BundleSpec, shape: tuple[int, int, int], session: Session
) -> None:
    first, steps = (2, 3) if session.dry else (10, 60)
    schedule = {
        "steps": first,
        "validate_every": 10**6,
        "checkpoint_every": 10**6,
        "warmup_steps": 0,
    }
    training = spec.training.model_copy(update=schedule)
    spec = spec.model_copy(update={"training": training})
    learner = Learner(spec, make_cases(8, shape), GPU)
    callbacks = Callbacks(lambda _: True, lambda _: None)
    learner.learn(callbacks)  # until the fastest algorithms are known
    session.measure_peak()
    learner.shorten(first + steps)
    with session.watch() as found:
        learner.learn(callbacks)
        session.wait()
    peak = session.measure_peak()
    with session.watch() as of_batches:
        for number in range(steps):
            learner.batches.batch(1 + number)
        session.wait()
    share = _count_gpu_seconds(of_batches) / _count_gpu_seconds(found)
    step = found["wall"] / steps
    session.add(
        name,
        f"{1000 * step:.1f} ms",
        samples_per_s=round(spec.training.batch_size / step, 1),
        busy=found.get("busy"),
        kernels=found.get("kernels", 0) // steps,
        batch_share=round(share, 3),
        peak_gb=peak,
    )


def _count_gpu_seconds(found: Mapping[str, float]) -> float:
    """Return how long the GPU was at work; all the time on a pretend one."""
    return found["wall"] * found.get("busy", 1.0)


def resume(session: Session) -> None:
    """A run that goes on from a checkpoint ends at the same weights, with fp16's scale kept."""
    for precision in ("fp32", "bf16", "fp16"):
        schedule = {
            "steps": 8,
            "validate_every": 8,
            "checkpoint_every": 4,
            "warmup_steps": 1,
            "precision": precision,
        }
        spec = make_spec(training={**_SMALL, **schedule}, network=TINY)
        whole = _learn_and_save(spec, None)
        resumed = _learn_and_save(spec, whole[4])
        apart = 0.0
        for name, value in whole[8]["network"].items():
            difference = (value - resumed[8]["network"][name]).abs().max()
            apart = max(apart, float(difference))
        keeps_scale = (whole[4]["scale"] is not None) == (precision == "fp16")
        # Kernels that add up in any order differ in the last digits.
        session.add(
            f"resumed in {precision}",
            f"{apart:.1e} apart",
            ok=apart < 1e-3 and keeps_scale,
            bit_equal=apart == 0,
        )


def _learn_and_save(spec: BundleSpec, state: Any) -> dict[int, Any]:
    """Learn, perhaps from a state; return step → what a checkpoint brings back."""
    learner = Learner(spec, make_cases(3, (24, 24, 24)), GPU)
    if state is not None:
        learner.restore(state)
    saved: dict[int, Any] = {}

    def save(step: int) -> None:
        file = io.BytesIO()
        torch.save(learner.state(), file)
        file.seek(0)
        saved[step] = torch.load(file, map_location="cpu", weights_only=True)

    learner.learn(Callbacks(lambda _: True, save))
    return saved


def learn_hippocampus(session: Session) -> None:
    """Mean Dice of the first fold after three minutes of training."""
    spec, seconds = make_spec(), 180.0
    if session.dry:
        # MONAI's tensors, which prepare a data set, cannot pretend.
        training = {**_SMALL, "warmup_steps": 1}
        spec, seconds = make_spec(training=training, network=TINY), 1.0
        cases = make_cases(4, (20, 20, 20))
        learned, held_out = cases[:3], cases[3:]
    elif session.data is None:
        session.add("hippocampus", "needs --data Task04_Hippocampus")
        return
    else:
        cache = Path(tempfile.mkdtemp())
        dataset = open_dataset(session.data, spec, 0, cache)
        learned, held_out = dataset.training, dataset.validation
    measured = Learner(make_endless(spec), learned, GPU)
    step = float(np.median(time_steps(measured, 0.05 * seconds, least=4)))
    steps = max(2, int(0.9 * seconds / step))
    schedule = {"steps": steps, "validate_every": steps}
    schedule["warmup_steps"] = min(spec.training.warmup_steps, steps // 2)
    chosen = spec.training.model_copy(update=schedule)
    learner = Learner(
        spec.model_copy(update={"training": chosen}), learned, GPU
    )
    with session.watch() as found:
        learner.learn(Callbacks(lambda _: True, lambda _: None))
        session.wait()
    began = time.perf_counter()
    dice = learner.validate(held_out).scores["dice"]["mean"]
    session.add(
        f"hippocampus, {steps} steps in {found['wall']} s",
        f"Dice {dice:.4f}",
        ok=None if session.dry else dice >= _GOAL,
        busy=found.get("busy"),
        validation_seconds=round(time.perf_counter() - began, 1),
    )
    session.learned = learner, held_out


def refine_hippocampus(session: Session) -> None:
    """What a refiner adds to the network of the row before."""
    if session.learned is None:
        session.add("refined hippocampus", "needs the row before it")
        return
    learner, held_out = session.learned
    refinement = RefinementSpec(steps=2 if session.dry else 600)
    spec = learner.spec.model_copy(update={"refinement": refinement})
    folder = RunFolder(Path(tempfile.mkdtemp()))
    weights = select_inference_weights(learner.inference_network, spec)
    folder.save_weights(weights)
    (stage,) = build_refinement_stages(spec)
    context = StageContext(
        folder=folder,
        learner=learner,
        history=TrainingHistory(spec.name),
        validation=held_out,
        device=GPU,
        listeners=[],
        state=None,
        save=lambda state: None,
        interruption=Interruption(),
    )
    with session.watch() as found:
        result = stage.run(context)
    finding = result.trained["refinement"]
    session.add(
        f"refined, {refinement.steps} steps in {found['wall']} s",
        f"Dice {finding.dice_gain:+.4f}",
        interval=finding.interval,
        applied=finding.applied,
        busy=found.get("busy"),
    )


def run_under_torchrun(session: Session) -> None:
    """One process under torchrun takes its GPU, learns and ends."""
    script = Path(__file__).with_name("one_process.py")
    launcher = ["-m", "torch.distributed.run", "--standalone"]
    device = "cpu" if session.dry else "cuda"
    run = subprocess.run(
        [sys.executable, *launcher, "--nproc-per-node=1", str(script), device],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    said = run.stdout.strip().splitlines() or run.stderr.strip().splitlines()
    session.add(
        "one process under torchrun",
        (said or ["nothing was said"])[-1],
        ok=run.returncode == 0,
    )
