"""Whatever a scan comes as in Python, it is judged and segmented as the same scan on disk."""

from __future__ import annotations

import asyncio
import gzip
import io
import random
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from PIL import Image
from support import dicom
from support.bundles import made_spec, trained_bundle

from medseg import (
    GeometryError,
    MedsegError,
    OutputError,
    ScanError,
    Segmenter,
    Volume,
    as_volume,
)
from medseg.inference import probabilities
from medseg.io import contents, read_image

SHAPE = (18, 16, 14)


class Somewhere:
    """A path that is no ``Path``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    spec = made_spec(preprocessing={"spacing_mm": [1.5, 1.5, 2.0]})
    folder = tmp_path_factory.mktemp("bundle")
    return Segmenter(trained_bundle(folder, spec), device="cpu")


@pytest.fixture
def temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder for temporary files of its own; in the end nothing is left in it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def stored(seed: int | None) -> np.ndarray:
    """Values of a CT, as they are stored; of one that shows nothing without a seed."""
    if seed is None:
        return np.full(SHAPE, 1024, np.uint16)
    values = dicom.voxels(SHAPE, seed) // 2
    values[:4] = 0
    return values


def slices(seed: int | None, **changes: Any) -> list[pydicom.FileDataset]:
    """A CT whose place every format states in full."""
    datasets = dicom.series(
        stored(seed),
        RescaleIntercept=-1024,
        RescaleSlope=1,
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        **changes,
    )
    for k, ds in enumerate(datasets):
        ds.ImagePositionPatient = [-31.5, 12.25, 7 + 2.5 * k]
    return datasets


def write(folder: Path, seed: int | None) -> Path:
    """Write a scan as DICOM, NIfTI, NRRD and MHA."""
    dicom.save(folder / "dicom", slices(seed))
    scan = read_image(folder / "dicom")
    image = nib.Nifti1Image(scan.array[0], scan.affine)
    nib.save(image, folder / "scan.nii")
    nib.save(image, folder / "scan.nii.gz")
    itk = sitk.GetImageFromArray(scan.array[0].T)
    lps = np.diag([-1.0, -1, 1, 1]) @ scan.affine
    itk.SetSpacing(scan.spacing)
    itk.SetDirection((lps[:3, :3] / scan.spacing).ravel().tolist())
    itk.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(itk, folder / "scan.nrrd")
    sitk.WriteImage(itk, folder / "scan.mha")
    return folder


def shuffled(datasets: list[pydicom.FileDataset]) -> list[Any]:
    random.Random(0).shuffle(datasets)
    return datasets


def dicom_files(folder: Path) -> list[Path]:
    return sorted((folder / "dicom").iterdir())


def read_datasets(folder: Path) -> list[Any]:
    return [pydicom.dcmread(file) for file in dicom_files(folder)]


def bare_datasets(folder: Path) -> list[Any]:
    """Data sets as they come over the network: without a preamble and file meta."""
    datasets = [pydicom.Dataset(ds) for ds in read_datasets(folder)]
    assert not hasattr(datasets[0], "file_meta")
    return datasets


def tensor_of(folder: Path) -> torch.Tensor:
    return torch.from_numpy(nib.load(folder / "scan.nii").get_fdata())


def affine_of(folder: Path) -> np.ndarray:
    return nib.load(folder / "scan.nii").affine


def lps_tensor(folder: Path) -> MetaTensor:
    affine = np.diag([-1.0, -1, 1, 1]) @ affine_of(folder)
    meta = {"space": "LPS"}
    return MetaTensor(tensor_of(folder)[None], torch.tensor(affine), meta)


Make = Callable[[Path], Any]
KINDS: dict[str, Make] = {
    "folder of DICOM": lambda folder: str(folder / "dicom"),
    "os.PathLike": lambda folder: Somewhere(folder / "scan.nii.gz"),
    "paths of DICOM": lambda folder: dicom_files(folder)[::-1],
    "pydicom data sets": lambda folder: shuffled(read_datasets(folder)),
    "data sets without file meta": bare_datasets,
    "bytes of DICOM": lambda f: [x.read_bytes() for x in dicom_files(f)],
    "files of DICOM": lambda f: [
        io.BytesIO(x.read_bytes()) for x in dicom_files(f)
    ],
    "bytes of .nii": lambda folder: (folder / "scan.nii").read_bytes(),
    "bytes of .nii.gz": lambda folder: (folder / "scan.nii.gz").read_bytes(),
    "bytearray": lambda f: bytearray((f / "scan.nii.gz").read_bytes()),
    "open file": lambda folder: (folder / "scan.nii.gz").open("rb"),
    "bytes of .nrrd": lambda folder: (folder / "scan.nrrd").read_bytes(),
    "bytes of .mha": lambda folder: (folder / "scan.mha").read_bytes(),
    "nibabel": lambda folder: nib.load(folder / "scan.nii.gz"),
    "SimpleITK": lambda folder: sitk.ReadImage(folder / "scan.nrrd"),
    "MetaTensor": lambda f: MetaTensor(
        tensor_of(f)[None], torch.tensor(affine_of(f))
    ),
    "MetaTensor in LPS": lps_tensor,
    "Volume": lambda folder: read_image(folder / "dicom"),
    "one channel in a list": lambda folder: [folder / "scan.nii"],
    "one channel by name": lambda folder: {"ct": folder / "scan.nii"},
}
ARRAYS: dict[str, Make] = {
    "NumPy": lambda folder: tensor_of(folder).numpy(),
    "NumPy with channels": lambda folder: tensor_of(folder).numpy()[None],
    "torch": tensor_of,
    "torch that learns": lambda folder: tensor_of(folder).requires_grad_(),
    "torch in bfloat16": lambda folder: tensor_of(folder).bfloat16(),
}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A scan, and one that shows nothing."""
    return (
        write(tmp_path_factory.mktemp("scan"), 3),
        write(tmp_path_factory.mktemp("flat"), None),
    )


