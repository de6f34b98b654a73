"""Finding what to segment."""

from __future__ import annotations

import hashlib
import os
import shutil
import unicodedata
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    SegmentationStorage,
    generate_uid,
)

from medseg.datasets.scans import ScanList, find_scans
from medseg.errors import DatasetError

PATIENT = "SECRET^NAME"


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def a_slice(
    file: Path, series: str, position: int = 0, sop_class: str = CTImageStorage
) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = Dataset()
    ds.file_meta = meta
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.SeriesInstanceUID = series
    ds.Modality = "CT"
    ds.PatientName, ds.PatientID = PATIENT, "SECRET-ID"
    ds.Rows = ds.Columns = 2
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = (
        16,
        16,
        15,
        0,
    )
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.PixelSpacing, ds.ImageOrientationPatient = [1, 1], [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [0, 0, position]
    ds.PixelData = bytes(8)
    ds.save_as(file, enforce_file_format=True)


def names(found: ScanList) -> list[str]:
    return [scan.name for scan in found.scans]


def left_out(found: ScanList) -> dict[str, str]:
    return {entry.where: entry.reason for entry in found.left_out}


# --- a file -------------------------------------------------------------------------------


def test_a_file_is_one_scan_with_its_own_name(tmp_path: Path) -> None:
    touch(tmp_path / "liver 7.nii.gz")

    (scan,) = find_scans(tmp_path / "liver 7.nii.gz", 1).scans

    assert scan.name == "liver_7"
    assert scan.parts == ((tmp_path / "liver 7.nii.gz",),)


def test_a_file_that_is_no_image_or_not_there_is_an_error(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "notes.txt")

    with pytest.raises(
        DatasetError, match=r"is not an image; files ending in .*\.nii"
    ):
        find_scans(tmp_path / "notes.txt", 1)
    with pytest.raises(DatasetError, match="no such file or folder"):
        find_scans(tmp_path / "typo", 1)


def test_a_single_dicom_file_is_a_series(tmp_path: Path) -> None:
    a_slice(tmp_path / "no_ending", "1.2.3")

    (scan,) = find_scans(tmp_path / "no_ending", 1).scans

    assert scan.name.startswith("series-")
    assert scan.parts == ((tmp_path / "no_ending",),)


# --- a folder -----------------------------------------------------------------------------


def test_a_folder_is_searched_with_all_below_it(tmp_path: Path) -> None:
    touch(
        *(
            tmp_path / name
            for name in ("b.nii", "a/c.nrrd", "a/d/e.mha", "f.PNG", "g.jpeg")
        ),
        *(
            tmp_path / name
            for name in (
                "README.md",
                ".hidden.nii",
                ".part-x.nii.gz",
                ".git/h.nii",
            )
        ),
    )

    found = find_scans(tmp_path, 1)

    assert names(found) == ["a_c", "a_d_e", "b", "f", "g"]
    assert found.left_out == ()
    assert found.notes == ("1 other file: not an image (.md)",)


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    touch(tmp_path / "README.md")

    with pytest.raises(
        DatasetError,
        match=r"no scan was found.*\.nii\.gz.*DICOM.*1 other file: not an image",
    ):
        find_scans(tmp_path, 1)


def test_names_that_would_be_equal_are_told_apart(tmp_path: Path) -> None:
    touch(
        *(
            tmp_path / name
            for name in (
                "a.nii",
                "a.nrrd",
                "A.png",
                "b/c.nii",
                "b_c.nii",
                "d.nii",
            )
        )
    )

    found = names(find_scans(tmp_path, 1))

    assert len({name.lower() for name in found}) == 6
    assert "d" in found
    touch(tmp_path / "0_new.nii")
    assert set(found) < set(names(find_scans(tmp_path, 1)))


def test_results_of_medseg_and_labels_are_not_segmented(tmp_path: Path) -> None:
    touch(
        *(
            tmp_path / name
            for name in ("a.nii", "out/ledger.jsonl", "out/a.nii")
        ),
        *(
            tmp_path / name
            for name in ("imagesTr/b.nii", "labelsTr/b.nii", "labels/only.nii")
        ),
    )

    found = find_scans(tmp_path, 1)

    assert names(found) == ["a", "imagesTr_b", "labels_only"]
    assert [note.partition(":")[0] for note in found.notes] == [
        "labelsTr",
        "out",
    ]


def test_broken_links_are_left_out_and_circles_end(tmp_path: Path) -> None:
    touch(tmp_path / "scans/a/b.nii", tmp_path / "elsewhere/c.nii")
    (tmp_path / "scans/gone.nii").symlink_to(tmp_path / "nowhere.nii")
    (tmp_path / "scans/a/up").symlink_to(tmp_path / "scans")
    (tmp_path / "scans/self").symlink_to(tmp_path / "scans/self")
    (tmp_path / "scans/further").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "scans")

    found = find_scans(tmp_path / "scans", 1)

    assert names(found) == ["a_b", "further_c"]
    assert set(left_out(found)) >= {"gone.nii", "a/up"}


