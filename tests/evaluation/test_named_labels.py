"""Values of predictions and references mean what their files, lists and the bundle say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli import call
from support.doubtful_labels import WARNING, move_qform
from support.label_maps import AFFINE, TWO, phantom, save
from support.seg_nrrd import write_seg_nrrd
from support.studies import a_series, label, random_labels

from medseg.commands.evaluate import evaluate
from medseg.errors import DatasetError
from medseg.evaluation.results import Evaluation
from medseg.events import Event, Notice
from medseg.labels import Label, LabelSet, default_colour

NAMED = [("Liver", 1), ("tumour", 2)]
SWAPPED = [("tumor", 1), ("liver", 2)]


def swap(labels: Any) -> Any:
    table = np.array([0, 2, 1], np.uint8)
    return table[labels]


def write_named(path: Path, labels: Any, segments: Any) -> Path:
    return write_seg_nrrd(path, labels, segments, AFFINE)


def scored(root: Path, **keywords: Any) -> tuple[Evaluation, list[str]]:
    """Evaluate the folders ``p`` and ``r``; return what was said, too."""
    said: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Notice):
            said.append(event.message)

    found = evaluate(root / "p", root / "r", listeners=[listen], **keywords)
    return found, said


def write_list(folder: Path, labels: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


# --- segments -----------------------------------------------------------------------------


def test_segments_of_both_sides_go_by_name_with_a_bundle(
    tmp_path: Path,
) -> None:
    labels = LabelSet(
        [
            Label(1, "liver", 7, default_colour(1)),
            Label(2, "tumour", 9, default_colour(2)),
        ]
    )
    write_named(tmp_path / "p" / "a.nrrd", phantom(1), NAMED)
    write_named(tmp_path / "r" / "a.nrrd", swap(phantom()), SWAPPED)
    save(tmp_path / "p" / "b.nii.gz", phantom(1))
    table = np.array([0, 7, 9], np.uint8)
    save(tmp_path / "r" / "b.nii.gz", table[phantom()])
    found, said = scored(tmp_path, labels=labels)
    assert (found.faults, said) == ((), [])
    a, b = found.cases
    assert a.labels == b.labels
    assert a.labels["tumour"].dice == 1


def test_without_a_bundle_segments_name_the_labels(tmp_path: Path) -> None:
    write_named(tmp_path / "p" / "a.nrrd", phantom(), NAMED)
    write_named(tmp_path / "r" / "a.nrrd", swap(phantom()), SWAPPED)
    found, _ = scored(tmp_path)
    assert set(found.scores["dice"].values()) == {1.0}
    assert list(found.scores["dice"]) == ["liver", "tumour", "mean"]
    trusted, _ = scored(tmp_path, trust_values=True)
    assert trusted.scores["dice"]["mean"] < 0.2
    assert "label 1" in trusted.scores["dice"]


def test_values_beside_segments_need_one_meaning(tmp_path: Path) -> None:
    for case in ("a", "b"):
        save(tmp_path / "p" / f"{case}.nii.gz", phantom())
    write_named(tmp_path / "r" / "a.nrrd", phantom(), NAMED)
    write_named(tmp_path / "r" / "b.nrrd", phantom(), NAMED)
    found, _ = scored(tmp_path)
    assert found.scores["dice"]["Liver"] == 1
    write_named(tmp_path / "r" / "b.nrrd", swap(phantom()), SWAPPED)
    with pytest.raises(DatasetError, match="other values from case to case"):
        scored(tmp_path)
    write_list(tmp_path / "p", {"background": 0, "liver": 1, "tumour": 2})
    found, _ = scored(tmp_path)
    assert set(found.scores["dice"].values()) == {1.0}


def test_segments_of_other_names_are_a_fault(tmp_path: Path) -> None:
    write_named(tmp_path / "p" / "a.nrrd", phantom(), [("x", 1), ("tumour", 2)])
    save(tmp_path / "r" / "a.nii.gz", phantom())
    found, _ = scored(tmp_path, labels=TWO)
    (fault,) = found.faults
    assert "liver, tumour" in fault.what
    assert "'x' = 1" in fault.detail
    trusted, _ = scored(tmp_path, labels=TWO, trust_values=True)
    assert trusted.scores["dice"]["mean"] == 1


# --- dataset.json -------------------------------------------------------------------------

OTHER = {"background": 0, "tumour": 1, "liver": 2}


@pytest.mark.parametrize("side", ["p", "r"])
def test_a_list_beside_label_maps_must_say_what_the_bundle_says(
    tmp_path: Path, side: str
) -> None:
    for folder in ("p", "r"):
        save(tmp_path / folder / "a.nii.gz", phantom())
    write_list(tmp_path / side, OTHER)
    with pytest.raises(DatasetError) as refused:
        scored(tmp_path, labels=TWO)
    (fault,) = refused.value.faults
    assert "have tumour = 1, liver = 2" in fault.what
    assert "the bundle liver = 1, tumour = 2" in fault.what
    found, _ = scored(tmp_path, labels=TWO, trust_values=True)
    assert found.scores["dice"]["mean"] == 1
    write_list(tmp_path / side, {"0": "background", "1": "Liver"})
    assert scored(tmp_path, labels=TWO)[0].scores["dice"]["mean"] == 1


def test_lists_of_both_sides_must_say_the_same(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    save(data / "labelsTs" / "a.nii.gz", swap(phantom()))
    write_list(data, OTHER)
    save(tmp_path / "p" / "a.nii.gz", phantom())
    write_list(tmp_path / "p", {"liver": 1, "tumour": 2})
    for references in (data, data / "labelsTs"):
        arguments = ("evaluate", tmp_path / "p", references)
        assert call(monkeypatch, *arguments) != 0
        said = " ".join(capsys.readouterr().err.split())
        assert said.count("predictions have liver = 1, tumour = 2") == 1
        assert "the references tumour = 1, liver = 2" in said
        assert "Traceback" not in said
        insist = (*arguments, "--trust-values")
        assert call(monkeypatch, *insist) == 0
        capsys.readouterr()


# --- values -------------------------------------------------------------------------------


def test_masks_with_other_values_from_case_to_case_are_said(
    tmp_path: Path,
) -> None:
    mask = phantom(tumour=False)
    for case in ("a", "b", "c"):
        save(tmp_path / "r" / f"{case}.nii.gz", mask * 255)
        save(tmp_path / "p" / f"{case}.nii.gz", mask * 255)
    assert scored(tmp_path)[1] == []
    save(tmp_path / "p" / "b.nii.gz", mask)
    _, said = scored(tmp_path)
    assert "predictions hold label 1 in 1 case (b)" in said[0]
    assert "predictions hold label 255 in 2 cases (a, c)" in said[0]
    assert "references hold label 255 in 3 cases" in said[0]


def test_labels_of_one_side_alone_are_said(tmp_path: Path) -> None:
    save(tmp_path / "r" / "a.nii.gz", phantom())
    save(tmp_path / "p" / "a.nii.gz", phantom(tumour=False))
    save(tmp_path / "r" / "b.nii.gz", phantom(tumour=False))
    odd = phantom(tumour=False)
    odd[0, 0, 0] = 3
    save(tmp_path / "p" / "b.nii.gz", odd)
    assert scored(tmp_path)[1] == [
        "only predictions hold label 3 (in 1 of 2)",
        "only references hold label 2 (in 1 of 2)",
    ]


def test_what_the_readers_noticed_is_said(tmp_path: Path) -> None:
    for side in ("p", "r"):
        save(tmp_path / side / "a.nii.gz", phantom())
    move_qform(tmp_path / "r" / "a.nii.gz")
    _, said = scored(tmp_path)
    assert said == [f"a: {WARNING}"]


# --- objects of DICOM ---------------------------------------------------------------------


def test_a_seg_is_read_on_the_grid_of_its_reference_by_name(
    tmp_path: Path,
) -> None:
    like = a_series(tmp_path / "scan")
    labels = random_labels()
    written = label(tmp_path / "seg", like, labels, "seg")
    (tmp_path / "p").mkdir()
    written.rename(tmp_path / "p" / "a.dcm")
    swapped = LabelSet(
        [
            Label(1, "Tumor", 5, default_colour(1)),
            Label(2, "liver", 6, default_colour(2)),
        ]
    )
    table = np.array([0, 6, 5], np.uint8)
    save(tmp_path / "r" / "a.nii.gz", table[labels], np.array(like.affine))
    found, _ = scored(tmp_path, labels=swapped)
    assert found.faults == ()
    assert set(found.scores["dice"].values()) == {1.0}
    other = LabelSet([Label(1, "spleen", 5, default_colour(1))])
    (fault,) = scored(tmp_path, labels=other)[0].faults
    assert "none of its structures is called as one of the labels" in fault.what


def test_a_cropped_segmentation_is_placed_on_the_grid_of_the_other_side(
    tmp_path: Path,
) -> None:
    shift = AFFINE.copy()
    shift[:3, 3] = (AFFINE @ [0, 2, 0, 1])[:3]
    cropped = phantom()[:, 2:]
    for side, other in (("p", "r"), ("r", "p")):
        root = tmp_path / side
        save(root / other / "a.nii.gz", phantom())
        write_seg_nrrd(root / side / "a.nrrd", cropped, NAMED, shift)
        found, _ = scored(root, labels=TWO)
        assert found.faults == ()
        assert set(found.scores["dice"].values()) == {1.0}


def test_a_segment_of_the_reference_may_be_the_ignore_label(
    tmp_path: Path,
) -> None:
    labels = phantom()
    labels[0] = 3
    write_named(tmp_path / "r" / "a.nrrd", labels, [*NAMED, ("ignore", 3)])
    save(tmp_path / "p" / "a.nii.gz", phantom())
    found, _ = scored(tmp_path, labels=TWO, ignore=9)
    assert found.faults == ()
    assert found.scores["dice"]["mean"] == 1
