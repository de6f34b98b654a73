"""NRRD and MetaImage: exact places, nothing read from elsewhere, no patient carried over."""

from __future__ import annotations

import gzip
import itertools
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from support import dicom as made

from medseg.errors import GeometryError, ScanError
from medseg.io import read_image, read_labels, write_labels
from medseg.io.itk import ITK
from medseg.io.voxel_files import find_voxel_file
from medseg.testing.image_formats import ImageFormatContract

META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    "CompressedData = {packed}\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 5 6 7\n"
    "ElementSpacing = 1 2 3\nDimSize = 4 3 2\nElementType = MET_USHORT\n"
    "ElementDataFile = {where}\n"
)
NRRD = (
    "NRRD0004\ntype: uint16\ndimension: 3\nspace: {space}\nsizes: 4 3 2\n"
    "space directions: {directions}\nendian: little\nencoding: raw\nspace origin: (5,6,7)\n{more}\n"
)
VOXELS = np.arange(24, dtype="<u2").reshape(4, 3, 2, order="F")


def meta(
    path: Path,
    where: str = "LOCAL",
    packed: str = "False",
    payload: bytes = b"",
) -> Path:
    path.write_bytes(META.format(where=where, packed=packed).encode() + payload)
    return path


def nrrd(path: Path, payload: bytes | None = None, **changes: str) -> Path:
    text = {
        "space": "left-posterior-superior",
        "directions": "(1,0,0) (0,2,0) (0,0,3)",
        "more": "",
    }
    content = VOXELS.tobytes("F") if payload is None else payload
    path.write_bytes(NRRD.format(**(text | changes)).encode() + content)
    return path


class TestNrrd(ImageFormatContract):
    format = ITK
    suffix = ".nrrd"
    secrets = (made.PATIENT,)
    compress = True

    def write_volume(
        self, path: Path, array: np.ndarray, affine: np.ndarray
    ) -> None:
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image = sitk.GetImageFromArray(array.T)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetMetaData("PatientName", made.PATIENT)
        sitk.WriteImage(image, str(path), useCompression=self.compress)


class TestRawNrrd(TestNrrd):
    compress = False


class TestMetaImage(TestNrrd):
    suffix = ".mha"


class TestRawMetaImage(TestMetaImage):
    compress = False


def test_lps_becomes_ras(tmp_path):
    for path in (
        nrrd(tmp_path / "a.nrrd"),
        meta(tmp_path / "a.mha", payload=VOXELS.tobytes("F")),
    ):
        volume = read_image(path)
        assert np.array_equal(volume.array[0], VOXELS)
        assert volume.affine.tolist() == [
            [-1, 0, 0, -5],
            [0, -2, 0, -6],
            [0, 0, 3, 7],
            [0, 0, 0, 1],
        ]


def test_a_nrrd_in_ras_means_the_same(tmp_path):
    path = nrrd(tmp_path / "a.nrrd", space="right-anterior-superior")
    assert np.allclose(read_image(path).affine @ (1, 1, 1, 1), (6, 8, 10, 1))


def test_a_sheared_nrrd_keeps_its_shear(tmp_path):
    path = nrrd(tmp_path / "a.nrrd", directions="(1,0,0) (0,2,0) (0,1,3)")
    assert np.allclose(read_image(path).affine[:3, 2], (0, -1, 3))


def test_a_nrrd_without_a_space_is_doubted(tmp_path):
    path = nrrd(tmp_path / "a.nrrd")
    text = path.read_bytes().replace(b"space: left-posterior-superior\n", b"")
    text = text.replace(
        b"space directions: (1,0,0) (0,2,0) (0,0,3)\n", b"spacings: 1 2 3\n"
    )
    path.write_bytes(text.replace(b"space origin: (5,6,7)\n", b""))
    assert "LPS is assumed" in read_image(path).warnings[0]


