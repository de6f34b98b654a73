"""What a result is worth, and why to look at it, is the same at every door."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from support import dicom
from support.bundles import made_spec, trained_bundle
from support.cli import call

import medseg
from medseg import Segmenter
from medseg.bundle.spec import CalibrationSpec, QualityFinding, TrainedSpec
from medseg.bundle.spec_files import write_trained
from medseg.datasets.measures import measure_training_case
from medseg.datasets.validated_range import measure_range
from medseg.io import read_image, write_labels
from medseg.label_server.scores import summarise_quality
from medseg.pyfunc import SegmentationModel
from medseg.testing import make_phantom

SHAPE, SPACING = (28, 24, 20), 8.0
SPEC = made_spec(preprocessing={"spacing_mm": [8, 8, 8]})
CURVE = CalibrationSpec(scores=(0, 1), dice=(0.8, 1), margin=0.5, cases=20)
CALIBRATION = QualityFinding(
    case=CURVE, coverage=0.9, review_below=0.1, review_share=0.1
)
BUNDLES = {
    "calibrated": {"quality": CALIBRATION},
    "made up": {"quality": CALIBRATION, "made_up": True},
    "not calibrated": {},
}
WORDS = {
    "made up": "made-up training data",
    "not calibrated": "not calibrated",
}


def write_bundle(folder: Path, kind: str, *, knows_range: bool = True) -> Path:
    """Write a bundle of random weights that was validated on phantoms."""
    bundle = trained_bundle(folder, SPEC)
    measures = []
    for seed in range(6):
        volume, labels = make_phantom(seed, SHAPE, SPACING)
        measures.append(measure_training_case(volume, labels, 2))
    validated = measure_range(measures, SPEC) if knows_range else None
    trained = TrainedSpec(validated=validated, **BUNDLES[kind])
    write_trained(trained, bundle)
    return bundle


def write_limb(folder: Path) -> Path:
    """Write a CT of a thin cylinder of muscle around bone in air."""
    x, y, _ = np.meshgrid(
        *(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij"
    )
    distance = np.hypot(x, y)
    image = np.full(SHAPE, -1000, np.int16)
    image[distance < 0.4] = 50
    image[distance < 0.12] = 900
    file = folder / "limb.nii.gz"
    folder.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(image, np.diag([SPACING] * 3 + [1])), file)
    return file


@dataclass
class Told:
    """What one door says of a result."""

    text: str
    expected: float | None
    review: bool
    reasons: tuple[str, ...]


def visit(bundle: Path, scan: Path, folder: Path) -> dict[str, Told]:
    """Take a scan through every door."""
    told = {}
    segmenter = Segmenter(bundle, "cpu")
    found = segmenter.segment(scan)
    shown = found.quality.shown
    told["Segmenter"] = Told(
        shown.text, shown.expected, shown.review, shown.reasons
    )
    batch = medseg.segment(bundle, scan, folder / "out", device="cpu")
    (entry,) = batch.results
    assert entry.quality is not None
    shown = entry.quality.to_quality().shown
    told["segment"] = Told(
        shown.text, shown.expected, entry.needs_review, entry.review_reasons
    )
    with (folder / "out" / "volumes.csv").open(newline="") as lines:
        (cells,) = csv.DictReader(lines)
    number = cells["expected_dice"]
    numbers = (number, cells["lower_bound"], cells["liver_expected_dice"])
    assert number or not any(numbers)
    told["volumes.csv"] = Told(
        cells["quality"],
        pytest.approx(float(number), abs=1e-4) if number else None,
        cells["review"] == "1",
        tuple(filter(None, cells["reasons"].split("; "))),
    )
    model = SegmentationModel()
    model._segmenter = segmenter
    table = pd.DataFrame({"scan": [str(scan)]})
    (row,) = model.predict(None, table, {"out": str(folder / "model")}).to_dict(
        "records"
    )
    number = row["expected_dice"]
    told["MLflow model"] = Told(
        row["quality"],
        None if np.isnan(number) else number,
        row["review"],
        tuple(filter(None, row["reasons"].split("; "))),
    )
    kept = summarise_quality(found)
    told["label server"] = Told(
        kept["shown"], kept["expected"], kept["review"], tuple(kept["reasons"])
    )
    masks = folder / "masks"
    masks.mkdir()
    write_labels(masks / scan.name, found.labels, read_image(scan))
    (judged,) = medseg.review(
        masks, scan, bundle, folder / "review", device="cpu"
    ).cases
    own = judged.quality.own.shown
    told["review"] = Told(
        own.text, own.expected, judged.quality.review, judged.quality.reasons
    )
    evaluation = medseg.evaluate(folder / "out", masks)
    flags = evaluation.flags.get("limb", ())
    told["evaluate"] = Told(shown.text, shown.expected, bool(flags), flags)
    return told


@pytest.mark.parametrize("kind", BUNDLES)
def test_a_limb_is_flagged_with_the_same_reasons_at_every_door(
    kind: str, tmp_path: Path
) -> None:
    bundle = write_bundle(tmp_path / "bundle", kind)
    told = visit(bundle, write_limb(tmp_path / "scan"), tmp_path)
    first = told["Segmenter"]
    assert first.review
    assert first.reasons[0].startswith("the channel CT: ")
    assert all("limb" not in reason for reason in first.reasons)
    for door, each in told.items():
        assert each.reasons == first.reasons, door
        assert each.review, door
        assert each.text == first.text, door
        assert each.expected == pytest.approx(first.expected, abs=1e-4), door
    if kind in WORDS:
        assert (first.text, first.expected) == (WORDS[kind], None)
    else:
        assert 0.8 <= first.expected <= 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert 'class="bar good"' not in page
    assert first.reasons[0] in page
    with (tmp_path / "review" / "agreement.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["reasons"] == "; ".join(first.reasons)
    assert (rows[0]["bundle_expected_dice"] == "") == (kind in WORDS)


def test_a_bundle_without_a_range_works_and_says_so(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", "calibrated", knows_range=False)
    found = Segmenter(bundle, "cpu").segment(write_limb(tmp_path / "scan"))
    assert found.quality.shown.remark == "validated range unknown"
    assert not found.quality.departures


def test_another_part_of_the_body_in_a_header_is_told(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b", "calibrated")
    for part, is_told in (("LEG", True), ("ABDOMEN", False), ("Mr. X", False)):
        slices = dicom.series(Modality="CT", BodyPartExamined=part)
        series = dicom.save(tmp_path / part, slices)
        volume = medseg.as_volume(series)
        found = Segmenter(bundle, "cpu").segment(volume)
        reasons = [
            each for each in found.quality.reasons if "its header names" in each
        ]
        assert bool(reasons) == is_told


def test_the_terminal_says_which_to_look_at_and_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = write_bundle(tmp_path / "bundle", "made up")
    scan = write_limb(tmp_path / "scan")
    out = tmp_path / "out"
    call(monkeypatch, "segment", bundle, scan, out, "--device", "cpu")
    said = capsys.readouterr().out
    assert "look at these first: limb" in said
    assert "limb: the channel CT" in said
    assert "trained on made-up data" in said
    ledger = (tmp_path / "out" / "ledger.jsonl").read_text()
    quality = json.loads(ledger.splitlines()[-1])["quality"]
    assert quality["is_made_up"]
    assert quality["reasons"]