@pytest.fixture(scope="module")
def expected(segmenter: Segmenter, scans: tuple[Path, Path]) -> np.ndarray:
    found = segmenter.segment(scans[0] / "dicom")
    assert len(np.unique(found.labels)) == 3
    return found.labels


@pytest.mark.parametrize("kind", [*KINDS, *ARRAYS])
def test_every_kind_gives_the_label_map_of_the_file_and_passes_the_gate(
    kind: str,
    segmenter: Segmenter,
    scans: tuple[Path, Path],
    expected: np.ndarray,
    temporary: Path,
) -> None:
    scan, flat = scans
    make = {**KINDS, **ARRAYS}[kind]
    place = {"affine": affine_of(scan)} if kind in ARRAYS else {}
    found = segmenter.segment(make(scan), **place)
    if kind == "torch in bfloat16":
        assert np.mean(found.labels == expected) > 0.95  # of rounded values
    else:
        assert np.array_equal(found.labels, expected)
    with pytest.raises(ScanError, match="every voxel has the value 0"):
        segmenter.segment(make(flat), **place)


def test_spacing_alone_gives_the_axes_of_the_patient(
    segmenter: Segmenter, scans: tuple[Path, Path]
) -> None:
    voxels = tensor_of(scans[0])
    straight = Volume.from_numpy(voxels.numpy(), spacing=(1.25, 0.75, 2.5))
    one = segmenter.segment(voxels, spacing=(1.25, 0.75, 2.5))
    other = segmenter.segment(straight)
    assert np.array_equal(one.labels, other.labels)


def test_data_sets_are_judged_by_the_rules_of_the_reader(
    segmenter: Segmenter, temporary: Path
) -> None:
    whole = slices(3)
    with pytest.raises(GeometryError, match="missing"):
        segmenter.segment(whole[:5] + whole[6:])
    torn = slices(3)
    torn[2].PixelData = torn[2].PixelData[:100]
    with pytest.raises(ScanError) as caught:
        segmenter.segment(torn)
    assert caught.value.source == "item 3 of 14"
    padded = slices(3, PixelPaddingValue=0)
    folder = dicom.save(temporary.parent / "padded", padded)
    on_disk, in_memory = read_image(folder), segmenter.segment(padded)
    assert in_memory.warnings == segmenter.segment(on_disk).warnings


def test_data_sets_are_not_changed(segmenter: Segmenter) -> None:
    datasets = slices(3)
    before = [ds.to_json() for ds in datasets]
    metas = [ds.file_meta.to_json() for ds in datasets]
    segmenter.segment(datasets)
    assert [ds.to_json() for ds in datasets] == before
    assert [ds.file_meta.to_json() for ds in datasets] == metas