def test_vectors_are_channels(tmp_path):
    array = (
        np.random.default_rng(0).integers(0, 9, (2, 3, 4, 3)).astype(np.float32)
    )
    for name in ("a.nrrd", "a.mha"):
        sitk.WriteImage(
            sitk.GetImageFromArray(array, isVector=True), str(tmp_path / name)
        )
        volume = read_image(tmp_path / name)
        assert np.array_equal(volume.array, array.transpose(3, 2, 1, 0))
        with pytest.raises(ScanError, match="has 3"):
            read_labels(tmp_path / name)


def test_voxels_beside_a_header_are_read_and_elsewhere_are_not(tmp_path):
    (tmp_path / "scan").mkdir()
    for folder in (tmp_path, tmp_path / "scan"):
        (folder / "a.raw").write_bytes(VOXELS.tobytes("F"))
    path = meta(tmp_path / "scan" / "a.mhd", where="a.raw")
    assert np.array_equal(read_image(path).array[0], VOXELS)
    for where in (
        "../a.raw",
        str(tmp_path / "a.raw"),
        "LIST",
        "gone.raw",
        "a%d.raw 0 1 1",
    ):
        with pytest.raises(ScanError, match="in the same folder"):
            read_image(meta(path, where=where))
    with pytest.raises(ScanError, match="in the same folder"):
        read_image(meta(tmp_path / "scan" / "a.mha", where="a.raw"))
    with pytest.raises(ScanError, match="another file"):
        read_image(
            nrrd(tmp_path / "scan" / "a.nrrd", more="data file: a.raw\n")
        )


def test_a_short_voxel_file_is_refused(tmp_path):
    (tmp_path / "a.raw").write_bytes(VOXELS.tobytes("F")[:-2])
    with pytest.raises(ScanError, match="46 of 48 bytes"):
        read_image(meta(tmp_path / "a.mhd", where="a.raw"))


def test_streams_that_inflate_to_less_or_more_are_refused(tmp_path):
    content = VOXELS.tobytes("F")
    whole = zlib.compress(content)
    assert (
        read_image(
            meta(tmp_path / "a.mha", packed="True", payload=whole)
        ).array.max()
        == 23
    )
    short, long = (
        zlib.compress(content[:-2]),
        zlib.compress(content + bytes(100 << 20)),
    )
    with pytest.raises(ScanError, match="46 of 48 bytes"):
        read_image(meta(tmp_path / "short.mha", packed="True", payload=short))
    with pytest.raises(ScanError, match="more voxels than its header"):
        read_image(meta(tmp_path / "long.mha", packed="True", payload=long))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("4 3 2", "40000 40000 40000"),
        ("4 3 2", "4 3 0"),
        ("4 3 2", "4 3"),
        ("4 3 2", "-4 3 2"),
        ("ElementSpacing = 1 2 3", "ElementSpacing = 1 2 nan"),
        ("ElementSpacing = 1 2 3", "ElementSpacing = 1 2 0"),
        ("1 0 0 0 1 0 0 0 1", "1 0 0 1 0 0 0 0 1"),
        ("Offset = 5 6 7", "Offset = 5 6 inf"),
        ("Offset = 5 6 7", "Offset = 5 6 1e300"),
        ("ElementType", "ElementNumberOfChannels = 0\nElementType"),
        ("ElementType", "ElementNumberOfChannels = 99999\nElementType"),
        ("BinaryData = True", "BinaryData = False"),
        ("MET_USHORT", "MET_NONSENSE"),
        ("NDims = 3", "NDims = 99999"),
        ("ElementDataFile", "Something"),
    ],
)
def test_forged_headers_are_refused(tmp_path, old, new):
    text = META.format(where="LOCAL", packed="False")
    assert old in text
    path = tmp_path / "a.mha"
    path.write_bytes(text.replace(old, new).encode() + VOXELS.tobytes("F"))
    with pytest.raises(ScanError, match=r"a\.mha"):
        read_image(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sizes: 4 3 2", "sizes: 40000 40000 40000"),
        ("sizes: 4 3 2", "sizes: 4 3"),
        ("dimension: 3", "dimension: 99999"),
        ("(0,2,0)", "none"),
        ("(0,2,0)", "(0,2)"),
        ("(0,2,0)", "(0,nan,0)"),
        ("(0,2,0)", "(0,0,0)"),
        ("space origin: (5,6,7)", "space origin: (5,6,1e300)"),
        ("space origin: (5,6,7)", "space origin: 5 6 7"),
        ("space origin: (5,6,7)", "space origin: (5,6,7) (8,9,10)"),
        ("type: uint16", "type: block"),
        ("endian: little\n", ""),
        ("encoding: raw", "encoding: bzip2"),
        ("encoding: raw", "encoding: raw\nbyte skip: -1"),
        ("NRRD0004", "NRRD0009"),
    ],
)
def test_forged_nrrd_headers_are_refused(tmp_path, old, new):
    path = nrrd(tmp_path / "a.nrrd")
    assert old.encode() in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    with pytest.raises(ScanError, match=r"a\.nrrd"):
        read_image(path)


