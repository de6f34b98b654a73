"""Label maps are told from the scans they lie beside, and no scan is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from PIL import Image
from support.seg_nrrd import write_seg_nrrd

from medseg.datasets.label_recognition import (
    holds_grey_values,
    holds_labels,
    set_labels_apart,
)

SHAPE = (32, 30, 20)
Voxels = npt.NDArray[Any]


def a_scan(levels: int | None = None) -> Voxels:
    """A body with noise in air; stored in a few grey levels where asked."""
    random = np.random.default_rng(7)
    scan = random.normal(0, 20, SHAPE)
    scan[6:26, 5:25] += 400
    scan[10:18, 9:20, 4:15] += 120
    if levels is None:
        return scan.astype(np.int16)
    lowest, highest = scan.min(), scan.max()
    scaled = (scan - lowest) / (highest - lowest) * (levels - 1)
    return scaled.round().astype(np.uint8)


def a_mask(*values: int) -> Voxels:
    """Boxes side by side, one of each value."""
    mask = np.zeros(SHAPE, np.uint8)
    for number, value in enumerate(values):
        start = 4 + 5 * number
        mask[start : start + 5, 8:20, 5:12] = value
    return mask


def write(path: Path, voxels: Voxels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii.gz", ".nii", ".mgz")):
        kind = nib.MGHImage if path.suffix == ".mgz" else nib.Nifti1Image
        nib.save(kind(voxels, np.eye(4)), path)
    elif path.suffix in (".mha", ".nrrd"):
        sitk.WriteImage(sitk.GetImageFromArray(voxels.T), str(path))
    else:
        Image.fromarray(voxels).save(path)
    return path


def sort(root: Path) -> tuple[list[str], list[str], list[str]]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    found = set_labels_apart(root, files)
    kinds = (found.scans, found.named, found.unnamed)
    listed = [
        [file.relative_to(root).as_posix() for file in kind] for kind in kinds
    ]
    return listed[0], listed[1], listed[2]


@pytest.mark.parametrize("levels", [3, 4, 8, 16, 200, None])
def test_a_scan_of_a_few_grey_levels_holds_no_labels(
    levels: int | None,
) -> None:
    scan = a_scan(levels)
    assert not holds_labels(scan - scan.min())


@pytest.mark.parametrize("values", [(1,), (255,), (1, 2), (3, 77, 1009)])
def test_boxes_of_a_few_values_are_labels(values: tuple[int, ...]) -> None:
    assert holds_labels(a_mask(*[value % 256 for value in values]))


@pytest.mark.parametrize("voxels", [20, 40])
def test_a_parcellation_of_many_small_labels_holds_no_grey_values(
    voxels: int,
) -> None:
    random = np.random.default_rng(3)
    centres = random.random((117, 3)) * voxels
    places = np.indices((voxels,) * 3).reshape(3, -1).T
    distances = np.linalg.norm(places[:, None] - centres, axis=2)
    labels = 1 + distances.argmin(axis=1).reshape((voxels,) * 3)
    labels[:2] = 0
    assert len(np.unique(labels)) > 80
    assert not holds_grey_values(labels)
    assert holds_grey_values(a_scan(100))


def test_thick_slices_of_a_parcellated_cortex_hold_no_grey_values() -> None:
    random = np.random.default_rng(3)
    places = np.indices((32, 32, 32)).reshape(3, -1).T - 15.5
    distances = np.linalg.norm(places, axis=1)
    directions = random.normal(size=(200, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    parcels = 1 + (places @ directions.T).argmax(axis=1)
    is_cortex = (distances > 12) & (distances < 14)
    labels = np.where(is_cortex, parcels, 0).reshape(32, 32, 32)
    for slices in (labels[::4], labels[:, ::4]):
        assert len(np.unique(slices)) > 32
        assert not holds_grey_values(slices)


def test_a_blank_image_is_not_known_to_hold_labels() -> None:
    assert not holds_labels(np.zeros(SHAPE, np.uint8))


def test_a_folder_of_masks_beside_its_scan(tmp_path: Path) -> None:
    for case in ("s0001", "s0002"):
        write(tmp_path / case / "ct.nii.gz", a_scan())
        for organ in ("liver", "spleen"):
            mask = a_mask(1)
            write(tmp_path / case / f"segmentations/{organ}.nii.gz", mask)
    scans, named, unnamed = sort(tmp_path)
    assert scans == ["s0001/ct.nii.gz", "s0002/ct.nii.gz"]
    assert len(named) == 4
    assert unnamed == []


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".mgz"])
@pytest.mark.parametrize(
    "label", ["x_seg", "x-label", "mask_x", "x.seg", "segmentation"]
)
def test_a_label_map_is_known_by_its_name(
    tmp_path: Path, ending: str, label: str
) -> None:
    write(tmp_path / f"x{ending}", a_scan())
    write(tmp_path / f"{label}{ending}", a_mask(1, 2, 5))
    assert sort(tmp_path) == ([f"x{ending}"], [f"{label}{ending}"], [])


def test_overlapping_segments_are_labels(tmp_path: Path) -> None:
    write(tmp_path / "x.nrrd", a_scan())
    layers = np.stack([a_mask(1), a_mask(2, 1)])
    segments = [("liver", 1, 0), ("vessel", 1, 1), ("tumour", 2, 1)]
    write_seg_nrrd(tmp_path / "x.seg.nrrd", layers, segments)
    assert sort(tmp_path) == (["x.nrrd"], ["x.seg.nrrd"], [])


def test_an_empty_mask_is_known_by_its_name(tmp_path: Path) -> None:
    write(tmp_path / "x.nii.gz", a_scan())
    write(tmp_path / "x_mask.nii.gz", a_mask())
    assert sort(tmp_path)[1] == ["x_mask.nii.gz"]


@pytest.mark.parametrize(
    "name",
    [
        "segmented_ct.nii.gz",
        "x_seg.nii.gz",
        "masks/x.nii.gz",
        "x_label.nii",
        "x_pred.nrrd",
    ],
)
@pytest.mark.parametrize("levels", [4, 8, None])
def test_a_scan_is_a_scan_whatever_it_is_called(
    tmp_path: Path, name: str, levels: int | None
) -> None:
    write(tmp_path / "other.nii.gz", a_scan())
    write(tmp_path / name, a_scan(levels))
    scans, named, unnamed = sort(tmp_path)
    assert sorted(scans) == sorted([name, "other.nii.gz"])
    assert named == unnamed == []


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha"])
def test_a_label_map_beside_a_scan_is_known_by_what_it_holds(
    tmp_path: Path, ending: str
) -> None:
    write(tmp_path / f"t1{ending}", a_scan())
    write(tmp_path / f"aparc+aseg{ending}", a_mask(2, 41, 77, 1))
    assert sort(tmp_path) == ([f"t1{ending}"], [], [f"aparc+aseg{ending}"])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_label_maps_alone_may_be_scans_of_few_values(
    tmp_path: Path, ending: str
) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}{ending}", a_mask(1, 2))
    assert sort(tmp_path) == ([f"a{ending}", f"b{ending}"], [], [])


def test_a_broken_file_is_left_to_its_own_reading(tmp_path: Path) -> None:
    write(tmp_path / "x.nii.gz", a_scan())
    (tmp_path / "x_seg.nii.gz").write_bytes(b"\x1f\x8bnothing")
    (tmp_path / "y.nii.gz").write_bytes(b"")
    assert len(sort(tmp_path)[0]) == 3


def test_pictures_and_their_masks(tmp_path: Path) -> None:
    grey = a_scan(256)[..., 0]
    photo = np.stack([grey, grey.T[:, :32].T, grey[::-1]], axis=-1)
    colours = np.zeros((*photo.shape[:2], 3), np.uint8)
    colours[4:14] = (128, 64, 128)
    colours[14:20] = (0, 0, 142)
    write(tmp_path / "images/a.png", photo)
    write(tmp_path / "images/b_mask.png", photo)
    write(tmp_path / "masks/a.png", colours)
    write(tmp_path / "a_mask.bmp", a_mask(255)[..., 6])
    scans, named, _ = sort(tmp_path)
    assert scans == ["images/a.png", "images/b_mask.png"]
    assert named == ["a_mask.bmp", "masks/a.png"]


def test_the_folder_that_is_searched_may_be_called_anything(
    tmp_path: Path,
) -> None:
    root = tmp_path / "labels"
    write(root / "x.nii.gz", a_scan())
    write(root / "y.nii.gz", a_mask(1))
    assert sort(root) == (["x.nii.gz"], [], ["y.nii.gz"])


def test_the_shared_sets_are_told_apart(shared_data: Path) -> None:
    root = shared_data / "sts_ct_mr_pet" / "nifti" / "STS_002"
    scans, named, unnamed = sort(root)
    assert scans
    assert all("mask" in name for name in [*named, *unnamed])
    assert not any("mask" in name for name in scans)
