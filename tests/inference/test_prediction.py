"""A scan passes through the network once and can be finished in several ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label

from medseg.inference.largest_components import keep_largest_components
from medseg.inference.segmenter import Segmenter
from medseg.metrics.label_summary import summarise_labels
from medseg.preprocessing.resampling import resample_linear
from medseg.volume import Volume


def scan() -> Volume:
    noise = np.random.default_rng(0).normal(0, 1, (1, 25, 21, 30))
    array = gaussian_filter(noise, (0, 2, 2, 2))
    array = (array / array.std() * 200).astype(np.float32)
    return Volume(
        np.asfortranarray(array), np.diag([-1.2, 1.5, 2, 1]), source="scan"
    )


def test_a_prediction_is_finished_in_several_ways(
    untrained_bundle: Callable[..., Path],
) -> None:
    segmenter = Segmenter(
        untrained_bundle(inference={"keep_largest": ["kidney"]}), "cpu"
    )
    prediction = segmenter.predict(scan())
    usual, none, both = (
        prediction.finish(keep_largest=names)
        for names in (None, (), ("liver", "kidney"))
    )
    assert np.array_equal(usual.labels, segmenter.segment(scan()).labels)
    assert np.array_equal(none.labels, prediction.labels)
    assert [
        (found.labels > 0).sum() for found in (none, usual, both)
    ] == sorted(
        [(found.labels > 0).sum() for found in (none, usual, both)],
        reverse=True,
    )
    assert (none.labels != usual.labels).any()
    assert (usual.labels != both.labels).any()
    assert usual.error_map is None
    assert np.array_equal(
        prediction.finish(error_map=True).error_map,
        segmenter.segment(scan(), error_map=True).error_map,
    )
    with pytest.raises(ValueError, match="without labels to judge"):
        _ = prediction.given_dice


def test_whoever_edits_a_result_changes_no_later_one(
    untrained_bundle: Callable[..., Path],
) -> None:
    prediction = Segmenter(untrained_bundle(), "cpu").predict(scan())
    wanted = prediction.labels.copy()
    first = prediction.finish(error_map=True)
    assert first.error_map is not None
    mapped = first.error_map.copy()
    first.labels[wanted == 2] = 0
    first.error_map[:] = 0
    second = prediction.finish(error_map=True)
    assert np.array_equal(second.labels, wanted)
    assert second.error_map is not None
    assert np.array_equal(second.error_map, mapped)
    assert mapped.any()
    largest = prediction.finish(keep_largest=["kidney"])
    assert 0 < largest.volumes_ml["kidney"] < second.volumes_ml["kidney"]


def test_a_prediction_speaks_of_the_labels_that_were_asked_for(
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = untrained_bundle()
    volume = scan()
    everything = Segmenter(folder, "cpu").predict(volume).labels
    segmenter = Segmenter(folder, "cpu", labels="kidney")
    prediction = segmenter.predict(volume, given=everything)
    assert np.array_equal(prediction.labels, np.where(everything == 2, 2, 0))
    assert list(prediction.given_dice) == ["kidney"]


def test_only_the_largest_component_is_kept_where_asked(
    untrained_bundle: Callable[..., Path],
) -> None:
    volume = scan()
    everything = Segmenter(untrained_bundle("all"), "cpu").segment(volume)
    folder = untrained_bundle("largest", inference={"keep_largest": ["kidney"]})
    largest = Segmenter(folder, "cpu").segment(volume)
    parts, count = label(everything.labels == 2, np.ones((3, 3, 3)))
    biggest = int(np.bincount(parts.ravel())[1:].argmax()) + 1
    assert count > 1
    assert np.array_equal(largest.labels == 2, parts == biggest)
    assert np.array_equal(largest.labels == 1, everything.labels == 1)
    assert largest.volumes_ml["kidney"] == pytest.approx(
        (parts == biggest).sum() * 3.6e-3
    )


def test_of_each_label_named_only_the_largest_component_is_kept() -> None:
    labels = np.zeros((9, 4, 1), np.uint8)
    labels[:3, 0] = labels[4:6, 0] = 1
    labels[0, 2] = labels[2:5, 2] = 2
    labels[8, 3] = 4
    labels[6, 1] = labels[7, 0] = (
        1  # corners that touch belong together: 4:6 and these are four
    )
    found = summarise_labels(labels, 5)
    kept = keep_largest_components(found, [1, 3]).labels
    assert (kept == 1).sum() == 4
    assert not (kept[:3] == 1).any()
    assert np.array_equal(kept == 2, labels == 2)
    assert np.array_equal(kept == 4, labels == 4)
    assert (labels == 1).sum() == 7, "the labels given are not changed"
    assert keep_largest_components(found, [1, 2, 4]).voxels[2] == 3


@pytest.mark.parametrize("affine", [[-1.2, 1.5, 2, 1], [1.2, -1.5, -2, 1]])
def test_the_share_that_is_kept_is_that_of_the_whole_error_map(
    untrained_bundle: Callable[..., Path], affine: list[float]
) -> None:
    folder = untrained_bundle(
        preprocessing={"spacing_mm": [1.5, 1.5, 1.5], "crop_above": 50}
    )
    flipped = replace(scan(), affine=np.diag(affine))
    prediction = Segmenter(folder, "cpu").predict(flipped)
    everything = prediction.finish(keep_largest=(), error_map=True)
    largest = prediction.finish(keep_largest=["kidney"])
    assert everything.error_map is not None
    right = 100.0 - everything.error_map
    before = right[everything.labels == 2].sum()
    after = right[largest.labels == 2].sum()
    assert 0 < after < before
    sums = prediction._result.confidence
    expected = sums.with_share_kept({2: after / before})
    assert largest.confidence == expected.expected_dice(largest.label_set)


def test_an_error_map_is_that_of_all_voxels(
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = untrained_bundle(preprocessing={"spacing_mm": [1.5, 1.5, 1.5]})
    prediction = Segmenter(folder, "cpu").predict(scan())
    result = prediction._result
    result.confidence.errors[:4] = 0
    result.confidence.errors[..., -3:] = 0
    found = prediction.finish(error_map=True).error_map
    resampled = resample_linear(
        result.confidence.errors[None], result.grid.network_to_scan
    )
    expected = np.zeros_like(found)
    result.grid.crop(expected[None])[...] = resampled.round().numpy()
    assert np.array_equal(found, expected)
