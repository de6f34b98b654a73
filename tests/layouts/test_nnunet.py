"""Raw data sets of nnU-Net."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from support.datasets import a_spec, an_item, an_msd_list, faults_of, touch

from medseg.bundle.spec import ChannelSpec
from medseg.datasets.cases import find_cases
from medseg.layouts.nnunet import NnunetLayout
from medseg.testing.dataset_layouts import DatasetLayoutContract


class TestNnunetLayout(DatasetLayoutContract):
    layout = NnunetLayout()
    channels = (ChannelSpec(name="T1"), ChannelSpec(name="T2"))

    def write_dataset(self, root: Path, names: Sequence[str]) -> None:
        (root / "dataset.json").write_text(
            json.dumps({"file_ending": ".nii.gz"})
        )
        for name in names:
            touch(
                *(
                    root / f"imagesTr/{name}_000{number}.nii.gz"
                    for number in (0, 1)
                )
            )
            touch(root / f"labelsTr/{name}.nii.gz")


def test_an_nnunet_folder_gives_cases_with_their_channels(
    tmp_path: Path,
) -> None:
    (tmp_path / "dataset.json").write_text(
        json.dumps(
            {"channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz"}
        )
    )
    touch(
        *(
            tmp_path / f"imagesTr/{name}_000{n}.nii.gz"
            for name in "ab"
            for n in (1, 0)
        )
    )
    touch(*(tmp_path / f"labelsTr/{name}.nii.gz" for name in "ab"))
    touch(tmp_path / "imagesTr/a_0000.nrrd")

    found = find_cases(tmp_path, a_spec(2))

    assert found.faults == ()
    assert found.warnings == (
        "1 image files in imagesTr do not end in .nii.gz, the 'file_ending' of the data set, and "
        "are not used: a_0000.nrrd",
    )
    assert [case.name for case in found.cases] == ["a", "b"]
    assert [part[0].name for part in found.cases[0].scan.parts] == [
        "a_0000.nii.gz",
        "a_0001.nii.gz",
    ]


def test_half_pairs_and_missing_channels_of_nnunet_are_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "dataset.json").write_text("{}")
    touch(
        tmp_path / "imagesTr/gap_0001.nii.gz",
        tmp_path / "labelsTr/gap.nii.gz",
        tmp_path / "imagesTr/half_0000.nii.gz",
        tmp_path / "imagesTr/half_0001.nii.gz",
        tmp_path / "labelsTr/lonely.nii.gz",
        tmp_path / "imagesTr/one_0000.nii.gz",
        tmp_path / "labelsTr/one.nii.gz",
        tmp_path / "imagesTr/plain.nii.gz",
    )

    faults = faults_of(tmp_path, a_spec(2))

    assert "has no channel _0000" in faults["gap"]
    assert "has no label" in faults["half"]
    assert "has no image" in faults["lonely"]
    assert "only channel 0" in faults["one"]
    assert "has no channel number" in faults["plain"]
    assert "plain.nii.gz" in faults["plain"]


def test_a_picture_may_hold_all_channels_of_an_nnunet_case(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "imagesTr/a_0000.png", tmp_path / "labelsTr/a.png")

    assert len(find_cases(tmp_path, a_spec(3, format="nnunet")).cases) == 1


def test_the_old_lists_of_nnunet_name_images_without_their_channels(
    tmp_path: Path,
) -> None:
    items = [an_item("a"), an_item("b")]
    root = an_msd_list(
        tmp_path, items, make_files=False, labels={"0": "background", "1": "x"}
    )
    for name in "ab":
        touch(root / "labelsTr" / f"{name}.nii.gz")
        touch(*(root / "imagesTr" / f"{name}_000{n}.nii.gz" for n in (0, 1)))
    found = find_cases(root, a_spec(channels=2))
    assert not found.faults
    assert [len(case.scan.parts) for case in found.cases] == [2, 2]
