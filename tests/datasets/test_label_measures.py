"""Pieces of labels, and labels that the border cuts."""

from __future__ import annotations

import numpy as np

from medseg.datasets.intensity_measures import measure_intensities
from medseg.datasets.label_measures import (
    count_pieces,
    find_cut_labels,
    list_faces,
)
from medseg.metrics.label_summary import LabelSummary, summarise_labels


def summarise(labels: np.ndarray) -> LabelSummary:
    return summarise_labels(labels, 4)


def test_pieces_touch_at_corners_and_specks_do_not_count() -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[2:6, 2:6, 2:6] = 1
    labels[6:10, 6:10, 6:10] = 1
    assert count_pieces(summarise(labels)) == {1: 1}
    labels[14:18, 14:18, 14:18] = 1
    labels[0, 19, 0] = 1
    labels[10, 2, 10] = 3
    assert count_pieces(summarise(labels)) == {1: 2, 3: 1}


def test_indices_above_the_highest_are_passed_over() -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[0], labels[2] = 1, 9
    assert count_pieces(summarise(labels)) == {1: 1}


def test_a_cut_label_touches_with_more_than_a_speck() -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[:8, 4:12, 4:12] = 1
    labels[10:18, 4:12, 4:12] = 2
    labels[19, 4, 4] = 2
    assert find_cut_labels(summarise(labels)) == {1}


def test_the_two_faces_of_a_single_slice_are_no_border() -> None:
    labels = np.zeros((20, 20, 1), np.uint8)
    labels[5:15, 5:15] = 1
    assert find_cut_labels(summarise(labels)) == frozenset()


def test_faces_are_looked_at_and_not_copied_in_any_order_of_memory() -> None:
    for order in ("C", "F"):
        labels = np.zeros((4, 5, 6), np.uint8, order=order)
        faces = list(list_faces(labels))
        assert [face.shape for face in faces[::2]] == [(5, 6), (4, 6), (4, 5)]
        assert all(np.shares_memory(face, labels) for face in faces)


def test_ct_is_measured_in_hu_and_everything_by_its_form() -> None:
    channel = np.full((10, 10, 10), -1000.0, np.float32)
    channel[:, :, :4] = 40
    found = measure_intensities(channel, channel)
    assert found["air"] == 0.6
    assert found["median"] == 40
    other = 3 * channel + 700
    moved = measure_intensities(other, other)
    for name in ("form 5 %", "form 50 %", "form 95 %"):
        assert moved[name] == found[name]


def test_a_channel_that_is_all_alike_or_empty_has_no_form() -> None:
    ones = np.ones((3, 3, 3))
    assert "form 50 %" not in measure_intensities(ones, ones)
    assert measure_intensities(np.zeros(0, np.float32), ones) == {}


def test_padding_of_ct_is_air_as_in_a_copy_that_knows_of_none() -> None:
    voxels = np.full((10, 10, 10), -1024.0, np.float32)
    voxels[:, :, :4] = 40
    voxels[:, :, 4] = -900
    shown = voxels[:, :, :5]
    found = measure_intensities(shown, voxels)
    assert found["air"] == measure_intensities(voxels, voxels)["air"] == 0.6
