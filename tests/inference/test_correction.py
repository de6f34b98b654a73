"""A click changes what lies around it, at the very place that was clicked, and nothing else."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from support.bundles import made_spec, trained_bundle
from support.scans import TURNED, affine_of

from medseg.bundle.spec import BundleSpec
from medseg.errors import MedsegError, ScanError
from medseg.inference.backends.openvino import CompiledMember
from medseg.inference.correction import Correction
from medseg.inference.segmenter import Segmenter
from medseg.testing import make_phantom
from medseg.volume import Array, Volume

CPU = torch.device("cpu")
SHAPE = (20, 26, 17)
INSIDE, OUTSIDE, MASK = -3, -2, -1
"""Channels of a window, from its end."""


def spec_of(**sections: Any) -> BundleSpec:
    training = {"patch": [16, 16, 16], "clicks": {"sigma": 1.5}}
    return made_spec(**{"training": training, **sections})


def answering(channel: int, label: int = 1) -> Any:
    """Return a network that finds a label where it sees the given channel above one half."""

    def compute(windows: torch.Tensor) -> torch.Tensor:
        seen = windows[:, channel]
        scores = torch.zeros(len(windows), 3, *seen.shape[1:])
        scores[:, label] = seen - 0.5
        return scores

    return compute


def correction_of(
    scan: Volume, compute: Any, spec: BundleSpec | None = None
) -> Correction:
    return Correction(scan, spec or spec_of(), compute, CPU)


def scan_on(affine: Any, shape: tuple[int, ...] = SHAPE) -> Volume:
    voxels = np.random.default_rng(0).normal(0, 100, (1, *shape))
    return Volume(voxels.astype(np.float32), affine)


def empty(scan: Volume) -> Array:
    return np.zeros(scan.shape, np.uint8)


def middle_mm(mask: Array, scan: Volume) -> Any:
    middle = np.argwhere(mask).mean(axis=0)
    return scan.affine[:3, :3] @ middle + scan.affine[:3, 3]


PERMUTED = np.array(
    [[0, 0, -2.5, 9], [1.2, 0, 0, -4], [0, 0.9, 0, 7], [0, 0, 0, 1]]
)
SHEARED = np.array(
    [[1, 0, 0.2, 0], [0, 1.3, 0, 0], [0, 0.1, 2, 0], [0, 0, 0, 1]]
)


@pytest.mark.parametrize("grid", ["spacing", "extent"])
@pytest.mark.parametrize(
    "affine",
    [
        affine_of((1.0, 1.0, 1.0)),
        affine_of((0.8, 1.4, 2.2), flips=(0, 2)),
        affine_of((1.1, 0.7, 1.9), TURNED, flips=(1,)),
        PERMUTED,
        SHEARED,
    ],
    ids=["plain", "flipped", "oblique", "permuted", "sheared"],
)
def test_the_network_sees_a_click_where_it_was_made(
    affine: Any, grid: str
) -> None:
    scan = scan_on(affine)
    preprocessing = {"spacing_mm": [1, 1, 1], "resampling": {"grid": grid}}
    spec = spec_of(preprocessing=preprocessing)
    correction = correction_of(scan, answering(INSIDE), spec)
    click = (9, 12, 8)
    corrected = correction.correct(empty(scan), 1, inside=[click])
    clicked_mm = scan.affine[:3, :3] @ click + scan.affine[:3, 3]
    middle = middle_mm(corrected == 1, scan)
    # The label map is a ball of 1.8 mm about the click, cut into voxels.
    assert np.linalg.norm(middle - clicked_mm) < 0.5 * min(scan.spacing)
    volume = (corrected == 1).sum() * scan.voxel_ml * 1000
    assert volume == pytest.approx(4 / 3 * np.pi * 1.77**3, rel=0.45)
    in_mm = correction.correct(
        empty(scan), 1, inside=[clicked_mm.tolist()], space="ras"
    )
    assert np.array_equal(in_mm, corrected)


@settings(max_examples=15)
@given(
    turn=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.6, 3)] * 3),
    click=st.tuples(*[st.floats(0, 0.999)] * 3),
    flips=st.sets(st.integers(0, 2)),
)
def test_a_click_keeps_its_place_on_any_grid(
    turn: Any, spacing: Any, click: Any, flips: Any
) -> None:
    rotation = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    scan = scan_on(affine_of(spacing, rotation, sorted(flips)))
    spec = spec_of(preprocessing={"spacing_mm": [1.5, 1, 2]})
    correction = correction_of(scan, answering(INSIDE), spec)
    voxel = tuple(
        int(part * size) for part, size in zip(click, SHAPE, strict=True)
    )
    mask = np.full(scan.shape, 2, np.uint8)
    corrected = correction.correct(mask, "liver", inside=[voxel])
    assert corrected[voxel] == 1
    changed = np.argwhere(corrected != mask)
    # What changed lies about the click: at most as far as the Gaussian is above one half, in the
    # voxels of the network's grid, and a voxel of the scan.
    far = (changed - voxel) @ np.diag(scan.spacing)
    assert np.linalg.norm(far, axis=1).max() <= 1.77 * 2 + max(scan.spacing)


def test_only_the_window_around_a_click_is_computed_and_changes() -> None:
    scan = scan_on(affine_of((1.0, 1.0, 1.0)), (48, 40, 44))
    seen = []

    def everywhere(windows: torch.Tensor) -> torch.Tensor:
        seen.append(windows.shape)
        scores = torch.zeros(1, 3, *windows.shape[2:])
        scores[:, 1] = 1
        return scores

    mask = np.random.default_rng(1).integers(0, 3, scan.shape).astype(np.uint8)
    given = mask.copy()
    correction = correction_of(scan, everywhere)
    corrected = correction.correct(mask, 1, inside=[(24, 20, 22)])
    assert np.array_equal(mask, given)
    assert seen == [(1, 4, 16, 16, 16)]
    window = np.zeros(scan.shape, bool)
    window[16:32, 12:28, 14:30] = True
    assert np.array_equal(corrected[~window], mask[~window])
    edge = window.copy()
    edge[18:30, 14:26, 16:28] = False
    assert np.array_equal(corrected[edge], mask[edge])
    assert (corrected[window & ~edge] == 1).all()
    # Where the scan ends, there is no edge to spare.
    at_corner = correction.correct(mask, 1, inside=[(0, 0, 0)])
    assert (at_corner[:14, :14, :14] == 1).all()


def test_clicks_far_apart_get_windows_of_their_own_and_near_ones_share() -> (
    None
):
    scan = scan_on(affine_of((1.0, 1.0, 1.0)), (60, 20, 20))
    windows = []

    def compute(given: torch.Tensor) -> torch.Tensor:
        windows.append(given)
        return answering(INSIDE)(given)

    correction = correction_of(scan, compute)
    clicks = [(8, 10, 10), (9, 12, 10), (50, 10, 10)]
    correction.correct(empty(scan), 1, inside=clicks)
    assert len(windows) == 2
    assert windows[0][0, INSIDE].amax((1, 2)).gt(0.99).sum() == 2
    windows.clear()
    correction.correct(empty(scan), 1, inside=clicks, around=[clicks[2]])
    assert len(windows) == 1


def test_one_label_takes_from_others_and_what_it_gives_up_is_what_is_found() -> (
    None
):
    scan = scan_on(affine_of((1.0, 1.0, 1.0)), (16, 16, 16))

    def compute(windows: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(1, 3, 16, 16, 16)
        scores[:, 1, :6] = 1
        scores[:, 2, 6:12] = 1
        return scores

    mask = empty(scan)
    mask[:, :8] = 1
    mask[:, 8:] = 2
    mask[:, :, 0] = 0
    corrected = correction_of(scan, compute).correct(
        mask, "liver", inside=[(2, 2, 2)]
    )
    assert (corrected[:6] == 1).all()
    assert (corrected[6:12, :8, 1:] == 2).all()
    assert (corrected[12:, :8, 1:] == 0).all()
    # Of the other label nothing was asked: neither what it lost nor what it would gain.
    assert (corrected[6:, 8:, 1:] == 2).all()
    assert (corrected[6:, :, 0] == 0).all()


def test_a_voxel_that_was_clicked_on_is_what_the_click_says() -> None:
    scan = scan_on(affine_of((1.0, 1.0, 1.0)), (40, 16, 16))

    def stubborn(windows: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(1, 3, *windows.shape[2:])
        scores[:, 1] = -5
        scores[:, 2] = 5
        return scores

    mask = np.full(scan.shape, 1, np.uint8)
    corrected = correction_of(scan, stubborn).correct(
        mask, 1, [(3, 3, 3)], [(4, 4, 4), (38, 8, 8)], around=[(3, 3, 3)]
    )
    assert corrected[3, 3, 3] == 1
    assert corrected[4, 4, 4] == 2
    # This one lies in no window; all that is known is what it is not.
    assert corrected[38, 8, 8] == 0


def test_the_network_sees_the_mask_of_the_label_alone() -> None:
    affine = affine_of((1.3, 0.8, 2.0), TURNED, flips=(0,))
    scan = scan_on(affine, (14, 20, 9))
    mask = empty(scan)
    mask[4:9, 6:14, 3:6] = 2
    mask[4:9, 15:17, 3:6] = 1
    spec = spec_of(preprocessing={"spacing_mm": [0.8, 0.8, 0.8]})
    spec = spec.model_copy(
        update={
            "training": spec.training.model_copy(update={"patch": (32, 32, 32)})
        }
    )
    correction = correction_of(scan, answering(MASK, label=2), spec)
    corrected = correction.correct(mask, "kidney", inside=[(6, 9, 4)])
    assert (corrected != mask).mean() < 0.02
    assert np.array_equal(corrected == 1, mask == 1)


def test_a_slice_sees_the_clicks_in_it_alone() -> None:
    flat = {"dims": 2, "kind": "unet", "channels": [4, 8, 8]}
    spec = spec_of(
        network=flat | {"strides": [1, 2, 2]},
        training={"patch": [16, 16], "clicks": {}},
    )
    scan = scan_on(affine_of((1.0, 1.0, 4.0)), (20, 18, 6))
    sizes = []

    def compute(windows: torch.Tensor) -> torch.Tensor:
        sizes.append(windows.shape)
        return answering(INSIDE)(windows)

    correction = correction_of(scan, compute, spec)
    clicks = [(9, 8, 2), (4, 8, 3)]
    corrected = correction.correct(
        empty(scan), 1, inside=clicks, around=clicks[:1]
    )
    assert sizes == [(1, 4, 16, 16, 1)]
    assert (corrected[..., 2] == 1).sum() > 9
    assert corrected[4, 8, 2] == 0
    assert (corrected[..., 3] == 1).sum() == 1  # the voxel clicked on


def test_a_click_where_the_network_does_not_look_is_refused() -> None:
    voxels = np.full((1, 20, 20, 20), -1000, np.float32)
    voxels[:, 5:15, 5:15, 5:15] = 100
    scan = Volume(voxels, np.eye(4))
    spec = spec_of(preprocessing={"crop_above": 0})
    correction = correction_of(scan, answering(INSIDE), spec)
    corrected = correction.correct(empty(scan), 1, inside=[(6, 7, 8)])
    assert np.argwhere(corrected).mean(axis=0) == pytest.approx(
        [6, 7, 8], abs=0.6
    )
    with pytest.raises(ScanError, match=r"preprocessing\.crop_above"):
        correction.correct(empty(scan), 1, inside=[(1, 7, 8)])


def test_scores_that_are_no_numbers_are_an_error() -> None:
    scan = scan_on(np.eye(4))

    def broken(windows: torch.Tensor) -> torch.Tensor:
        return torch.full((1, 3, *windows.shape[2:]), torch.nan)

    with pytest.raises(MedsegError, match="returns no numbers"):
        correction_of(scan, broken).correct(empty(scan), 1, inside=[(3, 3, 3)])


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    folder = trained_bundle(tmp_path_factory.mktemp("bundle"), spec_of())
    return Segmenter(folder, device="cpu")


def test_a_correction_says_what_a_segmentation_says(
    segmenter: Segmenter,
) -> None:
    scan, _ = make_phantom(0, shape=(24, 20, 16), spacing=9.0)
    found = segmenter.segment(scan)
    corrected = segmenter.correct(
        scan, found.labels, "kidney", inside=[(12, 9, 7)], outside=[(3, 3, 3)]
    )
    assert corrected.labels[12, 9, 7] == 2
    assert corrected.labels[3, 3, 3] != 2
    kidney = (corrected.labels == 2).sum() * scan.voxel_ml
    assert corrected.volumes_ml["kidney"] == pytest.approx(kidney)
    assert corrected.quality.expected is None
    assert corrected.to_nibabel().shape == scan.shape


def test_without_clicks_nothing_changes(segmenter: Segmenter) -> None:
    scan, _ = make_phantom(1, shape=(24, 20, 16), spacing=9.0)
    mask = segmenter.segment(scan).labels
    assert np.array_equal(segmenter.correct(scan, mask, 1).labels, mask)


def test_a_bundle_that_takes_no_clicks_says_how_one_is_made(
    tmp_path: Path,
) -> None:
    segmenter = Segmenter(trained_bundle(tmp_path, made_spec()), device="cpu")
    scan, _ = make_phantom(0, shape=(24, 20, 16), spacing=9.0)
    with pytest.raises(MedsegError, match="--from BUNDLE"):
        segmenter.begin_correction(scan)


def test_labels_that_the_bundle_does_not_have_are_refused(
    segmenter: Segmenter,
) -> None:
    scan, _ = make_phantom(0, shape=(24, 20, 16), spacing=9.0)
    for label in ("spleen", 0, 3, True, "1"):
        with pytest.raises(ScanError, match="this bundle has liver, kidney"):
            segmenter.correct(scan, empty(scan), label, inside=[(3, 3, 3)])
    with pytest.raises(ScanError, match="hold values from 0 to 7"):
        segmenter.correct(scan, np.full(scan.shape, 7) * (scan.array[0] > 0), 1)
    with pytest.raises(ScanError, match="both must lie on one grid"):
        segmenter.correct(scan, np.zeros((3, 3, 3), np.uint8), 1)


def test_clicks_are_answered_by_one_network_compiled_once_without_flips(
    tmp_path: Path,
) -> None:
    pytest.importorskip("openvino")
    spec = spec_of(inference={"mirror": True, "mirror_axes": [0, 1]})
    folder = trained_bundle(tmp_path, spec)
    scan, _ = make_phantom(0, shape=(24, 20, 16), spacing=9.0)
    labels = {}
    for speed in ("exact", "balanced"):
        segmenter = Segmenter(folder, device="cpu", speed=speed)
        correction = segmenter.begin_correction(scan)
        network = segmenter._predictor._click_network
        assert network is not None
        assert len(network._flips) == 1
        segmenter.begin_correction(scan)
        assert segmenter._predictor._click_network is network
        is_compiled = isinstance(network.members[0], CompiledMember)
        assert is_compiled == (speed == "balanced")
        mask = empty(scan)
        labels[speed] = correction.correct(mask, 1, inside=[(12, 9, 7)])
    assert (labels["exact"] != labels["balanced"]).mean() < 0.02
    segmenter.close()
    with pytest.raises(MedsegError, match="was closed"):
        segmenter.begin_correction(scan)
    segmenter = Segmenter(folder, device="cpu")
    shutil.rmtree(folder)
    assert segmenter.begin_correction(scan).correct(empty(scan), 1).any() == 0


def test_two_that_click_first_at_the_same_time_load_one_network(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = segmenter._predictor
    monkeypatch.setattr(predictor, "_click_network", None)
    make = predictor._make_click_network
    second_began = threading.Event()
    made = []

    def make_slowly() -> Any:
        second_began.wait()
        time.sleep(0.05)  # for the other to come as far, if it may
        made.append(make())
        return made[-1]

    def load_second() -> Any:
        second_began.set()
        return predictor.load_click_network()

    monkeypatch.setattr(predictor, "_make_click_network", make_slowly)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(predictor.load_click_network)
        second = threads.submit(load_second)
    assert made == [first.result()]
    assert second.result() is first.result()
