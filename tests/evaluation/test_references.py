"""References that lie with their images, as in the data that a bundle was trained on."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.datasets import a_spec

from medseg import evaluate
from medseg.bundle.spec import BundleSpec
from medseg.errors import DatasetError
from medseg.labels import Label, LabelSet

SHAPE = (6, 5, 4)
LABELS = LabelSet(
    [Label(1, "liver", 1, (9, 9, 9)), Label(2, "spleen", 2, (8, 8, 8))]
)


def a_label_map() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3] = 1
    labels[4:] = 2
    return labels


def save(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4)), file)


@pytest.mark.parametrize(
    ("image", "label", "prediction"),
    [
        ("case_1/imaging.nii", "case_1/segmentation.nii", "case_1_imaging.nii"),
        ("P1/P1_t1.nii", "P1/P1_seg.nii", "P1.nii"),
        ("p1/p1_frame01.nii", "p1/p1_frame01_gt.nii", "p1_p1_frame01.nii"),
        ("a.nii", "a_seg.nii", "a.nii"),
        ("img/img01.nii", "label/label01.nii", "img_img01.nii"),
    ],
)
def test_labels_are_told_from_the_images_beside_them(
    tmp_path: Path, image: str, label: str, prediction: str
) -> None:
    rng = np.random.default_rng(0)
    scan = rng.integers(0, 900, SHAPE).astype(np.int16)
    save(tmp_path / "data" / image, scan)
    save(tmp_path / "data" / label, a_label_map())
    save(tmp_path / "results" / prediction, a_label_map())
    evaluation = evaluate(tmp_path / "results", tmp_path / "data")
    assert evaluation.faults == ()
    assert evaluation.scores["dice"]["mean"] == 1.0


def test_masks_of_structures_are_scored_by_the_labels_of_a_bundle(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    labels = a_label_map()
    for case in ("s1", "s2"):
        save(data / case / "ct.nii", np.ones(SHAPE, np.int16))
        for value, name in ((1, "liver"), (2, "spleen")):
            mask = (labels == value).astype(np.uint8)
            save(data / case / f"segmentations/{name}.nii", mask)
        save(tmp_path / "results" / f"{case}_ct.nii", labels)
    evaluation = evaluate(tmp_path / "results", data, labels=LABELS)
    assert evaluation.faults == ()
    assert len(evaluation.cases) == 2
    assert evaluation.scores["dice"]["mean"] == 1.0
    with pytest.raises(DatasetError, match="--bundle"):
        evaluate(tmp_path / "results", data)


def test_what_a_bundle_says_of_its_labels_holds_for_references(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    for case in ("1", "2"):
        save(data / f"images/{case}.nii", np.ones(SHAPE, np.int16))
        save(data / f"masks/{case}.nii", np.ones(SHAPE, np.uint8))
        save(data / f"annotations/{case}.nii", a_label_map())
        save(tmp_path / f"results/{case}.nii", a_label_map())
    spec = a_spec(labels="annotations/*.nii")
    labels = [{"index": label.index, "name": label.name} for label in LABELS]
    content = spec.model_dump(mode="json", by_alias=True)
    content["labels"] = labels
    bundle = BundleSpec.model_validate(content)
    evaluation = evaluate(tmp_path / "results", data, labels=bundle)
    assert evaluation.faults == ()
    assert evaluation.scores["dice"]["mean"] == 1.0
