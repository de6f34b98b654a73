"""The fuzz makes the same files from the same seeds, and notices what it looks for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "workflows" / "fuzz"


@pytest.fixture(scope="module")
def fuzz() -> Any:
    sys.path.insert(0, str(FOLDER))
    try:
        import fuzz

        yield fuzz
    finally:
        sys.path.remove(str(FOLDER))


@pytest.mark.parametrize(
    "kind", ["dicom", "nifti gz", "mhd", "tiff", "cases.csv"]
)
def test_a_seed_stands_for_one_file_and_one_damage(
    fuzz: Any, tmp_path: Path, kind: str
) -> None:
    for seed in range(3):
        made = []
        for folder in ("one", "two"):
            root = tmp_path / folder / str(seed)
            case = fuzz.make_case(seed, kind, root)
            content = {
                file.relative_to(root).as_posix(): file.read_bytes()
                for file in sorted(root.rglob("*"))
                if file.is_file() and not file.is_symlink()
            }
            made.append((case.damage, content))
        assert made[0] == made[1]


def test_another_place_and_another_voxel_are_noticed(fuzz: Any) -> None:
    import oracles
    import sound_files

    array = sound_files.make_voxels(np.random.default_rng(0))
    affine = sound_files.make_affine()
    truth = oracles.Reading(array, affine)
    # The same, stored from the other end.
    turned = affine @ np.diag([-1.0, 1, 1, 1])
    turned[:3, 3] += affine[:3, 0] * (len(array) - 1)
    same = oracles.Reading(array[::-1], turned)
    assert oracles.agree(same, truth) == (True, True)
    mirrored = oracles.Reading(array[::-1], affine)
    assert oracles.agree(mirrored, truth) == (True, False)
    moved = affine.copy()
    moved[2, 3] += 0.2
    assert oracles.agree(oracles.Reading(array, moved), truth)[0] is False


def test_what_a_door_raises_or_prints_is_a_violation(
    fuzz: Any, tmp_path: Path
) -> None:
    def fail(root: Path, cases: list[Any]) -> list[Any]:
        print("noise", file=sys.__stderr__, flush=True)
        raise ZeroDivisionError

    seeds = [(1, "png"), (2, "png")]
    found = fuzz.run_batch(seeds, fail, tmp_path)
    ends = {(one.seed, one.end) for one in found}
    assert ends == {
        (seed, end)
        for seed in (1, 2)
        for end in ("an exception", "talks on stderr")
    }
    assert all(one.is_violation for one in found)
