"""What training takes is measured on real steps of the planned network."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import medseg
from medseg.bundle.bundle import load_bundle
from medseg.bundle.spec import BundleSpec
from medseg.commands.plan_summary import describe_cost
from medseg.errors import DatasetError
from medseg.events import Event, Notice
from medseg.planning.training_cost import TrainingCost, measure_training
from medseg.testing import write_dataset

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("cost")
    return write_dataset(home / "data", 5, shape=(24, 20, 16), spacing=9.0)


@pytest.fixture(scope="module")
def spec(data: Path) -> BundleSpec:
    file = data.parent / "bundle.json"
    return medseg.plan(data, file, device="cpu").spec


@pytest.fixture(scope="module")
def cost(data: Path, spec: BundleSpec) -> TrainingCost:
    return measure_training(data, spec, CPU)


def test_steps_validations_and_memory_are_measured(
    cost: TrainingCost, spec: BundleSpec
) -> None:
    assert cost.steps == spec.training.steps
    assert cost.validations == 8
    assert cost.held_out == 1
    assert len(cost.step_seconds) > 3
    low, high = cost.seconds_range
    assert 0 < low <= cost.seconds <= high
    assert cost.seconds > cost.steps * min(cost.step_seconds)
    assert cost.memory_bytes > 0
    assert not cost.too_short


def test_with_a_budget_it_says_how_many_steps_fit(
    data: Path, spec: BundleSpec
) -> None:
    for minutes, fits in ((3.0, True), (0.001, False)):
        training = spec.training.model_copy(update={"budget_minutes": minutes})
        budgeted = spec.model_copy(update={"training": training})
        cost = measure_training(data, budgeted, CPU)
        assert bool(cost.too_short) is not fits
        text = "\n".join(describe_cost(cost, budgeted))
        said = "steps fit into 3 minutes" if fits else "too short"
        assert said in text
        if fits:
            assert cost.seconds < 60 * minutes


def test_what_is_measured_and_what_is_estimated_is_called_so(
    cost: TrainingCost, spec: BundleSpec
) -> None:
    made = replace(
        cost,
        held_out=1,
        step_seconds=(1.0, 2.0, 3.0),
        steps=3600,
        validation_seconds=0.0,
        preparation_seconds=0.0,
        scoring_seconds=0.0,
        memory_bytes=1_500_000_000,
    )
    step, total, memory = describe_cost(made, spec)
    assert step == "measured on cpu: a step takes 2 s (1 to 3 s in 3 steps)"
    assert "takes about 2.0 h, estimated from that (60 min to 3.0 h" in total
    assert memory == "measured: memory grew by 1.5 GB during the steps"
    once = replace(made, step_seconds=(4.0,), held_out=0)
    step, total, _ = describe_cost(once, spec)
    assert "one was timed, so its spread is not known" in step
    assert "validation" not in total
    on_gpu = describe_cost(replace(made, device="cuda:0"), spec)
    assert on_gpu[-1] == "measured: the steps need 1.5 GB of the GPU's memory"


def test_a_plan_stands_where_nothing_can_be_measured(tmp_path: Path) -> None:
    spec = load_bundle("phantom_ct").spec
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "dataset.json").write_text('{"training": []}')
    with pytest.raises(DatasetError):
        measure_training(tmp_path, spec, CPU)


def test_a_plan_stands_where_no_temporary_file_can_be_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = tmp_path / "file"
    nowhere.touch()
    monkeypatch.setattr(tempfile, "tempdir", str(nowhere))
    # Of torch itself, which a network needs before anything is measured.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "torch"))
    events: list[Event] = []
    planned = medseg.plan(
        data,
        tmp_path / "bundle.json",
        device="cpu",
        measure=True,
        listeners=[events.append],
    )
    assert planned.cost is None
    assert (tmp_path / "bundle.json").is_file()
    notices = [event for event in events if isinstance(event, Notice)]
    assert "could not be measured" in notices[-1].message


@pytest.mark.gpu
def test_the_memory_of_a_gpu_is_what_its_allocator_took(
    data: Path, spec: BundleSpec
) -> None:
    cost = measure_training(data, spec, torch.device("cuda"))
    assert 1 << 20 < cost.memory_bytes < 1 << 34


def test_measuring_leaves_the_random_numbers_of_others_alone(
    data: Path, spec: BundleSpec
) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    measure_training(data, spec, CPU)
    assert torch.equal(torch.random.get_rng_state(), before)