def test_a_folder_that_may_not_be_read_is_left_out(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every folder")
    touch(tmp_path / "a.nii", tmp_path / "locked/b.nii")
    (tmp_path / "locked").chmod(0)
    try:
        assert "cannot be read" in left_out(find_scans(tmp_path, 1))["locked"]
    finally:
        (tmp_path / "locked").chmod(0o700)


# --- channels -----------------------------------------------------------------------------


def test_channel_files_are_one_scan_in_channel_order(tmp_path: Path) -> None:
    touch(
        *(tmp_path / f"p/{name}_000{n}.nii.gz" for name in "ab" for n in (1, 0))
    )

    found = find_scans(tmp_path, 2)

    assert names(found) == ["p_a", "p_b"]
    assert [part[0].name for part in found.scans[0].parts] == [
        "a_0000.nii.gz",
        "a_0001.nii.gz",
    ]


def test_a_scan_without_all_its_channels_is_left_out(tmp_path: Path) -> None:
    touch(
        *(
            tmp_path / name
            for name in (
                "a_0000.nii",
                "a_0002.nii",
                "b_0000.nii",
                "b_0000.nrrd",
            )
        )
    )

    found = find_scans(tmp_path, 3)

    assert found.scans == ()
    assert "has no channel _0001; the bundle has 3" in left_out(found)["a"]
    assert "has no channel" in left_out(found)["b"]


def test_numbered_pictures_and_4d_files_are_scans_of_their_own(
    tmp_path: Path,
) -> None:
    touch(
        *(tmp_path / f"frame_{n:04d}.png" for n in range(12)),
        tmp_path / "four_d.nii.gz",
    )

    found = find_scans(tmp_path, 3)

    assert len(found.scans) == 13
    assert names(found)[0] == "four_d"


def test_one_number_more_than_there_are_channels_counts_pictures(
    tmp_path: Path,
) -> None:
    touch(*(tmp_path / f"frame_{n:04d}.png" for n in range(3)))

    found = find_scans(tmp_path, 2)

    assert names(found) == ["frame_0000", "frame_0001", "frame_0002"]
    assert found.left_out == ()


def test_one_channel_keeps_numbered_files_apart(tmp_path: Path) -> None:
    touch(tmp_path / "a_0000.nii", tmp_path / "a_0001.nii")

    assert names(find_scans(tmp_path, 1)) == ["a_0000", "a_0001"]


# --- DICOM --------------------------------------------------------------------------------


def test_series_are_found_by_their_headers_and_named_without_the_patient(
    tmp_path: Path,
) -> None:
    one, other = generate_uid(), generate_uid()
    for n in range(3):
        a_slice(tmp_path / PATIENT / f"{n}", one, n)
        a_slice(tmp_path / PATIENT / f"x{n}.dcm", other, n)
    touch(tmp_path / "a.nii", tmp_path / "list.txt")

    found = find_scans(tmp_path, 1)

    assert sorted(names(found)) == sorted(
        [
            "a",
            *(
                f"series-{hashlib.sha256(uid.encode()).hexdigest()[:10]}"
                for uid in (one, other)
            ),
        ]
    )
    assert {len(scan.parts[0]) for scan in found.scans} == {1, 3}
    assert "SECRET" not in "".join(names(found))
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / PATIENT, moved / "deep")
    assert set(names(find_scans(moved, 1))) < set(names(found))


