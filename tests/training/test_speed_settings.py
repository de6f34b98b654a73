"""Held-out cases decide which speed settings keep the Dice, the fastest of them is taken."""

from __future__ import annotations

import json
import logging
import math
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.bundles import made_spec, trained_bundle

from medseg import CheckpointError, MedsegError, Segmenter
from medseg.bundle.bundle import Bundle, load_bundle
from medseg.bundle.hashes import hash_bundle, hash_network
from medseg.bundle.spec import SpeedLimitsSpec, SpeedSetting, SpeedTrial
from medseg.bundle.spec_files import write_trained
from medseg.inference.backends import at_speed, openvino, processor
from medseg.inference.backends.quantised import QUANTISED
from medseg.inference.bundle_predictor import Ensemble
from medseg.inference.time_estimate import estimate_seconds
from medseg.testing import make_phantom
from medseg.training import speed_settings, speed_trials
from medseg.training.held_out import HeldOutCase
from medseg.training.speed_card import describe_speed
from medseg.training.speed_settings import decide_speed
from medseg.training.speed_trials import (
    ExactResults,
    SpeedCases,
    Trials,
    choose_fastest,
    compute_changes,
)
from medseg.volume import Volume

LIMITS = SpeedLimitsSpec()


def trial(
    mean: float, worst: float, time: float, overlap: float = 0.5
) -> SpeedTrial:
    return SpeedTrial(
        setting=SpeedSetting(precision="bf16", overlap=overlap),
        dice=0.9,
        dice_change=mean,
        worst_change=worst,
        agreement=1,
        relative_time=time,
    )


@pytest.mark.parametrize(
    ("trials", "taken"),
    [
        ([], None),
        ([trial(0, 0, 1.1)], None),
        ([trial(-0.002, -0.005, 0.5, 0.4)], 0.4),
        ([trial(-0.0021, 0, 0.5)], None),
        ([trial(0, -0.0051, 0.5)], None),
        ([trial(0, 0, 0.5, 0.5), trial(0, 0, 0.2, 0.25)], 0.25),
        ([trial(0, 0, 0.5, 0.5), trial(-0.1, 0, 0.2, 0.25)], 0.5),
    ],
)
def test_the_fastest_that_keeps_within_the_limits_is_taken(
    trials: list[SpeedTrial], taken: float | None
) -> None:
    found = choose_fastest(trials, LIMITS)
    assert (None if found is None else found.overlap) == taken


def test_changes_are_paired_and_absent_labels_count_as_found() -> None:
    exact = [{"a": 0.5, "b": math.nan}, {"a": 0.7, "b": 0.9}]
    other = [{"a": 0.6, "b": math.nan}, {"a": 0.7, "b": math.nan}]
    changes = compute_changes(exact, other)
    assert changes.labels == pytest.approx({"a": 0.05, "b": 0.05})
    assert changes.mean == pytest.approx(0.05)
    found_where_nothing_is = [{"a": 0.5, "b": 0.0}, {"a": 0.7, "b": 0.9}]
    worse = compute_changes(exact, found_where_nothing_is)
    assert worse.labels == pytest.approx({"a": 0, "b": -0.5})


class Phantoms:
    """Held-out cases whose references are what the bundle itself finds."""

    def __init__(self, bundle: Path, count: int) -> None:
        self._segmenter = Segmenter(bundle, "cpu", speed="exact")
        self._count = count

    def __len__(self) -> int:
        return self._count

    def open_case(self, position: int) -> HeldOutCase:
        volume = scan(position)
        labels = self._segmenter.segment(volume).labels
        return HeldOutCase(str(position), volume, labels)


def scan(seed: int) -> Volume:
    return make_phantom(seed, (26, 20, 18), 8.0)[0]


