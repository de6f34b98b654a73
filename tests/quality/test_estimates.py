"""Estimates of quality: which number is the score, and whether it is calibrated."""

from __future__ import annotations

from medseg.quality.estimates import Agreement, MaskQuality, Quality


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
