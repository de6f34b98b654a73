"""A data set is inspected once: cases, names, fingerprint, and what looks wrong with it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.fingerprints import case, fingerprint_of

from medseg.bundle.spec import ChannelSpec
from medseg.errors import DatasetError
from medseg.events import Event, Notice
from medseg.layouts import Selection
from medseg.planning import Fingerprint, inspect_dataset, make_provisional_spec
from medseg.planning.fingerprint import CaseFingerprint, LabelStatistics
from medseg.planning.inspection import _find_doubts
from medseg.testing import write_dataset


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # fingerprints are cached in ./runs


def with_labels(*values: int) -> CaseFingerprint:
    labels = tuple(LabelStatistics(value, 9, 1) for value in values)
    return CaseFingerprint((4, 4, 4), (1, 1, 1), case().channels, labels, 1.0)


def doubts(*cases: CaseFingerprint) -> list[str]:
    fingerprint: Fingerprint = fingerprint_of(*cases)
    return list(_find_doubts(fingerprint))


def test_a_label_of_one_case_is_doubted_from_five_cases_on() -> None:
    assert doubts(with_labels(1, 2), *(with_labels(1) for _ in range(3))) == []
    (doubt,) = doubts(with_labels(1, 2), *(with_labels(1) for _ in range(4)))
    assert doubt.startswith(
        "label 2 occurs in only 1 of 5 cases, with 9 voxels"
    )


def test_cases_without_a_label_and_single_cases_are_mentioned() -> None:
    assert doubts(with_labels(1), with_labels()) == [
        "1 of 2 cases have no labelled voxel"
    ]
    (doubt,) = doubts(with_labels(1))
    assert "Train with --fold none" in doubt


def test_masks_with_other_values_from_case_to_case_are_doubted() -> None:
    (doubt,) = doubts(with_labels(255), with_labels(1), with_labels(255))
    assert doubt == (
        "each label map holds one value, but not the same one: 1 in 1 case, 255 in 2 cases. If "
        "they are masks of one structure, plan with --labels NAME=1,255"
    )
    assert doubts(with_labels(255), with_labels(255)) == []
    assert doubts(with_labels(1), with_labels(2)) == []
    assert doubts(with_labels(1, 255), with_labels(1)) == []


def test_cases_are_found_and_those_that_cannot_be_used_are_left_out(
    tmp_path: Path,
) -> None:
    data = write_dataset(tmp_path / "data", 3, shape=(12, 10, 8), spacing=9.0)
    (data / "imagesTr" / "phantom_001.nii.gz").write_bytes(b"no image")
    events: list[Event] = []
    dataset = inspect_dataset(data, Selection(), [events.append])
    assert len(dataset.fingerprint.cases) == 2
    assert not dataset.pictures
    (notice,) = [event.message for event in events if isinstance(event, Notice)]
    assert notice.startswith("left out: phantom_001: ")


def test_no_usable_case_is_an_error(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", 1, shape=(12, 10, 8), spacing=9.0)
    (data / "imagesTr" / "phantom_000.nii.gz").write_bytes(b"no image")
    with pytest.raises(DatasetError, match="no case can be used"):
        inspect_dataset(data, Selection(), ())


def test_channels_may_be_requested_by_name(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", 2, shape=(12, 10, 8), spacing=9.0)
    dataset = inspect_dataset(
        data,
        Selection(channels=(ChannelSpec(name="late", modality="CT"),)),
        (),
    )
    assert [
        channel.name for channel in dataset.description.requested_channels
    ] == ["late"]


def test_a_provisional_bundle_has_what_is_known() -> None:
    spec = make_provisional_spec(
        2, {3: "b", 1: "a"}, names=("CT", "PET"), ignore=9, dims=2
    )
    assert [channel.name for channel in spec.channels] == ["CT", "PET"]
    assert [(label.index, label.value) for label in spec.labels] == [
        (1, 1),
        (2, 3),
    ]
    assert (spec.network.dims, spec.data.ignore) == (2, 9)
    assert make_provisional_spec(1, {9: "a"}, ignore=9).data.ignore is None


def test_requested_channels_are_found_by_any_word_for_them(
    tmp_path: Path,
) -> None:
    data = tmp_path / "bids"
    images = data / "sub-1" / "anat"
    images.mkdir(parents=True)
    (data / "dataset_description.json").write_text("{}")
    noise = np.random.default_rng(0).normal(size=(8, 8, 8))
    labels = (noise > 1).astype(np.uint8)
    for name, array in (("T1w", noise), ("FLAIR", noise), ("dseg", labels)):
        file = images / f"sub-1_{name}.nii.gz"
        nib.save(nib.Nifti1Image(array, np.eye(4)), file)
    requested = (ChannelSpec(name="flair"), ChannelSpec(name="T1"))
    dataset = inspect_dataset(data, Selection(channels=requested), ())
    (found,) = dataset.case_list.cases
    assert [file.name for file in found.scan.files] == [
        "sub-1_FLAIR.nii.gz",
        "sub-1_T1w.nii.gz",
    ]