def test_channels_last_in_a_nrrd(tmp_path):
    array = np.arange(48, dtype="<u2").reshape(4, 3, 2, 2, order="F")
    path = nrrd(tmp_path / "a.nrrd", array.tobytes("F"))
    text = path.read_bytes().replace(b"dimension: 3", b"dimension: 4")
    text = text.replace(b"sizes: 4 3 2", b"sizes: 4 3 2 2").replace(
        b"(0,0,3)", b"(0,0,3) none"
    )
    path.write_bytes(text)
    assert np.array_equal(read_image(path).array, np.moveaxis(array, 3, 0))


def test_the_real_segmentations_lie_on_their_series(shared_data):
    folder = shared_data / "dicom_seg" / "dcmqi"
    labels = read_labels(folder / "liver_seg.nrrd")
    scan = read_image(folder / "ct-3slice")
    assert scan.on_same_grid(labels)
    counts = np.count_nonzero(labels.array[0], axis=(0, 1))
    assert sorted(counts.tolist()) == [35220, 35645, 36233]


def test_written_files_hold_no_identity(tmp_path):
    scan = read_image(made.save(tmp_path / "ct", made.series()))
    for name in ("a.nrrd", "a.mha", "a.nii"):
        write_labels(tmp_path / name, made.voxels() % 2, scan)
        content = (tmp_path / name).read_bytes()
        assert b"Secret" not in content
        assert b"4711" not in content


SIGNED_ORDERS = [
    np.eye(3)[list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def written(path: Path, directions: Any) -> Path:
    image = sitk.GetImageFromArray(np.ascontiguousarray(VOXELS.T))
    image.SetSpacing((1, 2, 3))
    image.SetOrigin((5, 6, 7))
    image.SetDirection(np.ravel(directions).tolist())
    sitk.WriteImage(image, str(path))
    return path


def replace_line(path: Path, name: bytes, line: bytes) -> Path:
    lines = path.read_bytes().split(b"\n")
    kept = [line if each.startswith(name) else each for each in lines]
    path.write_bytes(b"\n".join(each for each in kept if each))
    return path


@pytest.mark.parametrize("directions", SIGNED_ORDERS)
@pytest.mark.parametrize("line", [b"", b"TransformMatrix = 1 0 0 0 1 0 0 0 1"])
def test_lost_axes_never_go_unnoticed_where_the_orientation_is_stated(
    tmp_path, directions, line
):
    path = written(tmp_path / "a.mha", directions)
    whole = read_image(path)
    assert whole.warnings == ()
    replace_line(path, b"TransformMatrix", line)
    if np.array_equal(directions, np.eye(3)):
        assert np.array_equal(read_image(path).affine, whole.affine)
        assert read_image(path).warnings == ()
    elif np.array_equal(directions, -np.eye(3)):
        # Programs that name where axes end mean the identity by it.
        assert "AnatomicalOrientation" in read_image(path).warnings[0]
    else:
        for read in (read_image, read_labels):
            with pytest.raises(GeometryError, match="AnatomicalOrientation"):
                read(path)


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.floats(-3, 3)] * 3), st.booleans())
def test_axes_that_itk_wrote_agree_with_its_orientation(
    tmp_path_factory, angles, mirrored
):
    directions = Rotation.from_euler("xyz", angles).as_matrix()
    if mirrored:
        directions[:, 0] *= -1
    folder = tmp_path_factory.mktemp("oblique")
    volumes = [
        read_image(written(folder / name, directions))
        for name in ("a.mha", "a.mhd", "a.nrrd", "a.nhdr")
    ]
    for volume in volumes:
        assert volume.warnings == ()
        assert np.array_equal(volume.array[0], VOXELS)
        assert np.allclose(volume.affine, volumes[0].affine, atol=1e-9)


