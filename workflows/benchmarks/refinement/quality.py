"""How well quality finds bad results on scans and kinds of damage that it has not seen.

    python workflows/benchmarks/refinement/quality.py bundles/hippocampus_mr \
        --data Task04_Hippocampus --out quality --steps 400 --arms standard "no corruptions"

Trains each arm and seed (a call that was stopped goes on where it was), calibrates on held-back
cases as every training does, and then judges test cases of other patients: as they are, with the
kinds of corruption that calibration saw, and with kinds that it did not (``unseen.py``). Writes
``quality.md`` and ``quality.json``. One case counts once per condition; intervals are bootstraps
over patients.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import ARMS, TEST, list_without_test, spec_of, split_cases, trained
from figures import FIGURES, Estimate, covered, estimate, most_found
from unseen import UNSEEN

from medseg import Segmenter
from medseg._support.files import write_atomically
from medseg._support.provenance import collect_provenance
from medseg.bundle.bundle import load_bundle
from medseg.datasets.cases import Case
from medseg.datasets.integrity import open_case
from medseg.events import Event, StepDone, ValidationDone
from medseg.quality.agreement import compute_mask_dice
from medseg.quality.corruptions import CORRUPTIONS, Corruption, corrupt_volume
from medseg.training.mask_errors import corrupt_mask
from medseg.volume import Array, Volume

CLEAN, SEEN, SHIFTED = "clean", "seen corruptions", "unseen corruptions"
GOALS = {"AUROC": 0.95, "failures in the worst 20 %": 0.75}


@dataclass(frozen=True, slots=True)
class Judged:
    """One test image and what became of it.

    Attributes:
        condition: ``CLEAN``, ``SEEN`` or ``SHIFTED``.
        kind: Of the corruption.
        patient: Which patient, by number.
        case: Which case, by number.
        dice: True Dice, mean over structures.
        raw: Expected Dice as the network's probabilities have it, at temperature 1.
        expected: Calibrated, at the temperature that held-back cases chose.
        lower: Its bound.
        review: Whether it was flagged.
    """

    condition: str
    kind: str
    patient: str
    case: int
    dice: float
    raw: float
    expected: float
    lower: float
    review: bool


@dataclass(frozen=True, slots=True)
class JudgedMask:
    """A mask that was not made by the bundle: the true one, damaged.

    Attributes:
        patient: Which patient, by number.
        dice: True Dice, mean over structures.
        raw: Its expected Dice under the bundle's probabilities.
        expected: Calibrated.
        alike: Dice with the bundle's own mask.
        bounds: Bound and true Dice of each structure that has a bound.
    """

    patient: str
    dice: float
    raw: float
    expected: float
    alike: float
    bounds: tuple[tuple[float, float], ...]


class Spoken:
    """A listener that prints a line now and then."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone) and event.step % 50 == 0:
            print(
                f"{time.strftime('%H:%M:%S')} step {event.step}, loss {event.loss:.3f}",
                flush=True,
            )
        if isinstance(event, ValidationDone):
            print(
                f"step {event.step}: Dice {event.scores['dice']['mean']:.4f}",
                flush=True,
            )


def conditions(volume: Volume, seed: int) -> Iterator[tuple[str, str, Volume]]:
    """Yield a scan in every condition: condition, kind and the scan."""
    yield CLEAN, CLEAN, volume
    kinds: list[tuple[str, str, Corruption]] = [
        *((SEEN, kind, change) for kind, change in CORRUPTIONS.items()),
        *((SHIFTED, kind, change) for kind, change in UNSEEN.items()),
    ]
    for number, (condition, kind, change) in enumerate(kinds):
        rng = np.random.default_rng((seed, number))
        severity = float(rng.uniform(0.1, 1.0))
        yield (
            condition,
            kind,
            corrupt_volume(volume, change, severity, int(rng.integers(2**31))),
        )


def judge_case(
    segmenter: Segmenter, case: Case, number: int, patient: str
) -> tuple[list[Judged], JudgedMask]:
    """Segment one test case in every condition, and judge a damaged mask of it."""
    volume, reference = open_case(case, segmenter.spec)
    found = []
    for condition, kind, image in conditions(volume, 1000 + number):
        made = segmenter.predict(image, temperatures=(1.0,)).finish()
        raw = list(made.confidence_at[1.0].values())
        dice = compute_mask_dice(
            made.labels, reference, segmenter.spec.label_set
        )
        known = made.quality
        found.append(
            Judged(
                condition,
                kind,
                patient,
                number,
                float(np.mean(list(dice.values()))),
                float(np.mean(raw)) if raw else 0.0,
                known.expected or 0.0,
                known.lower or 0.0,
                known.review,
            )
        )
    return found, _judge_mask(segmenter, volume, reference, number, patient)


