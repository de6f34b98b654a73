"""What every reader promises, tried on each format with files that other libraries wrote."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from support import dicom as made

from medseg.errors import GeometryError, OutputError, ScanError
from medseg.io import (
    FORMATS,
    find_format,
    find_series,
    read_image,
    read_labels,
    stack_channels,
    with_channels,
    write_labels,
)
from medseg.volume import Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(array, affine), path)


def write_itk(path: Path, array: np.ndarray, affine: np.ndarray, compress: bool = True) -> None:
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(array.T)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetMetaData("PatientName", made.PATIENT)
    sitk.WriteImage(image, str(path), useCompression=compress)


def write_itk_raw(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    write_itk(path, array, affine, compress=False)


def write_dicom(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    assert np.allclose(affine, made.affine())
    frames = made.enhanced(array)
    for frame in frames.PerFrameFunctionalGroupsSequence:
        del frame.PixelValueTransformationSequence
    frames.save_as(path)


def write_picture(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    Image.fromarray(np.ascontiguousarray(array[:, :, 0].T)).save(path)


@dataclass(frozen=True)
class Kind:
    name: str
    write: Callable[[Path, np.ndarray, np.ndarray], None]
    picture: bool = False


KINDS = [
    Kind("scan.nii", write_nifti),
    Kind("scan.nii.gz", write_nifti),
    Kind("scan.nrrd", write_itk),
    Kind("raw.nrrd", write_itk_raw),
    Kind("scan.mha", write_itk),
    Kind("raw.mha", write_itk_raw),
    Kind("scan.dcm", write_dicom),
    Kind("DICOM_without_ending", write_dicom),
    Kind("scan.png", write_picture, picture=True),
    Kind("scan.tif", write_picture, picture=True),
    Kind("SCAN.BMP", write_picture, picture=True),
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@pytest.fixture
def made_file(tmp_path, kind) -> tuple[Path, np.ndarray, np.ndarray]:
    array, affine = made.voxels(), made.affine()
    if kind.picture:
        array, affine = (array[:, :, :1] % 256).astype(np.uint8), np.eye(4)
    kind.write(tmp_path / kind.name, array, affine)
    return tmp_path / kind.name, array, affine


@each_kind
def test_voxels_and_affine_are_what_another_library_wrote(made_file):
    path, array, affine = made_file
    volume = read_image(path)
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, array[None])
    assert np.allclose(volume.affine, affine, atol=1e-5)
    assert volume.source == path.name
    assert volume.warnings == ()


@each_kind
def test_label_maps_keep_their_integers(tmp_path, kind):
    labels = (made.voxels() % 5).astype(np.uint8)
    labels = labels[:, :, :1] if kind.picture else labels
    kind.write(tmp_path / kind.name, labels, made.affine())
    volume = read_labels(tmp_path / kind.name)
    assert volume.array.dtype == np.uint8
    assert np.array_equal(volume.array[0], labels)


@each_kind
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.97])
def test_a_truncated_file_is_refused_by_name(made_file, share):
    path = made_file[0]
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    for read in (read_image, read_labels):
        with pytest.raises(ScanError, match=path.name):
            read(path)


@each_kind
def test_rubbish_is_refused_by_name(made_file):
    path = made_file[0]
    path.write_bytes(bytes(np.random.default_rng(0).integers(0, 256, 3000, np.uint8)))
    with pytest.raises(ScanError, match=path.name):
        read_image(path)


@each_kind
def test_no_error_or_volume_names_the_patient(made_file):
    path = made_file[0]
    assert "Secret" not in repr(read_image(path))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(ScanError) as caught:
        read_image(path)
    assert "Secret" not in str(caught.value)


@each_kind
def test_reading_twice_gives_the_same(made_file):
    first, second = read_image(made_file[0]), read_image(made_file[0])
    assert np.array_equal(first.array, second.array)
    assert np.array_equal(first.affine, second.affine)


def test_missing_and_unknown_files_say_what_is_allowed(tmp_path):
    with pytest.raises(ScanError, match=r"gone\.nii: no such file"):
        read_image(tmp_path / "gone.nii")
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(ScanError, match=r"notes\.txt: not a known kind.*\.nii\.gz"):
        read_image(tmp_path / "notes.txt")
    with pytest.raises(ScanError, match="no files"):
        read_image([])


def test_endings_are_claimed_once():
    endings = [suffix for known in FORMATS for suffix in known.suffixes]
    assert len(set(endings)) == len(endings)
    assert all(ending == ending.lower() for ending in endings)


def test_double_endings_count_by_the_last(tmp_path):
    Image.new("L", (3, 2)).save(tmp_path / "SC-HF-I-04.dcm.png")
    assert find_format([tmp_path / "SC-HF-I-04.dcm.png"]).name == "picture"


def test_importing_the_readers_loads_nothing_heavy():
    code = (
        "import sys, medseg.io; print({'torch', 'monai', 'SimpleITK', 'mlflow'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "set()"


# Channels


def volume(shift: float = 0.0, shape=made.SHAPE, channels: int = 1, name: str = "scan") -> Volume:
    affine = made.affine()
    affine[0, 3] += shift
    return Volume(np.ones((channels, *shape), np.float32), affine, name)


def test_channels_on_one_grid_are_stacked_in_order():
    first, second = volume(name="flair"), volume(shift=1e-3, name="t1")
    stacked = stack_channels([first, second.with_array(second.array * 2)])
    assert stacked.array.shape == (2, *made.SHAPE)
    assert stacked.array[:, 0, 0, 0].tolist() == [1, 2]
    assert np.array_equal(stacked.affine, first.affine)


def test_channels_on_other_grids_are_refused_with_the_distance():
    with pytest.raises(GeometryError, match=r"file 2 \(t1\) lies 3\.50 mm away"):
        stack_channels([volume(), volume(shift=3.5, name="t1")])
    with pytest.raises(GeometryError, match=r"file 3 \(t2\) has \(6, 5, 3\) voxels"):
        stack_channels([volume(), volume(), volume(shape=(6, 5, 3), name="t2")])


def test_grey_pictures_serve_colour_bundles_and_nothing_else_does():
    picture = volume(shape=(4, 3, 1))
    assert with_channels(picture, 1) is picture
    assert with_channels(picture, 3).array.shape == (3, 4, 3, 1)
    with pytest.raises(ScanError, match=r"has 1 channel\(s\), the bundle wants 2"):
        with_channels(picture, 2)
    with pytest.raises(ScanError, match=r"has 3 channel\(s\), the bundle wants 1"):
        with_channels(volume(shape=(4, 3, 1), channels=3), 1)


# Writing label maps


@pytest.mark.parametrize("name", ["out.nii.gz", "out.nii", "out.nrrd", "out.mha"])
@pytest.mark.parametrize("most", [3, 300])
def test_labels_come_back_on_the_scans_grid(tmp_path, name, most):
    labels = (made.voxels() % (most + 1)).astype(np.int64)
    write_labels(tmp_path / name, labels, volume())
    back = read_labels(tmp_path / name)
    assert back.array.dtype == (np.uint8 if most == 3 else np.uint16)
    assert np.array_equal(back.array[0], labels)
    assert np.allclose(back.affine, made.affine(), atol=5e-6)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["out.nii.gz", "out.nii", "out.nrrd", "out.mha"])
def test_equal_labels_are_equal_bytes(tmp_path, name):
    labels = made.voxels() % 3
    for folder in ("a", "b"):
        write_labels(tmp_path / folder / name, labels, volume())
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_simpleitk_and_nibabel_see_the_labels_at_one_place(tmp_path):
    labels = made.voxels() % 3
    write_labels(tmp_path / "out.nii.gz", labels, volume())
    image = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(image).T, labels)
    place = LPS[:3, :3] @ image.TransformIndexToPhysicalPoint((5, 4, 3))
    assert np.allclose(place, made.affine()[:3] @ (5, 4, 3, 1), atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures_get_pictures(tmp_path, dtype):
    labels = (made.voxels((7, 3, 1)) % (200 if dtype == np.uint8 else 1000)).astype(dtype)
    picture = Volume(np.zeros((1, 7, 3, 1), np.float32), np.eye(4))
    write_labels(tmp_path / "out.png", labels, picture)
    assert Image.open(tmp_path / "out.png").size == (7, 3)
    assert np.array_equal(read_labels(tmp_path / "out.png").array[0], labels)


def test_labels_that_do_not_fit_are_refused_and_leave_nothing(tmp_path):
    like, labels = volume(), made.voxels()
    cases = [
        ("out.png", labels, "slices do not fit"),
        ("out.jpg", labels, r"written as \.nii"),
        ("out.nii", labels[:-1], "do not fit a scan"),
        ("out.nii", labels * 0.5, "hold integers"),
        ("out.nii", labels.astype(np.int32) - 5000, "hold integers from 0"),
    ]
    for name, wrong, why in cases:
        with pytest.raises(OutputError, match=why):
            write_labels(tmp_path / name, wrong, like)
    assert list(tmp_path.iterdir()) == []


def test_a_sheared_grid_goes_into_nifti_only(tmp_path):
    affine = made.affine()
    affine[:3, 2] += 0.3 * affine[:3, 1]
    tilted = Volume(np.zeros((1, *made.SHAPE), np.float32), affine)
    labels = made.voxels() % 2
    write_labels(tmp_path / "out.nii.gz", labels, tilted)
    header = nib.load(tmp_path / "out.nii.gz").header
    assert (header["qform_code"], header["sform_code"]) == (0, 1)
    assert np.allclose(read_labels(tmp_path / "out.nii.gz").affine, affine, atol=5e-6)
    for name in ("out.nrrd", "out.mha"):
        with pytest.raises(OutputError, match="sheared grid"):
            write_labels(tmp_path / name, labels, tilted)


def test_an_unwritable_folder_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_labels(tmp_path / "file" / "out.nii", made.voxels(), volume())


def test_a_series_found_is_a_scan_read(tmp_path):
    folder = made.save(tmp_path, made.series())
    (found,), _ = find_series(folder)
    assert np.array_equal(read_image(found.files).array[0], made.voxels())


@each_kind
@pytest.mark.parametrize("seed", range(15))
def test_flipped_bytes_raise_nothing_foreign(made_file, seed):
    path = made_file[0]
    content = bytearray(path.read_bytes())
    chance = np.random.default_rng(seed)
    for place in chance.integers(0, min(len(content), 600), 3):
        content[place] = chance.integers(0, 256)
    path.write_bytes(content)
    for read in (read_image, read_labels):
        with contextlib.suppress(ScanError):
            assert np.isfinite(read(path).array).all()
