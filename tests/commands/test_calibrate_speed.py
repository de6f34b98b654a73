"""A calibration decides how fast a CPU may compute the network, by the code of a training."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.bundles import made_spec, trained_bundle

import medseg
from medseg.bundle.bundle import load_bundle, with_trained
from medseg.bundle.hashes import hash_network
from medseg.bundle.spec import SpeedFinding, SpeedSetting, SpeedTrial
from medseg.bundle.spec_files import write_trained
from medseg.errors import MedsegError, ScanError
from medseg.events import Event, HeldOutDecision, Notice, Progress
from medseg.inference.backends.quantised import QUANTISED, has_files
from medseg.testing import write_dataset
from medseg.training import calibration, speed_trials
from medseg.training.calibration import CalibrationState, decide_on_speed
from medseg.training.journal import Journal
from medseg.training.speed_trials import Trials

pytest.importorskip("openvino")
pytest.importorskip("nncf")

SECTIONS: dict[str, Any] = {"quality": {"corrupted_copies": 0}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight labelled cases that do not say that they are made up."""
    folder = tmp_path_factory.mktemp("data") / "organs"
    data = write_dataset(folder, 8, 0, shape=(20, 18, 16), spacing=9.0)
    listing = data / "dataset.json"
    described = json.loads(listing.read_text())
    del described["made_up"]
    listing.write_text(json.dumps(described))
    return data


@pytest.fixture(autouse=True)
def _few_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Try int8 alone, and take it, whatever this processor computes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(speed_trials, "_PRECISIONS", ("int8",))
    monkeypatch.setattr(speed_trials, "_OVERLAPS", ())
    monkeypatch.setattr(speed_trials, "fit_to_processor", lambda each: each)
    monkeypatch.setattr(speed_trials, "choose_fastest", choose_int8)