def _judge_mask(
    segmenter: Segmenter,
    volume: Volume,
    reference: Array,
    number: int,
    patient: str,
) -> JudgedMask:
    rng, noise = (
        np.random.default_rng((2000, number)),
        torch.Generator().manual_seed(number),
    )
    classes = segmenter.spec.label_set.channels
    # A picture is flat.
    shape = reference.shape[:2] if reference.shape[2] == 1 else reference.shape
    mask = torch.from_numpy(reference.astype(np.int64)).reshape(shape)
    for _ in range(int(rng.integers(0, 4))):
        mask = corrupt_mask(mask, classes, rng, noise)
    given = mask.reshape(reference.shape).numpy().astype(np.uint8)
    judged = segmenter.judge(volume, given)
    dice = compute_mask_dice(given, reference, segmenter.spec.label_set)
    mean = judged.mean
    if mean is None or mean.expected is None:
        raise ValueError("the arm is not calibrated; hold back more cases")
    bounds = [
        (found.lower, dice.get(name, 1.0))
        for name, found in judged.labels.items()
    ]
    return JudgedMask(
        patient,
        float(np.mean(list(dice.values()))),
        mean.raw,
        mean.expected,
        mean.dice,
        tuple((lower, true) for lower, true in bounds if lower is not None),
    )


def judge_arm(run: Path, cases: Sequence[Case]) -> Mapping[str, Any]:
    """Judge all test cases with a trained bundle; go on after those that were judged before."""
    file = run / "judged.jsonl"
    before = file.read_text().splitlines() if file.is_file() else []
    if len(before) < len(cases):
        segmenter = Segmenter(run, "cpu")
        patients = {
            name: str(n)
            for n, name in enumerate(dict.fromkeys(c.group for c in cases))
        }
        for number, case in list(enumerate(cases))[len(before) :]:
            found, mask = judge_case(
                segmenter, case, number, patients[case.group]
            )
            made = {
                "images": [asdict(one) for one in found],
                "mask": asdict(mask),
            }
            before.append(json.dumps(made))
            write_atomically(file, "\n".join(before) + "\n")
    read = [json.loads(line) for line in before]
    images = [image for one in read for image in one["images"]]
    known = load_bundle(run).trained.quality
    return {
        "images": images,
        "masks": [one["mask"] for one in read],
        "temperature": known.temperature if known else 1.0,
    }


def figures_of(rows: Sequence[Judged], score: str) -> dict[str, Estimate]:
    """Return every figure of one score over some images."""
    scores = [getattr(row, score) for row in rows]
    dice, patients = [row.dice for row in rows], [row.patient for row in rows]
    return {
        name: estimate(figure, scores, dice, patients)
        for name, figure in FIGURES.items()
    }


def bounds_of(rows: Sequence[Judged]) -> Estimate:
    """Return how often the bound holds."""
    return estimate(
        covered,
        [row.lower for row in rows],
        [row.dice for row in rows],
        [row.patient for row in rows],
    )


def difference(first: Sequence[Judged], second: Sequence[Judged]) -> Estimate:
    """Return the mean gain in Dice of the first arm over the second, paired by image."""
    gains = [
        one.dice - other.dice for one, other in zip(first, second, strict=True)
    ]
    nothing = [0.0] * len(gains)
    return estimate(
        lambda gain, _: float(gain.mean()),
        gains,
        nothing,
        [row.patient for row in first],
    )


def heading(*cells: str) -> list[str]:
    return ["", "| " + " | ".join(cells) + " |", "| --- " * len(cells) + "|"]


def quality_lines(
    name: str, rows: Sequence[Judged], temperature: float
) -> Iterator[str]:
    """Yield the tables of one trained bundle."""
    yield f"\n### {name}: temperature {temperature:g}"
    yield from heading(
        "images",
        "n",
        "Dice",
        "failed",
        "score",
        *FIGURES,
        "a perfect order finds",
    )
    for condition in (CLEAN, SEEN, SHIFTED, None):
        some = [row for row in rows if condition in (row.condition, None)]
        dice = [row.dice for row in some]
        best = most_found(np.array(dice), np.array(dice))
        for score in ("expected", "raw"):
            cells = [str(value) for value in figures_of(some, score).values()]
            about = (condition or "all", str(len(some)), f"{np.mean(dice):.3f}")
            failed = f"{np.mean(np.array(dice) < 0.7):.2f}"
            yield f"| {' | '.join((*about, failed, score, *cells, f'{best:.2f}'))} |"
    yield from heading("images", "bound holds", "flagged for review")
    for condition in (CLEAN, SEEN, SHIFTED):
        some = [row for row in rows if row.condition == condition]
        flagged = np.mean([row.review for row in some])
        yield f"| {condition} | {bounds_of(some)} | {flagged:.2f} |"
    yield from heading(
        "kind", "Dice", "failed", "AUROC", "Spearman", "bound holds"
    )
    for kind in dict.fromkeys(row.kind for row in rows):
        some = [row for row in rows if row.kind == kind]
        found = figures_of(some, "expected")
        failed = np.mean([row.dice < 0.7 for row in some])
        cells = [found["AUROC"], found["Spearman"], bounds_of(some)]
        mean = np.mean([row.dice for row in some])
        yield f"| {kind} | {mean:.3f} | {failed:.2f} | {' | '.join(map(str, cells))} |"


