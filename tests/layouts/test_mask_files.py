"""Masks in files of their own, joined to one label map."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.label_maps import in_other_order

from medseg.errors import GeometryError, ScanError
from medseg.layouts.mask_files import MaskFiles
from medseg.volume import Volume

SHAPE = (4, 3, 2)
IMAGE = Volume(np.zeros((1, *SHAPE), np.float32), np.eye(4))


def write_mask(
    folder: Path, name: str, *places: tuple[int, int, int], value: int = 1
) -> Path:
    array = np.zeros(SHAPE, np.uint8)
    for place in places:
        array[place] = value
    file = folder / f"{name}.nii.gz"
    nib.save(nib.Nifti1Image(array, np.eye(4)), file)
    return file


def masks_of(
    folder: Path, values: dict[str, int], **places: tuple[int, int, int]
) -> MaskFiles:
    files = tuple(
        (write_mask(folder, name, place), name)
        for name, place in places.items()
    )
    return MaskFiles(files, values)


def test_each_mask_has_its_value_where_it_is(tmp_path: Path) -> None:
    masks = masks_of(tmp_path, {"a": 7, "b": 300}, a=(0, 0, 0), b=(3, 2, 1))
    labels = masks.read_label_map(IMAGE)
    assert labels.array.dtype == np.uint16
    assert labels.array[0, 0, 0, 0] == 7
    assert labels.array[0, 3, 2, 1] == 300
    assert np.count_nonzero(labels.array) == 2
    assert labels.on_same_grid(IMAGE)


def test_masks_that_overlap_are_refused_by_both_names(tmp_path: Path) -> None:
    masks = masks_of(tmp_path, {"a": 1, "b": 2}, a=(1, 1, 1), b=(1, 1, 1))
    with pytest.raises(
        ScanError, match="two masks overlap in 1 voxels"
    ) as caught:
        masks.read_label_map(IMAGE)
    assert caught.value.detail == "the masks of 'a' and 'b'"


def test_a_mask_of_another_grid_is_refused_by_its_file(tmp_path: Path) -> None:
    masks = masks_of(tmp_path, {"a": 1}, a=(1, 1, 1))
    moved = np.eye(4)
    moved[2, 3] = 1.0
    with pytest.raises(GeometryError, match=r"1\.00 mm apart") as caught:
        masks.read_label_map(Volume(IMAGE.array, moved))
    assert "a.nii.gz" in str(caught.value.source)


def test_a_label_map_is_no_mask(tmp_path: Path) -> None:
    file = write_mask(tmp_path, "a", (0, 0, 0))
    array = np.asarray(nib.load(file).dataobj).copy()
    array[1, 1, 1] = 2
    nib.save(nib.Nifti1Image(array, np.eye(4)), file)
    with pytest.raises(ScanError, match="holds 2 values besides 0"):
        MaskFiles(((file, "a"),), {"a": 1}).read_label_map(IMAGE)


def test_the_key_differs_where_the_label_map_would() -> None:
    file = Path("a.nii")
    one = MaskFiles(((file, "a"),), {"a": 1})
    assert one.key == MaskFiles(((Path("b.nii"), "a"),), {"a": 1, "c": 2}).key
    assert one.key != MaskFiles(((file, "a"),), {"a": 2}).key
    assert one.key != MaskFiles(((file, "b"),), {"b": 1}).key


def test_masks_in_another_order_of_voxels_are_joined_where_they_are(
    tmp_path: Path,
) -> None:
    masks = masks_of(tmp_path, {"a": 1, "b": 2}, a=(0, 1, 1), b=(3, 2, 0))
    straight = masks.read_label_map(IMAGE)
    file, _ = masks.files[1]
    nib.save(in_other_order(nib.load(file), (1, 2, 0), (1, -1, 1)), file)
    assert np.array_equal(masks.read_label_map(IMAGE).array, straight.array)


def test_of_masks_that_may_overlap_the_smaller_one_has_the_voxel(
    tmp_path: Path,
) -> None:
    organ = write_mask(tmp_path, "organ", (0, 0, 0), (1, 0, 0), (2, 0, 0))
    lesion = write_mask(tmp_path, "lesion", (1, 0, 0))
    vessel = write_mask(tmp_path, "vessel", (1, 0, 0), (2, 0, 0), value=255)
    values = {"organ": 1, "lesion": 2, "vessel": 3}
    named = {"organ": organ, "lesion": lesion, "vessel": vessel}
    maps = []
    for order in permutations(named):
        files = tuple((named[name], name) for name in order)
        masks = MaskFiles(files, values, smaller_wins=True)
        labels = masks.read_label_map(IMAGE)
        assert "overlap" in labels.warnings[0]
        maps.append(labels.array)
    assert maps[0][0, :3, 0, 0].tolist() == [1, 2, 3]
    assert all(np.array_equal(maps[0], other) for other in maps)


def test_masks_that_do_not_overlap_need_no_warning(tmp_path: Path) -> None:
    masks = masks_of(tmp_path, {"a": 1, "b": 2}, a=(0, 0, 0), b=(1, 1, 1))
    joined = MaskFiles(masks.files, masks.values, smaller_wins=True)
    labels = joined.read_label_map(IMAGE)
    assert labels.warnings == ()
    assert np.array_equal(labels.array, masks.read_label_map(IMAGE).array)
