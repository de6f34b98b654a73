"""Slices at uneven distances, where interpolating them was asked for."""

from __future__ import annotations

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import dicom as made
from support.dicom import uneven
from support.studies import write_rt, write_seg

from medseg.errors import GeometryError
from medseg.io import read_image, write_labels


@settings(max_examples=40)
@given(
    gaps=st.lists(st.floats(0.4, 6), min_size=2, max_size=9).filter(
        lambda g: np.ptp(g) > 0.3
    ),
    shear=st.tuples(*[st.floats(-0.4, 0.4)] * 2),
    gradient=st.tuples(*[st.floats(-5, 5)] * 3),
)
def test_a_field_linear_in_place_stays_the_same_field(
    tmp_path_factory, gaps, shear, gradient
):
    folder = uneven(tmp_path_factory.mktemp("uneven"), gaps, shear, gradient)
    try:
        read_image(folder)
    except GeometryError as error:
        if "missing" in str(error):
            return  # looks like a lost slice, which nothing may replace
    volume = read_image(folder, resample_uneven=True)
    voxels = np.stack(
        [*np.indices(volume.shape), np.ones(volume.shape)]
    ).reshape(4, -1)
    places = (np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine @ voxels)[:3]
    field = (np.array(gradient) @ places).reshape(volume.shape)
    assert np.abs(volume.array[0] - field).max() < 2e-3
    assert volume.shape[2] <= 4 * (len(gaps) + 1)
    planes = volume.header.planes
    assert (planes[0], planes[-1]) == (0, volume.shape[2] - 1)
    starts = np.array(
        [pydicom.dcmread(f).ImagePositionPatient for f in volume.header.files],
        float,
    )
    ends = (
        volume.affine
        @ np.array([[0, 0, 0, 1], [0, 0, volume.shape[2] - 1, 1]]).T
    )
    assert np.allclose(ends[:3].T * [-1, -1, 1], starts[[0, -1]], atol=1e-4)


def test_uneven_slices_are_refused_unless_asked_for_and_said(tmp_path):
    folder = uneven(tmp_path, [1.0, 1.0, 1.5, 2.0, 3.0])
    with pytest.raises(
        GeometryError, match=r"varies from 1\.00 to 3\.00 mm.*--resample-uneven"
    ):
        read_image(folder)
    volume = read_image(folder, resample_uneven=True)
    assert volume.spacing[2] == pytest.approx(8.5 / 9)
    assert "6 slices lie at uneven distances" in volume.warnings[0]
    assert "10 planes, 0.94 mm apart" in volume.warnings[0]


def test_a_lost_or_stray_slice_is_refused_all_the_same(tmp_path):
    datasets = made.series(made.voxels((6, 5, 7)))
    del datasets[3]
    with pytest.raises(GeometryError, match="missing"):
        read_image(made.save(tmp_path / "lost", datasets), resample_uneven=True)
    datasets = made.series(made.voxels((6, 5, 7)))
    for k, ds in enumerate(datasets):
        made.move(ds, made.NORMAL * 0.1 * k**2 + made.ROWS * (k == 3))
    with pytest.raises(
        GeometryError, match="not parallel or not in a straight line"
    ):
        read_image(
            made.save(tmp_path / "stray", datasets), resample_uneven=True
        )


def test_even_slices_are_read_as_ever(tmp_path):
    folder = made.save(tmp_path, made.series())
    volume = read_image(folder, resample_uneven=True)
    assert np.array_equal(volume.array[0], made.voxels())
    assert volume.header.planes == ()


def test_dicom_results_lie_on_the_slices_and_nifti_on_the_grid(tmp_path):
    gaps = [1.0, 1.0, 1.5, 2.0, 3.0]
    volume = read_image(uneven(tmp_path / "scan", gaps), resample_uneven=True)
    labels = np.zeros(volume.shape, np.uint8)
    labels[1:4, 1:4, 2:8], labels[2:3, 2:3, 4:9] = 1, 2
    expected = labels[:, :, list(volume.header.planes)]
    write_seg(tmp_path / "a.dcm", labels, volume)
    seg = highdicom.seg.segread(tmp_path / "a.dcm")
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert "SpacingBetweenSlices" not in measures
    uids = list(volume.header.sop_uids)
    read = seg.get_pixels_by_source_instance(
        uids,
        combine_segments=True,
        ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )
    assert np.array_equal(read.transpose(2, 1, 0), expected)
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        k = uids.index(source.ReferencedSOPInstanceUID)
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(
            place, pydicom.dcmread(volume.header.files[k]).ImagePositionPatient
        )
    write_rt(tmp_path / "b.dcm", labels, volume)
    heights = {
        round(
            float(
                (
                    np.reshape(contour.ContourData, (-1, 3))[0].astype(float)
                    - made.ORIGIN
                )
                @ made.NORMAL
            ),
            3,
        )
        for structure in pydicom.dcmread(tmp_path / "b.dcm").ROIContourSequence
        for contour in structure.get("ContourSequence", [])
    }
    filled = np.flatnonzero(expected.any(axis=(0, 1)))
    assert heights == {float(np.cumsum([0, *gaps])[k]) for k in filled}
    write_labels(tmp_path / "c.nii.gz", labels, volume)
    assert read_image(tmp_path / "c.nii.gz").on_same_grid(volume, 1e-4)
