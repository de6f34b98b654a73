"""What the reader of a label map noticed reaches the person, whatever the command."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from support.bundles import content, made_spec, write_json
from support.doubtful_labels import WARNING, write_doubtful_dataset
from support.studies import a_series, label, random_labels

from medseg import check, plan, review
from medseg.datasets.dataset import open_dataset
from medseg.events import Event, Notice
from medseg.testing import write_example_bundle

EXPECTED = [f"phantom_000: {WARNING}"]


class Notices:
    """A listener that keeps what is said about labels."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, event: Event) -> None:
        """Keep it."""
        if isinstance(event, Notice) and "label:" in event.message:
            self.said.append(event.message)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_doubtful_dataset(tmp_path / "data")


def test_check_tells_it(data: Path, tmp_path: Path) -> None:
    report = check(write_json(tmp_path / "bundle", content()), data=data)
    assert not report.faults
    assert list(report.warnings) == EXPECTED


def test_training_tells_it_again_when_the_case_comes_from_the_cache(
    data: Path, tmp_path: Path
) -> None:
    spec = made_spec(data={"folds": 2})
    for _ in range(2):
        notices = Notices()
        open_dataset(data, spec, 0, tmp_path / "cache", listeners=[notices])
        assert notices.said == EXPECTED


def test_planning_tells_it_again_when_the_fingerprint_comes_from_the_cache(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("first.json", "second.json"):
        notices = Notices()
        plan(data, tmp_path / name, device="cpu", listeners=[notices])
        assert notices.said == EXPECTED


def test_review_tells_it(data: Path) -> None:
    notices = Notices()
    bundle = write_example_bundle(trained=True)
    masks, scans = data / "labelsTr", data / "imagesTr"
    review(masks, scans, bundle, device="cpu", listeners=[notices])
    assert notices.said == EXPECTED


def test_a_rotation_mark_in_a_label_picture_is_told(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    shapes = np.zeros((24, 24), np.uint8)
    shapes[4:9, 5:17] = 1
    for folder, array in (("images", shapes * 90 + 7), ("labels", shapes)):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "a.png"
        marks = exif if folder == "labels" else None
        Image.fromarray(array).save(file, exif=marks)
    bundle = content(
        preprocessing={"input": "picture"},
        network={"dims": 2},
        training={"patch": [16, 16]},
        data={"format": "folders"},
    )
    report = check(write_json(tmp_path / "bundle", bundle), data=tmp_path)
    assert not report.faults
    assert report.warnings[0] == (
        "a: label: the camera's rotation mark (EXIF) is ignored: pixels are as stored"
    )


def test_contours_left_out_of_a_structure_are_told(tmp_path: Path) -> None:
    like = a_series(tmp_path / "scan")
    file = label(tmp_path / "rtstruct.dcm", like, random_labels(), "rtstruct")
    ds = pydicom.dcmread(file)
    contours = ds.ROIContourSequence[0].ContourSequence
    point = deepcopy(contours[0])
    point.ContourGeometricType = "POINT"
    point.NumberOfContourPoints = 1
    point.ContourData = point.ContourData[:3]
    contours.append(point)
    ds.save_as(file)
    names = [{"index": 1, "name": "liver"}, {"index": 2, "name": "tumour"}]
    bundle = write_json(tmp_path / "bundle", content(labels=names))
    report = check(bundle, data=tmp_path)
    assert not report.faults
    said = [text for text in report.warnings if "label: " in text]
    assert "points or open lines of ROI 1 were left out" in said[0]
