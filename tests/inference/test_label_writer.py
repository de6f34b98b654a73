"""Labels are those of all scores interpolated to the scan's grid and then compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scores import CPU, blobs

from medseg.errors import MedsegError
from medseg.inference.accumulator import Accumulator
from medseg.inference.label_writer import (
    LabelWriter,
    choose_label_type,
    find_nearest,
)
from medseg.inference.windows import Windows
from medseg.networks.decoding import Decoding
from medseg.preprocessing.grid_map import GridMap, Taps, compute_spacing_maps
from medseg.preprocessing.resampling import resample_linear, resample_nearest
from medseg.volume import Array


def labelled(
    scores: torch.Tensor,
    back: GridMap,
    planes: int,
    decoding: Decoding = Decoding(),  # noqa: B008 - a frozen value
) -> Array:
    """Label scores given as one window of ``planes`` planes after the other."""
    shape = (scores.shape[1], scores.shape[2], scores.shape[3])
    windows = Windows((shape[0], shape[1], planes), shape, 0.0)
    labels: Array = np.full(back.target, 99, choose_label_type(len(scores)))
    writer = LabelWriter(back, labels, CPU, decoding)
    sums = Accumulator(windows, len(scores), CPU)
    for corner in windows.corners():
        if not sums.has_room_for(corner):
            sums.drop_before(writer.write_before(corner[2], sums))
        at = corner[2]
        sums.add(corner, scores[..., at : at + planes])
    writer.write_before(shape[2], sums)
    return labels


def check(scores: torch.Tensor, back: GridMap, planes: int) -> None:
    on_scan = resample_linear(scores.numpy(), back)
    best = on_scan.topk(2, dim=0)
    got = torch.from_numpy(labelled(scores, back, planes).astype(np.int64))
    different = got != best.indices[0]
    ties = best.values[0] - best.values[1] < 1e-5
    assert not (different & ~ties).any()


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 60)),
    st.tuples(*[st.floats(0.4, 2.5)] * 3),
    st.sampled_from([2, 3, 30]),
    st.sampled_from([0.5, 3.0]),
    st.sampled_from([0.0, 0.0, 0.4]),
)
def test_labels_are_those_of_all_scores(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    classes: int,
    roughness: float,
    shear: float,
) -> None:
    affine = np.eye(4)
    affine[1, 2] = affine[0, 1] = shear
    there, back = compute_spacing_maps(affine, shape, spacing)
    check(
        blobs(there.target, classes, roughness),
        back,
        planes=min(5, there.target[2]),
    )


def between() -> tuple[torch.Tensor, GridMap]:
    """Return rough scores, and a map to a finer grid."""
    there, back = compute_spacing_maps(np.eye(4), (12, 11, 10), (1.7, 1.3, 2.2))
    return 6 * blobs(there.target, 3, 3.0), back


def test_probabilities_are_interpolated_where_a_bundle_asks_for_it() -> None:
    scores, back = between()
    found = labelled(scores, back, 3, Decoding(resample="probabilities"))
    on_scan = resample_linear(scores.softmax(0).numpy(), back)
    assert np.array_equal(found, on_scan.argmax(0).numpy())
    of_logits = resample_linear(scores.numpy(), back).argmax(0).numpy()
    assert (found != of_logits).any()


def test_a_region_is_there_where_its_interpolated_probability_is_above_half() -> (
    None
):
    scores, back = between()
    regions = Decoding((1, 3, 2), "probabilities")
    found = labelled(scores, back, 3, regions)
    there = resample_linear(scores.sigmoid().numpy(), back).numpy() > 0.5
    painted = np.zeros(found.shape, int)
    for label, region in zip((1, 3, 2), there, strict=True):
        painted[region] = label
    assert (found != painted).mean() < 0.001  # of 0.5, rounding decides


def test_labels_are_those_of_the_nearest_voxel_where_a_bundle_asks_for_it() -> (
    None
):
    scores, back = between()
    found = labelled(scores, back, 3, Decoding(resample="labels"))
    nearest = resample_nearest(scores.argmax(0).numpy(), back)
    assert np.array_equal(found, nearest)
    halves = Taps(*(torch.tensor([value] * 2) for value in (0, 1, 0.5, 0.5)))
    halves = halves._replace(
        lower=torch.tensor([0, 1]), upper=torch.tensor([1, 2])
    )
    assert find_nearest(halves).tolist() == [0, 2]  # as torch.round does


@pytest.mark.parametrize("classes", [255, 256, 257, 400])
def test_many_classes(classes: int) -> None:
    back = GridMap(np.diag([0.5, 0.5, 0.5, 1]), (4, 4, 4), (7, 7, 7))
    scores = blobs((4, 4, 4), classes, 3.0)
    scores[-1, 1] += 9  # the last class is found, and is not taken for a mark
    check(scores, back, planes=4)
    assert labelled(scores, back, 4).max() == classes - 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_an_error(bad: float) -> None:
    scores = torch.zeros(2, 4, 4, 4)
    scores[1, 2, 2, 2] = bad
    same = GridMap(np.eye(4), (4, 4, 4), (4, 4, 4))
    with pytest.raises(MedsegError, match="fp32"):
        labelled(scores, same, 4)


@pytest.mark.parametrize("finished", [1, 3, 6, 7])
@pytest.mark.parametrize("zoom", [1.0, 0.5, 0.4])
def test_a_plane_is_labelled_as_soon_as_its_neighbours_are_final_and_no_sooner(
    finished: int, zoom: float
) -> None:
    shape = (3, 4, 8)
    planes = round((shape[2] - 1) / zoom) + 1
    back = GridMap(np.diag([1, 1, zoom, 1]), shape, (3, 4, planes))
    labels: Array = np.full(back.target, 99, np.uint8)
    sums = Accumulator(Windows(shape, shape, 0.0), 2, CPU)
    sums.add((0, 0, 0), torch.rand(2, *shape))
    writer = LabelWriter(back, labels, CPU)
    needed = writer.write_before(finished, sums)
    # Of each plane of the scan, in planes of the network.
    position = np.arange(planes) * zoom
    upper = np.ceil(position - 1e-6)
    is_labelled = (labels != 99).all(axis=(0, 1))
    assert np.array_equal(is_labelled, (labels != 99).any(axis=(0, 1)))
    assert not is_labelled[upper >= finished].any()
    assert is_labelled[upper < finished].all()
    waiting = position[~is_labelled]
    assert needed <= min(finished, waiting[0] if len(waiting) else finished)
    writer.write_before(shape[2], sums)
    assert not (labels == 99).any()