def test_a_multi_frame_data_set_is_a_scan() -> None:
    spec = made_spec(channels=[{"name": "T1", "modality": "MR"}])
    with tempfile.TemporaryDirectory() as folder:
        segmenter = Segmenter(trained_bundle(Path(folder), spec), "cpu")
    found = segmenter.segment(dicom.enhanced(stored(3)))
    assert found.labels.shape == SHAPE


def test_results_of_data_sets_go_back_into_the_record(
    segmenter: Segmenter, tmp_path: Path, temporary: Path
) -> None:
    found = segmenter.segment(shuffled(slices(3)))
    found.save(tmp_path / "labels.seg.dcm")
    found.save(tmp_path / "contours.dcm", format="rtstruct")
    seg = pydicom.dcmread(tmp_path / "labels.seg.dcm")
    assert seg.PatientName == dicom.PATIENT
    assert seg.StudyInstanceUID == slices(3)[0].StudyInstanceUID
    on_disk = segmenter.segment(dicom.save(tmp_path / "disk", slices(3)))
    on_disk.save(tmp_path / "other.seg.dcm")
    other = pydicom.dcmread(tmp_path / "other.seg.dcm")
    assert seg.PixelData == other.PixelData
    assert seg.SOPInstanceUID == other.SOPInstanceUID