def test_dicom_files_that_are_no_volume_are_noted_and_damaged_ones_are_left_out(
    tmp_path: Path,
) -> None:
    a_slice(tmp_path / "a/1.dcm", generate_uid())
    a_slice(
        tmp_path / "a/seg.dcm", generate_uid(), sop_class=SegmentationStorage
    )
    touch(tmp_path / "b/fake.dcm")

    found = find_scans(tmp_path, 1)

    assert len(found.scans) == 1
    assert [*left_out(found)] == ["b/fake.dcm"]
    assert found.notes == (
        "1 other file: 'Segmentation Storage' is not a volume image",
    )


def test_slices_outside_the_searched_folders_do_not_hide_their_series(
    tmp_path: Path,
) -> None:
    uid = generate_uid()
    a_slice(tmp_path / "a/1.dcm", uid)
    a_slice(tmp_path / "out/2.dcm", uid, 1)
    touch(tmp_path / "out/ledger.jsonl")

    (scan,) = find_scans(tmp_path, 1).scans

    assert scan.parts == ((tmp_path / "a/1.dcm",),)


def test_dicom_behind_a_link_to_a_folder_is_found(tmp_path: Path) -> None:
    a_slice(tmp_path / "elsewhere/1.dcm", generate_uid())
    touch(tmp_path / "scans/a.nii")
    (tmp_path / "scans/linked").symlink_to(tmp_path / "elsewhere")

    found = find_scans(tmp_path / "scans", 1)

    assert len(found.scans) == 2
    assert found.scans[1].parts == ((tmp_path / "scans/linked/1.dcm",),)


def test_progress_counts_files(tmp_path: Path) -> None:
    for n in range(3):
        a_slice(tmp_path / f"{n}.dcm", "1.2.3", n)
    touch(tmp_path / "notes.txt", tmp_path / "known.nii")
    counts: list[tuple[int, int]] = []

    find_scans(tmp_path, 1, lambda done, total: counts.append((done, total)))

    assert counts == [(1, 4), (2, 4), (3, 4), (4, 4)]


# --- a CSV --------------------------------------------------------------------------------


def test_a_table_lists_scans_and_a_bad_line_leaves_the_others(
    tmp_path: Path,
) -> None:
    touch(*(tmp_path / name for name in ("a.nii", "sub/b.nii", "c.txt")))
    table = tmp_path / "scans.csv"
    table.write_text(
        f"scan,name\na.nii,mine\nsub/b.nii,\n{tmp_path}/a.nii,..\nc.txt,\ngone.nii,x\n,\na.nii,\n"
    )

    found = find_scans(table, 1)

    assert names(found) == ["mine", "sub_b", "scan"]
    assert "is not an image" in left_out(found)["line 5"]
    assert "no such file" in left_out(found)["x"]
    assert "listed before" in left_out(found)["line 8"]


def test_a_table_lists_channels_and_series(tmp_path: Path) -> None:
    for contrast in ("t1", "t2"):
        for n in range(2):
            a_slice(tmp_path / contrast / f"{n}.dcm", f"1.2.{contrast[1]}", n)
    (tmp_path / "scans.csv").write_text(
        "name,image_1,image_0\np,t2,t1\nq,t1,.\n"
    )

    found = find_scans(tmp_path / "scans.csv", 2)

    assert names(found) == ["p"]
    assert [len(part) for part in found.scans[0].parts] == [2, 2]
    assert found.scans[0].parts[0][0].parent.name == "t1"
    assert "holds 2 DICOM series" in left_out(found)["q"]
    assert (
        "has 3 channels" in left_out(find_scans(tmp_path / "scans.csv", 3))["p"]
    )


