"""Scans whose channels are series of one DICOM study, with no label to say which is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import dicom as made
from support.studies import a_series

from medseg.bundle.spec import ChannelSpec
from medseg.datasets.scans import ScanList, find_scans

PET_CT = [
    ChannelSpec(name="CT", modality="CT"),
    ChannelSpec(name="PET", modality="PT"),
]
MR = [
    ChannelSpec(name="T1", modality="MR"),
    ChannelSpec(name="T1 post", modality="MR"),
]


def scan(root: Path, said: str, modality: str = "MR", **changes: Any) -> Path:
    folder = root / f"{said} {changes.get('StudyInstanceUID', '')}".strip()
    name = str(folder)
    a_series(folder, name, SeriesDescription=said, Modality=modality, **changes)
    return folder


def find(root: Path, specs: list[ChannelSpec], **options: Any) -> ScanList:
    return find_scans(root, len(specs), channel_specs=specs, **options)


def folders(found: ScanList) -> list[list[Path]]:
    return [[part[0].parent for part in scan.parts] for scan in found.scans]


def test_the_series_of_each_study_are_one_scan(tmp_path: Path) -> None:
    pairs = []
    for study in ("1.2.3", "1.2.4"):
        pet = scan(tmp_path, "PET AC", "PT", StudyInstanceUID=study)
        ct = scan(tmp_path, "CT low dose", "CT", StudyInstanceUID=study)
        pairs.append([ct, pet])
    scan(tmp_path, "scout", "CT", StudyInstanceUID="1.2.3", PixelSpacing=[2, 2])
    found = find(tmp_path, PET_CT)
    assert sorted(folders(found)) == sorted(pairs)
    assert found.left_out == ()
    assert "1 DICOM series beside the channels" in found.notes[0]
    alone = find_scans(pairs[0][0], 1).scans[0]
    assert alone.name in [scan.name for scan in found.scans]


def test_descriptions_tell_series_of_one_modality_apart(tmp_path: Path) -> None:
    post = scan(tmp_path, "T1 POST")
    plain = scan(tmp_path, "T1")
    scan(tmp_path, "T2")
    assert folders(find(tmp_path, MR)) == [[plain, post]]


def test_a_study_that_lacks_a_channel_fails_once_and_says_what_is_there(
    tmp_path: Path,
) -> None:
    ct = scan(tmp_path, "CT", "CT", StudyInstanceUID="1.2.3")
    scan(tmp_path, "CT", "CT", StudyInstanceUID="1.2.4")
    scan(tmp_path, "AC", "PT", StudyInstanceUID="1.2.4")
    found = find(tmp_path, PET_CT)
    assert len(found.scans) == 1
    (left_out,) = found.left_out
    assert "no image of the channel PET (found: CT)" in left_out.reason
    assert "the columns CT,PET" in left_out.reason
    assert left_out.detail == "its series are 'CT' (CT)"
    # Once the series is there, the scan has the name under which it failed.
    scan(tmp_path, "AC", "PT", StudyInstanceUID="1.2.3")
    again = find(tmp_path, PET_CT)
    assert left_out.name in [scan.name for scan in again.scans]
    assert [ct, tmp_path / "AC 1.2.3"] in folders(again)


def test_series_that_nobody_can_choose_between_are_refused(
    tmp_path: Path,
) -> None:
    for said, modality in (("CT", "CT"), ("AC", "PT"), ("NAC", "PT")):
        scan(tmp_path, said, modality)
    (left_out,) = find(tmp_path, PET_CT).left_out
    assert "several images that may be the channel PET" in left_out.reason
    assert "'AC' (PT)" in left_out.detail
    for words in (left_out.reason, left_out.name):
        assert "NAC" not in words


@pytest.mark.parametrize(
    "changes", [{"PixelSpacing": [2.0, 2.0]}, {"FrameOfReferenceUID": "1.2.9"}]
)
def test_channels_lie_on_one_grid_as_in_training(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    scan(tmp_path, "CT", "CT")
    scan(tmp_path, "AC", "PT", **changes)
    (left_out,) = find(tmp_path, PET_CT).left_out
    assert "lie on one grid in one frame of reference" in left_out.reason


def test_a_study_of_other_modalities_is_skipped(tmp_path: Path) -> None:
    scan(tmp_path, "CT", "CT", StudyInstanceUID="1.2.3")
    scan(tmp_path, "T1", StudyInstanceUID="1.2.4")
    found = find(tmp_path, MR, modalities=["MR"])
    assert len(found.left_out) == len(found.skipped) == 1
    assert "is CT by its DICOM header" in found.skipped[0].reason


def test_series_without_a_study_stay_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        made.save(
            tmp_path / name, made.series(name=name, StudyInstanceUID=None)
        )
    found = find(tmp_path, PET_CT)
    assert len({entry.name for entry in found.left_out}) == 2
