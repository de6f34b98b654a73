"""NIfTI: the same voxels and affine as nibabel and MONAI, and no trust in headers."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.errors import GeometryError, ScanError
from medseg.io import read_image, read_labels, write_labels
from medseg.io.adapters import as_volume
from medseg.io.nifti import NIFTI
from medseg.testing.image_formats import ImageFormatContract

AFFINE = np.array(
    [
        [-0.7, 0.1, 0.2, 31],
        [0.2, 1.4, 0.3, -12],
        [0.1, -0.4, 3.1, 7],
        [0, 0, 0, 1.0],
    ]
)


def save(
    path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, **fields
) -> Path:
    image = nib.Nifti1Image(array, affine)
    for name, value in fields.items():
        image.header[name] = value
    nib.save(image, path)
    return path


def patch(path: Path, **fields) -> Path:
    """Write header fields as they are: nibabel repairs some on saving."""
    content = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(content)
    return path


class TestNifti(ImageFormatContract):
    format = NIFTI
    suffix = ".nii"
    secrets = ("Secret^Person",)

    def write_volume(
        self, path: Path, array: np.ndarray, affine: np.ndarray
    ) -> None:
        save(
            path,
            array,
            affine,
            descrip="Secret^Person",
            db_name="Secret^Person",
        )


class TestGzippedNifti(TestNifti):
    suffix = ".nii.gz"


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "<i2", ">i2", "u2", "i4", "f4", "f8", ">f4"]
)
@pytest.mark.parametrize("scaling", [(1, 0), (0.5, -1024), (0, 0)])
def test_voxels_equal_nibabels(tmp_path, dtype, scaling):
    values = np.random.default_rng(0).integers(0, 100, (5, 4, 3)).astype(dtype)
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(values.dtype)
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(values, AFFINE, header), path)
    content = bytearray(path.read_bytes())
    stored = nib.Nifti1Header(
        bytes(content[:348]), endianness=header.endianness
    )
    stored["scl_slope"], stored["scl_inter"] = scaling
    content[:348] = stored.binaryblock
    path.write_bytes(content)
    image = nib.load(path)
    expected = np.asanyarray(image.dataobj).astype(np.float32)
    volume = read_image(path)
    assert np.array_equal(volume.array[0], expected)
    assert np.array_equal(volume.affine, image.affine)


@pytest.mark.slow
def test_voxels_equal_monais(shared_data):
    from monai.transforms import LoadImage

    for path in sorted(
        (shared_data / "hippocampus" / "imagesTr").glob("*.nii.gz")
    )[:6]:
        expected = LoadImage(reader="NibabelReader", image_only=True)(path)
        volume = read_image(path)
        assert np.array_equal(volume.array[0], expected.numpy())
        assert np.array_equal(volume.affine, expected.affine.numpy())


def test_the_fourth_axis_is_the_channels(tmp_path):
    values = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)
    volume = read_image(save(tmp_path / "scan.nii.gz", values))
    assert volume.array.shape == (5, 2, 3, 4)
    assert np.array_equal(volume.array, np.moveaxis(values, 3, 0))
    one = read_image(save(tmp_path / "one.nii", values[..., :1]))
    assert one.array.shape == (1, 2, 3, 4)
    with pytest.raises(ScanError, match="5 axes"):
        read_image(save(tmp_path / "five.nii", values.reshape(2, 3, 2, 2, 5)))
    with pytest.raises(ScanError, match="one channel, this file has 5"):
        read_labels(tmp_path / "scan.nii.gz")


def test_colours_and_complex_numbers_are_refused(tmp_path):
    rgb = np.zeros((3, 3, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for name, array in (
        ("rgb.nii", rgb),
        ("complex.nii", np.zeros((3, 3, 3), np.complex64)),
    ):
        with pytest.raises(ScanError, match="colours or complex"):
            read_image(save(tmp_path / name, array))


def test_nan_is_replaced_in_images_and_refused_in_labels(tmp_path):
    values = np.full((3, 3, 3), 2, np.float64)
    values[0, 0, 1] = -7
    values[0, 0, 0], values[1, 1, 1], values[2, 2, 2] = np.nan, np.inf, 1e300
    path = save(tmp_path / "scan.nii", values)
    volume = read_image(path)
    assert volume.array[0, 0, 0, 0] == volume.array[0, 2, 2, 2] == -7
    assert volume.array.sum() == 23 * 2 - 4 * 7
    assert volume.warnings == (
        "3 of 27 voxels were not numbers (NaN or infinite) and took the lowest value of their "
        "channel",
    )
    with pytest.raises(ScanError, match="not numbers"):
        read_labels(path)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([0, 1.5], "holds 1.5"),
        ([0, -1], "lowest value is -1"),
        ([0, 2.0**40], "is too large"),
    ],
)
def test_values_that_are_no_labels(tmp_path, values, why):
    array = np.zeros((2, 2, 2), np.float32)
    array[:, 0, 0] = values
    with pytest.raises(ScanError, match=why):
        read_labels(save(tmp_path / "labels.nii", array))


@pytest.mark.parametrize(
    ("most", "dtype"), [(255, "u1"), (256, "u2"), (65536, "u4")]
)
def test_float_labels_become_the_smallest_integers(tmp_path, most, dtype):
    array = np.zeros((2, 2, 2), np.float32)
    array[1, 1, 1] = most
    labels = read_labels(save(tmp_path / "labels.nii", array)).array
    assert labels.dtype == dtype
    assert labels.max() == most


def test_geometry_that_is_doubtful_is_said(tmp_path):
    plain = np.zeros((4, 4, 4), np.uint8)
    nowhere = patch(save(tmp_path / "a.nii", plain), sform_code=0, qform_code=0)
    assert "no orientation" in read_image(nowhere).warnings[0]
    assert np.array_equal(read_image(nowhere).affine, nib.load(nowhere).affine)
    two = patch(save(tmp_path / "b.nii", plain), qform_code=1, qoffset_x=77)
    assert "sform and qform differ by up to" in read_image(two).warnings[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"srow_x": [np.nan, 0, 0, 0]},
        {"srow_y": [0, np.inf, 0, 0]},
        {"srow_z": [0, 0, 0, 0]},
        {"sform_code": 0, "qform_code": 1, "quatern_b": 3},
        {"sform_code": 0, "qform_code": 1, "qoffset_x": np.nan},
    ],
)
def test_broken_affines_are_refused(tmp_path, fields):
    path = patch(
        save(tmp_path / "scan.nii", np.zeros((3, 3, 3), np.uint8)), **fields
    )
    with pytest.raises(GeometryError, match=r"scan\.nii"):
        read_image(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]},
        {"dim": [3, 1500, 1500, 1500, 1, 1, 1, 1]},
        {"dim": [3, -3, 3, 3, 1, 1, 1, 1]},
        {"dim": [3, 0, 3, 3, 1, 1, 1, 1]},
        {"dim": [7, 2, 2, 2, 2, 2, 2, 2]},
        {"dim": [0, 2, 2, 2, 2, 2, 2, 2]},
        {"datatype": 9999},
        {"datatype": 0},
        {"vox_offset": 1e9},
        {"vox_offset": np.nan},
        {"vox_offset": np.inf},
        {"magic": b"ni1"},
        {"magic": b"xyz"},
        {"scl_slope": 1, "scl_inter": np.nan},
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_forged_headers_are_refused_before_memory_is_taken(
    tmp_path, fields, zipped
):
    path = patch(
        save(tmp_path / "scan.nii", np.zeros((3, 3, 3), np.uint8)), **fields
    )
    if zipped:
        path = tmp_path / "scan.nii.gz"
        path.write_bytes(gzip.compress((tmp_path / "scan.nii").read_bytes()))
    tracemalloc.start()
    try:
        with pytest.raises(ScanError, match="scan"):
            read_image(path)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_is_read_no_further_than_its_header_says(tmp_path):
    content = save(
        tmp_path / "scan.nii", np.ones((3, 3, 3), np.uint8)
    ).read_bytes()
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(content + bytes(200 << 20)))
    tracemalloc.start()
    assert read_image(path).array.sum() == 27
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


def test_every_cut_of_a_gzip_file_is_noticed(tmp_path):
    path = save(
        tmp_path / "scan.nii.gz", np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    )
    content = path.read_bytes()
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        with pytest.raises(ScanError, match="scan"):
            read_image(path)
    for size in range(len(content) - 8, len(content)):  # within the checksum
        path.write_bytes(content[:size])
        with pytest.raises(ScanError, match="truncated or damaged"):
            read_image(path)


def test_a_wrong_checksum_is_noticed(tmp_path):
    path = save(
        tmp_path / "scan.nii.gz", np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    )
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(ScanError, match="damaged"):
        read_image(path)


def test_a_neighbour_of_the_same_name_is_not_read(tmp_path):
    save(tmp_path / "x.nii", np.full((3, 3, 3), 7, np.uint8))
    path = save(tmp_path / "x.nii.gz", np.full((3, 3, 3), 1, np.uint8))
    assert read_image(path).array.max() == 1


@pytest.mark.parametrize(
    ("sform", "qform"), [(1, 1), (2, 0), (0, 1), (4, 1), (0, 0)]
)
def test_labels_repeat_the_source_headers_geometry_bit_for_bit(
    tmp_path, sform, qform
):
    rigid = np.diag([-1.5, 1.5, 2.0, 1]) + np.array(
        [[0, 0, 0, 9.1], [0] * 4, [0] * 4, [0] * 4]
    )
    image = nib.Nifti1Image(np.zeros((4, 3, 2), np.float32), rigid)
    image.set_sform(AFFINE, sform)
    image.set_qform(rigid, qform)
    image.header["descrip"] = b"Secret Person"
    nib.save(image, tmp_path / "scan.nii.gz")
    scan = read_image(tmp_path / "scan.nii.gz")
    write_labels(tmp_path / "out.nii.gz", np.ones((4, 3, 2), np.uint8), scan)
    mine, source = nib.load(tmp_path / "out.nii.gz").header, scan.header
    for field in (
        "qform_code",
        "sform_code",
        "quatern_b",
        "qoffset_x",
        "srow_x",
        "srow_z",
    ):
        assert np.array_equal(mine[field], source[field])
    assert np.array_equal(mine["pixdim"][:4], source["pixdim"][:4])
    assert np.array_equal(nib.load(tmp_path / "out.nii.gz").affine, scan.affine)
    assert b"Secret" not in gzip.decompress(
        (tmp_path / "out.nii.gz").read_bytes()
    )


def test_nifti2_is_read_and_answered_in_kind(tmp_path):
    nib.save(
        nib.Nifti2Image(np.ones((3, 3, 3), np.int16), AFFINE),
        tmp_path / "scan.nii",
    )
    scan = read_image(tmp_path / "scan.nii")
    assert np.array_equal(scan.affine, AFFINE)
    write_labels(tmp_path / "out.nii", np.ones((3, 3, 3), np.uint8), scan)
    assert isinstance(nib.load(tmp_path / "out.nii"), nib.Nifti2Image)
    assert np.array_equal(read_labels(tmp_path / "out.nii").affine, AFFINE)


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    spacing=st.tuples(*[st.floats(0.1, 9)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    flip=st.booleans(),
    most=st.sampled_from([1, 255, 256, 70000]),
)
def test_writing_then_reading_changes_nothing(
    tmp_path_factory, shape, angles, spacing, origin, flip, most
):
    from scipy.spatial.transform import Rotation

    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles).as_matrix() * spacing
    affine[:3, 0] *= -1 if flip else 1
    affine[:3, 3] = origin
    folder = tmp_path_factory.mktemp("round")
    like = read_image(
        save(folder / "scan.nii", np.zeros(shape, np.int16), affine)
    )
    labels = np.random.default_rng(0).integers(0, most + 1, shape)
    write_labels(folder / "out.nii.gz", labels, like)
    back = read_labels(folder / "out.nii.gz")
    assert np.array_equal(back.array[0], labels)
    assert np.array_equal(back.affine, like.affine)


def test_a_path_may_be_text(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.ones((3, 4, 5), np.int16))
    assert read_image(str(path)).shape == read_image(path).shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("dtype", "most"), [(np.uint8, 2), (np.uint8, 3), (np.int16, 100)]
)
def test_labels_that_were_stored_with_a_scale_factor_come_back_whole(
    tmp_path, dtype, most
):
    array = np.arange(27, dtype=np.float64).reshape(3, 3, 3) % (most + 1)
    array[0, 0, 0] = most
    image = nib.Nifti1Image(array, AFFINE)
    image.header.set_data_dtype(dtype)  # of the scan whose header it was given
    nib.save(image, tmp_path / "labels.nii.gz")
    stored = np.asanyarray(nib.load(tmp_path / "labels.nii.gz").dataobj)
    assert (stored != np.rint(stored)).any()
    labels = read_labels(tmp_path / "labels.nii.gz").array
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels[0], array)


def test_what_is_farther_from_whole_numbers_than_rounding_is_no_label(tmp_path):
    array = np.ones((2, 2, 2), np.float32)
    array[0, 0, 0] = 0.98
    with pytest.raises(ScanError, match=r"this one holds 0\.98"):
        read_labels(save(tmp_path / "labels.nii", array))


@pytest.mark.parametrize("missing", [1, 2, 30])
def test_a_whole_gzip_stream_with_too_few_voxels_is_refused(tmp_path, missing):
    plain = save(tmp_path / "a.nii", np.ones((5, 4, 3), np.int16))
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(plain.read_bytes()[: -2 * missing]))
    for read in (read_image, read_labels):
        with pytest.raises(
            ScanError, match=f"holds {2 * (60 - missing)} of 120 bytes"
        ):
            read(path)


def test_the_checksum_is_compared_also_behind_bytes_that_follow_the_voxels(
    tmp_path,
):
    plain = save(
        tmp_path / "a.nii", np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    ).read_bytes()
    trailing = (
        np.random.default_rng(0).integers(0, 256, 500_000, np.uint8).tobytes()
    )
    content = bytearray(gzip.compress(plain + trailing))
    path = tmp_path / "b.nii.gz"
    path.write_bytes(content)
    assert read_image(path).array.max() == 59
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(ScanError, match="damaged"):
        read_image(path)


@pytest.mark.parametrize(
    ("code", "mm", "said"),
    [(0, 1, ""), (1, 1000, "metres"), (2, 1, ""), (3, 0.001, "micrometres")],
)
@pytest.mark.parametrize("forms", [(1, 0), (0, 1), (0, 0), (2, 1)])
def test_lengths_become_mm_in_images_label_maps_and_results(
    tmp_path, code, mm, said, forms
):
    rigid = np.diag([-8.0, 8.0, 9.0, 1.0])
    rigid[:3, 3] = 40, -50, 60
    image = nib.Nifti1Image(np.ones((3, 4, 5), np.uint8), rigid)
    image.set_sform(rigid, forms[0])
    image.set_qform(rigid, forms[1])
    path = tmp_path / "scan.nii"
    nib.save(image, path)
    patch(path, xyzt_units=code + 8)
    expected = nib.load(path).affine.copy()
    expected[:3] *= mm
    for volume in (
        read_image(path),
        read_labels(path),
        as_volume(nib.load(path)),
    ):
        assert np.allclose(volume.affine, expected, rtol=1e-12)
        assert volume.spacing == pytest.approx((8 * mm, 8 * mm, 9 * mm))
        assert [said in warning for warning in volume.warnings[-1:]] == (
            [True] if said or forms == (0, 0) else []
        )
    write_labels(tmp_path / "out.nii", np.ones((3, 4, 5), np.uint8), volume)
    back = read_labels(tmp_path / "out.nii")
    assert np.allclose(back.affine, expected, rtol=1e-6)
    assert not any("lengths" in warning for warning in back.warnings)


def test_a_unit_of_length_that_nifti_does_not_have_is_refused(tmp_path):
    path = save(tmp_path / "scan.nii", np.ones((3, 3, 3), np.uint8))
    with pytest.raises(GeometryError, match="code 5"):
        read_image(patch(path, xyzt_units=5))


def test_grids_of_microscopy_are_compared_by_its_voxels(tmp_path):
    path = save(
        tmp_path / "scan.nii",
        np.ones((3, 3, 3), np.uint8),
        np.diag([8, 8, 8, 1]),
    )
    scan = read_image(patch(path, xyzt_units=3))
    patch(path, srow_x=[8, 0, 0, 8])
    with pytest.raises(GeometryError, match=r"0\.00800 mm apart"):
        scan.require_same_grid(read_labels(path), "the scan and its mask")


@pytest.mark.parametrize("wrong", [0, -2, np.nan, np.inf])
@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("qform", [0, 1])
def test_voxels_without_a_size_are_refused_where_the_affine_needs_it(
    tmp_path, wrong, axis, qform
):
    path = save(tmp_path / "scan.nii", np.ones((3, 3, 3), np.uint8))
    sizes = nib.load(path).header["pixdim"].copy()
    sizes[axis] = wrong
    patch(path, pixdim=sizes)
    assert np.allclose(read_image(path).affine, AFFINE)  # the sform's
    patch(path, sform_code=0, qform_code=qform)
    for read in (read_image, read_labels):
        with pytest.raises(GeometryError, match="must be above 0"):
            read(path)


def test_a_single_slice_of_two_axes_needs_no_thickness(tmp_path):
    path = save(tmp_path / "scan.nii", np.ones((3, 4), np.uint8))
    patch(path, sform_code=0, qform_code=1, pixdim=[1, 2, 2, 0, 0, 0, 0, 0])
    assert read_image(path).spacing == (2, 2, 1)
    assert read_image(path).warnings == ()


@pytest.mark.parametrize("sign", [np.nan, -3])
def test_a_qform_that_may_be_mirrored_or_not_is_refused(tmp_path, sign):
    path = save(tmp_path / "scan.nii", np.ones((3, 3, 3), np.uint8))
    sizes = nib.load(path).header["pixdim"].copy()
    sizes[0] = sign
    patch(path, sform_code=0, qform_code=1, pixdim=sizes)
    with pytest.raises(GeometryError, match="must be 1 or -1"):
        read_image(path)


@pytest.mark.parametrize(
    "sform", [np.zeros((3, 4)), np.ones((3, 4)), np.full((3, 4), np.nan)]
)
def test_a_good_qform_beside_a_singular_sform_is_used_and_said(tmp_path, sform):
    rigid = np.diag([-2.0, 3.0, 4.0, 1.0])
    rigid[:3, 3] = 5, 6, 7
    image = nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), rigid)
    image.set_qform(rigid, 1)
    path = tmp_path / "scan.nii"
    nib.save(image, path)
    x, y, z = sform
    patch(path, srow_x=x, srow_y=y, srow_z=z, sform_code=1)
    for volume in (
        read_image(path),
        read_labels(path),
        as_volume(nib.load(path)),
    ):
        assert np.allclose(volume.affine, rigid)
        assert "the qform is used" in volume.warnings[0]
    write_labels(tmp_path / "out.nii", np.ones((3, 3, 3), np.uint8), volume)
    assert np.allclose(read_labels(tmp_path / "out.nii").affine, rigid)


@pytest.mark.parametrize("offset", [-8, 0, 1, 347, 348, 351, 352.5, np.nan])
def test_voxels_cannot_begin_inside_the_header(tmp_path, offset):
    path = save(tmp_path / "scan.nii", np.ones((3, 3, 3), np.uint8))
    patch(path, vox_offset=offset)
    for read in (read_image, read_labels):
        with pytest.raises(ScanError, match="vox_offset"):
            read(path)


def test_voxels_may_begin_behind_extensions(tmp_path):
    path = save(tmp_path / "scan.nii", np.ones((3, 3, 3), np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[:352] + bytes(48) + content[352:])
    assert read_image(patch(path, vox_offset=400)).array.sum() == 27
    with pytest.raises(ScanError, match="from byte 401 on, more than the file"):
        read_image(patch(path, vox_offset=401))


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_vectors_as_itk_writes_them_are_channels_as_in_an_mha(tmp_path, dtype):
    values = np.arange(2 * 3 * 4 * 5).astype(dtype).reshape(2, 3, 4, 5)
    stored = np.ascontiguousarray(values.transpose(2, 1, 0, 3))
    image = sitk.GetImageFromArray(stored, isVector=True)
    for name in ("a.nii.gz", "a.mha"):
        sitk.WriteImage(image, tmp_path / name)
    assert nib.load(tmp_path / "a.nii.gz").shape == (2, 3, 4, 1, 5)
    expected = np.moveaxis(values, 3, 0)
    for scan in ("a.nii.gz", "a.mha"):
        assert np.array_equal(read_image(tmp_path / scan).array, expected)
    in_memory = as_volume(nib.load(tmp_path / "a.nii.gz"))
    assert np.array_equal(in_memory.array, expected)


def test_a_scale_factor_that_is_no_number_is_told_or_refused(tmp_path):
    path = save(tmp_path / "scan.nii", np.ones((3, 3, 3), np.int16))
    for read in (read_image, read_labels):
        patch(path, scl_slope=np.nan, scl_inter=np.nan)
        assert "taken as stored" in read(path).warnings[0]
        for slope, inter in ((np.inf, 0), (-np.inf, 0), (2, np.inf)):
            patch(path, scl_slope=slope, scl_inter=inter)
            with pytest.raises(ScanError, match="intensity scaling"):
                read(path)
        patch(path, scl_slope=0, scl_inter=7)
        assert read(path).array.max() == 1


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_pairs_of_header_and_image_are_read_exactly(tmp_path, kind, packed):
    values = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    image = kind(values, AFFINE)
    nib.save(image, tmp_path / f"scan.img{packed}")
    header = tmp_path / f"scan.hdr{packed}"
    for read in (read_image, read_labels):
        volume = read(header)
        assert np.array_equal(volume.array[0], values)
        assert np.array_equal(volume.affine, nib.load(header).affine)
        assert volume.warnings == ()
    voxels = tmp_path / f"scan.img{packed}"
    content = voxels.read_bytes()
    voxels.write_bytes(content[:-30])
    with pytest.raises(ScanError, match="truncated"):
        read_image(header)
    voxels.unlink()
    with pytest.raises(ScanError, match="beside it"):
        read_image(header)


def test_analyze_is_named_because_it_does_not_say_where_left_is(tmp_path):
    values = np.ones((3, 4, 5), np.int16)
    nib.save(nib.AnalyzeImage(values, np.eye(4)), tmp_path / "scan.img")
    with pytest.raises(ScanError, match=r"Analyze 7\.5"):
        read_image(tmp_path / "scan.hdr")
    held = as_volume(nib.load(tmp_path / "scan.img"))
    assert "no orientation" in held.warnings[0]


def test_a_header_of_one_kind_under_the_name_of_the_other_is_refused(tmp_path):
    path = save(tmp_path / "scan.nii", np.ones((3, 3, 3), np.int16))
    path.rename(tmp_path / "scan.hdr")
    with pytest.raises(ScanError, match=r"call it \.nii"):
        read_image(tmp_path / "scan.hdr")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"pixdim": [1, -2, 2, 2, 0, 0, 0, 0]}, "should be positive"),
        ({"qform_code": 99}, "qform_code 99 not valid"),
        ({"vox_offset": 360}, ""),
        ({"pixdim": [0, 2, 2, 2, 0, 0, 0, 0]}, ""),
    ],
)
def test_what_nibabel_says_of_a_header_is_a_warning_and_no_line_of_a_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fields, said: str
) -> None:
    scan = save(tmp_path / "a.nii", np.ones((4, 5, 6), np.uint8))
    scan.write_bytes(scan.read_bytes() + bytes(8))
    patch(scan, **fields)
    for volume in (read_image(scan), read_labels(scan)):
        told = [text for text in volume.warnings if "repaired" in text]
        assert len(told) == bool(said)
        assert said in "".join(told)
    assert not caplog.records


@pytest.mark.parametrize(
    "qform",
    [{"quatern_b": 3}, {"qoffset_x": np.nan}, {"quatern_c": np.inf}],
)
def test_a_good_sform_beside_a_broken_qform_is_used_and_said(tmp_path, qform):
    path = save(tmp_path / "scan.nii", np.ones((3, 3, 3), np.uint8))
    patch(path, qform_code=1, **qform)
    for read in (read_image, read_labels):
        volume = read(path)
        assert np.allclose(volume.affine, AFFINE)
        assert "qform is broken" in volume.warnings[0]


def test_an_sform_that_contradicts_the_sizes_of_voxels_is_said(tmp_path):
    path = save(tmp_path / "scan.nii", np.ones((3, 3, 3), np.uint8))
    assert read_image(path).warnings == ()
    sizes = nib.load(path).header["pixdim"].copy()
    sizes[3] *= 1.02
    volume = read_image(patch(path, pixdim=sizes))
    assert np.allclose(volume.affine, AFFINE)
    assert "3.18 mm by pixdim and" in volume.warnings[0]


@pytest.mark.parametrize("size", [0, -1, np.nan])
def test_results_have_the_sforms_sizes_where_the_scan_states_none(
    tmp_path, size
):
    path = save(tmp_path / "scan.nii", np.ones((3, 3, 3), np.uint8))
    sizes = nib.load(path).header["pixdim"].copy()
    sizes[2] = size
    scan = read_image(patch(path, pixdim=sizes))
    write_labels(tmp_path / "out.nii", np.ones((3, 3, 3), np.uint8), scan)
    zooms = nib.load(tmp_path / "out.nii").header.get_zooms()
    assert np.allclose(zooms, np.linalg.norm(AFFINE[:3, :3], axis=0))
