"""The rules of a plan, each on a made-up survey."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.errors import DatasetError, MedsegError
from medseg.planning import (
    Constraints,
    Grid,
    Notes,
    choose_grid,
    choose_intensity,
    choose_network,
    choose_training,
    parse_minutes,
    read_description,
)
from medseg.planning.fingerprint import (
    QUANTILES,
    CaseFingerprint,
    ChannelStatistics,
    Fingerprint,
    LabelStatistics,
)

CPU = Constraints(dims=None, on_gpu=False, memory_gb=8)
GPU = Constraints(dims=None, on_gpu=True, memory_gb=10)
LARGE = 1e9


def channel(low: float = 0, high: float = 100, highest: float = 100, zeros: float = 0) -> Any:
    values = tuple(np.quantile(np.linspace(low, high, 1000), QUANTILES).tolist())
    return ChannelStatistics(low, highest, high, zeros, values)


def case(
    shape: tuple[int, int, int] = (60, 60, 60),
    spacing: tuple[float, float, float] = (1, 1, 1),
    box: float = 1.0,
    voxels: int = 8000,
    **channels: float,
) -> CaseFingerprint:
    label = LabelStatistics(1, voxels, 1, voxels)
    return CaseFingerprint(shape, spacing, (channel(**channels),), (label,), box)


def surveyed(*cases: CaseFingerprint) -> Fingerprint:
    return Fingerprint(cases, ())


def grid_of(
    survey: Fingerprint, wishes: Constraints = GPU, patch: float = LARGE
) -> tuple[Grid, Notes]:
    notes: Notes = {}
    return choose_grid(survey, wishes, False, patch, notes), notes


def test_spacing_is_the_median() -> None:
    grid, notes = grid_of(surveyed(*(case(spacing=(1, 1, mm)) for mm in (1.0, 1.5, 2.0))))
    assert grid.field == [1.0, 1.0, 1.5]
    assert grid.shape == (60, 60, 60)
    assert "median of 3 scans" in notes["preprocessing.spacing_mm"]


def test_a_coarse_axis_takes_the_finest_tenth() -> None:
    thick = [case((512, 512, 40), (0.8, 0.8, mm)) for mm in np.linspace(3, 7, 11)]
    grid, notes = grid_of(surveyed(*thick))
    assert grid.spacing[2] == pytest.approx(3.4)
    assert "coarse axis" in notes["preprocessing.spacing_mm"]


def test_two_dimensions_where_there_are_few_slices_or_they_are_asked_for() -> None:
    assert grid_of(surveyed(case((200, 200, 4))))[0].dims == 2
    assert grid_of(surveyed(case()))[0].dims == 3
    grid, _ = grid_of(surveyed(case()), replace(GPU, dims=2))
    assert (grid.dims, grid.field) == (2, [1.0, 1.0, None])


def test_a_cpu_coarsens_until_a_patch_sees_enough_but_keeps_small_labels() -> None:
    large = surveyed(case((300, 300, 60), (0.8, 0.8, 3), voxels=50_000))
    full, _ = grid_of(large, CPU, patch=LARGE)
    coarse, notes = grid_of(large, CPU, patch=30_000)
    assert full.spacing == (0.8, 0.8, 3)
    assert coarse.spacing[0] == coarse.spacing[1] > 1.5
    assert coarse.spacing[2] >= 3
    assert "coarsened" in notes["preprocessing.spacing_mm"]
    small = surveyed(case((300, 300, 60), (0.8, 0.8, 3), voxels=100))
    assert grid_of(small, CPU, patch=30_000)[0].spacing == (0.8, 0.8, 3)
    assert grid_of(large, GPU, patch=30_000)[0].spacing == (0.8, 0.8, 3)


@pytest.mark.parametrize("wishes", [CPU, GPU, replace(CPU, memory_gb=0.05)])
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((35, 50, 36), (1, 1, 1)),
        ((400, 400, 30), (0.8, 0.8, 5)),
        ((20, 300, 300), (4, 1, 1)),
        ((7, 9, 5), (1, 1, 1)),
        ((900, 900, 900), (0.2, 0.2, 0.2)),
    ],
)
def test_every_network_fits_its_patch_and_its_memory(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], wishes: Constraints
) -> None:
    chosen = choose_network(Grid(3, spacing, shape, False), wishes, {})
    divisor = [math.prod(axis) for axis in zip(*chosen.strides, strict=True)]
    assert all(n % by == 0 for n, by in zip(chosen.patch, divisor, strict=True))
    assert chosen.batch >= 2
    assert 3 <= len(chosen.strides) == len(chosen.kernels) <= 6
    assert chosen.strides[0] == (1, 1, 1)
    used = chosen.voxels * 14 * 4 * (2 if chosen.slim else 32) / 1e9
    assert used <= wishes.memory_gb or max(chosen.patch) <= 32


def test_strides_and_kernels_follow_the_spacing() -> None:
    chosen = choose_network(Grid(3, (0.8, 0.8, 5), (160, 160, 24), False), GPU, {})
    assert chosen.kernels[:3] == ((3, 3, 1), (3, 3, 1), (3, 3, 3))
    assert chosen.strides[:4] == ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2))
    assert chosen.network()["kernel_sizes"][:3] == [[3, 3, 1], [3, 3, 1], 3]


def test_the_hippocampus_gets_what_was_found_good_for_it() -> None:
    fast = replace(CPU, budget_minutes=20, voxels_per_second=8e5)
    chosen = choose_network(Grid(3, (1, 1, 1), (35, 50, 36), False), fast, {})
    assert (chosen.patch, chosen.batch) == ((40, 56, 40), 4)
    assert chosen.network() == {
        "kind": "UNet",
        "dims": 3,
        "args": {"channels": [16, 32, 64, 128], "strides": [2, 2, 2], "num_res_units": 2},
    }


def test_less_time_makes_a_smaller_step_and_much_time_a_wide_network() -> None:
    grid = Grid(3, (1, 1, 1), (100, 100, 100), False)
    voxels = [
        choose_network(grid, replace(CPU, budget_minutes=m, voxels_per_second=1e5), {}).voxels
        for m in (1, 10, 100)
    ]
    assert voxels == sorted(set(voxels))
    small = Grid(3, (1, 1, 1), (32, 32, 32), False)
    day = replace(CPU, budget_minutes=1440, voxels_per_second=1e6)
    wide = choose_network(small, day, {})
    assert not wide.slim
    assert wide.network()["channels"] == 32


def test_pictures_are_learned_from_many_small_batches_of_some_patches() -> None:
    pictures, notes = Grid(2, (1, 1, 1), (256, 256), True), dict[str, str]()
    short, long = (
        choose_network(pictures, replace(CPU, budget_minutes=m, voxels_per_second=5e5), notes)
        for m in (6, 60)
    )
    steps = [60 * m * 0.75 * 5e5 / one.voxels for m, one in ((6, short), (60, long))]
    assert short.patch[0] < 200
    assert long.patch == (256, 256)
    assert min(short.batch, long.batch) >= 4
    assert min(steps) >= 1500


def test_many_classes_leave_memory_for_fewer_voxels() -> None:
    grid, tight = Grid(3, (1, 1, 1), (200, 200, 200), False), replace(CPU, memory_gb=1)
    notes: Notes = {}
    few = choose_network(grid, tight, {}, classes=2)
    many = choose_network(grid, tight, notes, classes=105)
    assert few.voxels > 3 * many.voxels
    assert many.voxels * 105 * 36 < 1e9
    assert "0.9 of 1.0 GB" in notes["training.batch_size"]


def test_a_coarse_axis_is_halved_later_where_time_is_short_too() -> None:
    chosen = choose_network(Grid(3, (0.8, 0.8, 5), (160, 160, 24), False), CPU, {})
    assert chosen.network()["args"]["strides"][:3] == [[2, 2, 1], [2, 2, 1], 2]


def test_ct_is_clipped_where_the_labels_are() -> None:
    survey = surveyed(case(low=-50, high=150), case(low=-50, high=150))
    notes: Notes = {}
    found = choose_intensity(survey, [{"name": "CT", "modality": "CT"}], notes)["intensity"]
    assert found["kind"] == "window"
    assert found["low"] == pytest.approx(-49, abs=0.6)
    assert found["high"] == pytest.approx(149, abs=0.6)
    assert found["mean"] == pytest.approx(50, abs=1)
    assert "HU" in notes["preprocessing.intensity"]


def test_mr_is_scaled_by_itself_and_clipped_only_where_outliers_are() -> None:
    mr = [{"name": "T1", "modality": "MR"}]
    notes: Notes = {}
    wild = surveyed(case(high=100), case(high=1e6, highest=1e6))
    assert choose_intensity(wild, mr, notes)["intensity"] == {"kind": "zscore"}
    assert "factor of 10,000" in notes["preprocessing.intensity"]
    spiky = surveyed(case(highest=5000))
    assert choose_intensity(spiky, mr, {})["intensity"]["clip_percentiles"] == [0.005, 0.995]
    pet = [{"name": "PET", "modality": "PT"}]
    assert choose_intensity(spiky, pet, {})["intensity"] == {"kind": "zscore"}


def test_black_around_every_case_is_cut_off() -> None:
    mr = [{"name": "T1", "modality": "MR"}]
    cut = choose_intensity(surveyed(case(box=0.4), case(box=0.5)), mr, {})
    assert cut == {"intensity": {"kind": "zscore", "nonzero": True}, "crop_above": 0}
    assert "crop_above" not in choose_intensity(surveyed(case(box=0.4), case()), mr, {})


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (["liver"], [0]),
        (["left kidney", "right kidney"], []),
        (["Anterior", "Posterior"], [0]),
        (["LKidney", "kidneyRight"], []),
    ],
)
def test_no_mirror_makes_a_label_wrong(names: list[str], axes: list[int]) -> None:
    survey = surveyed(case())
    shape = choose_network(Grid(3, (1, 1, 1), (60, 60, 60), False), CPU, {})
    labels = [{"name": name} for name in names]
    training = choose_training(survey, shape, labels, CPU, {})
    assert training["augmentation"]["mirror_axes"] == axes


def test_times() -> None:
    assert [parse_minutes(text) for text in ("20m", "2h", "90s", "5", " 1.5H ")] == [
        20,
        120,
        1.5,
        5,
        90,
    ]
    for text in ("", "soon", "-3m", "0m", "2 weeks", "1e400h", "0.01s", "9999d"):
        with pytest.raises(MedsegError, match="20m"):
            parse_minutes(text)


def write_listing(folder: Path, **said: Any) -> Path:
    import json

    (folder / "dataset.json").write_text(json.dumps(said))
    return folder


def test_both_ways_of_naming_labels_are_read(tmp_path: Path) -> None:
    wanted = {1: "liver", 2: "tumour"}
    msd = {"0": "background", "1": "liver", "2": "tumour"}
    assert read_description(write_listing(tmp_path, labels=msd)).label_names == wanted
    raw = {"background": 0, "liver": 1, "tumour": 2}
    found = read_description(
        write_listing(tmp_path, labels=raw, channel_names={"1": "b", "0": "a"})
    )
    assert found.label_names == wanted
    assert found.channel_names == ("a", "b")


def test_what_cannot_be_learned_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"regions \(whole\).*'regions_class_order' must list 1"):
        read_description(write_listing(tmp_path, labels={"background": 0, "whole": [1, 2]}))


def test_a_value_to_ignore_is_no_label(tmp_path: Path) -> None:
    for said in ({"background": 0, "a": 1, "ignore": 2}, {"0": "x", "1": "a", "2": "Ignore"}):
        found = read_description(write_listing(tmp_path, labels=said))
        assert (found.label_names, found.ignore) == ({1: "a"}, 2)


def test_values_that_the_list_does_not_name_are_paired_or_named(tmp_path: Path) -> None:
    survey = surveyed(
        CaseFingerprint((4, 4, 4), (1, 1, 1), (channel(),), (LabelStatistics(255, 3, 1, 3),), 1.0)
    )
    notes: Notes = {}
    named = read_description(write_listing(tmp_path, labels={"1": "heart"}))
    assert named.labels(survey, notes) == [{"index": 1, "name": "heart", "value": 255}]
    assert "taken for the same" in notes["labels"]
    bare = read_description(write_listing(tmp_path))
    assert bare.labels(survey, notes) == [{"index": 1, "name": "label_255", "value": 255}]
    assert "[255]" in notes["labels"]


def of_values(*values: int) -> Fingerprint:
    facts = tuple(LabelStatistics(value, 3, 1, 3) for value in values)
    return surveyed(CaseFingerprint((4, 4, 4), (1, 1, 1), (channel(),), facts, 1.0))


def test_a_value_keeps_the_name_that_the_list_gives_it(tmp_path: Path) -> None:
    sides = read_description(write_listing(tmp_path, labels={"1": "left", "2": "right"}))
    notes: Notes = {}
    found = sides.labels(of_values(2, 3), notes)
    assert [(la["value"], la["name"]) for la in found] == [(2, "right"), (3, "label_3")]
    assert "values [3]" in notes["labels"]
    assert "No case holds left" in notes["labels"]
    named = {"1": "core", "2": "edema", "3": "enhancing"}
    parts = read_description(write_listing(tmp_path, labels=named)).labels(
        of_values(1, 2, 4), notes
    )
    assert [la["name"] for la in parts] == ["core", "edema", "enhancing"]
    assert "taken for the same" in notes["labels"]
