"""Dimensions and voxel size, each rule on a made-up fingerprint."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.fingerprints import CPU, GPU, case, fingerprint_of

from medseg.planning import (
    Constraints,
    Fingerprint,
    Grid,
    Notes,
    choose_grid,
)

LARGE = 1e9


def grid_of(
    fingerprint: Fingerprint,
    constraints: Constraints = GPU,
    patch: float = LARGE,
) -> tuple[Grid, Notes]:
    notes: Notes = {}
    return choose_grid(fingerprint, constraints, False, patch, notes), notes


def test_spacing_is_the_median() -> None:
    grid, notes = grid_of(
        fingerprint_of(*(case(spacing=(1, 1, mm)) for mm in (1.0, 1.5, 2.0)))
    )
    assert grid.spacing_mm == [1.0, 1.0, 1.5]
    assert grid.shape == (60, 60, 60)
    assert "median of 3 scans" in notes["preprocessing.spacing_mm"]


def test_a_coarse_axis_takes_the_finest_tenth() -> None:
    thick = [
        case((512, 512, 40), (0.8, 0.8, mm)) for mm in np.linspace(3, 7, 11)
    ]
    grid, notes = grid_of(fingerprint_of(*thick))
    assert grid.spacing[2] == pytest.approx(3.4)
    assert "coarse axis" in notes["preprocessing.spacing_mm"]


def test_two_dimensions_where_there_are_few_slices_or_they_are_asked_for() -> (
    None
):
    assert grid_of(fingerprint_of(case((200, 200, 4))))[0].dims == 2
    assert grid_of(fingerprint_of(case()))[0].dims == 3
    grid, _ = grid_of(fingerprint_of(case()), replace(GPU, dims=2))
    assert (grid.dims, grid.spacing_mm) == (2, [1.0, 1.0, None])


def test_a_cpu_coarsens_until_a_patch_sees_enough_but_keeps_small_labels() -> (
    None
):
    large = fingerprint_of(case((300, 300, 60), (0.8, 0.8, 3), voxels=50_000))
    full, _ = grid_of(large, CPU, patch=LARGE)
    coarse, notes = grid_of(large, CPU, patch=30_000)
    assert full.spacing == (0.8, 0.8, 3)
    assert coarse.spacing[0] == coarse.spacing[1] > 1.5
    assert coarse.spacing[2] >= 3
    assert "coarsened" in notes["preprocessing.spacing_mm"]
    small = fingerprint_of(case((300, 300, 60), (0.8, 0.8, 3), voxels=100))
    assert grid_of(small, CPU, patch=30_000)[0].spacing == (0.8, 0.8, 3)
    assert grid_of(large, GPU, patch=30_000)[0].spacing == (0.8, 0.8, 3)


def test_anisotropy_is_judged_against_the_next_coarser_axis() -> None:
    # 5 mm is ten times the finest axis, but not three times the next one: the median stays.
    tilted = [case((400, 100, 20), (0.5, 2.0, mm)) for mm in (3.0, 5.0, 7.0)]
    grid, notes = grid_of(fingerprint_of(*tilted))
    assert grid.spacing == (0.5, 2.0, 5.0)
    assert "coarse axis" not in notes["preprocessing.spacing_mm"]


def test_an_axis_of_exactly_three_times_the_next_is_not_anisotropic() -> None:
    thick = [case((512, 512, 40), (1.0, 1.0, mm)) for mm in (1.5, 3.0, 6.0)]
    assert grid_of(fingerprint_of(*thick))[0].spacing == (1.0, 1.0, 3.0)


def test_the_coarse_axis_is_never_finer_than_the_next_one() -> None:
    mixed = [
        case((512, 512, 40), (1.0, 1.0, mm)) for mm in (0.5, 0.5, 5.0, 5.0, 5.0)
    ]
    assert grid_of(fingerprint_of(*mixed))[0].spacing == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("slices", "dims"), [(7, 2), (8, 3)])
def test_eight_slices_are_enough_for_three_dimensions(
    slices: int, dims: int
) -> None:
    assert grid_of(fingerprint_of(case((200, 200, slices))))[0].dims == dims
