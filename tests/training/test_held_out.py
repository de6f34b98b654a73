"""Held-out scans and corrupted copies of them are segmented and scored."""

from __future__ import annotations

import numpy as np
import pytest
from support.bundles import NESTED, made_spec, trained_bundle

from medseg.inference.segmenter import Segmenter
from medseg.testing import make_phantom
from medseg.training.held_out import (
    HeldOutCase,
    list_postprocessings,
    score_case_and_copies,
)
from medseg.training.keep_largest import CaseResults

SHAPE = (20, 18, 16)
SPEC = made_spec(
    preprocessing={"intensity": {"kind": "window", "low": -200, "high": 300}}
)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter(
        trained_bundle(tmp_path_factory.mktemp("bundle"), SPEC), "cpu"
    )


def case(seed: int) -> HeldOutCase:
    volume, labels = make_phantom(seed, SHAPE, 9.0)
    return HeldOutCase(f"case-{seed}", volume, labels)


def score(
    segmenter: Segmenter, count: int, copies: int, seed: int = 0
) -> list[list[CaseResults]]:
    cases = [case(number) for number in range(count)]
    names = SPEC.label_set.names
    ways = [(), names]
    return [
        score_case_and_copies(
            segmenter,
            each,
            position,
            ways,
            count=count,
            copies=copies,
            seed=seed,
        )
        for position, each in enumerate(cases)
    ]


def test_copies_are_shared_out_evenly_and_only_scans_are_scored(
    segmenter: Segmenter,
) -> None:
    results = score(segmenter, count=2, copies=3)
    assert [len(each) for each in results] == [2, 2]
    for both in results:
        for result in both:
            assert len(result.cases) == 1
    clean = [
        [sample.is_clean for sample in both[0].samples] for both in results
    ]
    assert clean == [[True, False, False], [True, False]]
    assert {sample.case for sample in results[1][0].samples} == {"case-1"}


def test_corruptions_depend_on_the_seed_alone(segmenter: Segmenter) -> None:
    one, again, other = (
        score(segmenter, 1, 1, seed)[0][0] for seed in (1, 1, 2)
    )
    assert repr(one) == repr(again)
    assert one.samples[0] == other.samples[0]
    assert one.samples[1] != other.samples[1]


def test_scores_are_those_of_the_postprocessed_label_map(
    segmenter: Segmenter,
) -> None:
    held_out = case(0)
    everything, largest = score(segmenter, 1, 0)[0]
    prediction = segmenter.predict(held_out.volume)
    for result, names in ((everything, ()), (largest, SPEC.label_set.names)):
        labels = prediction.finish(keep_largest=names).labels
        for label in SPEC.label_set:
            scores = result.cases[0].labels[label.name]
            voxels = int((labels == label.index).sum())
            assert scores.predicted_ml == pytest.approx(
                voxels * held_out.volume.voxel_ml
            )
    assert (
        everything.cases[0]["predicted_ml"] != largest.cases[0]["predicted_ml"]
    ) or (
        np.array_equal(
            prediction.finish(keep_largest=()).labels,
            prediction.finish(keep_largest=SPEC.label_set.names).labels,
        )
    )


def test_the_largest_component_is_tried_only_where_nothing_is_requested() -> (
    None
):
    assert list_postprocessings(SPEC) == [(), ("liver", "kidney")]
    requested = SPEC.inference.model_copy(update={"keep_largest": ("kidney",)})
    assert list_postprocessings(
        SPEC.model_copy(update={"inference": requested})
    ) == [("kidney",)]
    assert list_postprocessings(made_spec(**NESTED)) == [()]
