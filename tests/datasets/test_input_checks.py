"""What cannot be what the bundle was trained on is refused; what may be is flagged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.studies import a_series

from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Scan
from medseg.datasets.input_checks import admit, check_kind, check_volume
from medseg.errors import GeometryError, ScanError
from medseg.padding import Padding
from medseg.volume import Volume


def spec(
    *modalities: str, spacing=None, dims: int = 3, kind: str = "volume"
) -> BundleSpec:
    return parse_spec({
        "name": "b",
        "channels": [{"name": m.lower(), "modality": m} for m in modalities or ("OT",)],
        "labels": [{"index": 1, "name": "liver"}],
        "preprocessing": {"input": kind, "spacing_mm": spacing},
        "network": {"kind": "unet", "dims": dims, "channels": 8, "strides": [1, 2, 2]},
        "training": {"patch": [16] * dims},
    })  # fmt: skip


def volume(
    low: float,
    high: float,
    shape=(6, 7, 8),
    spacing=(1.0, 1.0, 1.0),
    channels=1,
) -> Volume:
    one = np.linspace(low, high, int(np.prod(shape)), dtype=np.float32).reshape(
        shape
    )
    return Volume(np.stack([one] * channels), np.diag([*spacing, 1.0]), "scan")


@pytest.mark.parametrize(
    ("modality", "low", "high", "said"),
    [
        ("CT", -1000, 500, None),
        ("CT", -201, 500, None),
        ("CT", -199, 500, "no air"),
        ("CT", 0, 4095, "no air"),
        ("CT", 0, 1, "no air"),
        ("MR", 0, 4095, None),
        ("MR", -20, 20, None),
        ("MR", -1024, 3000, "as CT has them in air"),
        ("MRI", -1024, 3000, "as CT has them in air"),
        ("OT", 0, 255, None),
        ("PT", 0, 9, None),
    ],
)
def test_intensities_that_a_modality_does_not_have_are_flagged(
    modality: str, low: float, high: float, said: str | None
) -> None:
    warnings = check_volume(volume(low, high), spec(modality))
    assert len(warnings) == (said is not None)
    assert said is None or said in warnings[0]


def test_a_volume_without_any_difference_is_refused() -> None:
    with pytest.raises(
        ScanError, match="has the value 7, so there is nothing to segment"
    ):
        check_volume(volume(7, 7), spec())


def test_a_scan_that_memory_does_not_hold_is_refused() -> None:
    # More than any machine can address, so that the first copy of it fails.
    huge = np.broadcast_to(np.float32(1), (1, *(200_000,) * 3))
    with pytest.raises(ScanError, match="not enough memory") as refused:
        check_volume(Volume(huge, np.eye(4), source="huge.nii"), spec())
    assert refused.value.source == "huge.nii"


def test_one_empty_channel_of_several_is_flagged() -> None:
    both = volume(0, 9, channels=2)
    both.array[1] = 3
    (warning,) = check_volume(both, spec("MR", "PT"))
    assert warning == "every voxel of the channel pt has the value 3"


@pytest.mark.parametrize("shape", [(20, 20, 1), (1, 20, 20), (20, 1, 20)])
def test_a_single_slice_is_nothing_for_a_3d_network(shape) -> None:
    with pytest.raises(
        GeometryError, match="a single slice, and the network is 3D"
    ):
        check_volume(volume(0, 9, shape), spec())
    assert check_volume(volume(0, 9, shape), spec(dims=2)) == ()


def test_lengths_in_another_unit_are_refused() -> None:
    for spacing in [(0.001,) * 3, (1000,) * 3, (0.09, 0.08, 0.09)]:
        with pytest.raises(
            GeometryError, match="check that its header gives lengths in mm"
        ):
            check_volume(volume(0, 9, spacing=spacing), spec(spacing=[1, 1, 1]))


def test_one_axis_far_off_is_flagged() -> None:
    (warning,) = check_volume(
        volume(0, 9, spacing=(1, 1, 12)), spec(spacing=[1, 1, 1])
    )
    assert (
        "has 1 × 1 × 12 mm per voxel, and the network sees 1 × 1 × 1 mm"
        in warning
    )
    assert not check_volume(
        volume(0, 9, spacing=(1, 1, 10)), spec(spacing=[1, 1, 1])
    )


def test_axes_are_compared_as_they_lie_in_the_patient() -> None:
    affine = np.zeros((4, 4))
    # R, A, S: j, k, i.
    affine[0, 1], affine[1, 2], affine[2, 0], affine[3, 3] = (
        0.05,
        -0.5,
        5.0,
        1,
    )
    turned = Volume(volume(0, 9).array, affine, "scan")
    assert check_volume(turned, spec(spacing=[0.05, 0.5, 5])) == ()
    assert len(check_volume(turned, spec(spacing=[5, 0.5, 0.05]))) == 1


def test_axes_whose_own_spacing_is_kept_are_not_compared() -> None:
    odd = volume(0, 9, spacing=(1, 1, 90))
    assert check_volume(odd, spec(spacing=[1, 1, None])) == ()
    assert check_volume(odd, spec(spacing=None)) == ()


def test_a_scan_too_large_on_the_networks_grid_is_refused_before_memory_is_taken() -> (
    None
):
    long = volume(0, 9, shape=(40, 40, 40), spacing=(1, 5000, 5000))
    with pytest.raises(GeometryError, match=r"at most 4e\+09 are processed"):
        check_volume(long, spec(spacing=[1, 1, 1]))


def scan(*names: str) -> Scan:
    return Scan("a", tuple((Path(name),) for name in names))


def test_pictures_and_volumes_are_not_mixed_up() -> None:
    with pytest.raises(
        ScanError, match="is a picture, and the bundle was trained on volumes"
    ):
        check_kind(scan("a.png"), spec())
    with pytest.raises(
        ScanError, match="is a volume, and the bundle was trained on pictures"
    ):
        check_kind(scan("a.nii.gz"), spec(dims=2, kind="picture"))
    check_kind(scan("a.TIFF"), spec(dims=2, kind="picture"))
    check_kind(scan("a.nii.gz", "b.nrrd"), spec("MR", "CT"))


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ("MR", True),
        ("mri ", True),
        ("OT", True),
        ("T1", True),
        ("CT", False),
        ("PET", False),
    ],
)
def test_the_dicom_header_must_name_the_channels_modality(
    wanted: str, fits: bool, shared_data: Path
) -> None:
    folder = shared_data / "dicom_brain_mr_oblique/Study3/T1post"
    series = Scan("a", (tuple(sorted(folder.iterdir())),))
    if fits:
        check_kind(series, spec(wanted))
    else:
        with pytest.raises(
            ScanError,
            match="is MR by its DICOM header, and the bundle's channel",
        ):
            check_kind(series, spec(wanted))


def test_every_channels_modality_is_checked(tmp_path: Path) -> None:
    for modality in ("CT", "MR"):
        a_series(tmp_path / modality, modality, Modality=modality)
    parts = tuple(
        tuple(sorted((tmp_path / modality).iterdir()))
        for modality in ("CT", "MR")
    )
    check_kind(Scan("a", parts), spec("CT", "MR"))
    with pytest.raises(
        ScanError,
        match="is MR by its DICOM header, and the bundle's channel pt",
    ):
        check_kind(Scan("a", parts), spec("CT", "PT"))
    # One file may hold all channels; its header then speaks for the first.
    check_kind(Scan("a", parts[:1]), spec("CT", "PT"))


def ct(*parts: tuple[float, float]) -> Volume:
    """A CT of so many thousandths of each value; the rest is 0."""
    voxels = np.zeros(20_000, np.float32)
    first = 0
    for value, thousandths in parts:
        behind = first + int(20 * thousandths)
        voxels[first:behind] = value
        first = behind
    array = voxels.reshape(1, 20, 20, 50)
    return Volume(array, np.diag([5.0, 5.0, 5.0, 1.0]))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([(-1000, 500), (40, 500)], None),
        ([(-1000, 2), (40, 998)], None),
        # Shifted by 1024, with one stray voxel, and with corners that pad the field of view.
        ([(24, 500), (1064, 499.95), (-1000, 0.05)], "no air"),
        ([(24, 400), (1064, 400), (-2000, 200)], "no air"),
        # Masked outside of the skull; twice shifted; scaled to 0…1.
        ([(-2048, 600), (35, 380), (900, 15)], None),
        ([(-2024, 500), (-984, 499.95), (50, 0.05)], "nothing denser than air"),
        ([(0.2, 500), (0.6, 500)], "no air"),
    ],
)
def test_a_ct_is_known_by_the_share_of_its_air(
    parts: list[tuple[float, float]], said: str | None
) -> None:
    warnings = check_volume(ct(*parts), spec("CT"))
    assert len(warnings) == (said is not None)
    assert said is None or said in warnings[0]


def test_one_stray_voxel_makes_no_ct_of_an_mr() -> None:
    assert check_volume(ct((200, 500), (-1024, 0.05)), spec("MR")) == ()


@pytest.mark.parametrize("spacing", [0.001, 1000])
def test_a_scan_that_measures_no_patient_is_flagged_whatever_the_bundles_grid(
    spacing: float,
) -> None:
    odd = volume(-1000, 500, spacing=[spacing] * 3)
    (warning,) = check_volume(odd, spec("CT"))
    assert "m in all; check that its header gives lengths in mm" in warning
    assert check_volume(odd, spec("OT")) == ()


def test_a_volume_says_of_itself_what_its_file_said() -> None:
    scan = volume(0, 9)
    with pytest.raises(ScanError, match="is MR by its DICOM header"):
        check_volume(replace(scan, modalities=("MR",)), spec("CT"))
    with pytest.raises(ScanError, match="bundle's channel pt is PT"):
        check_volume(
            replace(volume(0, 9, channels=2), modalities=("", "MR")),
            spec("CT", "PT"),
        )
    with pytest.raises(ScanError, match="is a picture"):
        check_volume(replace(scan, is_picture=True), spec())
    pictures = spec(dims=2, kind="picture")
    with pytest.raises(ScanError, match="is a volume"):
        check_volume(scan, pictures)
    slab = volume(0, 9, (20, 20, 1))
    assert check_volume(slab, pictures) == ()
    with pytest.raises(ScanError, match="is a volume"):
        check_volume(replace(slab, is_picture=False), pictures)


def test_doubts_join_what_the_reader_noticed() -> None:
    scan = replace(ct((0.5, 500)), warnings=("a slice was missing",))
    first, second = admit(scan, spec("CT")).warnings
    assert first == "a slice was missing"
    assert "no air" in second


def padded(scan: Volume, value: float, thousandths: float) -> Volume:
    """Return a volume of which the last voxels are padding with a value."""
    array = scan.array.copy()
    is_padding = np.zeros(array.size, bool)
    is_padding[-int(20 * thousandths) :] = True
    array.reshape(-1)[is_padding] = value
    mask = is_padding.reshape(array.shape)
    return replace(scan, array=array, padding=Padding.from_mask(mask))


def test_a_scan_of_negative_zeros_is_called_one_of_zeros() -> None:
    scan = ct()
    zeros = replace(scan, array=np.full_like(scan.array, -0.0))
    with pytest.raises(ScanError, match="has the value 0, so"):
        check_volume(zeros, spec("CT"))


def test_padding_is_no_part_of_what_an_image_shows() -> None:
    # All that is shown has one value.
    with pytest.raises(ScanError, match="every voxel has the value 0"):
        check_volume(padded(ct(), -1024, 300), spec("CT"))
    # Values of air in an MR, but for its padding.
    assert check_volume(padded(ct((200, 500)), -1024, 300), spec("MR")) == ()
    # Of what is shown, nothing is denser than air.
    air = padded(ct((-1000, 500), (-990, 500)), -1024, 300)
    (warning,) = check_volume(air, spec("CT"))
    assert "nothing denser than air" in warning


def test_padding_that_a_reader_made_air_speaks_for_hounsfield_units() -> None:
    cut_out = ct((-60, 300), (40, 400), (900, 100))
    assert check_volume(padded(cut_out, -1024, 200), spec("CT")) == ()
    shifted = ct((964, 300), (1064, 400))
    (warning,) = check_volume(padded(shifted, 964, 200), spec("CT"))
    assert "no air" in warning
