"""A bundle with nnU-Net's fields gives the label maps of nnU-Net's definition, on the scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from support import nnunet_definition as nnunet
from support.bundles import made_spec
from torch.nn import functional

from medseg.bundle.spec import BundleSpec
from medseg.inference.bundle_predictor import Ensemble
from medseg.inference.sliding_window import SlidingWindow
from medseg.inference.sliding_window_pass import SlidingWindowPass
from medseg.volume import Affine, Array, Volume

Network = Callable[[torch.Tensor], torch.Tensor]
SIZE = (16, 12, 8)


def as_nnunet(spacing_mm: Any, dims: int = 3) -> BundleSpec:
    """Return a bundle that does what nnU-Net does around its network."""
    return made_spec(
        preprocessing={
            "axes": "ijk",
            "spacing_mm": spacing_mm,
            "normalise": "before_resampling",
            "crop_nonzero": True,
            "padding": "zero",
            "resampling": {
                "interpolation": "cubic",
                "grid": "extent",
                "coarse_axis_ratio": 3,
            },
        },
        network={"dims": dims},
        training={"patch": list(SIZE[:dims])},
        inference={"window_steps": "even", "window_weights": "nnunet"},
    )


def make_network(dims: int) -> Network:
    """See neighbours, the window's border and the side it is on: every position counts."""
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(3, 1, *[3] * dims, generator=generator).double()
    conv = functional.conv3d if dims == 3 else functional.conv2d

    def network(windows: torch.Tensor) -> torch.Tensor:
        scores = conv(windows.double(), weights, padding=1)
        tilt = torch.linspace(-1, 1, windows.shape[2]).double()
        scores += tilt.view(-1, *[1] * (dims - 1))
        return scores.to(windows.dtype)

    return network


def segment(spec: BundleSpec, scan: Volume, network: Network) -> Array:
    setup = SlidingWindow(spec, torch.device("cpu"))
    scan_pass = SlidingWindowPass(setup, setup.plan(scan))
    while corners := scan_pass.next_corners():
        windows = scan_pass.cut(corners)
        if spec.network.dims == 2:
            scores = network(windows.squeeze(-1)).unsqueeze(-1)
        else:
            scores = network(windows)
        scan_pass.add(corners, scores)
    return scan_pass.finish().labels


def make_scan(shape: tuple[int, int, int], affine: Affine) -> Volume:
    rng = np.random.default_rng(sum(shape))
    array = np.zeros((1, *shape), np.float32)
    inside = (slice(2, -1), slice(1, -2), slice(1, None))
    noise = gaussian_filter(rng.normal(0, 1, array[0][inside].shape), 1.5)
    array[0][inside] = noise / noise.std() * 150 + 40
    return Volume(np.asfortranarray(array), affine, source="scan")


def turned(*spacing: float) -> Affine:
    affine: Affine = np.eye(4)
    turn = Rotation.from_euler("xyz", (10, -25, 40), degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.diag(spacing)
    return affine


CASES: dict[str, tuple[tuple[int, int, int], Affine, Any, int]] = {
    "as it is": ((33, 27, 19), np.diag([1.0, 1, 1, 1]), None, 3),
    "flipped, finer": ((20, 18, 15), np.diag([-1.5, 1.5, 2, 1]), [1, 1, 1], 3),
    "oblique, coarser": ((33, 40, 25), turned(0.6, 0.6, 1.1), [1, 0.9, 1.3], 3),
    "coarse slices": ((30, 26, 9), turned(0.7, 0.7, 5), [1, 1, 4], 3),
    "a coarse first axis": (
        (7, 26, 21),
        np.diag([6.0, 1, 1, 1]),
        [2, 1.2, 1],
        3,
    ),
    "smaller than a window": (
        (12, 11, 7),
        np.diag([1.0, 1, 1.2, 1]),
        [1, 1, 1],
        3,
    ),
    "in slices": ((33, 27, 6), np.diag([0.8, 0.8, 3, 1]), [1, 1, None], 2),
}


@pytest.mark.parametrize("name", CASES)
def test_label_maps_are_those_of_the_definition(name: str) -> None:
    shape, affine, spacing_mm, dims = CASES[name]
    spec = as_nnunet(spacing_mm, dims)
    scan = make_scan(shape, affine)
    network = make_network(dims)

    def as_arrays(window: nnunet.Floats) -> nnunet.Floats:
        tensor = torch.from_numpy(window)[None]
        if dims == 2:
            scores = network(tensor.squeeze(-1)).unsqueeze(-1)
        else:
            scores = network(tensor)
        return scores[0].numpy()

    labels, lead = nnunet.segment(
        scan.array,
        [round(float(mm), 6) for mm in scan.spacing],
        spacing_mm or [None] * 3,
        [nnunet.standardise],
        SIZE if dims == 3 else (*SIZE[:2], 1),
        as_arrays,
    )
    got = segment(spec, scan, network)
    assert got.shape == scan.shape
    assert len(np.unique(got)) == 3
    differ = got != labels
    # Only where two labels are as good as equal: weights have half precision, as in nnU-Net's code.
    assert not differ[lead > 1e-2].any()
    assert differ.mean() < 1e-3


def test_mirroring_flips_the_axes_of_the_bundle_in_all_combinations() -> None:
    flips = []

    class Recorder:
        precision = torch.float32

        def __call__(self, windows: torch.Tensor) -> torch.Tensor:
            flips.append(tuple(windows.flatten()[[0, -1]].tolist()))
            return windows.clone()

    spec = as_nnunet(None)
    inference = {"mirror": True, "mirror_axes": [0, 2]}
    spec = made_spec(inference=inference)
    ensemble = Ensemble([Recorder()], 3, spec.mirror_axes)  # type: ignore[list-item]
    windows = torch.arange(8.0).view(1, 1, 2, 2, 2)
    assert torch.equal(ensemble(windows), windows)
    assert sorted(flips) == [(0, 7), (1, 6), (4, 3), (5, 2)]


def test_axes_of_training_are_mirrored_where_inference_names_none() -> None:
    training = {"augmentation": {"mirror_axes": [1, 2]}}
    assert made_spec(training=training).mirror_axes == (1, 2)
    none = {"mirror_axes": []}
    assert made_spec(training=training, inference=none).mirror_axes == ()
    flat = made_spec(
        network={"dims": 2}, training={**training, "patch": [16, 16]}
    )
    assert flat.mirror_axes == (1,)
