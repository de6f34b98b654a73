"""No message and no warning names a patient, wherever the name stands and whatever is broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid as uids
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from support import dicom as made
from support.studies import edited, labels_in, scan, write_rt, write_seg

from medseg.dicom_labels.rois import read_rois
from medseg.dicom_labels.rtstruct_reader import read_rtstruct
from medseg.dicom_labels.seg_reader import read_dicom_seg, read_segment_names
from medseg.dicom_labels.structures import read_label_object, read_structures
from medseg.errors import MedsegError
from medseg.io import find_series, read_image, read_labels
from medseg.io.dicom import pixels
from medseg.io.dicom.headers import HEADER_KEYWORDS, read_header
from medseg.volume import Volume

NAME = "MUSTERFRAU"
BORN = "19700101"
UID_OF_HER = f"1.2.276.0.{BORN}"
"""Valid, and yet it says when she was born."""

Datasets = list[FileDataset]


def assert_nobody_is_named(act: Callable[[], Any]) -> None:
    try:
        result = act()
    except MedsegError as error:
        texts: tuple[str, ...] = (error.message,)
    else:
        texts = result.warnings if isinstance(result, Volume) else ()
    for text in texts:
        assert NAME not in text.upper()
        assert BORN not in text
        assert "/" not in text.replace("MONOCHROME1/2", "")


def plant(
    ds: Dataset, keyword: str, vr: str | None = None, text: str = NAME
) -> None:
    """Put text where it may not be: under any value representation, unchecked."""
    tag = Tag(tag_for_keyword(keyword))
    vr = vr or dictionary_VR(tag).split(" ")[0]
    # pydicom writes numbers only if their bytes are whole numbers.
    unit = 8 if vr == "FD" else 4 if vr in ("FL", "SL", "UL") else 2
    content = text.encode() + b" " * (-len(text) % unit)
    ds[tag] = RawDataElement(tag, vr, len(content), content, 0, False, True)


def lose(keyword: str) -> Callable[[Datasets], None]:
    def act(datasets: Datasets) -> None:
        for ds in datasets:
            if keyword in ds:
                del ds[keyword]

    return act


def set_all(**values: Any) -> Callable[[Datasets], None]:
    def act(datasets: Datasets) -> None:
        for ds in datasets:
            for keyword, value in values.items():
                setattr(ds, keyword, value)

    return act


def whole(datasets: Datasets) -> None:
    pass


def one_slice_missing(datasets: Datasets) -> None:
    del datasets[1]


def one_slice_moved(datasets: Datasets) -> None:
    made.move(datasets[1], made.ROWS)


def uneven_slices(datasets: Datasets) -> None:
    for k, ds in enumerate(datasets):
        made.move(ds, made.NORMAL * 0.2 * k**2)


def doubled_position(datasets: Datasets) -> None:
    datasets[1].ImagePositionPatient = datasets[2].ImagePositionPatient


def two_volumes(datasets: Datasets) -> None:
    for k, ds in enumerate(datasets):
        ds.ImagePositionPatient = datasets[k // 2].ImagePositionPatient
        ds.ImageType = ["ORIGINAL", "PRIMARY", f"{NAME} {k % 2}"]


def odd_size(datasets: Datasets) -> None:
    datasets[0].Rows = 2
    datasets[0].PixelData = datasets[0].PixelData[:24]


def other_orientation(datasets: Datasets) -> None:
    datasets[0].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


def other_series(datasets: Datasets) -> None:
    datasets[0].SeriesInstanceUID = UID_OF_HER


def other_frame_of_reference(datasets: Datasets) -> None:
    datasets[0].FrameOfReferenceUID = UID_OF_HER


def many_frames(datasets: Datasets) -> None:
    datasets[0].NumberOfFrames = 3


def lookup_table(datasets: Datasets) -> None:
    item = Dataset()
    item.LUTExplanation = NAME
    datasets[0].ModalityLUTSequence = Sequence([item])


def unknown_syntax(datasets: Datasets) -> None:
    datasets[0].file_meta.TransferSyntaxUID = UID_OF_HER


def no_syntax(datasets: Datasets) -> None:
    datasets[0].file_meta.TransferSyntaxUID = f"1.2.{NAME}"


def localizer(datasets: Datasets) -> None:
    datasets[0].ImageType = ["ORIGINAL", NAME, "LOCALIZER"]


DAMAGES = [
    whole,
    one_slice_missing,
    one_slice_moved,
    uneven_slices,
    doubled_position,
    two_volumes,
    odd_size,
    other_orientation,
    other_series,
    other_frame_of_reference,
    many_frames,
    lookup_table,
    unknown_syntax,
    no_syntax,
    localizer,
    set_all(PhotometricInterpretation=NAME),
    set_all(SamplesPerPixel=3),
    set_all(BitsAllocated=7),
    set_all(Rows=0),
    set_all(Rows=60000, Columns=60000),
    set_all(RescaleSlope=0),
    set_all(PixelSpacing=[0, 0]),
    set_all(SOPClassUID=UID_OF_HER),
    set_all(SOPClassUID=uids.SecondaryCaptureImageStorage),
    set_all(ImageType=["DERIVED", NAME, "MOSAIC"]),
    *map(lose, sorted(HEADER_KEYWORDS)),
    lose("PixelData"),
    lose("SpecificCharacterSet"),
]
TEXT_KEYWORDS = [
    *(
        "PatientName",
        "PatientID",
        "PatientComments",
        "StudyDescription",
        "SeriesDescription",
    ),
    *(
        "AccessionNumber",
        "InstitutionName",
        "ReferringPhysicianName",
        "SpecificCharacterSet",
    ),
]
PLANTED = sorted(
    HEADER_KEYWORDS
    | {*TEXT_KEYWORDS, "PixelRepresentation", "BitsStored", "HighBit"}
)


def read_in_every_way(folder: Path) -> None:
    for act in (
        lambda: read_image(folder),
        lambda: read_image(folder, resample_uneven=True),
        lambda: read_image(folder, volume=f"EchoTime {NAME}"),
        lambda: read_labels(folder),
    ):
        assert_nobody_is_named(act)
    _, skipped = find_series(folder)
    reasons = [each.reason for each in skipped]
    for file in folder.rglob("*"):
        header = read_header(file)
        if header is not None:
            reasons.append(header.exclusion)
            reasons.append(header.error.message if header.error else "")
    for reason in reasons:
        assert NAME not in reason
        assert BORN not in reason


@settings(max_examples=150, deadline=None)
@given(
    damage=st.sampled_from(DAMAGES),
    keywords=st.lists(st.sampled_from(PLANTED), max_size=2),
    vr=st.sampled_from([None, None, "LO", "UI", "SH"]),
    text=st.sampled_from([NAME, f"{NAME}\\{NAME}", f"1.2.{NAME}", UID_OF_HER]),
    slices=st.integers(1, 4),
)
def test_names_in_headers_stay_out_of_messages(
    tmp_path_factory, damage, keywords, vr, text, slices
):
    datasets = made.series(made.voxels((4, 3, 4)), PatientName=f"{NAME}^Erika")
    damage(datasets)
    for ds in datasets[:slices]:
        for keyword in keywords:
            if keyword in ds or not keyword.endswith("Sequence"):
                plant(ds, keyword, vr, text)
    folder = tmp_path_factory.mktemp("privacy") / NAME
    made.save(folder, datasets, prefix=f"{NAME}_{BORN}_")
    read_in_every_way(folder)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(0, 700), suffix=st.sampled_from(["", ".dcm"]))
def test_names_of_truncated_files_stay_out_of_messages(
    tmp_path_factory, size, suffix
):
    folder = tmp_path_factory.mktemp("cut") / NAME
    made.save(
        folder,
        made.series(made.voxels((4, 3, 4)), PatientName=NAME),
        prefix=NAME,
    )
    file = folder / f"{NAME}0001"
    content = file.read_bytes()
    file.unlink()
    file.with_suffix(suffix).write_bytes(content[:size])
    read_in_every_way(folder)


def test_names_of_links_and_folders_stay_out_of_messages(tmp_path):
    folder = made.save(tmp_path / NAME / BORN, made.series(), prefix=NAME)
    (folder / f"{NAME}.dcm").symlink_to(tmp_path / f"{NAME} {BORN}")
    read_in_every_way(folder)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / NAME).symlink_to(folder, target_is_directory=True)
    read_in_every_way(tmp_path / "links" / NAME)
    read_in_every_way(tmp_path / NAME / "nowhere")


def test_what_compressed_files_are_called_stays_out_of_messages(tmp_path):
    datasets = made.encoded(
        uids.RLELossless, [NAME.encode() * 20] * 4, PatientName=NAME
    )
    read_in_every_way(made.save(tmp_path / NAME, datasets, prefix=NAME))


def test_what_deflated_files_are_called_stays_out_of_messages(
    tmp_path, monkeypatch
):
    folder = made.save(
        tmp_path / NAME, made.series(PatientName=NAME), prefix=NAME
    )
    made.deflate(folder / f"{NAME}0000")
    monkeypatch.setattr(pixels, "MAX_HEADER_BYTES", 0)
    with pytest.raises(MedsegError, match="inflates to more"):
        read_image(folder)
    read_in_every_way(folder)


def overlap(ds: Dataset) -> None:
    if "ROIContourSequence" in ds:
        ds.ROIContourSequence[2].ContourSequence = ds.ROIContourSequence[
            0
        ].ContourSequence
    else:
        groups = ds.PerFrameFunctionalGroupsSequence
        groups[0].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2
        groups[0].PlanePositionSequence = groups[-1].PlanePositionSequence


def elsewhere(ds: Dataset) -> None:
    for item in ds.get("StructureSetROISequence", []):
        item.ReferencedFrameOfReferenceUID = UID_OF_HER
    if "SegmentSequence" in ds:
        ds.FrameOfReferenceUID = UID_OF_HER


def undescribed(ds: Dataset) -> None:
    if "SegmentSequence" in ds:
        ds.SegmentSequence = Sequence(list(ds.SegmentSequence)[1:])
    else:
        ds.StructureSetROISequence = Sequence(
            list(ds.StructureSetROISequence)[1:]
        )


def doubled_names(ds: Dataset) -> None:
    for item in ds.get("StructureSetROISequence", []):
        item.ROIName = NAME


def points_only(ds: Dataset) -> None:
    for item in ds.get("ROIContourSequence", []):
        for contour in item.get("ContourSequence", []):
            contour.ContourGeometricType = NAME


def far_away(ds: Dataset) -> None:
    for item in ds.get("ROIContourSequence", []):
        for contour in item.get("ContourSequence", []):
            contour.ContourData = [
                str(float(x) + 1000) for x in contour.ContourData
            ]


def planting(keyword: str) -> Callable[[Dataset], None]:
    def act(ds: Dataset) -> None:
        plant(ds, keyword)

    return act


@pytest.mark.parametrize(
    "damage",
    [
        lambda ds: None,
        overlap,
        elsewhere,
        undescribed,
        doubled_names,
        points_only,
        far_away,
        *map(
            planting,
            (
                "SegmentationType",
                "BitsAllocated",
                "SOPClassUID",
                "PixelPaddingValue",
            ),
        ),
        *map(
            planting,
            (
                "MaximumFractionalValue",
                "NumberOfFrames",
                "SpecificCharacterSet",
            ),
        ),
    ],
)
@pytest.mark.parametrize("write", [write_seg, write_rt])
def test_names_of_structures_stay_out_of_messages(tmp_path, write, damage):
    like = scan(tmp_path / "scan", PatientName=NAME)
    path = write(tmp_path / f"{NAME}.dcm", labels_in(like.shape), like)

    def rename(ds: Dataset) -> None:
        for number, item in enumerate(ds.get("SegmentSequence", [])):
            item.SegmentLabel = f"{NAME} {number}"
        for number, item in enumerate(ds.get("StructureSetROISequence", [])):
            item.ROIName = f"{NAME} {number}"

    edited(path, rename)
    edited(path, damage)
    moved = np.array(like.affine)
    moved[:3, 3] += 0.4 * moved[:3, 2]
    fewer = Volume(like.array[..., :2], like.affine)
    for scans in (like, fewer, Volume(like.array, moved)):
        for read in (read_dicom_seg, read_rtstruct):
            assert_nobody_is_named(
                lambda read=read, scans=scans: read(path, scans)
            )
            assert_nobody_is_named(
                lambda read=read, scans=scans: read(path, scans, [NAME])
            )
        assert_nobody_is_named(
            lambda scans=scans: read_structures(path, scans, [f"{NAME} 1"])
        )
    for look in (read_segment_names, read_rois, read_label_object):
        assert_nobody_is_named(lambda look=look: look(path))
    content = path.read_bytes()
    for size in range(0, len(content), 997):
        path.write_bytes(content[:size])
        assert_nobody_is_named(lambda: read_dicom_seg(path, like))
        assert_nobody_is_named(lambda: read_rtstruct(path, like))
        assert_nobody_is_named(lambda: read_label_object(path))


@pytest.mark.parametrize("write", [write_seg, write_rt])
def test_what_cannot_be_written_is_refused_without_a_name(tmp_path, write):
    like = scan(
        tmp_path / NAME, PatientName=NAME, SeriesInstanceUID=f"1.2.{NAME}"
    )
    assert_nobody_is_named(
        lambda: write(tmp_path / NAME, labels_in(like.shape), like)
    )
    like = scan(tmp_path / f"other {NAME}", PatientName=NAME)
    like.header.files[1].unlink()
    assert_nobody_is_named(
        lambda: write(tmp_path / NAME, labels_in(like.shape), like)
    )
    plain = Volume(like.array, like.affine, source=NAME)
    assert_nobody_is_named(
        lambda: write(tmp_path / NAME, labels_in(like.shape), plain)
    )


def test_the_person_at_the_terminal_sees_source_and_detail(tmp_path):
    datasets = made.series()
    plant(datasets[1], "Rows", "LO")
    folder = made.save(tmp_path / NAME, datasets)
    with pytest.raises(MedsegError) as caught:
        read_image(folder)
    assert NAME not in caught.value.message
    assert str(folder) in str(caught.value)
    assert NAME in (caught.value.detail or "")
    assert pydicom.dcmread(caught.value.source).Rows == NAME
