"""An assembly segments as its bundles do one by one, painted in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.assemblies import WINDOW, make_scan, number_labels, write_thorax

from medseg import Segmenter
from medseg.bundle.bundle import Assembly, load_bundle
from medseg.bundle.spec import CalibrationSpec, QualityFinding, TrainedSpec
from medseg.bundle.spec_files import write_trained
from medseg.errors import MedsegError
from medseg.inference import joint_passes, pass_plan
from medseg.inference.segmentation import Segmentation
from medseg.inference.sliding_window_pass import SlidingWindowPass
from medseg.metrics.label_boxes import find_label_box, grow_box
from medseg.preprocessing import network_input
from medseg.volume import Array, Volume


def segment_alone(folder: Path, part: str, scan: Volume) -> Segmentation:
    return Segmenter(folder / "parts" / part, "cpu").segment(scan)


def paint(folder: Path, scan: Volume) -> Array:
    """Paint the parts one by one, as the assembly of ``write_thorax`` says."""
    organs = segment_alone(folder, "organs", scan).labels
    bones = segment_alone(folder, "bones", scan).labels
    painted = np.zeros_like(organs)
    painted[organs == 1] = 2
    painted[organs == 2] = 3
    painted[bones == 1] = 1
    return painted


def make_finding() -> QualityFinding:
    case = CalibrationSpec(
        scores=(0.0, 1.0), dice=(0.5, 0.9), margin=0.1, cases=20
    )
    return QualityFinding(
        case=case, coverage=0.9, review_below=0.0, review_share=0.1
    )


def test_later_parts_are_painted_over_earlier_ones(
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = write_thorax(untrained_bundle)
    scan = make_scan()
    found = Segmenter(folder, "cpu").segment(scan, error_map=True)
    wanted = paint(folder, scan)
    assert set(np.unique(wanted)) == {0, 1, 2, 3}
    assert np.array_equal(found.labels, wanted)
    bones = Segmenter(folder / "parts/bones", "cpu")
    of_bones = bones.segment(scan, error_map=True)
    assert found.error_map is not None
    assert of_bones.error_map is not None
    is_rib = wanted == 1
    assert np.array_equal(found.error_map[is_rib], of_bones.error_map[is_rib])
    voxels = np.bincount(wanted.ravel())
    ml = [found.volumes_ml[name] for name in ("rib", "liver", "left_kidney")]
    assert ml == pytest.approx(voxels[1:] * scan.voxel_ml)
    assert found.confidence["rib"] == of_bones.confidence["rib"]
    assert "spine" not in found.confidence


def test_what_parts_share_is_made_once(
    untrained_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_thorax(untrained_bundle)
    made: list[object] = []
    groups: list[int] = []
    resample = network_input.NetworkInput.resample
    together = joint_passes._run_windows_together

    def count(self: Any, *given: Any) -> Any:
        made.append(given)
        return resample(self, *given)

    def note(group: Any) -> Any:
        groups.append(len(group))
        return together(group)

    monkeypatch.setattr(network_input.NetworkInput, "resample", count)
    monkeypatch.setattr(joint_passes, "_run_windows_together", note)
    segmenter = Segmenter(folder, "cpu")
    scan = make_scan()
    labels = segmenter.segment(scan).labels
    assert (len(made), groups) == (1, [2])
    # Where the sums of both do not fit, one pass follows the other over the same image.
    monkeypatch.setattr(joint_passes, "_MOST_BYTES_TOGETHER", 1)
    assert np.array_equal(segmenter.segment(scan).labels, labels)
    assert (len(made), groups) == (2, [2])


def test_the_arithmetic_of_every_part_is_said(
    untrained_bundle: Callable[..., Path],
) -> None:
    segmenter = Segmenter(write_thorax(untrained_bundle), "cpu")
    assert segmenter.arithmetic == "torch fp32"
    (member,) = segmenter._predictor.parts["bones"].ensemble.members
    member.precision = torch.bfloat16
    assert segmenter._predictor.arithmetic == "torch bf16; torch fp32"


def test_parts_of_another_precision_do_not_share_its_context(
    untrained_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Segmenter(write_thorax(untrained_bundle), "cpu")
    (member,) = segmenter._predictor.parts["bones"].ensemble.members
    member.precision = torch.bfloat16
    monkeypatch.setattr(joint_passes, "_run_windows_together", None)
    assert segmenter.segment(make_scan()).labels.any()


def test_other_intensities_share_the_resampled_scan(
    untrained_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_thorax(untrained_bundle)
    other = WINDOW | {"intensity": {"kind": "zscore"}}
    untrained_bundle(
        "thorax/parts/bones",
        1,
        preprocessing=other,
        labels=number_labels(["rib"]),
    )
    wanted = paint(folder, make_scan())
    resampled: list[object] = []
    resample = network_input.resample_linear

    def count(*given: Any) -> Any:
        resampled.append(given)
        return resample(*given)

    monkeypatch.setattr(network_input, "resample_linear", count)
    found = Segmenter(folder, "cpu").segment(make_scan())
    assert np.array_equal(found.labels, wanted)
    assert len(resampled) == 2  # with and without statistics
    assert set(np.unique(wanted)) >= {1, 2}


def test_a_part_looks_around_what_an_earlier_one_has_found(
    untrained_bundle: Callable[..., Path],
) -> None:
    crop = {"source": "coarse", "labels": ["liver"], "margin_mm": 4}
    folder = write_thorax(
        untrained_bundle,
        labels=number_labels(["rib"]),
        stages=[{"name": "coarse", "bundle": "parts/organs"}],
        parts=[
            {
                "name": "bones",
                "bundle": "parts/bones",
                "labels": {"rib": "rib"},
                "crop": crop,
            }
        ],
    )
    scan = make_scan()
    liver = segment_alone(folder, "organs", scan).labels == 1
    places = np.argwhere(liver)
    margin = np.array([2, 2, 1])
    low = np.maximum(places.min(axis=0) - margin, 0)
    high = np.minimum(places.max(axis=0) + 1 + margin, scan.shape)
    box = tuple(
        slice(int(start), int(stop))
        for start, stop in zip(low, high, strict=True)
    )
    cropped = scan.crop(box)  # type: ignore[arg-type]
    wanted = np.zeros(scan.shape, np.uint8)
    wanted[box] = segment_alone(folder, "bones", cropped).labels == 1
    found = Segmenter(folder, "cpu").segment(scan)
    assert np.array_equal(found.labels, wanted)
    assert found.grid is not None
    assert np.array_equal(found.grid.affine, scan.affine)


def test_nothing_is_looked_for_around_what_is_not_there(
    untrained_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    crop = {"source": "organs", "labels": ["liver"]}
    folder = write_thorax(
        untrained_bundle,
        parts=[
            {
                "name": "organs",
                "bundle": "parts/organs",
                "labels": {"liver": "liver", "kidney": "left_kidney"},
            },
            {
                "name": "bones",
                "bundle": "parts/bones",
                "labels": {"rib": "rib"},
                "crop": crop,
            },
        ],
    )
    monkeypatch.setattr(
        "medseg.inference.assembly.find_label_box", lambda *given: None
    )
    found = Segmenter(folder, "cpu").segment(make_scan())
    assert found.warnings == (
        "bones was not looked for: organs has found nothing of liver",
    )
    assert 1 not in found.labels
    assert found.volumes_ml["liver"] > 0


@pytest.mark.parametrize("is_calibrated", [False, True])
def test_of_parts_that_did_not_run_is_said_what_their_bundles_know(
    untrained_bundle: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    is_calibrated: bool,
) -> None:
    crop = {"source": "coarse", "labels": ["liver"]}
    part = {"name": "bones", "bundle": "parts/bones", "crop": crop}
    folder = write_thorax(
        untrained_bundle,
        labels=number_labels(["rib", "spine", "skull"]),
        stages=[{"name": "coarse", "bundle": "parts/organs"}],
        parts=[part],
    )
    if is_calibrated:
        write_trained(
            TrainedSpec(quality=make_finding()), folder / "parts/bones"
        )
    monkeypatch.setattr(
        "medseg.inference.assembly.find_label_box", lambda *given: None
    )
    found = Segmenter(folder, "cpu").segment(make_scan())
    assert found.volumes_ml == {"rib": 0, "spine": 0, "skull": 0}
    assert len(found.warnings) == 1
    assert found.quality.is_calibrated == is_calibrated
    assert not found.quality.is_range_known
    assert found.quality.shown.text == "nothing found"
    assert found.quality.review


def test_chosen_labels_run_the_parts_they_need(
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = write_thorax(untrained_bundle)
    scan = make_scan()
    whole = paint(folder, scan)
    segmenter = Segmenter(folder, "cpu", labels="rib")
    assert list(segmenter._predictor.parts) == ["bones"]
    found = segmenter.segment(scan)
    assert np.array_equal(found.labels, np.where(whole == 1, 1, 0))
    assert list(found.volumes_ml) == ["rib"]
    assert segmenter.choices["labels"] == "rib"
    # A part's other labels are left out, too.
    found = Segmenter(folder, "cpu", labels=["liver"]).segment(scan)
    organs = segment_alone(folder, "organs", scan).labels
    assert np.array_equal(found.labels, np.where(organs == 1, 2, 0))


def test_results_of_another_speed_are_other_results(
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = write_thorax(untrained_bundle)
    exact = Segmenter(folder, "cpu", speed="exact").choices
    assert exact["speed of bones"] == exact["speed of organs"] == "exact"
    # Where nothing was decided, the others are one, as in results of earlier calls.
    assert Segmenter(folder, "cpu").choices == {
        name: value
        for name, value in exact.items()
        if not name.startswith("speed of ")
    }


def test_chosen_labels_of_an_ordinary_bundle_keep_their_values(
    untrained_bundle: Callable[..., Path],
) -> None:
    bundle = untrained_bundle()
    scan = make_scan()
    whole = Segmenter(bundle, "cpu").segment(scan)
    found = Segmenter(bundle, "cpu", labels=["kidney"]).segment(scan)
    assert np.array_equal(found.labels, np.where(whole.labels == 2, 2, 0))
    assert list(found.volumes_ml) == list(found.confidence) == ["kidney"]
    assert list(found.quality.labels) == ["kidney"]
    assert "labels" not in Segmenter(bundle, "cpu").choices
    for wrong in (["lung"], [], "liver,lung"):
        with pytest.raises(MedsegError, match="it has liver, kidney"):
            Segmenter(bundle, "cpu", labels=wrong)


def test_each_label_has_what_its_part_has_learned(
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = write_thorax(untrained_bundle)
    bones = untrained_bundle(
        "thorax/parts/bones",
        1,
        preprocessing=WINDOW,
        labels=number_labels(["rib", "spine", "skull"]),
        inference={"keep_largest": ["rib"]},
    )
    write_trained(TrainedSpec(quality=make_finding()), bones)
    scan = make_scan()
    found = Segmenter(folder, "cpu").segment(scan)
    alone = Segmenter(bones, "cpu").segment(scan)
    assert np.array_equal(found.labels == 1, alone.labels == 1)
    with_all_pieces = Segmenter(bones, "cpu").predict(scan).labels == 1
    assert with_all_pieces.sum() > (alone.labels == 1).sum()
    assert found.quality.labels["rib"] == alone.quality.labels["rib"]
    assert found.quality.labels["liver"].lower is None
    assert found.quality.shown.text == "not calibrated"
    assert list(found.quality.shown.labels) == ["rib"]
    ribs = Segmenter(folder, "cpu", labels=["rib"]).segment(scan)
    assert ribs.quality.is_judged


def test_an_assembly_answers_as_a_bundle_does(
    untrained_bundle: Callable[..., Path],
) -> None:
    segmenter = Segmenter(write_thorax(untrained_bundle), "cpu", labels="rib")
    scan = make_scan()
    prediction = segmenter.predict(scan)
    with pytest.raises(ValueError, match="without labels to judge"):
        _ = prediction.given_dice
    judged = segmenter.predict(scan, given=prediction.labels)
    assert list(judged.given_dice) == ["rib"]
    with pytest.raises(MedsegError, match="no temperature of its own"):
        segmenter.predict(scan, temperatures=[2.0])


def test_the_time_of_parts_that_share_windows_is_counted_once(
    untrained_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, cuts = [0.0], []
    cut, finish = SlidingWindowPass.cut, SlidingWindowPass.finish

    def cut_in_a_second(scan_pass: Any, corners: Any) -> Any:
        now[0] += 1
        cuts.append(corners)
        return cut(scan_pass, corners)

    def finish_in_a_second(scan_pass: Any) -> Any:
        now[0] += 1
        return finish(scan_pass)

    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(pass_plan, "time", clock)
    monkeypatch.setattr(SlidingWindowPass, "cut", cut_in_a_second)
    monkeypatch.setattr(SlidingWindowPass, "finish", finish_in_a_second)
    segmenter = Segmenter(write_thorax(untrained_bundle), "cpu")
    found = segmenter.segment(make_scan())
    assert found.seconds["labels"] == 2
    assert found.seconds["network"] == len(cuts)


def test_masks_are_judged_part_by_part(
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = write_thorax(untrained_bundle)
    scan = make_scan()
    segmenter = Segmenter(folder, "cpu")
    quality = segmenter.judge(scan, segmenter.segment(scan).labels)
    assert set(quality.labels) == {"rib", "liver", "left_kidney"}
    assert all(each.dice == 1 for each in quality.labels.values())
    bones = Segmenter(folder / "parts/bones", "cpu")
    only_ribs = np.where(paint(folder, scan) == 1, 1, 0)
    alone = bones.judge(scan, only_ribs.astype(np.uint8))
    assert quality.labels["rib"].raw == alone.labels["rib"].raw
    assert not quality.is_calibrated


def test_masks_of_a_part_with_regions_are_judged_by_these(
    untrained_bundle: Callable[..., Path],
) -> None:
    regions = [
        {"name": "chest", "labels": ["rib", "spine"]},
        {"name": "back", "labels": ["spine"]},
    ]
    folder = write_thorax(untrained_bundle)
    labels = number_labels(["rib", "spine"])
    bones = untrained_bundle(
        "thorax/parts/bones",
        1,
        preprocessing=WINDOW,
        labels=labels,
        regions=regions,
    )
    scan = make_scan()
    ribs = (paint(folder, scan) == 1).astype(np.uint8)
    assert ribs.any()
    judged = Segmenter(folder, "cpu").judge(scan, ribs)
    alone = Segmenter(bones, "cpu").judge(scan, ribs)
    of_regions = [each.raw for each in alone.labels.values()]
    assert judged.labels["rib"].raw == pytest.approx(np.mean(of_regions))
    assert judged.labels["rib"].raw > 0


def test_an_assembly_frees_and_refuses_as_its_networks_do(
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = write_thorax(untrained_bundle)
    with Segmenter(folder, "cpu") as segmenter:
        assert repr(segmenter) == "Segmenter('thorax 1.2.0', torch on cpu)"
        with pytest.raises(MedsegError, match="no probabilities of its own"):
            segmenter.segment(make_scan(), probabilities=True)
    with pytest.raises(MedsegError, match="was closed"):
        segmenter.segment(make_scan())
    assembly = load_bundle(folder)
    assert isinstance(assembly, Assembly)


def test_a_box_grows_by_whole_voxels_within_the_scan() -> None:
    labels = np.zeros((10, 10, 10), np.uint8)
    assert find_label_box(labels, [1, 300]) is None
    labels[4, 2:5, 9] = 3
    found = find_label_box(labels, [3])
    assert found == (slice(4, 5), slice(2, 5), slice(9, 10))
    scan = make_scan((20, 20, 20))
    inside = (slice(3, 13), slice(0, 10), slice(8, 18))
    grown = grow_box(found, inside, scan, 5.0)
    assert grown == (slice(4, 11), slice(0, 8), slice(15, 20))