def test_a_metaimage_whose_axes_and_orientation_differ_keeps_its_axes(tmp_path):
    path = written(tmp_path / "a.mha", np.diag([-1, -1, 1]))
    expected = read_image(path).affine
    replace_line(path, b"AnatomicalOrientation", b"AnatomicalOrientation = ASL")
    volume = read_image(path)
    assert np.array_equal(volume.affine, expected)
    assert "TransformMatrix, which is used" in volume.warnings[0]


@pytest.mark.parametrize("orientation", [b"", b"???", b"RRI", b"RA"])
def test_a_metaimage_that_says_nothing_of_its_axes_is_doubted(
    tmp_path, orientation
):
    path = written(tmp_path / "a.mha", np.eye(3))
    said = b"AnatomicalOrientation = " + orientation if orientation else b""
    replace_line(path, b"AnatomicalOrientation", said)
    assert read_image(path).warnings == ()
    replace_line(path, b"TransformMatrix", b"")
    assert "LPS is assumed" in read_image(path).warnings[0]


def test_an_origin_that_is_not_stated_is_doubted(tmp_path):
    mha = written(tmp_path / "a.mha", np.diag([-1, -1, 1]))
    replace_line(mha, b"Offset", b"")
    lost = nrrd(tmp_path / "a.nrrd")
    content = re.sub(rb"space origin: .*\n", b"", lost.read_bytes())
    lost.write_bytes(content)
    for path in (mha, lost):
        volume = read_image(path)
        assert not volume.affine[:3, 3].any()
        assert "states no origin" in volume.warnings[0]


def test_a_metaimage_without_the_size_of_its_voxels_is_refused(tmp_path):
    path = replace_line(
        written(tmp_path / "a.mha", np.eye(3)), b"ElementSpacing", b""
    )
    with pytest.raises(GeometryError, match="ElementSpacing"):
        read_image(path)


@pytest.mark.parametrize(
    ("unit", "mm"), [("mm", 1), ("um", 0.001), ("cm", 10), ("m", 1000)]
)
def test_lengths_in_other_units_become_mm(tmp_path, unit, mm):
    mha = meta(tmp_path / "a.mha", payload=VOXELS.tobytes("F"))
    replace_line(mha, b"NDims", f"NDims = 3\nDistanceUnits = {unit}".encode())
    units = f'space units: "{unit}" "{unit}" "{unit}"\n'
    for path in (mha, nrrd(tmp_path / "a.nrrd", more=units)):
        volume = read_image(path)
        assert volume.spacing == pytest.approx((mm, 2 * mm, 3 * mm))
        assert volume.affine[:3, 3] == pytest.approx([-5 * mm, -6 * mm, 7 * mm])
        assert len(volume.warnings) == (mm != 1)


def test_unknown_and_mixed_units_are_refused(tmp_path):
    for units, why in (
        ('"inch" "inch" "inch"', "not known"),
        ('"mm" "um" "mm"', "several units"),
    ):
        path = nrrd(tmp_path / "a.nrrd", more=f"space units: {units}\n")
        with pytest.raises(GeometryError, match=why):
            read_image(path)


def test_a_nrrd_with_spacings_alone_does_not_say_how_its_axes_lie(tmp_path):
    path = nrrd(tmp_path / "a.nrrd")
    content = path.read_bytes().replace(
        b"space directions: (1,0,0) (0,2,0) (0,0,3)", b"spacings: 1 2 3"
    )
    path.write_bytes(content)
    volume = read_image(path)
    assert volume.spacing == (1, 2, 3)
    assert "LPS is assumed" in volume.warnings[0]


