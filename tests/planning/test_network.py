"""Patch, batch, depth, strides and width, from memory and time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from support.fingerprints import CPU, GPU

from medseg.bundle.spec import StagedUNetSpec
from medseg.planning import (
    Constraints,
    Grid,
    Notes,
    choose_network,
)


@pytest.mark.parametrize(
    "constraints", [CPU, GPU, replace(CPU, memory_gb=0.05)]
)
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
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    constraints: Constraints,
) -> None:
    chosen = choose_network(Grid(3, spacing, shape, False), constraints, {})
    divisor = [math.prod(axis) for axis in zip(*chosen.strides, strict=True)]
    assert all(n % by == 0 for n, by in zip(chosen.patch, divisor, strict=True))
    assert chosen.batch >= 2
    assert 3 <= len(chosen.strides) == len(chosen.kernels) <= 6
    assert chosen.strides[0] == (1, 1, 1)
    used = chosen.voxels_per_step * 14 * 4 * (2 if chosen.slim else 32) / 1e9
    assert used <= constraints.memory_gb or max(chosen.patch) <= 32


def test_strides_and_kernels_follow_the_spacing() -> None:
    chosen = choose_network(
        Grid(3, (0.8, 0.8, 5), (160, 160, 24), False), GPU, {}
    )
    assert chosen.kernels[:3] == ((3, 3, 1), (3, 3, 1), (3, 3, 3))
    assert chosen.strides[:4] == ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2))
    assert chosen.make_section()["kernel_sizes"][:3] == [
        [3, 3, 1],
        [3, 3, 1],
        3,
    ]


def test_the_hippocampus_gets_what_was_found_good_for_it() -> None:
    fast = replace(CPU, budget_minutes=20, voxels_per_second=8e5)
    chosen = choose_network(Grid(3, (1, 1, 1), (35, 50, 36), False), fast, {})
    assert (chosen.patch, chosen.batch) == ((40, 56, 40), 4)
    assert chosen.make_section() == {
        "kind": "UNet",
        "dims": 3,
        "args": {
            "channels": [16, 32, 64, 128],
            "strides": [2, 2, 2],
            "num_res_units": 2,
        },
    }


def test_less_time_makes_a_smaller_step_and_much_time_a_wide_network() -> None:
    grid = Grid(3, (1, 1, 1), (100, 100, 100), False)
    voxels = [
        choose_network(
            grid, replace(CPU, budget_minutes=m, voxels_per_second=1e5), {}
        ).voxels_per_step
        for m in (1, 10, 100)
    ]
    assert voxels == sorted(set(voxels))
    small = Grid(3, (1, 1, 1), (32, 32, 32), False)
    day = replace(CPU, budget_minutes=1440, voxels_per_second=1e6)
    wide = choose_network(small, day, {})
    assert not wide.slim
    assert wide.make_section()["channels"] == 32


def test_pictures_are_learned_from_many_small_batches_of_some_patches() -> None:
    pictures, notes = Grid(2, (1, 1, 1), (256, 256), True), dict[str, str]()
    short, long = (
        choose_network(
            pictures,
            replace(CPU, budget_minutes=m, voxels_per_second=5e5),
            notes,
        )
        for m in (6, 60)
    )
    steps = [
        60 * m * 0.75 * 5e5 / one.voxels_per_step
        for m, one in ((6, short), (60, long))
    ]
    assert short.patch[0] < 200
    assert long.patch == (256, 256)
    assert min(short.batch, long.batch) >= 4
    assert min(steps) >= 1500


def test_many_classes_leave_memory_for_fewer_voxels() -> None:
    grid, tight = (
        Grid(3, (1, 1, 1), (200, 200, 200), False),
        replace(CPU, memory_gb=1),
    )
    notes: Notes = {}
    few = choose_network(grid, tight, {}, classes=2)
    many = choose_network(grid, tight, notes, classes=105)
    assert few.voxels_per_step > 3 * many.voxels_per_step
    assert many.voxels_per_step * 105 * 36 < 1e9
    assert "0.9 of 1.0 GB" in notes["training.batch_size"]


def test_a_coarse_axis_is_halved_later_where_time_is_short_too() -> None:
    chosen = choose_network(
        Grid(3, (0.8, 0.8, 5), (160, 160, 24), False), CPU, {}
    )
    assert chosen.make_section()["args"]["strides"][:3] == [
        [2, 2, 1],
        [2, 2, 1],
        2,
    ]


def test_at_a_spacing_of_exactly_two_to_one_the_coarse_axis_waits() -> None:
    grid = Grid(3, (1.0, 1.0, 2.0), (64, 64, 32), False)
    chosen = choose_network(grid, GPU, {})
    assert chosen.strides[1] == (2, 2, 1)
    assert chosen.kernels[0] == (3, 3, 1)
    nearly = choose_network(replace(grid, spacing=(1.0, 1.0, 1.99)), GPU, {})
    assert nearly.strides[1] == (2, 2, 2)
    assert nearly.kernels[0] == (3, 3, 3)


def test_an_axis_is_halved_as_long_as_four_voxels_are_left() -> None:
    eight = choose_network(Grid(3, (1, 1, 1), (64, 64, 8), False), GPU, {})
    assert [stride[2] for stride in eight.strides][:3] == [1, 2, 1]
    assert eight.patch[2] == 8


def test_small_images_still_get_three_levels() -> None:
    chosen = choose_network(Grid(3, (1, 1, 1), (7, 9, 5), False), GPU, {})
    assert len(chosen.strides) == 3
    assert chosen.strides[2] == (1, 1, 1)


def test_a_patch_shrinks_along_its_longest_axis_in_mm() -> None:
    grid = Grid(3, (1.0, 1.0, 4.0), (100, 100, 60), False)
    tight = replace(GPU, memory_gb=3)
    chosen = choose_network(grid, tight, {})
    assert chosen.patch[2] < 60
    extents = [n * mm for n, mm in zip(chosen.patch, grid.spacing, strict=True)]
    assert max(extents) < 2.2 * min(extents)


def test_the_residual_encoder_grows_with_memory_and_is_asked_for() -> None:
    grid = Grid(3, (1, 1, 1), (300, 300, 300), False)
    voxels = []
    for gigabytes in (10, 24, 40):
        asked = replace(CPU, network="resenc", memory_gb=gigabytes)
        notes: Notes = {}
        chosen = choose_network(grid, replace(asked, on_gpu=True), notes)
        section = chosen.make_section()
        assert section["kind"] == "resenc"
        assert "M, L and XL" in notes["network.kind"]
        assert StagedUNetSpec.model_validate(
            section | {"strides": tuple(section["strides"])}
        ).level_blocks[:4] == (1, 3, 4, 6)
        voxels.append(math.prod(chosen.patch))
    assert voxels == sorted(set(voxels))
    unet = choose_network(grid, replace(GPU, memory_gb=10), {})
    assert unet.make_section()["kind"] == "unet"
    assert voxels[0] <= math.prod(unet.patch)
