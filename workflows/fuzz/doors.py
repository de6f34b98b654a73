"""The doors that files go through, and what is wrong with how they were received."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from oracles import Reading, agree, read_independently
from sound_files import BUNDLES, PICTURES, SECRET, Sound

import medseg
from medseg.bundle.bundle import BUNDLE_FILE, load_bundle, parse_spec
from medseg.bundle.spec_files import write_bundle
from medseg.datasets.cases import find_cases
from medseg.datasets.integrity import open_case
from medseg.errors import MedsegError
from medseg.events import Event, Notice
from medseg.inference.result_files import RESULT_FORMATS, ResultFormat

REFUSED, RIGHT, WARNED, LEFT_OUT = "refused", "right", "warned", "left out"
"""Ends that are in order. ``left out``: it is no scan, and a note says so."""


@dataclass(frozen=True)
class Case:
    """A damaged file.

    Attributes:
        seed: Makes it again.
        damage: What happened to it.
        sound: What it was.
    """

    seed: int
    damage: str
    sound: Sound


@dataclass(frozen=True)
class Finding:
    """What became of a case.

    Attributes:
        seed: The case.
        kind: Of its file.
        damage: What happened to it.
        end: How it ended; anything but the four good ends is a violation.
        detail: More about a violation.
    """

    seed: int
    kind: str
    damage: str
    end: str
    detail: str = ""

    @property
    def is_violation(self) -> bool:
        """Whether something is wrong."""
        return self.end not in (REFUSED, RIGHT, WARNED, LEFT_OUT)


def describe(case: Case, end: str, detail: str = "") -> Finding:
    """Return a case's finding."""
    return Finding(case.seed, case.sound.kind, case.damage, end, detail)


# --- medseg segment -----------------------------------------------------------------------


def _save_scan(path: Path, labels: Any, like: Any, spec: Any) -> None:
    """Write what was segmented, as a result format."""
    with path.open("wb") as file:
        np.savez(file, array=like.array[0], affine=like.affine)


def make_bundles(folder: Path) -> None:
    """Make a bundle for volumes and one for pictures, with random weights."""
    from medseg.networks.building import (
        build_network,
        select_inference_weights,
    )
    from medseg.training.run_folder import RunFolder

    RESULT_FORMATS._shipped["npz"] = ResultFormat(".npz", _save_scan)
    common = {
        "channels": [{"name": "any"}],
        "labels": [
            {"index": 1, "name": "liver"},
            {"index": 2, "name": "kidney"},
        ],
    }
    volume = {
        "network": {
            "kind": "unet",
            "channels": [4, 4, 4],
            "strides": [1, 2, 2],
        },
        "training": {"patch": [16, 16, 16]},
    }
    picture = {
        "preprocessing": {"input": "picture"},
        "network": {
            "kind": "unet",
            "dims": 2,
            "channels": [4, 4, 4],
            "strides": [1, 2, 2],
        },
        "training": {"patch": [16, 16]},
    }
    for name, sections in (("volume", volume), ("picture", picture)):
        spec = parse_spec({"name": name, **common, **sections})
        BUNDLES[name] = folder / name
        write_bundle(spec, BUNDLES[name] / BUNDLE_FILE)
        weights = select_inference_weights(build_network(spec), spec)
        RunFolder(BUNDLES[name]).save_weights(weights)


def segment(root: Path, cases: list[Case], sound: list[Sound]) -> list[Finding]:
    """Segment a folder of damaged files among sound ones."""
    is_picture = cases[0].sound.kind in PICTURES
    out = root / "out"
    notes: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Notice):
            notes.append(event.message)

    batch = medseg.segment(
        BUNDLES["picture" if is_picture else "volume"],
        root / "scans",
        out,
        device="cpu",
        formats=["png" if is_picture else "nifti", "npz"],
        listeners=[listen],
    )
    by_folder: dict[str, list[Any]] = {}
    for entry in batch.results:
        folder = Path(batch.places.get(entry.scan, "")).parts[:1]
        by_folder.setdefault("".join(folder), []).append(entry)
    findings = []
    for case in cases:
        entries = by_folder.get(f"c{case.seed}", [])
        findings.append(_judge_scan(case, entries, out, notes))
    for number, file in enumerate(sound):
        entries = by_folder.get(f"good{number}", [])
        end = _judge_good(file, entries, out)
        if end:
            findings.append(Finding(cases[0].seed, file.kind, "none", end))
    recorded = [out / "ledger.jsonl", out / "report.html"]
    if any(SECRET.encode() in file.read_bytes() for file in recorded):
        findings.append(describe(cases[0], "the patient is named"))
    return findings


def _judge_scan(
    case: Case, entries: list[Any], out: Path, notes: list[str]
) -> Finding:
    if not entries:
        is_said = notes or not _holds_files(
            out.parent / "scans" / f"c{case.seed}"
        )
        return describe(case, LEFT_OUT if is_said else "lost without a word")
    bugs = [entry for entry in entries if entry.state == "error"]
    if bugs:
        return describe(case, "a bug", bugs[0].error)
    done = [entry for entry in entries if entry.is_good]
    if not done:
        return describe(case, REFUSED)
    oracle = read_independently(case.sound)
    truth = Reading(case.sound.array, case.sound.affine)
    ends = [_judge_reading(entry, out, truth, oracle) for entry in done]
    worst = max(ends, key=_rank)
    if _rank(worst) > 1 and len(done) < len(entries):
        # The part that is missing has an entry of its own, which says why.
        return describe(case, WARNED)
    detail = ""
    if _rank(worst) > 1:
        reading = _load(out, done[0].scan)
        if _is_noted_loss(reading, truth, notes):
            return describe(case, WARNED)
        shape, affine = reading.array.shape, reading.affine
        detail = f"{shape} {np.round(affine, 3).tolist()}"
    return describe(case, worst, detail)