@pytest.mark.parametrize(
    ("packed", "skip"),
    [
        (False, ""),
        (True, ""),
        (False, "byte skip: -1\n"),
        (True, "line skip: 0\n"),
    ],
)
def test_voxels_beside_a_nrrd_header_are_read_exactly(tmp_path, packed, skip):
    content = VOXELS.tobytes("F")
    voxels = tmp_path / "Voxels.RAW"
    voxels.write_bytes(gzip.compress(content) if packed else content)
    if "-1" in skip:
        voxels.write_bytes(b"of another program" + content)
    path = nrrd(
        tmp_path / "a.nhdr", b"", more=f"data file: {voxels.name}\n{skip}"
    )
    if packed:
        path.write_bytes(path.read_bytes().replace(b": raw", b": gzip"))
    for read in (read_image, read_labels):
        assert np.array_equal(read(path).array[0], VOXELS)
    assert find_voxel_file(path) == voxels
    voxels.write_bytes(voxels.read_bytes()[:-21])
    with pytest.raises(ScanError, match="truncated"):
        read_image(path)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("data file: ../a.raw\n", "in the same folder"),
        ("data file: /etc/hostname\n", "in the same folder"),
        ("data file: gone.raw\n", "in the same folder"),
        ("data file: LIST\n", "several files"),
        ("data file: a%03d.raw 1 2 1\n", "several files"),
        ("data file: a.raw\nbyte skip: 7\n", "skips bytes"),
        ("data file: a.raw\nline skip: 1\n", "skips bytes"),
        ("", "names no file"),
    ],
)
def test_a_nrrd_header_leads_to_one_file_beside_it_and_no_other(
    tmp_path, more, why
):
    folder = tmp_path / "scan"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "a.raw").write_bytes(VOXELS.tobytes("F"))
    with pytest.raises(ScanError, match=why):
        read_image(nrrd(folder / "a.nhdr", b"", more=more))


def test_bytes_behind_the_voxels_are_said(tmp_path):
    payload = VOXELS.tobytes("F") + bytes(5)
    for path in (
        meta(tmp_path / "a.mha", payload=payload),
        nrrd(tmp_path / "a.nrrd", payload),
    ):
        assert read_image(path).warnings == (
            "5 bytes follow the voxels that the header states",
        )


def test_layers_of_overlapping_segments_are_named(tmp_path):
    layers = np.zeros((2, 4, 3, 2), np.uint8, order="F")
    more = (
        "Segment0_Name:=liver\nSegment0_LabelValue:=1\nSegment0_Layer:=0\n"
        "Segment1_Name:=tumour\nSegment1_LabelValue:=1\nSegment1_Layer:=1\n"
    )
    path = nrrd(
        tmp_path / "a.seg.nrrd",
        layers.tobytes("F"),
        directions="none (1,0,0) (0,2,0) (0,0,3)",
        more=more,
    )
    content = path.read_bytes().replace(b"sizes: 4", b"sizes: 2 4")
    content = content.replace(b"uint16", b"uint8")
    path.write_bytes(content.replace(b"dimension: 3", b"dimension: 4"))
    with pytest.raises(ScanError, match="2 layers of segments that overlap"):
        read_labels(path)


def test_directions_that_stretch_voxels_are_said(tmp_path):
    path = written(tmp_path / "a.mha", np.eye(3))
    replace_line(
        path, b"TransformMatrix", b"TransformMatrix = 2 0 0 0 1 0 0 0 1"
    )
    volume = read_image(path)
    assert volume.spacing == (2, 2, 3)
    assert "not of length 1" in volume.warnings[0]


def test_a_name_may_begin_with_the_folder_itself(tmp_path):
    (tmp_path / "a.raw").write_bytes(VOXELS.tobytes("F"))
    path = nrrd(tmp_path / "a.nhdr", b"", more="data file: ./a.raw\n")
    assert np.array_equal(read_image(path).array[0], VOXELS)


def test_the_unit_of_channels_in_time_is_no_length(tmp_path):
    units = 'space units: "mm" "mm" "mm" "s"\n'
    assert read_image(nrrd(tmp_path / "a.nrrd", more=units)).warnings == ()
