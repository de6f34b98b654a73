"""Preprocessed cases on disk: exact, keyed by content, whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from support.bundles import made_spec

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cache import (
    FOREGROUND_SAMPLES,
    hash_content,
    is_entry,
    make_entry_key,
    read_entry,
    write_entry,
)
from medseg.datasets.cases import Case, Scan
from medseg.datasets.integrity import open_case
from medseg.datasets.measures import measure_case
from medseg.errors import OutputError, ScanError
from medseg.layouts.mask_files import MaskFiles
from medseg.preprocessing.case_input import Preprocessing
from medseg.preprocessing.transforms import IMAGE, LABEL

SPEC = made_spec(preprocessing={"spacing_mm": [2, 2, 2], "intensity": "zscore"})


def save(file: Path, array: Any, affine: Any = None) -> Path:
    nib.save(
        nib.Nifti1Image(
            array, np.diag([1.0, 1, 3, 1]) if affine is None else affine
        ),
        file,
    )
    return file


@pytest.fixture
def case(tmp_path: Path) -> Case:
    rng = np.random.default_rng(0)
    label = np.zeros((14, 12, 6), np.uint8)
    label[2:9, 3:8, 1:4] = 1
    label[10:12, 8:11, 4:] = 2
    image = save(
        tmp_path / "a.nii.gz", rng.normal(0, 100, label.shape).astype(np.int16)
    )
    return made_case(image, save(tmp_path / "a_label.nii.gz", label))


def made_case(image: Path, label: Path) -> Case:
    return Case(Scan("a", ((image,),)), label, fold=None, group=None)


def opened(case: Case, spec: BundleSpec) -> tuple[Any, ...]:
    image, labels = open_case(case, spec)
    return image, labels, measure_case(image, labels)


def prepared(case: Case, folder: Path, spec: BundleSpec = SPEC) -> Any:
    entry = folder / make_entry_key(case, spec)
    if not is_entry(entry):
        chain = Preprocessing(spec, with_label=True)
        write_entry(entry, case, *opened(case, spec), chain)
    return read_entry(entry)


def test_an_entry_is_what_preprocessing_makes(
    case: Case, tmp_path: Path
) -> None:
    found = prepared(case, tmp_path / "cache")
    expected = Preprocessing(SPEC, with_label=True)(*open_case(case, SPEC))
    assert torch.equal(found.image, expected[IMAGE].as_tensor().half())
    assert torch.equal(found.label.float(), expected[LABEL].as_tensor())
    *_, measures = opened(case, SPEC)
    assert found.measures == measures
    assert found.image.dtype == torch.float16
    assert found.label.dtype == torch.uint8
    assert found.spacing == pytest.approx((2, 2, 2), abs=1e-4)
    assert found.shape == tuple(expected[IMAGE].shape[1:])
    assert found.nbytes == found.image.nbytes + found.label.nbytes


def test_foreground_is_where_each_label_is(case: Case, tmp_path: Path) -> None:
    found = prepared(case, tmp_path / "cache")
    assert set(found.foreground) == {1, 2}
    flat = found.label.reshape(-1).numpy()
    for index, positions in found.foreground.items():
        assert np.array_equal(positions, np.flatnonzero(flat == index))


def test_foreground_of_a_large_label_is_thinned_evenly(tmp_path: Path) -> None:
    label = np.ones((60, 60, 60), np.uint8)
    image = save(
        tmp_path / "a.nii.gz",
        np.arange(60**3, dtype=np.float32).reshape(60, 60, 60),
    )
    case = made_case(image, save(tmp_path / "b.nii.gz", label))
    spec = made_spec()
    positions = prepared(case, tmp_path / "cache", spec).foreground[1]
    assert FOREGROUND_SAMPLES <= len(positions) < 2 * FOREGROUND_SAMPLES
    assert positions[0] == 0
    assert positions[-1] > 60**3 - 60


@pytest.mark.parametrize(
    "name", ["entry.json", "foreground.npz", "image.npy", "label.npy"]
)
@pytest.mark.parametrize("content", [b"", b"{}", b"torn", None])
def test_a_damaged_entry_is_told_with_what_to_do(
    name: str, content: bytes | None, case: Case, tmp_path: Path
) -> None:
    prepared(case, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    (entry / name).unlink()
    if content is not None:
        (entry / name).write_bytes(content)
    with pytest.raises(OutputError, match="remove its folder"):
        read_entry(entry)


@pytest.mark.parametrize(
    "change",
    [
        {"preprocessing": {"spacing_mm": [2, 2, 2.5], "intensity": "zscore"}},
        {"preprocessing": {"spacing_mm": [2, 2, 2], "intensity": "minmax"}},
        {
            "preprocessing": {
                "spacing_mm": [2, 2, 2],
                "intensity": "zscore",
                "crop_above": 0.0,
            }
        },
        {
            "labels": [
                {"index": 1, "name": "a", "value": 2},
                {"index": 2, "name": "b", "value": 1},
            ]
        },
    ],
)
def test_what_changes_an_entry_changes_its_key(
    change: dict[str, Any], case: Case
) -> None:
    assert make_entry_key(case, made_spec(**change)) != make_entry_key(
        case, SPEC
    )


def test_what_does_not_keeps_it(case: Case) -> None:
    same = made_spec(
        preprocessing={"spacing_mm": [2, 2, 2], "intensity": "zscore"},
        training={"steps": 99, "patch": [32, 32, 32]},
        description="another",
    )
    assert make_entry_key(case, same) == make_entry_key(case, SPEC)


def test_the_ignored_value_and_the_source_of_labels_count(case: Case) -> None:
    keys = {
        make_entry_key(case, made_spec(data={"ignore": value}))
        for value in (None, 3, 4)
    }
    assert len(keys) == 3
    masks = replace(
        case, label_source=MaskFiles(((case.label, "liver"),), {"liver": 1})
    )
    others = replace(
        case, label_source=MaskFiles(((case.label, "liver"),), {"liver": 2})
    )
    assert (
        len({make_entry_key(each, SPEC) for each in (case, masks, others)}) == 3
    )
    volume = replace(case, scan=replace(case.scan, volume="EchoTime 4.6"))
    assert make_entry_key(volume, SPEC) != make_entry_key(case, SPEC)


def test_a_changed_file_has_another_key(case: Case, tmp_path: Path) -> None:
    before = make_entry_key(case, SPEC)
    os.utime(case.label, ns=(1, 1))
    assert make_entry_key(case, SPEC) != before
    assert make_entry_key(case, SPEC) == make_entry_key(case, SPEC)


def test_the_id_is_of_the_images_content_and_not_of_its_name(
    case: Case, tmp_path: Path
) -> None:
    content = case.scan.parts[0][0].read_bytes()
    copy = tmp_path / "patient_name.nii.gz"
    copy.write_bytes(content)
    assert hash_content(made_case(copy, case.label)) == hash_content(case)
    copy.write_bytes(content + b"\0")
    assert hash_content(made_case(copy, case.label)) != hash_content(case)
    assert len(hash_content(case)) == 10


def test_an_entry_names_no_file(case: Case, tmp_path: Path) -> None:
    prepared(case, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    assert sorted(path.name for path in entry.iterdir()) == [
        "entry.json", "foreground.npz", "image.npy", "label.npy",
    ]  # fmt: skip
    kept = json.loads((entry / "entry.json").read_text())
    assert set(kept) == {"case_id", "label_id", "measures", "spacing"}


def test_a_bad_case_leaves_nothing_behind(case: Case, tmp_path: Path) -> None:
    case.label.write_bytes(b"broken")
    with pytest.raises(ScanError):
        prepared(case, tmp_path / "cache")
    assert not (tmp_path / "cache").exists() or not list(
        (tmp_path / "cache").iterdir()
    )


def test_the_first_of_two_that_prepare_one_case_wins(
    case: Case, tmp_path: Path
) -> None:
    entry = tmp_path / "cache" / make_entry_key(case, SPEC)
    whole = prepared(case, tmp_path / "cache")
    write_entry(
        entry,
        case,
        *opened(case, SPEC),
        Preprocessing(SPEC, with_label=True),
    )
    assert torch.equal(read_entry(entry).image, whole.image)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [
        entry.name
    ]


def test_a_full_disk_leaves_nothing_behind(
    case: Case, small_disk: Path
) -> None:
    with (small_disk / "filler").open("wb") as filler:
        filler.write(bytes(60 << 10))
    with pytest.raises(OutputError, match="written to the cache"):
        prepared(case, small_disk / "cache")
    assert not list((small_disk / "cache").iterdir())


def test_training_never_changes_an_entry(case: Case, tmp_path: Path) -> None:
    found = prepared(case, tmp_path / "cache")
    before = found.image.clone()
    found.image.add_(1)
    (entry,) = (tmp_path / "cache").iterdir()
    assert torch.equal(read_entry(entry).image, before)


def test_what_nobody_annotated_is_kept_apart(
    case: Case, tmp_path: Path
) -> None:
    spec = made_spec(labels=[{"index": 1, "name": "liver"}], data={"ignore": 2})
    assert make_entry_key(case, spec) != make_entry_key(case, made_spec())
    entry = tmp_path / "entry"
    chain = Preprocessing(spec, with_label=True)
    write_entry(
        entry, case, *opened(case, spec), chain, spec.label_set.ignore_index
    )
    found = read_entry(entry)
    flat = found.label.reshape(-1).numpy()
    assert set(found.foreground) == {1}
    assert found.annotated is not None
    assert np.array_equal(found.annotated, np.flatnonzero(flat != 2))
    assert (flat == 2).any()


def test_a_case_annotated_throughout_says_so(
    case: Case, tmp_path: Path
) -> None:
    assert prepared(case, tmp_path / "cache").annotated is None


def test_an_entry_is_that_of_the_voxels_beside_a_header(tmp_path: Path) -> None:
    header = tmp_path / "a.mhd"
    header.write_text(
        "NDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 1 1\nElementType = MET_UCHAR\n"
        "ElementDataFile = a.raw\n"
    )
    (tmp_path / "a.raw").write_bytes(bytes(8))
    case = made_case(
        header, save(tmp_path / "l.nii.gz", np.zeros((2, 2, 2), np.uint8))
    )
    key, name = make_entry_key(case, SPEC), hash_content(case)
    (tmp_path / "a.raw").write_bytes(bytes(9))
    assert make_entry_key(case, SPEC) != key
    assert hash_content(case) != name
