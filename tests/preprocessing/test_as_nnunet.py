"""A bundle with nnU-Net's fields sees what nnU-Net's definition says, and answers on the scan."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from support import nnunet_definition as nnunet
from support.bundles import made_spec

from medseg.bundle.spec import BundleSpec
from medseg.preprocessing.case_input import Preprocessing
from medseg.preprocessing.grid import compute_network_grid
from medseg.preprocessing.network_input import NetworkInput
from medseg.preprocessing.transforms import IMAGE, LABEL
from medseg.volume import Affine, Array, Volume

WINDOW = {"kind": "window", "low": -90, "high": 300, "mean": 40, "std": 60}
SCHEMES: dict[str, tuple[Any, nnunet.Scheme]] = {
    "CT": (WINDOW, nnunet.ct(-90, 300, 40, 60)),
    "ZScore": ("zscore", nnunet.standardise),
    "ZScore within the mask": (
        {"kind": "zscore", "nonzero": "filled"},
        nnunet.standardise_within,
    ),
    "RescaleTo01": ("minmax", lambda x, _: (x - x.min()) / np.ptp(x)),
    "NoNormalization": ("none", lambda x, _: x),
}


def as_nnunet(
    spacing_mm: Any, intensity: Any, channels: int = 1, axes: str = "ijk"
) -> BundleSpec:
    """Return a bundle that does what nnU-Net does before its network."""
    return made_spec(
        channels=[{"name": f"c{number}"} for number in range(channels)],
        preprocessing={
            "axes": axes,
            "spacing_mm": spacing_mm,
            "intensity": intensity,
            "normalise": "before_resampling",
            "crop_nonzero": True,
            "padding": "zero",
            "resampling": {
                "interpolation": "cubic",
                "grid": "extent",
                "coarse_axis_ratio": 3,
            },
        },
    )


def make_scan(
    shape: tuple[int, ...], affine: Affine, channels: int = 1, border: int = 2
) -> Volume:
    """Return smooth intensities with a hole of zeros inside and zeros around them."""
    rng = np.random.default_rng(sum(shape))
    array = np.zeros((channels, *shape), np.float32)
    inside = tuple(
        slice(min(border, n // 3), n - min(border, n // 4)) for n in shape
    )
    for channel in array:
        size = channel[inside].shape
        noise = gaussian_filter(rng.normal(0, 1, size), 1)
        channel[inside] = noise / max(noise.std(), 1e-6) * 150 + 100
    middle = tuple(slice(n // 2, n // 2 + 1 + n // 8) for n in shape)
    array[(slice(None), *middle)] = 0
    return Volume(np.asfortranarray(array), affine, source="scan")


@st.composite
def affines(draw: Any) -> Affine:
    """Flipped, permuted, oblique and anisotropic ones."""
    spacing = [
        draw(st.sampled_from([0.5, 0.7, 1.0, 1.25, 2.0, 5.0])) for _ in "ijk"
    ]
    turn = np.eye(3)[list(draw(st.permutations([0, 1, 2])))]
    flips = np.diag([draw(st.sampled_from([-1, 1])) for _ in "ijk"])
    angles = draw(st.tuples(*[st.sampled_from([0.0, 0.0, 7.0, -31.0])] * 3))
    oblique = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine: Affine = np.eye(4)
    affine[:3, :3] = oblique @ turn @ flips @ np.diag(spacing)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-200, 200)] * 3))
    return affine


def stated_spacing(affine: Affine) -> list[float]:
    """Return the voxel size as the header says it."""
    return [
        round(float(mm), 6) for mm in np.linalg.norm(affine[:3, :3], axis=0)
    ]


@settings(max_examples=40, deadline=None)
@given(
    affines(),
    st.tuples(*[st.integers(5, 26)] * 3),
    st.tuples(*[st.sampled_from([None, 0.6, 1.0, 1.5, 3.0, 6.5])] * 3),
    st.sampled_from(sorted(SCHEMES)),
    st.integers(1, 2),
)
def test_the_network_sees_what_the_definition_says(
    affine: Affine,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float | None, ...],
    scheme: str,
    channels: int,
) -> None:
    intensity, defined = SCHEMES[scheme]
    spec = as_nnunet(spacing_mm, intensity, channels)
    scan = make_scan(shape, affine, channels)
    wanted, box, _ = nnunet.preprocess(
        scan.array, stated_spacing(affine), spacing_mm, [defined] * channels
    )
    grid = compute_network_grid(scan, spec.preprocessing)
    got = NetworkInput(spec)(scan, grid).numpy()
    assert grid.box == box
    assert got.shape == wanted.shape
    scale = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(got, wanted, atol=2e-5 * scale)


def test_training_sees_the_same_and_labels_move_with_their_voxels() -> None:
    affine = np.diag([-0.8, 0.8, 4.0, 1.0])
    spec = as_nnunet([1.0, 1.0, 4.0], "zscore")
    scan = make_scan((24, 20, 9), affine)
    label: Array = (scan.array[0] > 150).astype(np.uint8)
    example = Preprocessing(spec, with_label=True)(scan, label)
    grid = compute_network_grid(scan, spec.preprocessing)
    assert np.array_equal(
        example[IMAGE].numpy(), NetworkInput(spec)(scan, grid).numpy()
    )
    moved = example[LABEL].numpy()[0]
    assert moved.shape == grid.shape
    assert abs(moved.mean() - grid.crop(label[None]).mean()) < 0.02
    # Voxels of the network's grid lie where its affine says.
    middle = np.array([*np.array(grid.shape) / 2 - 0.5, 1])
    box_middle = [(part.start + part.stop - 1) / 2 for part in grid.box]
    np.testing.assert_allclose(
        example[IMAGE].affine.numpy() @ middle, affine @ [*box_middle, 1]
    )


@pytest.mark.parametrize("axes", ["ijk", "jki", "kji", "LPS", "SAR"])
def test_axes_are_stored_ones_or_directions_in_the_patient(axes: str) -> None:
    affine = np.array(
        [[0, 0, 1.5, 0], [-1.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, 1]]
    )
    spec = as_nnunet(None, "none", axes=axes)
    scan = make_scan((7, 9, 11), affine, border=0)
    grid = compute_network_grid(scan, spec.preprocessing)
    seen = NetworkInput(spec)(scan, grid).numpy()[0]
    if axes.isupper():
        assert "".join(nib.aff2axcodes(grid.affine)) == axes
    else:
        order = ["ijk".index(axis) for axis in axes]
        assert np.array_equal(seen, scan.array[0].transpose(order))
    # Each voxel is where it was in the patient.
    place = np.unravel_index(seen.argmax(), seen.shape)
    stored = np.unravel_index(scan.array[0].argmax(), scan.shape)
    np.testing.assert_allclose(grid.affine @ [*place, 1], affine @ [*stored, 1])


@pytest.mark.parametrize(
    ("own", "seen"),
    [(1.0, 1.0), (1.2, 1.2), (0.76, 0.76), (1.3, 1.0), (0.7, 1.0)],
)
@pytest.mark.parametrize("resampling", [{}, {"grid": "extent"}])
def test_a_spacing_near_enough_is_left_alone(
    own: float, seen: float, resampling: dict[str, Any]
) -> None:
    spec = made_spec(
        preprocessing={
            "spacing_mm": [1, 1, 1],
            "resampling": {"tolerance": 0.25, **resampling},
        }
    )
    scan = make_scan((20, 20, 20), np.diag([own, 1, 1, 1.0]), border=0)
    grid = compute_network_grid(scan, spec.preprocessing)
    spacing = np.linalg.norm(grid.affine[:3, :3], axis=0)
    np.testing.assert_allclose(spacing, [seen, 1, 1], rtol=0.03)
    stock = Preprocessing(spec).chain if not resampling else None
    if stock is not None:
        image = Preprocessing(spec)(scan)[IMAGE]
        assert image.shape[1:] == grid.shape


@pytest.mark.parametrize("noise", [0, 6e-8, -6e-8])
def test_a_half_voxel_rounds_as_the_header_says(noise: float) -> None:
    spec = as_nnunet([2.0, 2.0, 2.0], "none")
    scan = make_scan((9, 11, 13), np.diag([*[1.0 + noise] * 3, 1]), border=0)
    grid = compute_network_grid(scan, spec.preprocessing)
    assert grid.shape == (4, 6, 6)  # 4.5, 5.5 and 6.5, halves to even
