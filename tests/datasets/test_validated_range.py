"""What lies outside what a bundle was validated on is told in words, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from support.bundles import made_spec

from medseg.bundle.reading import parse_trained
from medseg.bundle.spec import BundleSpec, TrainedSpec, ValidatedRange
from medseg.datasets.measures import (
    CaseMeasures,
    measure_scan,
    measure_training_case,
)
from medseg.datasets.validated_range import RangeCheck, measure_range
from medseg.metrics.label_summary import summarise_labels
from medseg.testing import make_phantom
from medseg.volume import Array, Volume

SHAPE, SPACING = (28, 24, 20), 8.0
SPEC = made_spec()
CASES = 24


def phantom(seed: int) -> tuple[Volume, Array]:
    return make_phantom(seed, SHAPE, SPACING)


def measure(seed: int) -> CaseMeasures:
    volume, labels = phantom(seed)
    return measure_training_case(volume, labels, len(SPEC.label_set))


@pytest.fixture(scope="module")
def validated() -> ValidatedRange:
    found = measure_range([measure(seed) for seed in range(CASES)], SPEC)
    assert found is not None
    return found


def departures(
    validated: ValidatedRange,
    volume: Volume,
    labels: Array,
    spec: BundleSpec = SPEC,
) -> str:
    check = RangeCheck(validated, spec, measure_scan(volume), volume.voxel_ml)
    found = summarise_labels(labels, spec.label_set.classes)
    return "; ".join(check.find_departures(found))


def make_limb(radius: float) -> Volume:
    """Make a thin cylinder of fat and muscle around bone, in air, on the phantoms' grid."""
    axes = [np.linspace(-1, 1, size) for size in SHAPE]
    x, y, _ = np.meshgrid(*axes, indexing="ij")
    distance = np.hypot(x, y) / radius
    image = np.full(SHAPE, -1000.0)
    image[distance < 1] = -90
    image[distance < 0.85] = 50
    image[distance < 0.3] = 900
    volume, _ = phantom(0)
    return volume.with_array(image[None].astype(np.float32))


def test_fresh_cases_like_those_of_training_are_not_flagged(
    validated: ValidatedRange,
) -> None:
    flagged = [
        seed
        for seed in range(1000, 1060)
        if departures(validated, *phantom(seed))
    ]
    assert len(flagged) <= 3


@pytest.mark.parametrize("radius", [0.2, 0.35, 0.5, 0.7])
def test_a_limb_is_flagged_even_where_its_labels_look_plausible(
    validated: ValidatedRange, radius: float
) -> None:
    _, labels = phantom(3)
    assert "the channel CT" in departures(validated, make_limb(radius), labels)


def test_other_voxels_and_another_field_of_view_are_named(
    validated: ValidatedRange,
) -> None:
    volume, labels = phantom(0)
    coarse = replace(volume, affine=np.diag([8, 8, 40.0, 1]))
    told = departures(validated, coarse, labels)
    assert (
        "its voxels measure 40 mm towards the head, those of the training"
        in told
    )
    assert (
        "it measures 800 mm towards the head, the training cases 160 mm" in told
    )
    assert "towards the right" not in told


def test_odd_labels_are_named(validated: ValidatedRange) -> None:
    volume, labels = phantom(0)
    tiny = np.where(labels == 1, 0, labels)
    tiny[14, 12, 10] = 1
    assert "liver has 0.512 ml, in the training cases" in departures(
        validated, volume, tiny
    )
    without = np.where(labels == 2, 0, labels)
    assert (
        departures(validated, volume, without)
        == "kidney, which every training case holds, was not found"
    )
    cut = labels.copy()
    cut[:, :, -1] = np.where(cut[:, :, -3] == 1, 1, cut[:, :, -1])
    cut[10:18, 8:16, -1] = 1
    assert "liver touches the border of the scan" in departures(
        validated, volume, cut
    )
    pieces = np.where(labels == 1, 0, labels)
    pieces[2:26:4, 2:22:4, 2:18:6] = 1
    for piece in range(8):
        pieces[3 * piece : 3 * piece + 2, 2:8, 8:14] = 1
    assert "large pieces" in departures(validated, volume, pieces)


