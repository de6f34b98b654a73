"""The cases of a folder: checked once, listed for every process, uploaded ones among them."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from support import dicom
from support.bundles import made_spec
from support.scans import affine_of, write_scan

from medseg import DatasetError, MedsegError, OutputError, ScanError
from medseg.datasets.cases import Scan
from medseg.events import Event, Notice, Progress
from medseg.io import read_image
from medseg.label_server import cases as module
from medseg.label_server import scan_list
from medseg.label_server.cases import FolderCases, find_folder_cases, is_url
from medseg.label_server.scan_list import make_stamp
from medseg.label_server.state import StateFolder

SPEC = made_spec(preprocessing={"spacing_mm": [2, 2, 2]})


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    for number, name in enumerate(("b", "a")):
        write_scan(
            tmp_path / f"studies/{name}.nii.gz",
            number,
            (20, 22, 18),
            affine_of((2, 2, 3)),
        )
    return tmp_path / "studies"


@pytest.fixture
def cases(studies: Path, state: StateFolder) -> FolderCases:
    find_folder_cases(studies, state, SPEC)
    return FolderCases(state, SPEC)


def write_former_list(state: StateFolder, files: dict[str, Path]) -> None:
    """Write the list of cases as release 0.1.0 does."""
    content = {}
    for name, file in files.items():
        stamp = make_stamp(Scan(name, ((file,),)))
        content[name] = {
            "parts": [[str(file)]],
            "volume": "",
            "print": stamp,
        }
    state.root.mkdir(exist_ok=True)
    text = json.dumps(content)
    state.cases.write_text(text, encoding="utf-8")


def test_urls_are_told_from_folders() -> None:
    assert is_url("http://a")
    assert is_url("https://a")
    assert not is_url("httpx/a")
    assert not is_url("/scans")


def test_scans_are_listed_by_name(cases: FolderCases, studies: Path) -> None:
    assert cases.list_names() == ["a", "b"]
    assert cases.get_scan("a").parts == ((studies / "a.nii.gz",),)
    assert cases.get_image_file("a") == studies / "a.nii.gz"
    assert cases.get_info("a") == {"name": "a.nii.gz"}


def test_an_unknown_case_is_refused_without_its_name(
    cases: FolderCases,
) -> None:
    with pytest.raises(DatasetError, match="no such case") as refused:
        cases.get_scan("secret")
    assert "secret" not in refused.value.message


def test_scans_that_cannot_be_segmented_are_left_out_with_the_reason_alone(
    studies: Path, state: StateFolder
) -> None:
    (studies / "torn.nii.gz").write_bytes(
        (studies / "a.nii.gz").read_bytes()[:500]
    )
    (studies / "empty.nii.gz").write_bytes(b"")
    faults = find_folder_cases(studies, state, SPEC)
    assert sorted(fault.where for fault in faults) == ["empty", "torn"]
    assert not [fault for fault in faults if str(studies) in fault.what]
    assert FolderCases(state, SPEC).list_names() == ["a", "b"]


def test_no_good_scan_is_an_error_that_names_each(
    tmp_path: Path, state: StateFolder
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "torn.nii.gz").write_bytes(b"x")
    with pytest.raises(
        DatasetError, match="no scan can be segmented"
    ) as refused:
        find_folder_cases(folder, state, SPEC)
    assert [fault.where for fault in refused.value.faults] == ["torn"]
    assert str(tmp_path) not in refused.value.message


def test_unchanged_scans_are_not_read_again(
    studies: Path, state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Event] = []
    find_folder_cases(studies, state, SPEC, [heard.append])
    assert [event.done for event in heard if isinstance(event, Progress)] == [
        1,
        2,
    ]
    checked: list[str] = []
    real = module.read_scan

    def read_scan(scan: Any, channels: int) -> Any:
        checked.append(scan.name)
        return real(scan, channels)

    monkeypatch.setattr(module, "read_scan", read_scan)
    find_folder_cases(studies, state, SPEC)
    assert checked == []
    os.utime(studies / "b.nii.gz", ns=(1, 1))
    find_folder_cases(studies, state, SPEC)
    assert checked == ["b"]
    state.store.unlink()
    find_folder_cases(studies, state, SPEC)
    assert sorted(checked) == ["a", "b", "b"]


def test_a_running_process_notices_new_cases(
    cases: FolderCases, studies: Path
) -> None:
    assert cases.list_names() == ["a", "b"]
    other = FolderCases(cases._state, SPEC)
    other.add_image("c", studies / "a.nii.gz")
    assert cases.list_names() == ["a", "b", "c"]


def test_an_uploaded_image_is_copied_and_stays_over_a_restart(
    cases: FolderCases, studies: Path, state: StateFolder, tmp_path: Path
) -> None:
    upload = tmp_path / "upload.nii.gz"
    upload.write_bytes((studies / "a.nii.gz").read_bytes())
    cases.add_image("new_case", upload)
    upload.unlink()
    assert cases.get_image_file("new_case") == state.added / "new_case.nii.gz"
    assert find_folder_cases(studies, state, SPEC) == ()
    assert FolderCases(state, SPEC).list_names() == ["a", "b", "new_case"]
    state.store.unlink()  # it can be made again from the files
    find_folder_cases(studies, state, SPEC)
    assert FolderCases(state, SPEC).list_names() == ["a", "b", "new_case"]
    (state.added / "new_case.nii.gz").unlink()
    find_folder_cases(studies, state, SPEC)
    assert FolderCases(state, SPEC).list_names() == ["a", "b"]


def test_a_listed_scan_that_left_the_folder_is_no_case_any_more(
    cases: FolderCases, studies: Path, state: StateFolder
) -> None:
    (studies / "b.nii.gz").unlink()
    find_folder_cases(studies, state, SPEC)
    assert cases.list_names() == ["a"]


def test_a_case_is_found_by_its_name_in_any_form_of_unicode(
    cases: FolderCases, studies: Path, state: StateFolder
) -> None:
    cases.add_image("Mu\u0308ller", studies / "a.nii.gz")
    assert "Müller" in cases.list_names()
    assert cases.get_scan("Mu\u0308ller") == cases.get_scan("Müller")
    assert (state.added / "Müller.nii.gz").is_file()
    with pytest.raises(MedsegError, match="of this name already"):
        cases.add_image("müller", studies / "a.nii.gz")


def test_a_case_keeps_the_name_under_which_its_labels_lie(
    studies: Path, state: StateFolder
) -> None:
    (studies / "b.nii.gz").rename(studies / "肝 b.nii.gz")
    find_folder_cases(studies, state, SPEC)
    assert FolderCases(state, SPEC).list_names() == ["a", "肝_b"]
    # Listed by release 0.1.0.
    state.store.unlink()
    files = {"a": studies / "a.nii.gz", "_b": studies / "肝 b.nii.gz"}
    write_former_list(state, files)
    find_folder_cases(studies, state, SPEC)
    assert FolderCases(state, SPEC).list_names() == ["_b", "a"]


@pytest.mark.parametrize("name", ["a", "A", "../x", "a/b", "", ".x"])
def test_an_upload_needs_a_plain_name_of_its_own(
    cases: FolderCases, studies: Path, name: str
) -> None:
    with pytest.raises(MedsegError, match="give another"):
        cases.add_image(name, studies / "b.nii.gz")
    assert cases.list_names() == ["a", "b"]


def test_an_upload_must_be_what_the_bundle_segments(
    cases: FolderCases, state: StateFolder, tmp_path: Path
) -> None:
    torn = tmp_path / "upload.nii.gz"
    torn.write_bytes(b"nonsense")
    with pytest.raises(ScanError):
        cases.add_image("new", torn)
    assert cases.list_names() == ["a", "b"]
    assert not state.added.exists()


def test_a_lost_list_is_told_without_its_place(
    cases: FolderCases, state: StateFolder
) -> None:
    state.store.unlink()
    with pytest.raises(
        OutputError, match="start medseg label again"
    ) as refused:
        cases.list_names()
    assert str(state.root) not in refused.value.message


def test_viewers_get_a_nifti_copy_of_a_dicom_series(
    tmp_path: Path, state: StateFolder
) -> None:
    voxels = dicom.voxels((20, 22, 18))
    series = dicom.series(voxels, RescaleSlope=1, RescaleIntercept=-1024)
    folder = dicom.save(tmp_path / "Secret^Person", series)
    find_folder_cases(tmp_path / "Secret^Person", state, SPEC)
    cases = FolderCases(state, SPEC)
    (name,) = cases.list_names()
    copy = cases.get_image_file(name)
    assert cases.get_info(name)["name"] == copy.name
    assert copy == state.images / f"{name}.nii.gz"
    volume = read_image(folder)
    assert np.array_equal(read_image(copy).array, volume.array)
    assert np.allclose(read_image(copy).affine, volume.affine)
    assert nib.load(copy).get_data_dtype() == np.int16
    assert "Secret" not in name + copy.name
    before = copy.stat().st_mtime_ns
    cases.get_image_file(name)
    assert copy.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (32767.0, np.int16),
        (-32767.0, np.int16),
        (32768.0, np.float32),
        (0.5, np.float32),
    ],
)
def test_copies_take_sixteen_bits_only_where_they_are_exact(
    tmp_path: Path, value: float, dtype: type
) -> None:
    from medseg import Volume

    array = np.array([0.0, value], np.float32).reshape(1, 2, 1, 1)
    file = tmp_path / "a.nii.gz"
    module.write_first_channel(file, Volume(array, np.eye(4)))
    image = nib.load(file)
    assert image.get_data_dtype() == dtype
    assert np.array_equal(np.asarray(image.dataobj).ravel(), [0.0, value])


def test_what_was_passed_over_is_told_without_its_name(
    studies: Path, state: StateFolder
) -> None:
    heard: list[Event] = []
    find_folder_cases(studies, state, SPEC, [heard.append])
    assert not [event for event in heard if isinstance(event, Notice)]
    results = studies / "MUELLER^ANNA"
    results.mkdir()
    (results / "ledger.jsonl").write_text("")
    (studies / "MUELLER.txt").write_text("x")
    find_folder_cases(studies, state, SPEC, [heard.append])
    (notice,) = [event for event in heard if isinstance(event, Notice)]
    assert "passed over" in notice.message
    assert "MUELLER" not in notice.message


def test_the_list_of_an_earlier_release_is_taken_over(
    studies: Path, state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded = state.images / "uploaded.nii.gz"
    uploaded.parent.mkdir(parents=True)
    shutil.copyfile(studies / "a.nii.gz", uploaded)
    files = {name: studies / f"{name}.nii.gz" for name in "ab"}
    write_former_list(state, {**files, "uploaded": uploaded})
    monkeypatch.setattr(module, "read_scan", None)  # none is read again
    find_folder_cases(studies, state, SPEC)
    cases = FolderCases(state, SPEC)
    assert cases.list_names() == ["a", "b", "uploaded"]
    assert cases.get_image_file("uploaded") == uploaded


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"a": {}}', '{"a": {"parts": 3, "print": ""}}', "\xff"]
)
def test_a_torn_list_of_an_earlier_release_is_made_again(
    studies: Path, state: StateFolder, text: str
) -> None:
    state.root.mkdir()
    state.cases.write_text(text, encoding="latin-1")
    find_folder_cases(studies, state, SPEC)
    assert FolderCases(state, SPEC).list_names() == ["a", "b"]


def test_uploads_at_once_from_several_processes_are_all_listed(
    cases: FolderCases, studies: Path, state: StateFolder
) -> None:
    others = [FolderCases(state, SPEC) for _ in range(12)]

    def add(number: int) -> None:
        others[number].add_image(f"new_{number:02d}", studies / "a.nii.gz")

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(add, range(12)))
    assert len(cases.list_names()) == 2 + 12
    assert not list(state.added.glob(".*"))


def test_volumes_of_a_series_are_listed_apart_if_asked_for(
    tmp_path: Path, state: StateFolder
) -> None:
    shape = (24, 24, 18)
    datasets = []
    for time in range(2):
        volume = dicom.series(dicom.voxels(shape, time), RescaleIntercept=-1000)
        for k, ds in enumerate(volume):
            ds.InstanceNumber = time * len(volume) + k + 1
        datasets.extend(volume)
    folder = dicom.save(tmp_path / "studies", datasets)
    spec = made_spec(preprocessing={"spacing_mm": [1.25, 0.75, 2.5]})
    with pytest.raises(DatasetError, match="no scan can be segmented"):
        find_folder_cases(folder, state, spec)
    find_folder_cases(folder, state, spec, split_4d="instance-number")
    assert len(FolderCases(state, spec).list_names()) == 2


def test_what_lies_beside_a_series_stays_known_in_every_process(
    tmp_path: Path, state: StateFolder
) -> None:
    datasets = dicom.series(dicom.voxels((24, 24, 18)), RescaleIntercept=-1000)
    datasets[-1].SeriesInstanceUID = "1.2.3"
    folder = dicom.save(tmp_path / "studies", datasets)
    spec = made_spec(preprocessing={"spacing_mm": [1.25, 0.75, 2.5]})
    find_folder_cases(folder, state, spec)
    cases = FolderCases(state, spec)
    (name,) = cases.list_names()
    (warning,) = cases.get_scan(name).warnings
    assert "continue this one at its end" in warning


def test_channels_are_found_as_segment_finds_them(
    tmp_path: Path, state: StateFolder
) -> None:
    channels = [{"name": "T1w"}, {"name": "FLAIR"}]
    spec = made_spec(channels=channels)
    studies = tmp_path / "cases"
    for number, name in enumerate(("a/a_t1", "a/a_flair", "b/b_t1")):
        write_scan(studies / f"{name}.nii.gz", number, (24, 20, 16), np.eye(4))
    (fault,) = find_folder_cases(studies, state, spec)
    assert (fault.where, fault.what.partition(";")[0]) == (
        *("b", "has no image of the channel FLAIR (found: T1w)"),
    )
    cases = FolderCases(state, spec)
    assert cases.list_names() == ["a"]
    parts = [part[0].name for part in cases.get_scan("a").parts]
    assert parts == ["a_t1.nii.gz", "a_flair.nii.gz"]


def test_a_list_is_not_read_for_each_case(
    cases: FolderCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cases.list_names() == ["a", "b"]
    monkeypatch.setattr(scan_list, "_parse_scan", None)
    assert [cases.get_scan(name).name for name in "ab"] == ["a", "b"]