# --- real data ----------------------------------------------------------------------------


def test_a_study_with_three_contrasts_gives_its_series(
    shared_data: Path,
) -> None:
    found = find_scans(shared_data / "dicom_brain_mr_oblique" / "Study3", 1)

    assert sorted(len(scan.parts[0]) for scan in found.scans) == [
        22,
        22,
        22,
        40,
    ]
    assert all(name.startswith("series-") for name in names(found))
    assert found.left_out == ()


def test_a_dataset_folder_gives_its_images_only(shared_data: Path) -> None:
    found = find_scans(shared_data / "hippocampus", 1)

    assert len(found.scans) == 196
    assert not any("labels" in name for name in names(found))


# --- label maps beside scans, and names of every alphabet -----------------------------------


def a_scan_with_masks(folder: Path) -> None:
    random = np.random.default_rng(3)
    noise = random.normal(0, 50, (24, 20, 12)).astype(np.int16)
    mask = np.zeros(noise.shape, np.uint8)
    mask[5:12, 6:15, 3:9] = 1
    (folder / "segmentations").mkdir(parents=True)
    nib.save(nib.Nifti1Image(noise, np.eye(4)), folder / "ct.nii.gz")
    for organ in ("liver", "spleen"):
        file = folder / "segmentations" / f"{organ}.nii.gz"
        nib.save(nib.Nifti1Image(mask, np.eye(4)), file)
    nib.save(nib.Nifti1Image(mask, np.eye(4)), folder / "s_seg.nii")
    nib.save(nib.Nifti1Image(mask, np.eye(4)), folder / "mask_m.nii")
    nib.save(nib.Nifti1Image(mask, np.eye(4)), folder / "gt.nii.gz")
    nib.save(nib.Nifti1Image(mask, np.eye(4)), folder / "heart.nii.gz")


def test_label_maps_beside_scans_are_left_out_and_told(tmp_path: Path) -> None:
    for case in ("s0001", "s0002", "s0003"):
        a_scan_with_masks(tmp_path / case)

    found = find_scans(tmp_path, 1)

    assert names(found) == ["s0001_ct", "s0002_ct", "s0003_ct"]
    assert found.left_out == ()
    how = "to segment one all the same, give it as a file or in a CSV"
    assert found.notes == (
        "15 label maps were left out: 3 called gt.nii.gz, 3 called mask_….nii, 3 called …_seg.nii, "
        "6 in segmentations/; "
        f"{how}",
        "3 label maps were left out that hold labels and lie beside scans, though their names do "
        f"not say so: heart.nii.gz; {how}",
    )


def test_what_is_named_is_taken_whatever_it_holds(tmp_path: Path) -> None:
    a_scan_with_masks(tmp_path / "s1")
    (tmp_path / "scans.csv").write_text(
        "scan\ns1/ct.nii.gz\ns1/s_seg.nii\ns1/segmentations/liver.nii.gz\n"
    )

    assert len(find_scans(tmp_path / "scans.csv", 1).scans) == 3
    (scan,) = find_scans(tmp_path / "s1/s_seg.nii", 1).scans
    assert scan.name == "s_seg"


def test_a_folder_of_named_label_maps_alone_holds_no_scan(
    tmp_path: Path,
) -> None:
    a_scan_with_masks(tmp_path)
    for name in ("ct.nii.gz", "heart.nii.gz"):
        (tmp_path / name).unlink()
    with pytest.raises(DatasetError, match="5 label maps were left out"):
        find_scans(tmp_path, 1)