def draw_windows() -> list[Any]:
    rng = np.random.default_rng(0)
    shape = (1, 1, 16, 16, 16)
    return [rng.standard_normal(shape, np.float32) for _ in range(4)]


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a decision, and its networks in int8; tests that change it take a copy."""
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    home = tmp_path_factory.mktemp("decided")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.setattr(speed_settings, "_LEAST_SECONDS", 0.0)
        # Random weights are not worth keeping in int8.
        patch.setattr(speed_trials, "choose_fastest", choose_int8)
        patch.setattr(socket, "socket", refuse)
        patch.setattr(socket, "create_connection", refuse)
        bundle = trained_bundle(home / "bundle", made_spec())
        cases = SpeedCases(Phantoms(bundle, 5), draw_windows)
        decision = decide_speed(
            load_bundle(bundle), cases, 1e4, home / "speed.json"
        )
        assert decision.finding is not None, decision.reason
        # What comes after may be interrupted; nothing is tried a second time then.
        patch.setattr(Trials, "_measure", refuse)
        write_trained(
            load_bundle(bundle).trained.model_copy(update={"speed": None}),
            bundle,
        )
        again = decide_speed(
            load_bundle(bundle), cases, 0.0, home / "speed.json"
        )
    assert again == decision
    assert load_bundle(bundle).trained.speed == decision.finding
    return bundle


def choose_int8(trials: list[SpeedTrial], _: SpeedLimitsSpec) -> SpeedSetting:
    settings = [each.setting for each in trials]
    return max(settings, key=lambda each: (each.is_quantised, each.overlap))


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("a socket was opened")


@pytest.fixture
def copy(
    decided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    import shutil

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(decided, tmp_path / "copy"))


def use(bundle: Path, precision: str, overlap: float = 0.25) -> None:
    """Let a bundle have decided for a setting."""
    loaded = load_bundle(bundle)
    finding = loaded.trained.speed
    assert finding is not None
    setting = SpeedSetting(precision=precision, overlap=overlap)  # type: ignore[arg-type]
    update = {"balanced": setting, "network": hash_network(loaded)}
    trained = loaded.trained.model_copy(
        update={"speed": finding.model_copy(update=update)}
    )
    write_trained(trained, bundle)


def test_precisions_are_tried_first_and_then_overlaps(decided: Path) -> None:
    finding = load_bundle(decided).trained.speed
    assert finding is not None
    settings = [each.setting for each in finding.trials]
    assert settings[0] == SpeedSetting(precision="fp32", overlap=0.5)
    assert [each.overlap for each in settings[-2:]] == [0.375, 0.25]
    assert {each.overlap for each in settings[:-2]} == {0.5}
    assert finding.trials[0].agreement > 0.99
    assert finding.cases == 5
    assert finding.dice == 1.0


def test_a_bundle_is_segmented_as_was_decided(copy: Path) -> None:
    use(copy, "int8_bf16")
    balanced = Segmenter(copy, "cpu")
    assert balanced.backend == "openvino"
    assert balanced._predictor.sliding_window.spec.inference.overlap == 0.25
    assert balanced.spec.inference.overlap == 0.5, "the bundle says what it did"
    exact = Segmenter(copy, "cpu", speed="exact")
    torch_alone = Segmenter(copy, "cpu", backend="torch")
    assert exact.backend == torch_alone.backend == "torch"
    assert exact._predictor.sliding_window.spec.inference.overlap == 0.5
    wanted = torch_alone.segment(scan(1)).labels
    assert np.array_equal(exact.segment(scan(1)).labels, wanted)
    assert balanced.choices["speed"] == "balanced"
    assert exact.choices["speed"] == "exact"


def test_what_is_said_of_the_arithmetic_is_what_this_processor_does(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(copy, "int8_bf16")
    monkeypatch.setattr(processor, "list_instructions", frozenset)
    segmenter = Segmenter(copy, "cpu")
    assert segmenter.arithmetic == "openvino fp32, overlap 0.25"
    assert segmenter.precision == torch.float32


def test_a_bundle_without_a_decision_is_as_it_was(tmp_path: Path) -> None:
    bundle = trained_bundle(tmp_path, made_spec())
    for speed in (None, "balanced", "fast"):
        segmenter = Segmenter(bundle, "cpu", speed=speed)
        assert segmenter.arithmetic == "torch fp32"
        assert "speed" not in segmenter.choices
    with pytest.raises(MedsegError, match="speed takes exact, balanced, fast"):
        Segmenter(bundle, "cpu", speed="faster")


def test_the_second_start_builds_converts_and_compiles_nothing(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(copy, "bf16" if processor.has_bf16() else "fp32")
    first = Segmenter(copy, "cpu").segment(scan(2)).labels
    monkeypatch.setattr(at_speed, "_build_model", refuse)
    second = Segmenter(copy, "cpu").segment(scan(2)).labels
    assert np.array_equal(first, second)


@pytest.mark.parametrize("part", ["model.int8.xml", "model.int8.bin"])
def test_a_network_in_int8_that_was_exchanged_is_refused(
    copy: Path, part: str
) -> None:
    if not processor.has_int8():
        pytest.skip("this processor computes no int8")
    use(copy, "int8")
    Segmenter(copy, "cpu")  # even where it was compiled before
    file = copy / QUANTISED / part
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="--speed exact"):
        Segmenter(copy, "cpu")
    assert Segmenter(copy, "cpu", speed="exact").backend == "torch"


def test_what_was_decided_for_other_weights_is_not_used(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    use(copy, "bf16")
    weights = copy / "models" / "model.pt"
    other = trained_bundle(copy.parent / "other", made_spec(), seed=3)
    weights.write_bytes((other / "models" / "model.pt").read_bytes())
    assert Segmenter(copy, "cpu").backend == "torch"
    assert "decided for other weights" in caplog.text
    assert "medseg calibrate decides anew" in caplog.text


def test_without_openvino_pytorch_computes_and_one_line_says_so(
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    use(copy, "int8")
    monkeypatch.setattr(openvino, "is_installed", lambda: False)
    segmenter = Segmenter(copy, "cpu")
    assert segmenter.arithmetic == "torch fp32"
    assert len(caplog.records) == 1
    assert "OpenVINO is not installed" in caplog.text


def test_the_decision_is_part_of_the_bundles_hash(copy: Path) -> None:
    use(copy, "fp32")
    before = hash_bundle(load_bundle(copy))
    use(copy, "bf16")
    assert hash_bundle(load_bundle(copy)) != before


def test_a_decision_goes_on_where_it_was_interrupted(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed_settings, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(speed_trials, "_PRECISIONS", ("fp32",))
    measured: list[SpeedSetting] = []
    measure = Trials._measure

    def measure_two(self: Any, setting: SpeedSetting) -> SpeedTrial:
        measured.append(setting)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return replace_time(measure(self, setting))

    monkeypatch.setattr(Trials, "_measure", measure_two)
    memory = tmp_path / "speed.json"
    cases = SpeedCases(Phantoms(copy, 5), draw_windows)
    with pytest.raises(KeyboardInterrupt):
        decide_speed(load_bundle(copy), cases, 1e4, memory)
    # A run that is resumed has trained for a moment only: the time given first counts.
    decision = decide_speed(load_bundle(copy), cases, 0.0, memory)
    assert decision.finding is not None
    assert [each.overlap for each in measured] == [0.5, 0.375, 0.375, 0.25]
    assert len(decision.finding.trials) == 3


def test_other_limits_judge_what_was_tried_and_another_network_is_tried_anew(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed_settings, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(speed_trials, "_PRECISIONS", ("fp32",))
    monkeypatch.setattr(speed_trials, "_OVERLAPS", (0.25,))
    measured: list[SpeedSetting] = []

    def lose_dice(self: Any, setting: SpeedSetting) -> SpeedTrial:
        measured.append(setting)
        lost = 0.004 if setting.overlap == 0.25 else 0.0
        result = trial(-lost, -lost, 0.5 - lost)
        return result.model_copy(update={"setting": setting})

    monkeypatch.setattr(Trials, "_measure", lose_dice)
    cases = SpeedCases(Phantoms(copy, 5), draw_windows)
    memory = tmp_path / "speed.json"
    overlaps = []
    for mean, tried in ((0.002, 2), (0.01, 2), (0.002, 2)):
        limits = [f"inference.speed_limits.mean={mean}"]
        bundle = Bundle(load_bundle(copy, limits).spec, copy)
        finding = decide_speed(bundle, cases, 1e4, memory).finding
        assert finding is not None
        assert finding.balanced is not None
        overlaps.append(finding.balanced.overlap)
        assert len(measured) == tried
    assert overlaps == [0.5, 0.25, 0.5]
    # Of flips, on the other hand, every trial follows.
    mirrored = load_bundle(
        copy, ["inference.mirror=true", "inference.mirror_axes=[0]"]
    )
    decide_speed(Bundle(mirrored.spec, copy), cases, 1e4, memory)
    assert len(measured) == 4


@pytest.mark.parametrize(("large", "tried"), [(4, 1), (5, 3)])
def test_a_smaller_overlap_needs_five_cases_that_take_fewer_windows(
    large: int,
    tried: int,
    copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speed_settings, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(speed_trials, "_PRECISIONS", ("fp32",))

    def keep_dice(_: Any, setting: SpeedSetting) -> SpeedTrial:
        return trial(0, 0, 0.5).model_copy(update={"setting": setting})

    class OfTwoSizes(Phantoms):
        def open_case(self, position: int) -> HeldOutCase:
            case = super().open_case(position)
            if position < large:
                return case
            # Of a single window, whatever the overlap.
            image = case.volume.array[:, :8, :8, :8]
            volume = replace(case.volume, array=image)
            return HeldOutCase(case.name, volume, case.reference[:8, :8, :8])

    monkeypatch.setattr(Trials, "_measure", keep_dice)
    cases = SpeedCases(OfTwoSizes(copy, 8), draw_windows)
    memory = tmp_path / "speed.json"
    finding = decide_speed(load_bundle(copy), cases, 1e4, memory).finding
    assert finding is not None
    assert len(finding.trials) == tried
    card = describe_speed(finding)
    assert ("No smaller overlap" in card) == (tried == 1)


def replace_time(measured: SpeedTrial) -> SpeedTrial:
    return measured.model_copy(update={"relative_time": 0.5})


@pytest.mark.parametrize(
    ("count", "seconds", "reason"),
    [(4, 1e4, "fewer than 5 cases"), (5, 1.0, "too little")],
)
def test_where_too_little_is_known_nothing_is_tried_and_words_say_why(
    copy: Path, tmp_path: Path, count: int, seconds: float, reason: str
) -> None:
    cases = SpeedCases(Phantoms(copy, count), draw_windows)
    memory = tmp_path / "speed.json"
    decision = decide_speed(load_bundle(copy), cases, seconds, memory)
    assert decision.finding is None
    assert reason in decision.reason
    assert not memory.exists()


def test_an_interactive_bundle_is_not_tried_in_int8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed_trials, "fit_to_processor", lambda each: each)
    spec = made_spec(training={"clicks": {}})
    bundle = load_bundle(trained_bundle(tmp_path / "bundle", spec))
    nothing: Any = None
    cases = SpeedCases(nothing, lambda: pytest.fail("windows were drawn"))
    trials = Trials(bundle, cases, nothing, nothing, 0)
    assert trials._list_precisions() == ["fp32", "bf16"]


def test_a_bundle_that_asks_for_exact_is_not_tried(copy: Path) -> None:
    loaded = load_bundle(copy, ["inference.speed=exact"])
    cases = SpeedCases(Phantoms(copy, 5), draw_windows)
    bundle = Bundle(loaded.spec, copy)
    decision = decide_speed(bundle, cases, 1e4, copy / "speed.json")
    assert decision.finding is None
    content = json.loads(loaded.spec.model_dump_json())
    assert content["inference"]["speed"] == "exact"


def open_unlabelled(position: int) -> HeldOutCase:
    volume = scan(position)
    return HeldOutCase(str(position), volume, np.zeros(volume.shape, np.uint8))


def test_a_time_too_short_for_a_scan_is_seen_from_one_of_its_windows(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []

    def compute_slowly(self: Ensemble, windows: torch.Tensor) -> None:
        computed.append(len(windows))
        time.sleep(0.05)

    monkeypatch.setattr(Ensemble, "compute", compute_slowly)
    monkeypatch.setattr(Segmenter, "predict", refuse)
    monkeypatch.setattr(speed_settings, "_LEAST_SECONDS", 0.0)
    held_out = Phantoms(copy, 5)
    monkeypatch.setattr(held_out, "open_case", open_unlabelled)
    memory = tmp_path / "speed.json"
    decision = decide_speed(
        load_bundle(copy), SpeedCases(held_out, draw_windows), 1.0, memory
    )
    assert decision.finding is None
    assert "too little" in decision.reason
    assert computed == [1, 1]
    assert not memory.exists()


def test_windows_that_hold_nothing_take_no_time(copy: Path) -> None:
    segmenter = Segmenter(copy, "cpu", speed="exact")
    volume = scan(0)
    empty = replace(volume, array=np.zeros_like(volume.array))
    assert estimate_seconds(segmenter, empty) == 0
    assert estimate_seconds(segmenter, volume) > 0


SECRET = "/home/mueller_hans"


@pytest.mark.parametrize("what", ["quantise", "compile"])
def test_no_log_quotes_another_library(
    what: str,
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"cannot open {SECRET}")

    caplog.set_level(logging.INFO)
    if what == "compile":
        use(copy, "fp32")
        monkeypatch.setattr(openvino, "require", fail)
        assert Segmenter(copy, "cpu").backend == "torch"
    else:
        monkeypatch.setattr(speed_trials, "fit_to_processor", lambda each: each)
        nncf = pytest.importorskip("nncf")
        monkeypatch.setattr(nncf, "quantize", fail)
        nothing: Any = None
        cases = SpeedCases(nothing, draw_windows)
        trials = Trials(load_bundle(copy), cases, nothing, nothing, 0)
        assert trials._list_precisions() == ["fp32", "bf16"]
    assert caplog.records
    assert SECRET not in caplog.text


def test_what_nobody_drew_does_not_count(copy: Path) -> None:
    bundle = load_bundle(copy)
    case = Phantoms(copy, 1).open_case(0)
    assert case.reference.max() == 2
    undrawn = np.where(case.reference == 2, 0, case.reference)
    exact = ExactResults(bundle, ["kidney"])
    exact.add(replace(case, reference=undrawn))
    assert exact.dice == [{"liver": 1.0}]
    cases = SpeedCases(Phantoms(copy, 5), draw_windows, ["liver", "kidney"])
    decision = decide_speed(bundle, cases, 1e4, copy / "speed.json")
    assert decision.reason == "no case holds any of the labels"
