"""A viewer's label map ends on the scan's own grid, voxel on voxel, or is refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from support.bundles import made_spec
from support.doubtful_labels import WARNING, move_qform
from support.scans import TURNED, affine_of
from support.seg_nrrd import write_seg_nrrd
from support.street_scenes import COLOURS, as_jpeg, make_scene, paint

from medseg import GeometryError, ScanError, Volume
from medseg.label_server.label_upload import (
    name_values,
    place_on_grid,
    read_label_upload,
    to_label_indices,
)
from medseg.labels import Label, LabelSet

LABELS = made_spec().label_set
SHAPE = (9, 7, 5)
SPACING = (0.8, 1.25, 3.0)


@pytest.fixture
def scan() -> Volume:
    return Volume(
        np.zeros((1, *SHAPE), np.int16), affine_of(SPACING, TURNED, flips=(1,))
    )


@pytest.fixture
def painted() -> Any:
    """A label map without any symmetry."""
    values = np.zeros(SHAPE, np.uint8)
    values[1:4, 2:6, 1:3] = 1
    values[5, 3, 4] = 2
    values[0, 6, 0] = 2
    return values


def with_shift(
    volume: Volume, values: Any, voxels: tuple[float, float, float]
) -> Volume:
    """Return a label map whose first voxel lies at these voxels of a volume."""
    affine = np.array(volume.affine)
    affine[:3, 3] = (volume.affine @ [*voxels, 1.0])[:3]
    return Volume(values[None], affine)


def write(file: Path, label: Volume) -> Path:
    nib.save(nib.Nifti1Image(label.array[0], np.array(label.affine)), file)
    return file


def test_a_label_on_the_scans_grid_is_taken_as_it_is(
    scan: Volume, painted: Any
) -> None:
    assert np.array_equal(
        place_on_grid(scan.with_array(painted[None]), scan), painted
    )


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(), (0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_axes_may_be_turned_around(
    scan: Volume, painted: Any, order: tuple[int, ...], flips: tuple[int, ...]
) -> None:
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    values = painted.transpose(order)
    for axis, original in enumerate(order):
        turn[original, axis] = -1 if axis in flips else 1
        if axis in flips:
            turn[original, 3] = SHAPE[original] - 1
    values = np.flip(values, flips)
    label = Volume(values[None], scan.affine @ turn)
    assert np.array_equal(place_on_grid(label, scan), painted)


def test_a_label_cropped_to_what_is_painted_is_put_where_it_was(
    scan: Volume, painted: Any
) -> None:
    cropped = with_shift(scan, painted[1:6, 2:6, 1:], (1, 2, 1))
    expected = painted.copy()
    expected[0] = 0
    assert np.array_equal(place_on_grid(cropped, scan), expected)


def test_a_label_may_reach_beyond_the_scan_where_it_is_empty(
    scan: Volume, painted: Any
) -> None:
    padded = np.pad(painted, 2)
    assert np.array_equal(
        place_on_grid(with_shift(scan, padded, (-2, -2, -2)), scan), painted
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("step", [-1, 1])
def test_a_label_outside_the_scan_is_refused(
    scan: Volume, axis: int, step: int
) -> None:
    shift = [0.0, 0.0, 0.0]
    shift[axis] = step
    with pytest.raises(GeometryError, match="outside the scan"):
        place_on_grid(
            with_shift(scan, np.ones(SHAPE, np.uint8), tuple(shift)), scan
        )  # type: ignore[arg-type]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_label_between_voxels_is_refused_along_every_axis(
    scan: Volume, painted: Any, axis: int
) -> None:
    shift = [0.0, 0.0, 0.0]
    shift[axis] = 0.3
    with pytest.raises(GeometryError, match=r"up to 0\.30 voxels off"):
        place_on_grid(with_shift(scan, painted, tuple(shift)), scan)  # type: ignore[arg-type]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_label_with_other_voxel_sizes_is_refused(
    scan: Volume, painted: Any, axis: int
) -> None:
    for factor in (0.98, 1.02, 2.0, 0.5):
        affine = np.array(scan.affine)
        affine[:3, axis] *= factor
        with pytest.raises(GeometryError, match="voxels are not the scan's"):
            place_on_grid(Volume(painted[None], affine), scan)


def test_the_few_digits_of_viewers_are_allowed_for(
    scan: Volume, painted: Any
) -> None:
    cropped = painted[1:6, 1:6, 1:]
    near = with_shift(scan, cropped, (1.019, 1.0, 1.0))
    assert place_on_grid(near, scan)[1:6, 1:6, 1:].any()
    with pytest.raises(GeometryError):
        place_on_grid(with_shift(scan, cropped, (1.021, 1.0, 1.0)), scan)


def test_segments_are_known_by_their_names_whatever_their_values(
    scan: Volume, painted: Any, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.nii.gz", scan.with_array(painted[None]))
    swapped = [{"name": "Kidney", "idx": 1}, {"name": "LIVER", "idx": 2}]
    labels = read_label_upload(file, scan, LABELS, swapped).indices
    assert np.array_equal(labels, np.array([0, 2, 1])[painted])
    as_it_is = read_label_upload(file, scan, LABELS)
    assert np.array_equal(as_it_is.indices, painted)
    assert as_it_is.warnings == ()
    assert labels.dtype == np.uint8


def test_segments_that_a_file_names_go_by_these_names(
    scan: Volume, painted: Any, tmp_path: Path
) -> None:
    turned = np.array([0, 2, 1], np.uint8)[painted]
    named = [("Kidney", 1), ("liver", 2), ("spare", 3)]
    affine = np.array(scan.affine)
    file = write_seg_nrrd(tmp_path / "a.seg.nrrd", turned, named, affine)
    wrong = [{"name": "liver", "idx": 1}, {"name": "kidney", "idx": 2}]
    for said in ((), wrong):
        upload = read_label_upload(file, scan, LABELS, said)
        assert np.array_equal(upload.indices, painted)
        assert upload.indices.dtype == np.uint8
    named[0] = ("Frau Müller", 1)
    write_seg_nrrd(file, turned, named, affine)
    with pytest.raises(ScanError, match="remove them") as refused:
        read_label_upload(file, scan, LABELS)
    assert "liver, kidney" in refused.value.message
    assert "Müller" not in refused.value.message


def test_a_cropped_segmentation_is_placed_on_the_scan(
    scan: Volume, painted: Any, tmp_path: Path
) -> None:
    part = with_shift(scan, painted[1:6, 2:], (1, 2, 0))
    named = [("liver", 1), ("kidney", 2)]
    affine = np.array(part.affine)
    file = write_seg_nrrd(tmp_path / "a.nrrd", part.array[0], named, affine)
    upload = read_label_upload(file, scan, LABELS)
    expected = painted.copy()
    expected[0, 6, 0] = 0
    assert np.array_equal(upload.indices, expected)


def test_what_the_reader_noticed_comes_with_the_label(
    scan: Volume, painted: Any, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.nii.gz", scan.with_array(painted[None]))
    move_qform(file)
    upload = read_label_upload(file, scan, LABELS)
    assert upload.warnings == (WARNING,)
    assert np.array_equal(upload.indices, painted)


def test_clients_number_segments_in_three_ways() -> None:
    assert name_values(
        [{"name": "a", "idx": 4}, {"name": "b", "id": 6}, {"name": "c"}]
    ) == {
        4: "a",
        6: "b",
        3: "c",
    }
    assert name_values([{"name": "a", "idx": 4, "id": 9}]) == {4: "a"}
    assert (
        name_values([{"idx": 1}, {"name": 2}, {"name": "a", "idx": "1"}, {}])
        == {}
    )


def test_unknown_segments_are_refused_by_value_and_named_apart() -> None:
    values = np.array([[[0, 1, 5, 7]]])
    with pytest.raises(ScanError, match="with values 5, 7; rename") as refused:
        to_label_indices(values, {1: "liver", 5: "Frau Müller", 7: "x"}, LABELS)
    assert "bundle knows liver, kidney" in refused.value.message
    assert "Müller" not in refused.value.message
    assert refused.value.detail == "Frau Müller, x"
    with pytest.raises(ScanError, match="with values 3; rename"):
        to_label_indices(np.array([[[3]]]), {}, LABELS)


def test_a_named_segment_that_is_not_painted_does_no_harm() -> None:
    values = np.array([[[0, 1]]])
    assert to_label_indices(values, {1: "liver", 2: "x"}, LABELS).tolist() == [
        [[0, 1]]
    ]


def test_many_labels_need_sixteen_bits() -> None:
    many = made_spec(
        labels=[{"index": i, "name": f"l{i}"} for i in range(1, 257)]
    ).label_set
    labels = to_label_indices(np.array([[[0, 256]]]), {}, many)
    assert (labels.dtype, labels.tolist()) == (np.uint16, [[[0, 256]]])
    few = made_spec(
        labels=[{"index": i, "name": f"l{i}"} for i in range(1, 256)]
    ).label_set
    assert to_label_indices(np.array([[[0, 255]]]), {}, few).dtype == np.uint8


def test_overlapping_segments_are_refused(scan: Volume, tmp_path: Path) -> None:
    header = (
        "NRRD0004\ntype: uint8\ndimension: 4\nspace: right-anterior-superior\n"
        "sizes: 2 2 2 2\nspace directions: none (1,0,0) (0,1,0) (0,0,1)\n"
        "kinds: list domain domain domain\nencoding: raw\nspace origin: (0,0,0)\n\n"
    )
    file = tmp_path / "a.seg.nrrd"
    file.write_bytes(header.encode() + bytes(range(16)))
    with pytest.raises(ScanError):
        read_label_upload(file, scan, LABELS)


def test_a_label_much_larger_than_the_scan_is_refused_unread(
    scan: Volume, tmp_path: Path
) -> None:
    file = tmp_path / "bomb.nii.gz"
    image = nib.Nifti1Image(
        np.zeros((200, 200, 200), np.uint8), np.array(scan.affine)
    )
    nib.save(image, file)
    assert file.stat().st_size < 100_000
    with pytest.raises(ScanError, match="200×200×200 voxels; at most"):
        read_label_upload(file, scan, LABELS)


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_a_file_that_is_no_image_is_refused_without_its_path(
    scan: Volume, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "secret.nii.gz"
    file.write_bytes(content)
    with pytest.raises(ScanError):
        read_label_upload(file, scan, LABELS)


def test_a_mask_in_the_labels_colours_is_read_as_everywhere(
    tmp_path: Path,
) -> None:
    street = LabelSet(
        [
            Label(index, name, index, colour)
            for index, (name, colour) in enumerate(COLOURS.items(), start=1)
        ],
        colour_coded=True,
    )
    scene = make_scene(1, 144, 192)
    grid = Volume(np.zeros((3, 192, 144, 1), np.float32), np.eye(4), "a.png")
    file = tmp_path / "a.png"
    as_jpeg(paint(scene)).save(file)

    upload = read_label_upload(file, grid, street)

    assert np.mean(scene == upload.indices[..., 0].T) > 0.999
    assert "counts as the nearest label" in upload.warnings[0]
    painted = np.asarray(paint(scene)).copy()
    painted[2:20, 2:20] = (0, 192, 64)
    Image.fromarray(painted).save(file)
    with pytest.raises(ScanError, match=r"\(0, 192, 64\)"):
        read_label_upload(file, grid, street)