def test_a_header_and_its_voxels_are_one_scan(tmp_path: Path) -> None:
    voxels = np.zeros((4, 4, 4), np.int16)
    nib.save(nib.Nifti1Pair(voxels, np.eye(4)), tmp_path / "a.img")
    sitk.WriteImage(sitk.GetImageFromArray(voxels), tmp_path / "b.mhd")
    sitk.WriteImage(sitk.GetImageFromArray(voxels), tmp_path / "c.nhdr")
    nib.save(nib.MGHImage(voxels, np.eye(4)), tmp_path / "d.mgz")
    touch(tmp_path / "e.img", tmp_path / "f.mnc", tmp_path / "g.xyz")

    found = find_scans(tmp_path, 1)

    assert names(found) == ["a", "b", "c", "d"]
    assert found.notes == (
        "1 other file: voxels alone; the header (.hdr) that says what they are is missing",
        "1 other file: MINC; convert it with mnc2nii",
        "1 other file: not an image (.xyz)",
    )


def test_scans_keep_the_letters_of_every_alphabet(tmp_path: Path) -> None:
    touch(
        tmp_path / "Пациент 7/肝臓.nii.gz",
        tmp_path / "Mu\u0308ller.nii.gz",
        tmp_path / "صورة\u202e.nrrd",
    )
    assert names(find_scans(tmp_path, 1)) == [
        "M\u00fcller",
        "Пациент_7_肝臓",
        "صورة",
    ]


def test_names_that_become_one_in_nfc_or_without_capitals_stay_apart(
    tmp_path: Path,
) -> None:
    touch(
        *(tmp_path / f"{name}.nii" for name in ("\u00e9", "e\u0301", "\u00c9"))
    )
    found = names(find_scans(tmp_path, 1))
    assert len({name.casefold() for name in found}) == 3
    assert all(unicodedata.is_normalized("NFC", name) for name in found)


def test_a_table_means_files_in_any_form_of_unicode(tmp_path: Path) -> None:
    touch(tmp_path / "scans/Mu\u0308ller.nii")
    table = tmp_path / "scans.csv"
    table.write_text("scan\nscans/M\u00fcller.nii\n", encoding="utf-8")
    found = find_scans(table, 1)
    assert found.left_out == ()
    assert names(found) == ["scans_M\u00fcller"]


def test_a_file_of_a_known_kind_that_is_not_read_is_called_what_it_is(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "scan.img", tmp_path / "scan.hdr", tmp_path / "scan.mnc")
    for name, what in (
        ("scan.img", r"\.hdr file beside it"),
        ("scan.mnc", "MINC"),
    ):
        with pytest.raises(DatasetError, match=what):
            find_scans(tmp_path / name, 1)


def test_scans_keep_the_names_under_which_they_have_results(
    tmp_path: Path,
) -> None:
    files = ("Müller 肝.nii", "肝.nii", "脾.nii", "con.nii", "ä.nii", "_.nii")
    touch(*(tmp_path / file for file in files))
    found = find_scans(tmp_path, 1)
    former = dict(zip(names(found), found.former_names, strict=True))
    assert former["Müller_肝"] == "M_ller_"
    assert former["_con"] == "con"
    assert len({*found.former_names}) == len(files)

    known = {"M_ller_", former["肝"], "con", former["ä"], "ä"}
    kept = names(found.keep_former_names(known))

    expected = {"M_ller_", former["肝"], "脾", "con", "ä", "_"}
    assert set(kept) == expected
    assert names(found.keep_former_names(())) == names(found)


def test_pictures_of_a_training_run_are_no_scans(tmp_path: Path) -> None:
    run = tmp_path / "run"
    touch(
        run / "bundle.json",
        run / "models/model.pt",
        run / "curves.png",
        run / "previews/validation.png",
        run / "scans/a.png",
        tmp_path / "previews/b.png",
        tmp_path / "curves.png",
    )
    found = find_scans(tmp_path, 1)
    assert names(found) == ["curves", "previews_b", "run_scans_a"]
    assert "2 pictures of a training run are left out" in found.notes
