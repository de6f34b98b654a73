"""Label objects: what they refer to, what they hold, and how their structures are numbered."""

from __future__ import annotations

import numpy as np
import pytest
from support import dicom as made
from support.studies import NAMES, a_series, edited, label, random_labels

from medseg.dicom_labels.structures import (
    hash_patient,
    read_label_object,
    read_structures,
)
from medseg.errors import ScanError


@pytest.mark.parametrize("kind", ["seg", "labelmap", "rtstruct"])
def test_an_object_names_its_series_instances_and_structures(tmp_path, kind):
    like = a_series(tmp_path / "ct")
    known = read_label_object(
        label(tmp_path / "labels.dcm", like, random_labels(), kind)
    )
    assert known is not None
    assert known.names == ("Liver", "tumour")
    assert known.series == {like.header.series}
    assert known.instances >= set(like.header.sop_uids)
    assert known.frames_of_reference == {like.header.frame_of_reference}


def test_the_instances_of_an_object_that_names_no_series_are_found_in_its_frames(
    tmp_path,
):
    like = a_series(tmp_path / "ct")
    file = label(tmp_path / "seg.dcm", like, random_labels())

    def forget(ds):
        del ds.ReferencedSeriesSequence

    known = read_label_object(edited(file, forget))
    assert known is not None
    assert known.series == frozenset()
    assert known.instances == set(like.header.sop_uids)


def test_other_files_are_no_label_objects(tmp_path):
    like = a_series(tmp_path / "ct")
    assert read_label_object(like.header.files[0]) is None
    (tmp_path / "damaged.dcm").write_bytes(b"\0" * 128 + b"DICM")
    assert read_label_object(tmp_path / "damaged.dcm") is None
    file = label(tmp_path / "seg.dcm", like, random_labels())

    def spoil(ds):
        del ds.SegmentSequence

    with pytest.raises(ScanError, match="describes no segments"):
        read_label_object(edited(file, spoil))


@pytest.mark.parametrize("kind", ["seg", "labelmap", "rtstruct"])
def test_structures_become_1_2_in_the_order_asked_for(tmp_path, kind):
    like = a_series(tmp_path / "ct")
    labels = random_labels()
    file = label(tmp_path / "labels.dcm", like, labels, kind)
    both = read_structures(file, like, ["tumour", "Liver"])
    assert np.array_equal(both.array[0], np.array([0, 2, 1])[labels])
    assert both.array.dtype == np.uint8
    one = read_structures(file, like, ["tumour"])
    assert np.array_equal(one.array[0], labels == 2)


def test_a_structure_that_is_not_asked_for_may_overlap(tmp_path):
    like = a_series(tmp_path / "ct")
    labels = random_labels()
    file = label(tmp_path / "rt.dcm", like, labels, "rtstruct")

    def overlap(ds):
        ds.ROIContourSequence[1].ContourSequence = ds.ROIContourSequence[
            0
        ].ContourSequence

    edited(file, overlap)
    with pytest.raises(ScanError, match="overlap"):
        read_structures(file, like, list(NAMES.names))
    assert np.array_equal(
        read_structures(file, like, ["tumour"]).array[0], labels == 1
    )


def test_a_patients_hash_depends_on_number_and_issuer_and_names_neither(
    tmp_path,
):
    hashes = {}
    for name, changes in {
        "a": {"PatientID": "4711"},
        "same": {"PatientID": "4711 "},
        "other": {"PatientID": "4712"},
        "issued": {"PatientID": "4711", "IssuerOfPatientID": "elsewhere"},
        "nameless": {"PatientID": ""},
    }.items():
        folder = made.save(tmp_path / name, made.series(**changes)[:1])
        hashes[name] = hash_patient(folder / "IM0000")
    assert hashes["a"] == hashes["same"]
    assert len(set(hashes.values())) == 4
    assert all(
        each.startswith("patient-") and len(each) == 20
        for each in hashes.values()
    )
    (tmp_path / "text").write_text("no DICOM")
    assert hash_patient(tmp_path / "text") == ""
    nobody = made.series(PatientID=None, StudyInstanceUID=None)[:1]
    assert hash_patient(made.save(tmp_path / "nobody", nobody) / "IM0000") == ""