def test_names_of_patients_are_in_no_temporary_name(
    segmenter: Segmenter,
    scans: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    read = contents.stored_contents.__wrapped__

    file = tmp_path / "Secret^Person.nii"
    file.write_bytes((scans[0] / "scan.nii").read_bytes())
    with file.open("rb") as opened:
        for files in read([opened, *slices(3)[:1]]):
            seen += [str(path) for path in files]
    assert len(seen) == 2
    assert not any("Secret" in path or "4711" in path for path in seen)


TWO = [{"name": "T1", "modality": "MR"}, {"name": "FLAIR", "modality": "MR"}]


def test_channels_go_by_their_names(tmp_path: Path) -> None:
    segmenter = Segmenter(
        trained_bundle(tmp_path, made_spec(channels=TWO)), "cpu"
    )
    one, other = stored(3).astype(float), stored(4).astype(float)
    in_order = segmenter.segment([one, other], spacing=(1, 1, 1))
    assert len(np.unique(in_order.labels)) > 1
    by_name = segmenter.segment(
        {"flair": other, "t1": torch.from_numpy(one)}, spacing=(1, 1, 1)
    )
    assert np.array_equal(by_name.labels, in_order.labels)
    turned = segmenter.segment([other, one], spacing=(1, 1, 1))
    assert not np.array_equal(turned.labels, in_order.labels)
    for wrong in ({"t1": one}, {"t1": one, "t2": other}):
        with pytest.raises(ScanError, match="are T1, FLAIR") as caught:
            segmenter.segment(wrong, spacing=(1, 1, 1))
        assert "t2" not in caught.value.message


def test_pictures_are_read_from_bytes(tmp_path: Path) -> None:
    spec = made_spec(
        channels=[{"name": "photo", "modality": "other"}],
        network={"dims": 2},
        preprocessing={"input": "picture", "spacing_mm": None},
        training={"patch": [16, 16]},
    )
    segmenter = Segmenter(trained_bundle(tmp_path, spec), "cpu")
    grey = (dicom.voxels((24, 20, 1), 0)[..., 0] // 16).astype(np.uint8)
    Image.fromarray(grey.T).save(tmp_path / "grey.png")
    on_disk = segmenter.segment(tmp_path / "grey.png")
    in_memory = segmenter.segment((tmp_path / "grey.png").read_bytes())
    assert np.array_equal(in_memory.labels, on_disk.labels)
    # As MONAI loads it: channels first, without a place.
    tensor = MetaTensor(torch.from_numpy(grey)[None].float())
    assert np.array_equal(segmenter.segment(tensor).labels, on_disk.labels)


class Unbuffered(io.RawIOBase):
    """A socket, which gives a few bytes at a time."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._stream = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto(memoryview(buffer)[:100])


def test_streams_may_give_fewer_bytes_than_are_asked_for() -> None:
    image = nib.Nifti1Image(np.arange(60.0).reshape(3, 4, 5), np.eye(4))
    for content in (image.to_bytes(), gzip.compress(image.to_bytes())):
        volume = as_volume(Unbuffered(content))
        assert np.array_equal(volume.array[0], image.get_fdata())


def nifti_pair() -> bytes:
    header = bytearray(
        nib.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)).to_bytes()
    )
    header[344:348] = b"ni1\0"
    return bytes(header)


def nrrd_of(field: bytes) -> bytes:
    header = (
        b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n"
    )
    place = b"space: LPS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
    return header + place + field + b"\n\n"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (b"", "rewound"),
        (io.StringIO("text"), "binary mode"),
        (b"PK\x03\x04 zip", "packed"),
        (gzip.compress(b"nothing known", mtime=0), "no known kind"),
        (b"\x1f\x8b broken", "damaged"),
        (b"%PDF-1.7", "no known kind"),
        (nifti_pair(), "pair"),
        (nrrd_of(b"data file: /etc/passwd"), "another file"),
        (12, "got int"),
        (torch.zeros(3, 3, 3), "either its affine or its spacing"),
        (np.zeros((2, 2, 2, 2, 2)), "either its affine or its spacing"),
        ([], "no files"),
        ([{}], "no files"),
        ("a" * 300, "no such file"),
        (Path("a" * 300), "no such file"),
        (torch.empty(3, 3, 3, device="meta"), "a dense one"),
        (sitk.Cast(sitk.Image([3] * 3, 1), sitk.sitkLabelUInt8), "label map"),
    ],
)
def test_what_is_no_scan_is_refused_with_what_is_allowed(
    wrong: Any, message: str, segmenter: Segmenter, temporary: Path
) -> None:
    with pytest.raises(MedsegError, match=message):
        segmenter.segment(wrong)


def test_an_asynchronous_upload_is_told_apart(segmenter: Segmenter) -> None:
    class Upload:
        async def read(self, size: int) -> bytes:
            await asyncio.sleep(0)
            return b""

    with pytest.raises(ScanError, match=r"upload\.file"):
        segmenter.segment(Upload())


def test_bytes_of_a_header_reach_no_other_file(
    segmenter: Segmenter, temporary: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.raw"
    secret.write_bytes(bytes(4 * 4 * 4))
    header = (
        "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementSpacing = 1 1 1\n"
        f"ElementType = MET_UCHAR\nElementDataFile = {secret}\n"
    )
    with pytest.raises(ScanError, match="another file"):
        segmenter.segment(header.encode())


def test_no_more_bytes_are_taken_than_allowed(
    segmenter: Segmenter,
    scans: tuple[Path, Path],
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contents, "MAX_BYTES", 5000)
    with pytest.raises(ScanError, match="more than 5,000 bytes"):
        segmenter.segment((scans[0] / "scan.nii").open("rb"))


def test_a_full_disk_for_temporary_files_is_told(
    segmenter: Segmenter, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    image = nib.Nifti1Image(np.zeros((40, 40, 40), np.float32), np.eye(4))
    with pytest.raises(OutputError, match="TMPDIR"):
        segmenter.segment(image.to_bytes())
    assert list(small_disk.glob("medseg-*")) == []


def test_a_place_given_twice_is_refused(
    segmenter: Segmenter, scans: tuple[Path, Path]
) -> None:
    with pytest.raises(GeometryError, match="of its own"):
        segmenter.segment(lps_tensor(scans[0]), spacing=(1, 1, 1))
    with pytest.raises(GeometryError, match="says itself"):
        segmenter.segment(scans[0] / "scan.nii", spacing=(1, 1, 1))


def test_several_series_are_listed_and_one_is_chosen(
    segmenter: Segmenter, tmp_path: Path, expected: np.ndarray
) -> None:
    first = slices(3)
    second = dicom.series(stored(4)[:, :, :6], "second", RescaleIntercept=-1024)
    for ds in [*first, *second]:
        ds.SeriesDescription = "Secret words"
    folder = dicom.save(tmp_path / "study" / "a", first).parent
    dicom.save(folder / "b", second)
    with pytest.raises(ScanError) as caught:
        segmenter.segment(folder)
    message = caught.value.message
    assert "1: CT, 14 slices of 18×16, 1.25 × 0.75 × 2.5 mm" in message
    assert "2: CT, 6 slices" in message
    assert "series=1" in message
    assert "Secret" not in str(caught.value)
    assert second[0].SeriesInstanceUID in str(caught.value)
    assert second[0].SeriesInstanceUID not in message
    for choice in (1, "1", first[0].SeriesInstanceUID):
        found = segmenter.segment(folder, series=choice)
        assert np.array_equal(found.labels, expected)
    in_memory = segmenter.segment([*second, *first], series=2)
    assert np.array_equal(in_memory.labels, expected)
    absent = {3: "there is no series number 3", "1.2.3": "have the UID"}
    for wrong, what in absent.items():
        with pytest.raises(ScanError, match=f"{what}.*there are 2 DICOM ser"):
            segmenter.segment(folder, series=wrong)


def test_volumes_of_one_series_are_chosen_like_series(
    segmenter: Segmenter,
) -> None:
    echoes = dicom.two_echoes()
    with pytest.raises(ScanError, match="there are 2 DICOM series or volumes"):
        segmenter.segment(echoes)
    assert segmenter.segment(echoes, series=2).labels.any()


def test_probabilities_are_those_the_labels_come_from(
    segmenter: Segmenter, scans: tuple[Path, Path]
) -> None:
    found = segmenter.segment(scans[0] / "dicom", probabilities=True)
    chances = found.probabilities
    assert chances is not None
    assert chances.dtype == np.float32
    assert chances.shape == (3, *SHAPE)
    assert np.allclose(chances.sum(axis=0), 1, atol=1e-6)
    assert np.array_equal(chances.argmax(axis=0), found.labels)
    assert segmenter.segment(scans[0] / "dicom").probabilities is None


def test_probabilities_of_regions_stand_by_themselves(tmp_path: Path) -> None:
    from support.bundles import NESTED

    spec = made_spec(**NESTED, preprocessing={"spacing_mm": [2, 2, 2]})
    segmenter = Segmenter(trained_bundle(tmp_path, spec), "cpu")
    scan = stored(3).astype(float) - 1024
    found = segmenter.segment(scan, spacing=(1, 1, 1), probabilities=True)
    chances = found.probabilities
    assert chances is not None
    for region, values in zip(found.label_set.regions, chances, strict=True):
        last = region.paints == found.label_set.regions[-1].paints
        if last:
            assert np.array_equal(values > 0.5, found.labels == region.paints)


def test_probabilities_outside_the_body_are_background(tmp_path: Path) -> None:
    spec = made_spec(preprocessing={"crop_above": -500.0})
    segmenter = Segmenter(trained_bundle(tmp_path, spec), "cpu")
    scan = stored(3).astype(float) - 1024
    scan[:, :, :3] = -1000
    found = segmenter.segment(scan, spacing=(1, 1, 1), probabilities=True)
    chances = found.probabilities
    assert chances is not None
    assert (chances[0, :, :, :3] == 1).all()
    assert np.array_equal(chances.argmax(axis=0), found.labels)


def test_probabilities_that_take_too_much_are_refused_before_the_network_runs(
    segmenter: Segmenter,
    scans: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probabilities, "MAX_BYTES", 10_000)
    with pytest.raises(MedsegError, match="error_map"):
        segmenter.segment(scans[0] / "dicom", probabilities=True)


def test_threads_share_a_segmenter(
    segmenter: Segmenter, scans: tuple[Path, Path], expected: np.ndarray
) -> None:
    others = stored(5).astype(np.float32) - 1024
    place = affine_of(scans[0])
    alone = segmenter.segment(others, affine=place).labels

    def work(turn: int) -> bool:
        if turn % 2:
            found = segmenter.segment(others, affine=place)
            return np.array_equal(found.labels, alone)
        found = segmenter.segment((scans[0] / "scan.nii.gz").read_bytes())
        return np.array_equal(found.labels, expected)

    with ThreadPoolExecutor(2) as threads:
        assert all(threads.map(work, range(8)))


def test_a_closed_segmenter_says_so(tmp_path: Path) -> None:
    folder = trained_bundle(tmp_path, made_spec())
    scan = stored(3).astype(float)
    with Segmenter(folder, "cpu") as segmenter:
        assert "cpu" in repr(segmenter)
        segmenter.segment(scan, spacing=(1, 1, 1))
    with pytest.raises(MedsegError, match="was closed"):
        segmenter.segment(scan, spacing=(1, 1, 1))