def choose_int8(trials: list[SpeedTrial], _: Any) -> SpeedSetting:
    settings = [each.setting for each in trials]
    return max(settings, key=lambda each: (each.is_quantised, each.overlap))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of random weights, as if others had trained it."""
    return trained_bundle(tmp_path / "bundle", made_spec(**SECTIONS))


@dataclass
class Stop:
    """Stops a call when so many cases are scored."""

    at: int

    def __call__(self, event: Event) -> None:
        is_scoring = isinstance(event, Progress) and "scoring" in event.task
        if is_scoring and event.done == self.at:  # type: ignore[attr-defined]
            raise KeyboardInterrupt


def refuse(*_: object) -> None:
    raise AssertionError("a setting was tried again")


def list_files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_copy_is_segmented_at_the_speed_that_the_cases_decided(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    before = list_files(bundle)
    events: list[Event] = []
    out = tmp_path / "out"
    medseg.calibrate(
        bundle, out, data=data, device="cpu", listeners=[events.append]
    )
    assert list_files(bundle) == before
    loaded = load_bundle(out)
    finding = loaded.trained.speed
    assert finding is not None
    assert finding.balanced is not None
    assert finding.balanced.precision == "int8"
    assert finding.cases == 6, "two of eight served for the ranges"
    assert finding.network == hash_network(loaded)
    assert sorted(finding.files) == ["model.int8.bin", "model.int8.xml"]
    assert has_files(loaded, finding.files)
    assert medseg.Segmenter(out, "cpu").backend == "openvino"
    card = (out / "docs" / "README.md").read_text()
    assert card.count("## Speed on a CPU") == 1
    assert "| int8, overlap 0.5 |" in card
    decided = [isinstance(event, HeldOutDecision) for event in events]
    scored = [
        isinstance(event, Progress) and "scoring" in event.task
        for event in events
    ]
    # Quality is calibrated at the speed that results will have.
    assert decided.index(True) < scored.index(True)
    assert list(tmp_path.glob(".*")) == []


def test_an_interrupted_call_keeps_what_was_decided_and_changes_nothing(
    bundle: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list_files(bundle)
    how: dict[str, Any] = {"data": data, "in_place": True, "device": "cpu"}
    with pytest.raises(KeyboardInterrupt):
        medseg.calibrate(bundle, **how, listeners=[Stop(at=3)])
    rest = {
        name: content
        for name, content in list_files(bundle).items()
        if not name.startswith(".calibration")
    }
    assert rest == before
    monkeypatch.setattr(Trials, "_measure", refuse)
    events: list[Event] = []
    medseg.calibrate(bundle, **how, listeners=[events.append])
    done = [
        event.done
        for event in events
        if isinstance(event, Progress) and "scoring" in event.task
    ]
    assert done[0] == 3
    finding = load_bundle(bundle).trained.speed
    assert finding is not None
    assert has_files(load_bundle(bundle), finding.files)
    assert not (bundle / ".calibration").exists()


def test_a_decision_that_was_interrupted_goes_on(
    bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    measure = Trials._measure

    def measure_two(self: Trials, setting: SpeedSetting) -> SpeedTrial:
        tried.append(setting.name)
        if len(tried) == 2:
            raise KeyboardInterrupt
        return measure(self, setting)

    monkeypatch.setattr(Trials, "_measure", measure_two)
    monkeypatch.setattr(speed_trials, "_PRECISIONS", ("fp32", "int8"))
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        medseg.calibrate(bundle, out, data=data, device="cpu")
    medseg.calibrate(bundle, out, data=data, device="cpu")
    names = ["fp32, overlap 0.5", "int8, overlap 0.5"]
    assert tried == [*names, names[1]]


def test_on_a_gpu_nothing_is_decided_and_a_word_says_so(
    bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(calibration, "choose_device", lambda _: gpu)
    events: list[Event] = []
    out = tmp_path / "out"
    medseg.calibrate(
        bundle, out, data=data, device="cpu", listeners=[events.append]
    )
    notices = [each.message for each in events if isinstance(each, Notice)]
    assert any("--device cpu" in message for message in notices)
    assert load_bundle(out).trained.speed is None


def test_what_its_own_held_out_cases_decided_stays(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    speed = SpeedFinding(network=hash_network(loaded))
    trained = loaded.trained.model_copy(update={"speed": speed})
    cases: Any = SimpleNamespace(ids=["a", "b"])
    state = CalibrationState(
        with_trained(loaded, trained),
        cases,
        own=("a", "b", "c"),
        decides_largest=False,
        device="cpu",
        journal=Journal(bundle / "journal"),
    )
    assert decide_on_speed(state) is state
    other = replace(state, own=("a",))
    with pytest.raises(AttributeError, match="cases"):
        decide_on_speed(other)


def test_an_export_calibrates_first_where_labelled_cases_are_given(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    events: list[Event] = []
    made = medseg.export(
        bundle, out, to="openvino", data=data, listeners=[events.append]
    )
    assert made.folder == out
    assert made.agreement is not None
    loaded = load_bundle(out)
    assert loaded.trained.speed is not None
    assert loaded.trained.quality is not None
    assert (out / QUANTISED / "model.int8.xml").is_file()
    assert (out / "models" / "openvino" / "model.xml").is_file()
    assert not any("--data" in text for text in list_notices(events))
    with pytest.raises(MedsegError, match="--data goes with --to openvino"):
        medseg.export(bundle, tmp_path / "x", to="onnx", data=data)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_failed_export_calibrates_nothing_and_goes_on(
    bundle: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    in_place: bool,
) -> None:
    torn = tmp_path / "torn"
    torn.mkdir()
    image = next((data / "imagesTr").iterdir())
    (torn / image.name).write_bytes(image.read_bytes()[:500])
    out = None if in_place else tmp_path / "out"
    before = list_files(bundle)
    with pytest.raises(ScanError):
        medseg.export(bundle, out, to="openvino", scans=torn, data=data)
    after = list_files(bundle)
    kept = [name for name in after if not name.startswith(".calibration")]
    assert {name: after[name] for name in kept} == before
    assert not (tmp_path / "out").exists()
    # The same call with whole scans is not refused, and nothing is tried again.
    monkeypatch.setattr(Trials, "_measure", refuse)
    (torn / image.name).write_bytes(image.read_bytes())
    made = medseg.export(bundle, out, to="openvino", scans=torn, data=data)
    assert made.agreement is not None
    folder = out or bundle
    assert load_bundle(folder).trained.quality is not None
    assert (folder / "models" / "openvino" / "model.xml").is_file()
    assert list(tmp_path.glob(".*")) == list(bundle.glob(".*")) == []


def list_notices(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Notice)]


def test_an_export_without_labelled_cases_says_how_the_speed_is_decided(
    bundle: Path,
) -> None:
    def export() -> list[str]:
        events: list[Event] = []
        medseg.export(bundle, to="openvino", listeners=[events.append])
        return [text for text in list_notices(events) if "--data" in text]

    (notice,) = export()
    assert "medseg calibrate BUNDLE" in notice
    loaded = load_bundle(bundle)
    speed = SpeedFinding(network=hash_network(loaded))
    trained = loaded.trained.model_copy(update={"speed": speed})
    write_trained(trained, bundle)
    assert export() == []