def mask_lines(masks: Sequence[JudgedMask]) -> Iterator[str]:
    """Yield the table of damaged true masks, judged without a reference."""
    patients, dice = [one.patient for one in masks], [one.dice for one in masks]
    failed = np.mean(np.array(dice) < 0.7)
    yield f"\nTrue masks with made-up faults, judged on clean scans: n = {len(masks)}, mean Dice "
    yield f"{np.mean(dice):.3f}, {failed:.2f} of them below 0.7."
    yield from heading("score", *FIGURES)
    for score in ("expected", "raw", "alike"):
        values = [getattr(one, score) for one in masks]
        cells = (
            str(estimate(each, values, dice, patients))
            for each in FIGURES.values()
        )
        yield f"| {score} | {' | '.join(cells)} |"
    pairs = [(*pair, one.patient) for one in masks for pair in one.bounds]
    lower, true, whose = zip(*pairs, strict=True)
    held = estimate(covered, lower, true, whose)
    yield f"\nThe bound of a structure holds in {held} of {len(pairs)}."


def gain_lines(arms: Mapping[str, Sequence[Judged]]) -> Iterator[str]:
    """Yield what ``standard`` gains over the other arms."""
    others = [name for name in arms if name != "standard"]
    if "standard" not in arms or not others:
        return
    yield "\n### Dice of `standard` minus the other arms', paired by image"
    yield from heading("images", *(f"minus `{name}`" for name in others))
    for condition in (CLEAN, SEEN, SHIFTED):
        gains = []
        for name in others:
            first, second = (
                [row for row in arms[arm] if row.condition == condition]
                for arm in ("standard", name)
            )
            gains.append(difference(first, second))
        yield f"| {condition} | {' | '.join(map(str, gains))} |"


def goals_met(rows: Sequence[Judged]) -> Iterator[str]:
    """Yield which goals a trained bundle meets; a goal counts by its value, not its interval."""
    shifted = figures_of(
        [row for row in rows if row.condition == SHIFTED], "expected"
    )
    for name, least in GOALS.items():
        met = "met" if shifted[name].value >= least else "missed"
        yield f"- {name} on unseen corruptions, {least} or more: {shifted[name]}, {met}"
    clean = bounds_of([row for row in rows if row.condition == CLEAN])
    met = "met" if 0.85 <= clean.value <= 0.95 else "missed"
    yield f"- the 90 % bound holds in 0.85 to 0.95 of clean scans: {clean}, {met}"


def write_results(
    out: Path, results: Mapping[str, Mapping[str, Any]], about: Any
) -> str:
    """Write ``quality.json`` and ``quality.md``; return the latter."""
    lines: list[str] = []
    by_arm: dict[str, list[Judged]] = {}
    for name, content in results.items():
        rows = [Judged(**row) for row in content["images"]]
        by_arm.setdefault(name.rsplit(", seed", 1)[0], []).extend(rows)
        lines.extend(quality_lines(name, rows, content["temperature"]))
        lines.extend(["", *goals_met(rows)])
        masks = (
            row | {"bounds": tuple(map(tuple, row["bounds"]))}
            for row in content["masks"]
        )
        lines.extend(mask_lines([JudgedMask(**row) for row in masks]))
    lines.extend(gain_lines(by_arm))
    text = "\n".join(lines) + "\n"
    write_atomically(out / "quality.md", text)
    write_atomically(
        out / "quality.json",
        json.dumps({"about": about, "runs": results}) + "\n",
    )
    return text


def run_arms(
    given: argparse.Namespace, data: Path, arms: Iterable[tuple[str, int]]
) -> dict[str, Path]:
    return {
        f"{arm}, seed {seed}": trained(
            given.bundle,
            arm,
            data,
            given.out,
            steps=given.steps,
            seed=seed,
            overrides=given.overrides,
            listeners=[Spoken()],
        )
        for arm, seed in arms
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=ARMS,
        default=["standard", "no corruptions"],
    )
    parser.add_argument(
        "--test-fold",
        type=int,
        default=TEST,
        help="an --out of its own for each",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument(
        "--only",
        choices=("train", "judge"),
        help="do one stage, print no table",
    )
    given = parser.parse_args()

    torch.set_num_threads(given.threads)
    spec = spec_of(given.bundle)
    parts = split_cases(given.data, spec, given.test_fold)
    data = list_without_test(parts, spec, given.out)
    wanted = [(arm, seed) for seed in given.seeds for arm in given.arms]
    runs = run_arms(given, data, wanted)
    if given.only == "train":
        return
    results = {name: judge_arm(run, parts[2]) for name, run in runs.items()}
    if given.only == "judge":
        return
    sizes = dict(
        zip(("learning", "held_back", "test"), map(len, parts), strict=True)
    )
    about = {
        "bundle": given.bundle.name,
        "steps": given.steps,
        "overrides": given.overrides,
        "test_fold": given.test_fold,
        "cases": sizes,
        "collect_provenance": collect_provenance(torch.device("cpu")),
    }
    print(write_results(given.out, results, about))
    print(json.dumps(about, indent=1))


if __name__ == "__main__":
    main()
