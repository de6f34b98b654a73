"""Estimates of quality: which number is the score, and whether it is calibrated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medseg.quality.estimates import (
    MADE_UP,
    NOT_CALIBRATED,
    NOTHING_FOUND,
    Agreement,
    LabelQuality,
    MaskQuality,
    Quality,
    join_qualities,
    select_labels,
)


def test_the_score_is_the_calibrated_dice_where_there_is_one() -> None:
    assert Agreement(raw=0.7, dice=0.9).score == 0.7
    assert Agreement(raw=0.7, dice=0.9, expected=0.6).score == 0.6
    assert Agreement(raw=0.7, dice=0.9, expected=0.0).score == 0.0


def test_a_masks_estimate_is_calibrated_if_the_bundles_own_is() -> None:
    for is_calibrated in (False, True):
        own = Quality(0.9, is_calibrated=is_calibrated)
        assert (
            MaskQuality(None, {}, own, review=False).is_calibrated
            is is_calibrated
        )


def test_joined_qualities_are_those_of_the_parts() -> None:
    organs = Quality(
        0.8,
        0.6,
        {"liver": LabelQuality(0.9, 0.8), "cyst": LabelQuality(0.7, 0.4)},
        is_calibrated=True,
        is_range_known=True,
        review=True,
        reasons=("too small",),
        departures=("too small",),
    )
    bones = Quality(0.6, labels={"rib": LabelQuality(0.6)})
    names = {
        "organs": {"liver": "liver", "cyst": "liver cyst"},
        "bones": {"rib": "rib"},
    }
    parts = {"organs": organs, "bones": Quality(review=True)}
    joined = join_qualities(parts, names)
    # Bones that found nothing are no reason to look.
    assert joined.expected == pytest.approx(0.8)
    assert joined.lower is None
    assert joined.is_calibrated
    assert joined.is_range_known
    assert joined.reasons == joined.departures == ("organs: too small",)
    assert dict(joined.shown.labels) == {"liver": 0.9, "liver cyst": 0.7}
    mixed = join_qualities({"organs": organs, "bones": bones}, names)
    assert mixed.shown.text == NOT_CALIBRATED
    assert mixed.shown.expected is None
    assert dict(mixed.shown.labels) == {"liver": 0.9, "liver cyst": 0.7}
    assert not mixed.is_range_known
    nothing = join_qualities({"bones": Quality(review=True)}, names)
    assert nothing.review
    assert nothing.reasons == (NOTHING_FOUND,)
    made_up = replace(organs, is_made_up=True)
    joined = join_qualities({"organs": made_up, "bones": bones}, names)
    assert joined.shown.text == MADE_UP
    assert not joined.shown.labels


def test_labels_that_a_parts_regions_paint_have_the_estimate_for_all() -> None:
    tumour = Quality(0.7, labels={"whole tumor": LabelQuality(0.7)})
    names = {"tumour": {"rest of whole tumor": "edema"}}
    joined = join_qualities({"tumour": tumour}, names)
    assert joined.shown.text == NOT_CALIBRATED
    assert joined.labels == {"edema": LabelQuality(0.7)}
    assert not joined.review


def test_chosen_labels_have_their_mean_and_no_bound() -> None:
    whole = Quality(
        0.8,
        0.6,
        {"liver": LabelQuality(0.9, 0.8), "rib": LabelQuality(0.7, 0.4)},
        is_calibrated=True,
    )
    some = select_labels(whole, ["rib"])
    assert (some.expected, some.lower) == (0.7, None)
    assert list(some.labels) == ["rib"]
    none = select_labels(whole, ["lung"])
    assert none.shown.text == NOTHING_FOUND
    assert none.review