def _is_noted_loss(reading: Reading, truth: Reading, notes: list[str]) -> bool:
    """Tell whether end slices alone are missing, and a file that is no image is noted."""
    whole = Reading(truth.array, truth.affine)
    count = reading.array.shape[2]
    lost = whole.array.shape[2] - count
    if lost <= 0 or not notes:
        return False
    for first in (0, lost):
        affine = whole.affine.copy()
        affine[:3, 3] += affine[:3, 2] * first
        part = Reading(whole.array[:, :, first : first + count], affine)
        if agree(reading, part) == (True, True):
            return True
    return False


def _holds_files(folder: Path) -> bool:
    return any(not path.is_dir() for path in folder.rglob("*"))


def _rank(end: str) -> int:
    order = (RIGHT, WARNED, "wrong voxels", "wrong grid")
    return order.index(end)


def _judge_reading(
    entry: Any, out: Path, truth: Reading, oracle: Reading | None
) -> str:
    reading = _load(out, entry.scan)
    others = [truth] if oracle is None else [truth, oracle]
    verdicts = [agree(reading, other) for other in others]
    if (True, True) in verdicts:
        return RIGHT
    if entry.warnings:
        return WARNED
    has_grid = any(same_grid for same_grid, _ in verdicts)
    return "wrong voxels" if has_grid else "wrong grid"


def _load(out: Path, scan: str) -> Reading:
    with np.load(out / f"{scan}.npz") as saved:
        return Reading(saved["array"], saved["affine"])


def _judge_good(sound: Sound, entries: list[Any], out: Path) -> str:
    if [entry.state for entry in entries] != ["done"]:
        states = [(entry.state, entry.error) for entry in entries]
        return f"a good file is not segmented: {states}"
    reading = _load(out, entries[0].scan)
    truth = Reading(sound.array, sound.affine)
    if agree(reading, truth) != (True, True):
        return "a good file is read wrongly"
    if entries[0].warnings:
        return f"a good file has a warning: {entries[0].warnings}"
    return ""


# --- the doors of data sets ---------------------------------------------------------------


class _Said:
    """What the doors said of a data set."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.warnings: list[str] = []

    def try_to(self, act: Callable[[], Any]) -> Any:
        """Do something that may refuse; anything else that it raises is a bug."""
        try:
            return act()
        except MedsegError as error:
            self.faults.append(error.message)
            faults = getattr(error, "faults", ())
            self.faults += [fault.what for fault in faults]
        return None


def use_dataset(root: Path, case: Case) -> Finding:
    """Check, plan and evaluate a data set in which one file is damaged."""
    data = case.sound.path
    bundle = data / "bundle"
    has_own_bundle = bundle.is_dir()
    if not has_own_bundle:
        bundle = BUNDLES["volume"]
    said = _Said()
    report = said.try_to(lambda: medseg.check(bundle, data=data))
    if report is not None:
        said.faults += [fault.what for fault in report.faults]
        said.warnings += report.warnings
    file = root / "plan" / "bundle.json"
    said.try_to(lambda: medseg.plan(data, file, device="cpu"))
    masks = data / "labelsTr"
    if masks.is_dir():
        out = root / "scores"
        scores = said.try_to(lambda: medseg.evaluate(masks, data, out))
        if scores is not None:
            said.faults += [fault.what for fault in scores.faults]
    if has_own_bundle:
        image = data / "imagesTr" / "case_00.nii.gz"
        out = root / "results"
        said.try_to(lambda: medseg.segment(bundle, image, out, device="cpu"))
    if any(SECRET in text for text in (*said.faults, *said.warnings)):
        return describe(case, "the patient is named")
    if said.faults:
        return describe(case, REFUSED)
    if said.warnings:
        return describe(case, WARNED)
    return _judge_labels(case, data)


def _judge_labels(case: Case, data: Path) -> Finding:
    """Compare the labels of a data set that was taken without a word with what they were."""
    truth = case.sound.array
    if not truth.size:
        return describe(case, RIGHT)
    expected = [truth]
    if case.sound.kind == "label map":
        oracle = read_independently(case.sound)
        expected += [oracle.array] if oracle else []
    spec = load_bundle(BUNDLES["volume"]).spec
    for each in find_cases(data, spec).cases:
        _, labels = open_case(each, spec)
        if not any(np.array_equal(labels, one) for one in expected):
            return describe(case, "wrong labels", each.name)
    return describe(case, RIGHT)


def clear(root: Path) -> None:
    """Remove a folder, whatever lies in it."""
    shutil.rmtree(root, ignore_errors=True)


def dump(findings: list[Finding]) -> str:
    """Return findings as JSON."""
    return json.dumps([vars(finding) for finding in findings])
