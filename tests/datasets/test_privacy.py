"""Nothing that is recorded names a patient: not by a path, a link, a list or a header.

Recorded are the message of an error, ``Fault.what``, the name and the reason of what a search
left out, and the warnings of a volume. A name is planted wherever one may stand on disk, and
sought in all of these.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.datasets import a_spec, touch
from support.studies import a_series, label, random_labels

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import CaseList, find_cases
from medseg.datasets.input_checks import check_volume
from medseg.datasets.integrity import check_cases, read_scan
from medseg.datasets.scans import find_scans
from medseg.errors import DatasetError, MedsegError
from medseg.labels import Label, LabelSet
from medseg.layouts.dataset_json import parse_labels
from medseg.names import has_image_suffix

MARK = "ZZQ"
NAMES = st.from_regex(
    rf"[A-Z]{{1,3}}{MARK}[a-zA-Z^_ .'-]{{0,12}}[a-z]", fullmatch=True
)
few = settings(max_examples=25, deadline=None)


@contextmanager
def a_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def texts_of_error(error: MedsegError) -> list[str]:
    return [
        error.message,
        *(fault.what for fault in getattr(error, "faults", ())),
    ]


def recorded_of_scans(root: Path, channels: int = 1) -> list[str]:
    """Return what may be recorded of a search, and of every scan that it found."""
    try:
        found = find_scans(root, channels)
    except DatasetError as error:
        return texts_of_error(error)
    texts = []
    for entry in found.left_out:
        texts.append(entry.reason)
        # Images are named by their files, also those that are only some channels of a scan; but
        # what cannot be opened in a folder may be anything.
        is_file = (root / entry.where).exists() or (
            root / entry.where
        ).is_symlink()
        is_in_folder = "/" in entry.where
        if is_file and (is_in_folder or not has_image_suffix(entry.where)):
            texts.append(entry.name)
    for scan in found.scans:
        try:
            volume = read_scan(scan, channels)
            texts.extend(
                (*volume.warnings, *check_volume(volume, a_spec(channels)))
            )
        except MedsegError as error:
            texts.extend(texts_of_error(error))
    return texts


def recorded_of_cases(root: Path, spec: BundleSpec | None = None) -> list[str]:
    """Return what may be recorded of a data set, and of every case that it has."""
    spec = a_spec() if spec is None else spec
    try:
        found = find_cases(root, spec)
        checked = check_cases(CaseList(found.cases), spec)
        return [fault.what for fault in (*found.faults, *checked.faults)]
    except DatasetError as error:
        return texts_of_error(error)


def assert_nobody_is_named(texts: Iterable[str]) -> None:
    texts = list(texts)
    assert texts, "nothing is recorded, so nothing was tested"
    assert not [text for text in texts if MARK in text]


# --- paths and links ----------------------------------------------------------------------


@few
@given(NAMES, NAMES)
def test_files_that_cannot_be_used_are_not_called_by_their_folders(
    folder: str, file: str
) -> None:
    with a_folder() as root:
        touch(root / "scan.nii")
        home = root / folder
        home.mkdir()
        (home / file).write_bytes(b"\0" * 128 + b"DICM" + b"\x02\0\0\0garbage")
        (home / f"{file}.dcm").write_bytes(b"")
        (home / f"{file}.nii.gz").write_bytes(b"")
        (home / "IM1").symlink_to(home / f"{file} gone")
        (home / "up").symlink_to(root)
        (home / f"{file} link.nii.gz").symlink_to(home / f"{file} gone")
        (home / "ct.mha").symlink_to(home / "nowhere")
        (home / "zero.nrrd").symlink_to("/dev/zero")
        os.mkfifo(home / f"{file} pipe.nii")
        (root / f"{folder} link").symlink_to(home / "nowhere")
        assert_nobody_is_named(recorded_of_scans(root))


@few
@given(NAMES)
def test_a_path_that_holds_no_scan_is_not_called_by_its_name(name: str) -> None:
    with a_folder() as root:
        touch(root / name / f"{name}.txt")
        paths = [
            root / name,
            root / f"{name} gone",
            root / name / f"{name}.txt",
        ]
        assert_nobody_is_named(
            text for path in paths for text in recorded_of_scans(path)
        )
        assert_nobody_is_named(
            text for path in paths for text in recorded_of_cases(path)
        )


@few
@given(NAMES)
def test_channels_that_are_missing_do_not_name_their_scan(name: str) -> None:
    with a_folder() as root:
        touch(root / f"{name}_0000.nii", root / f"{name}_0002.nii")
        assert_nobody_is_named(recorded_of_scans(root, 3))


@few
@given(NAMES, st.binary(max_size=400))
def test_files_that_cannot_be_read_are_not_named(
    name: str, content: bytes
) -> None:
    with a_folder() as root:
        for suffix in (".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".tif"):
            (root / f"{name}{suffix}").write_bytes(content)
        assert_nobody_is_named(recorded_of_scans(root))


@few
@given(NAMES)
def test_warnings_of_a_volume_name_no_file(name: str) -> None:
    with a_folder() as root:
        array = np.random.default_rng(0).random((6, 5, 4), np.float32)
        array[0, 0, 0] = np.nan
        image = nib.Nifti1Image(array, np.eye(4))
        image.header["descrip"] = name[:40].encode()
        nib.save(image, root / f"{name}.nii.gz")
        assert_nobody_is_named(recorded_of_scans(root))


# --- lists --------------------------------------------------------------------------------

BROKEN_LINES: list[Callable[[str], str]] = [
    lambda name: f"{name}.nii,l.nii,{name}",
    lambda name: f"{name}.txt,{name}.nii,",
    lambda name: f"a.nii,b.nii,{name}",
    lambda name: f",,{name}",
    lambda name: f'"{name}\x07",l.nii,x',
    lambda name: f"a.nii,b.nii,{name},{name}",
    lambda name: f'"{name}',
]


@few
@given(NAMES, st.lists(st.sampled_from(BROKEN_LINES), min_size=1, max_size=4))
def test_cells_of_a_table_are_not_quoted(
    name: str, lines: list[Callable[[str], str]]
) -> None:
    with a_folder() as root:
        touch(root / f"{name}.txt")
        body = "\n".join(line(name) for line in lines)
        for header in (
            "image,label,fold",
            f"image,{name},name",
            f"{name},{name},name",
        ):
            (root / "cases.csv").write_text(f"{header}\n{body}\n")
            assert_nobody_is_named(recorded_of_cases(root))
        (root / "scans.csv").write_text(f"scan,other,name\n{body}\n")
        texts = recorded_of_scans(root / "scans.csv")
        assert_nobody_is_named([*texts, "something"])


BROKEN_ITEMS: list[Callable[[str], Any]] = [
    lambda name: name,
    lambda name: {"image": f"{name}.nii", "label": f"{name}-label.nii"},
    lambda name: {"image": {name: name}, "label": "l.nii"},
    lambda name: {"image": [f"{name}.nii"] * 2, "label": "l.nii"},
    lambda name: {"image": f"{name}\0", "label": "l.nii"},
    lambda name: {"image": "a.nii", "label": "b.nii", "fold": name, name: name},
]
BROKEN_LABELS: list[Callable[[str], Any]] = [
    lambda name: {name: name},
    lambda name: {name: [1, 2]},
    lambda name: {name: [name], "x": [1, 2]},
    lambda name: [name],
]


@few
@given(
    NAMES,
    st.lists(st.sampled_from(BROKEN_ITEMS), min_size=1, max_size=4),
    st.sampled_from(BROKEN_LABELS),
)
def test_fields_of_a_dataset_json_are_not_quoted(
    name: str, items: list[Callable[[str], Any]], labels: Callable[[str], Any]
) -> None:
    with a_folder() as root:
        content = {
            "training": [item(name) for item in items],
            "labels": labels(name),
        }
        (root / "dataset.json").write_text(json.dumps(content))
        texts = recorded_of_cases(root)
        texts += recorded_of_cases(root, a_spec(group_by="site"))
        try:
            parse_labels(
                {**content, "regions_class_order": [name]}, root / name
            )
        except DatasetError as error:
            texts.append(error.message)
        assert_nobody_is_named(texts)


@few
@given(
    NAMES, st.sampled_from(['{{"{}"', '"{}"', '["{}"]', '{{"training": "{}"}}'])
)
def test_a_dataset_json_that_is_none_is_not_quoted(
    name: str, template: str
) -> None:
    with a_folder() as root:
        (root / name).mkdir()
        (root / name / "dataset.json").write_text(template.format(name))
        assert_nobody_is_named(
            recorded_of_cases(root / name, a_spec(format="msd"))
        )


@few
@given(NAMES)
def test_half_pairs_and_files_of_equal_names_are_not_named(name: str) -> None:
    with a_folder() as root:
        pairs, nnunet = root / "pairs", root / "nnunet"
        touch(pairs / f"images/{name}.nii", pairs / f"labels/{name}2.nii")
        touch(pairs / f"images/{name}3.nii", pairs / f"images/{name}3.nrrd")
        touch(pairs / f"labels/{name}3.nii", pairs / f"images/{name}4_0001.nii")
        touch(pairs / f"labels/{name}4.nii", nnunet / f"imagesTr/{name}.nii")
        touch(nnunet / f"labelsTr/{name}.nii")
        texts = recorded_of_cases(pairs)
        texts += recorded_of_cases(nnunet, a_spec(format="nnunet"))
        assert_nobody_is_named(texts)


@few
@given(st.from_regex(rf"{MARK}[a-z]{{3,8}}", fullmatch=True))
def test_subjects_of_bids_are_not_named(name: str) -> None:
    with a_folder() as root:
        (root / "dataset_description.json").write_text("{}")
        labels = root / "derivatives/manual"
        touch(root / f"sub-{name}/anat/sub-{name}_T1w.nii.gz")
        touch(labels / f"sub-{name}/anat/sub-{name}_label-{name}_mask.nii.gz")
        touch(labels / f"sub-{name}/anat/sub-{name}_mask.nii.gz")
        touch(labels / f"sub-{name}2/anat/sub-{name}2_label-{name}_mask.nii.gz")
        touch(labels / f"sub-{name}2/anat/sub-{name}2_label-other_mask.nii.gz")
        touch(labels / f"sub-{name}3/anat/sub-{name}3_dseg.nii.gz")
        texts = recorded_of_cases(root)
        (root / "dseg.tsv").write_text(f"index\tname\n{name}\t{name}\n")
        texts += recorded_of_cases(root)
        (root / "dseg.tsv").write_text(f"{name}\tname\n1\t{name}\n")
        assert_nobody_is_named([*texts, *recorded_of_cases(root)])


# --- headers ------------------------------------------------------------------------------


@settings(max_examples=5, deadline=None)
@given(st.from_regex(rf"{MARK}[a-z]{{3,8}}", fullmatch=True))
def test_headers_and_structures_of_dicom_are_not_quoted(name: str) -> None:
    with a_folder() as root:
        header = {
            "PatientName": name,
            "SeriesDescription": name,
            "StudyDescription": name,
        }
        study = root / name
        ct = a_series(study / "ct", "one", name, **header)
        a_series(
            study / "small",
            "two",
            name,
            PixelSpacing=[4.0, 4.0],
            Modality="PT",
            **header,
        )
        structures = LabelSet(
            [Label(1, name, 1, (1, 2, 3)), Label(2, "organ", 2, (3, 2, 1))]
        )
        for file in ("a", "b"):
            label(
                study / f"label-{file}",
                ct,
                random_labels() % 3,
                "seg",
                structures,
            )
        channels = [
            {"name": "CT", "modality": "CT"},
            {"name": "PET", "modality": "PT"},
        ]
        texts = []
        for count in (1, 2):
            for wanted in ("organ", "none"):
                spec = {
                    "channels": channels[:count],
                    "labels": [{"index": 1, "name": wanted}],
                }
                texts += recorded_of_cases(study, make_spec(spec))
        (study / "label-b").write_bytes((study / "label-b").read_bytes()[:1500])
        texts += recorded_of_cases(study, make_spec({"channels": channels[:1]}))
        assert_nobody_is_named(texts)


@pytest.mark.parametrize(
    "changes",
    [
        {"PixelSpacing": [MARK, "1"]},
        {"ImageOrientationPatient": ["1", "0", "0", "1", "0", MARK]},
        {"PhotometricInterpretation": MARK},
        {"Rows": None},
        {"RescaleSlope": MARK},
    ],
)
def test_broken_headers_are_not_quoted(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = tmp_path / MARK
    a_series(folder, "one", MARK)
    for file in folder.iterdir():
        ds = pydicom.dcmread(file)
        for keyword, value in changes.items():
            ds.pop(keyword, None)
            if value is not None:
                element = pydicom.DataElement(keyword, "LO", value)
                ds[element.tag] = element
        ds.save_as(file)
    assert_nobody_is_named(recorded_of_scans(tmp_path))
    assert_nobody_is_named(recorded_of_scans(folder))


def make_spec(changes: dict[str, Any]) -> BundleSpec:
    content = {
        "name": "tiny",
        "labels": [{"index": 1, "name": "thing"}],
        "training": {"patch": [16, 16, 16]},
    }
    return BundleSpec.model_validate(content | changes)
