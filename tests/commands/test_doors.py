"""The same scan gets the same answer at every door: refused alike, or taken with one warning."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from PIL import Image
from support import dicom
from support.bundles import made_spec, trained_bundle
from support.scans import affine_of, write_scan

import medseg
from medseg import DatasetError, MedsegError, ScanError, Segmenter
from medseg.datasets.cases import Case, CaseList, Scan
from medseg.datasets.dataset import open_dataset
from medseg.datasets.integrity import read_scan
from medseg.events import Event, Notice
from medseg.io import read_image, read_labels, write_labels
from medseg.label_server.cases import find_folder_cases
from medseg.label_server.model import ServedModel
from medseg.label_server.state import StateFolder
from medseg.label_server.versions import Versions
from medseg.pyfunc import SegmentationModel

SPEC = made_spec(preprocessing={"spacing_mm": [3, 3, 3]})
SHAPE = (20, 22, 18)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doors") / "bundle"
    return trained_bundle(folder, SPEC)


@pytest.fixture(scope="module")
def segmenter(bundle: Path) -> Segmenter:
    return Segmenter(bundle, "cpu")


@pytest.fixture(scope="module")
def served(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Versions:
    state = StateFolder(tmp_path_factory.mktemp("served") / "state")
    versions = Versions(state)
    versions.adopt(medseg.load_bundle(bundle))
    return versions


# --- scans --------------------------------------------------------------------------------


def write_volume(
    folder: Path,
    change: Callable[[np.ndarray], np.ndarray] = lambda voxels: voxels,
    spacing: float = 3.0,
) -> Path:
    """Write a CT whose voxels were changed."""
    file = folder / "scan.nii.gz"
    write_scan(file, 0, SHAPE, affine_of((3.0, 3.0, 3.0)))
    image = nib.load(file)
    voxels = change(image.get_fdata().astype(np.float32))
    nib.save(nib.Nifti1Image(voxels, affine_of([spacing] * 3)), file)
    return file


def with_nan(voxels: np.ndarray) -> np.ndarray:
    voxels[5, 5, 5] = np.nan
    return voxels


def shift(voxels: np.ndarray) -> np.ndarray:
    shifted = voxels + 1024
    shifted[0, 0, 0] = -1000
    return shifted


def write_mr_series(folder: Path) -> Path:
    dicom.save(folder / "scan", dicom.series(Modality="MR"))
    return folder / "scan"


def write_picture(folder: Path) -> Path:
    voxels = np.random.default_rng(0).integers(0, 255, (20, 20), np.uint8)
    Image.fromarray(voxels).save(folder / "scan.png")
    return folder / "scan.png"


REFUSED = {
    "an MR series": (write_mr_series, "is MR by its DICOM header"),
    "a picture": (write_picture, "is a picture, and the bundle"),
    "a constant volume": (
        lambda folder: write_volume(folder, lambda voxels: voxels * 0 + 7),
        "every voxel has the value 7",
    ),
    "a scan in metres": (
        lambda folder: write_volume(folder, spacing=3e-3),
        "0.003 × 0.003 × 0.003 mm per voxel",
    ),
    "a scan in micrometres": (
        lambda folder: write_volume(folder, spacing=3e3),
        "check that its header gives lengths in mm",
    ),
    "a single slice": (
        lambda folder: write_volume(folder, lambda voxels: voxels[..., :1]),
        "a single slice, and the network is 3D",
    ),
}
WARNED = {
    "a CT scaled to 0…1": (
        lambda folder: write_volume(folder, lambda hu: (hu + 1000) / 2000),
        "the channel CT shows no air",
    ),
    "a CT without rescale, and a stray voxel": (
        lambda folder: write_volume(folder, shift),
        "the channel CT shows no air",
    ),
    "a CT with NaN": (
        lambda folder: write_volume(folder, with_nan),
        "were not numbers (NaN or infinite)",
    ),
}


# --- doors --------------------------------------------------------------------------------


class Visit:
    """One scan before the doors, with what each of them needs."""

    def __init__(
        self,
        scan: Path,
        folder: Path,
        bundle: Path,
        segmenter: Segmenter,
        versions: Versions,
    ) -> None:
        self.scan, self.folder, self.bundle = scan, folder, bundle
        self.segmenter, self.versions = segmenter, versions
        self.heard: list[Event] = []

    @property
    def notices(self) -> list[str]:
        return [each.message for each in self.heard if isinstance(each, Notice)]

    def write_mask(self) -> Path:
        like = read_image(self.scan)
        labels = np.zeros(like.shape, np.uint8)
        labels[2:9, 3:8] = 1
        ending = ".png" if like.is_picture else ".nii.gz"
        mask = self.folder / "masks" / f"scan{ending}"
        mask.parent.mkdir()
        write_labels(mask, labels, like)
        return mask

    def as_case(self) -> Case:
        if self.scan.is_dir():
            part = tuple(sorted(self.scan.iterdir()))
        else:
            part = (self.scan,)
        return Case(Scan("scan", (part,)), self.write_mask(), None, "scan")


def segment(visit: Visit) -> tuple[str, ...]:
    batch = medseg.segment(
        visit.bundle, visit.scan, visit.folder / "out", device="cpu"
    )
    (entry,) = batch.results
    return (entry.error,) if entry.error else entry.warnings


def segmenter_of_a_path(visit: Visit) -> tuple[str, ...]:
    return visit.segmenter.segment(visit.scan).warnings


def segmenter_of_nibabel(visit: Visit) -> tuple[str, ...]:
    if visit.scan.name != "scan.nii.gz":
        pytest.skip("nibabel reads NIfTI")
    return visit.segmenter.segment(nib.load(visit.scan)).warnings


def segmenter_of_simple_itk(visit: Visit) -> tuple[str, ...]:
    if visit.scan.name != "scan.nii.gz":
        pytest.skip("what the file was is lost on the way")
    # Not by its reader, which makes 0 of NaN.
    stored = nib.load(visit.scan)
    voxels = np.asanyarray(stored.dataobj)
    image = sitk.GetImageFromArray(voxels.T)
    image.SetSpacing([float(mm) for mm in stored.header.get_zooms()])
    return visit.segmenter.segment(image).warnings


def segmenter_of_an_array(visit: Visit) -> tuple[str, ...]:
    if visit.scan.name != "scan.nii.gz":
        pytest.skip("what the file was is lost on the way")
    image = nib.load(visit.scan)
    array = np.asanyarray(image.dataobj)
    volume = medseg.Volume.from_numpy(array, image.affine)
    return visit.segmenter.segment(volume).warnings


def judge(visit: Visit) -> tuple[str, ...]:
    labels = read_labels(visit.write_mask()).array[0]
    return visit.segmenter.judge(visit.scan, labels).warnings


def mlflow_model(visit: Visit) -> tuple[str, ...]:
    model = SegmentationModel()
    model._segmenter = visit.segmenter
    table = pd.DataFrame({"scan": [str(visit.scan)]})
    (row,) = model.predict(
        None, table, {"out": str(visit.folder / "out")}
    ).to_dict("records")
    assert bool(row["error"]) != bool(row["label_map"])
    return (row["error"] or row["warnings"],)


def label_server_start(visit: Visit) -> tuple[str, ...]:
    studies = visit.folder / "studies"
    studies.mkdir()
    shutil.move(visit.scan, studies / visit.scan.name)
    state = StateFolder(visit.folder / "state")
    try:
        find_folder_cases(studies, state, SPEC)
    except DatasetError as error:
        return tuple(fault.what for fault in error.faults)
    pytest.skip("warnings are told where a scan is segmented")


def label_server_infer(visit: Visit) -> tuple[str, ...]:
    volume = read_scan(visit.as_case().scan, 1)
    model = ServedModel(visit.versions, "cpu")
    return model.segment(volume).segmentation.warnings


def review(visit: Visit) -> tuple[str, ...]:
    made = medseg.review(
        visit.write_mask(),
        visit.scan,
        visit.bundle,
        device="cpu",
        listeners=[visit.heard.append],
    )
    faults = tuple(fault.what for fault in made.faults)
    return faults or tuple(visit.notices)


def check(visit: Visit) -> tuple[str, ...]:
    from medseg.datasets.integrity import check_cases

    report = check_cases([visit.as_case()], SPEC)
    faults = tuple(fault.what for fault in report.faults)
    return faults or report.warnings


def train(visit: Visit) -> tuple[str, ...]:
    cases = CaseList((visit.as_case(),))
    cache = visit.folder / "cache"
    for _ in range(2):
        # What is odd about a case is told again where it is read from the cache.
        visit.heard.clear()
        try:
            open_dataset(
                cases, SPEC, None, cache, listeners=[visit.heard.append]
            )
        except DatasetError as error:
            return tuple(fault.what for fault in error.faults)
    return tuple(visit.notices)


DOORS = [
    *(segment, segmenter_of_a_path, segmenter_of_nibabel),
    *(segmenter_of_simple_itk, segmenter_of_an_array, judge, mlflow_model),
    *(label_server_start, label_server_infer, review, check, train),
]


@pytest.fixture
def visit_with(
    tmp_path: Path, bundle: Path, segmenter: Segmenter, served: Versions
) -> Iterator[Callable[[Callable[[Path], Path]], Visit]]:
    def make(write: Callable[[Path], Path]) -> Visit:
        return Visit(write(tmp_path), tmp_path, bundle, segmenter, served)

    return make


@pytest.fixture(scope="module")
def texts(
    bundle: Path,
    segmenter: Segmenter,
    served: Versions,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """What ``medseg segment`` says of each scan."""
    texts = {}
    for name, (write, said) in {**REFUSED, **WARNED}.items():
        folder = tmp_path_factory.mktemp("texts")
        scan = write(folder)
        (texts[name],) = segment(Visit(scan, folder, bundle, segmenter, served))
        assert said in texts[name]
    return texts


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_at_every_door(
    name: str,
    door: Callable[[Visit], tuple[str, ...]],
    visit_with,
    texts: dict[str, str],
) -> None:
    write, _ = REFUSED[name]
    visit = visit_with(write)
    try:
        told = door(visit)
    except ScanError as error:
        told = (error.message,)
    if name == "a picture" and door in (check, train):
        # Said once of all cases that are pictures.
        (text,) = told
        assert "1 of 1 cases are pictures" in text
        return
    assert told == (texts[name],)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
@pytest.mark.parametrize("name", WARNED)
def test_what_may_be_is_told_at_every_door(
    name: str,
    door: Callable[[Visit], tuple[str, ...]],
    visit_with,
    texts: dict[str, str],
) -> None:
    write, _ = WARNED[name]
    told = [text.removeprefix("scan: ") for text in door(visit_with(write))]
    assert told.count(texts[name]) == 1, told


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_a_sound_scan_is_taken_in_silence(
    door: Callable[[Visit], tuple[str, ...]], visit_with
) -> None:
    told = door(visit_with(write_volume))
    # The made-up mask has one of the bundle's two labels.
    assert not [text for text in told if text and "no case holds" not in text]


def test_every_channel_file_is_checked(tmp_path: Path) -> None:
    spec = made_spec(
        channels=[
            {"name": "CT", "modality": "CT"},
            {"name": "uptake", "modality": "PT"},
        ],
        preprocessing={"spacing_mm": [3, 3, 3]},
    )
    both = Segmenter(trained_bundle(tmp_path / "bundle", spec), "cpu")
    series = []
    for modality in ("CT", "MR"):
        shown = dicom.series(Modality=modality)
        series.append(dicom.save(tmp_path / modality, shown))
    with pytest.raises(MedsegError, match="channel uptake is PT"):
        both.segment(series)