def test_a_speck_at_the_border_is_no_reason(validated: ValidatedRange) -> None:
    volume, labels = phantom(0)
    labels = labels.copy()
    labels[0, 12, 10] = 1
    assert departures(validated, volume, labels) == ""


@pytest.mark.parametrize(
    ("regions", "told"),
    [(("lower limb",), True), (("chest", "abdomen"), False), ((), False)],
)
def test_another_part_of_the_body_is_named_where_the_header_says_it(
    validated: ValidatedRange, regions: tuple[str, ...], told: bool
) -> None:
    volume, labels = phantom(0)
    volume = replace(volume, regions=regions)
    # The bundle's labels, liver and kidney, tell its region where its cases did not.
    reason = departures(validated, volume, labels)
    assert ("trained on the abdomen" in reason) == told
    stated = validated.model_copy(update={"regions": ("lower limb",)})
    assert bool(departures(stated, volume, labels)) == (
        regions == ("chest", "abdomen")
    )


def test_one_wild_case_among_many_does_not_widen_the_range() -> None:
    cases = [measure(seed) for seed in range(CASES)]
    wild = replace(cases[0], spacing=(8.0, 8.0, 800.0))
    plain, mixed = (
        measure_range(cases, SPEC),
        measure_range([*cases[1:], wild], SPEC),
    )
    assert plain is not None
    assert mixed is not None
    assert mixed.spacing_mm[2].most == pytest.approx(
        plain.spacing_mm[2].most, rel=0.02
    )


def test_of_few_cases_nothing_is_stated() -> None:
    assert measure_range([measure(seed) for seed in range(4)], SPEC) is None


def test_mr_is_compared_by_the_form_of_its_histogram_whatever_its_scale() -> (
    None
):
    spec = made_spec(channels=[{"name": "T1", "modality": "MR"}])
    found = measure_range([measure(seed) for seed in range(8)], spec)
    assert found is not None
    volume, labels = phantom(50)
    scaled = volume.with_array(7 * volume.array + 90000)
    assert departures(found, scaled, labels, spec) == ""
    inverted = volume.with_array(-volume.array)
    assert "the channel T1: its intensities are spread otherwise" in departures(
        found, inverted, labels, spec
    )


def test_pictures_have_no_lengths() -> None:
    spec = made_spec(
        preprocessing={"input": "picture", "spacing_mm": None},
        network={"dims": 2},
        channels=[{"name": "grey", "modality": "OT"}],
        training={"patch": [16, 16]},
    )
    found = measure_range([measure(seed) for seed in range(8)], spec)
    assert found is not None
    assert found.spacing_mm == ()
    assert all(label.volume_ml is None for label in found.labels.values())


def test_a_stack_is_not_compared_with_single_slices_in_size(
    validated: ValidatedRange,
) -> None:
    volume, labels = phantom(0)
    slices = validated.model_copy(update={"is_single_slice": True})
    halved = replace(volume, affine=np.diag([8, 8, 40.0, 1]))
    assert departures(slices, halved, labels) == ""


def test_it_is_written_and_read_and_holds_no_word_but_regions(
    validated: ValidatedRange,
) -> None:
    trained = TrainedSpec(validated=validated)
    text = trained.model_dump_json()
    assert parse_trained(json.loads(text)) == trained
    content = json.loads(text)["validated"]
    assert content["version"] == 1
    words = {key for key in content if isinstance(content[key], str)}
    assert words == set()


def test_axes_that_lie_outside_are_told_in_one_sentence(
    validated: ValidatedRange,
) -> None:
    volume, labels = phantom(0)
    fine = replace(volume, affine=np.diag([1, 8, 0.5, 1]))
    told = departures(validated, fine, labels)
    assert "its voxels measure 1 and 0.5 mm towards the right and head" in told
    assert told.count("its voxels measure") == 1
