"""Normalisation of each channel."""

from __future__ import annotations

import pytest
from support.fingerprints import case, fingerprint_of

from medseg.planning import (
    Notes,
    choose_intensity,
)


def test_ct_is_clipped_where_the_labels_are() -> None:
    fingerprint = fingerprint_of(
        case(low=-50, high=150), case(low=-50, high=150)
    )
    notes: Notes = {}
    found = choose_intensity(
        fingerprint, [{"name": "CT", "modality": "CT"}], notes
    )["intensity"]
    assert found["kind"] == "window"
    assert found["low"] == pytest.approx(-49, abs=0.6)
    assert found["high"] == pytest.approx(149, abs=0.6)
    assert found["mean"] == pytest.approx(50, abs=1)
    assert "HU" in notes["preprocessing.intensity"]


def test_mr_is_scaled_by_itself_and_clipped_only_where_outliers_are() -> None:
    mr = [{"name": "T1", "modality": "MR"}]
    notes: Notes = {}
    wild = fingerprint_of(case(high=100), case(high=1e6, highest=1e6))
    assert choose_intensity(wild, mr, notes)["intensity"] == {"kind": "zscore"}
    assert "factor of 10,000" in notes["preprocessing.intensity"]
    spiky = fingerprint_of(case(highest=5000))
    assert choose_intensity(spiky, mr, {})["intensity"]["clip_percentiles"] == [
        0.005,
        0.995,
    ]
    pet = [{"name": "PET", "modality": "PT"}]
    assert choose_intensity(spiky, pet, {})["intensity"] == {"kind": "zscore"}


def test_black_around_every_case_is_cut_off() -> None:
    mr = [{"name": "T1", "modality": "MR"}]
    cut = choose_intensity(
        fingerprint_of(case(nonzero_share=0.4), case(nonzero_share=0.5)), mr, {}
    )
    assert cut == {
        "intensity": {"kind": "zscore", "nonzero": True},
        "crop_above": 0,
    }
    assert "crop_above" not in choose_intensity(
        fingerprint_of(case(nonzero_share=0.4), case()), mr, {}
    )


def test_a_wide_range_is_told_and_outliers_count_from_a_twentieth_of_the_images() -> (
    None
):
    mr = [{"name": "T1", "modality": "MR"}]
    one_of_twenty = fingerprint_of(
        case(highest=301), *(case() for _ in range(19))
    )
    assert choose_intensity(one_of_twenty, mr, {})["intensity"] == {
        "kind": "zscore"
    }
    one_of_nineteen = fingerprint_of(
        case(highest=301), *(case() for _ in range(18))
    )
    found = choose_intensity(one_of_nineteen, mr, {})["intensity"]
    assert found["clip_percentiles"] == [0.005, 0.995]
    no_outlier = fingerprint_of(*(case(highest=300) for _ in range(3)))
    assert choose_intensity(no_outlier, mr, {})["intensity"] == {
        "kind": "zscore"
    }
