"""Measure clicks on held-out cases: how much of the remaining error do they remove?

Trains an automatic bundle and, from it, an interactive one with the same number of steps; segments
held-out cases with both, without clicks, and compares them case by case; then clicks on the largest
error of any label, up to ``--clicks`` times, each click in the middle of it, as a person would.
Beside it, what clicks could do at best: each mends the whole connected error that it lies in.

    python workflows/benchmarks/label/clicks.py Task04_Hippocampus WORK --steps 500 --seeds 0,1

The data folder is a MSD data set with suspected patients as groups: all cases of a patient are
either trained on or held out. A part that is finished is not done again. In ``WORK``: the runs, and
``clicks.csv`` (seed, case, label, clicks, Dice), from which the table is printed.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

import medseg
from medseg.datasets.cases import find_cases
from medseg.datasets.folds import split_cases
from medseg.datasets.integrity import open_case
from medseg.metrics.comparison import bootstrap_interval
from medseg.metrics.metrics import score_dice
from medseg.training.clicks import Click, find_next_click
from medseg.volume import Array, Volume

BUNDLE = Path("bundles/hippocampus_mr/bundle.json")
sys.path.insert(0, str(Path(__file__).parents[1]))
from split import HELD_OUT, write_part  # noqa: E402

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="MSD folder with dataset.json")
    parser.add_argument("work", type=Path)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", default="0", help="as in 0,1,2")
    parser.add_argument(
        "--set", action="append", default=[], help="as for medseg train"
    )
    parser.add_argument("--clicks", type=int, default=10)
    parser.add_argument("--known", type=int, help="train on only as many")
    parser.add_argument("--cases", type=int, help="only as many held-out ones")
    given = parser.parse_args()
    spec = medseg.load_bundle(given.bundle).spec
    cases = find_cases(given.data, spec).cases
    _, held_out = split_cases(cases, spec.data, HELD_OUT)
    folder = given.work / "known"
    if not folder.exists():
        write_part(given.data, folder, held_out, most=given.known)
    opened = []
    for case in held_out[: given.cases]:
        opened.append((case.name, *open_case(case, spec)))
    rows: list[Row] = []
    for seed in map(int, given.seeds.split(",")):
        automatic, interactive = train_both(given, folder, seed)
        rows += measure(automatic, interactive, opened, seed, given.clicks)
        write_rows(given.work / "clicks.csv", rows)
    print(make_table(rows))


def train_both(
    given: argparse.Namespace, known: Path, seed: int
) -> tuple[Path, Path]:
    """Train the automatic bundle and, from it, the interactive one."""
    settings = [
        f"training.seed={seed}",
        f"training.steps={given.steps}",
        f"training.validate_every={given.steps}",
        "quality.corrupted_copies=0",
        *given.set,
    ]
    automatic = given.work / f"automatic-{seed}"
    interactive = given.work / f"interactive-{seed}"
    train(given.bundle, known, automatic, settings)
    clicks = [*settings, "training.clicks={}"]
    train(given.bundle, known, interactive, clicks, parent=automatic)
    return automatic, interactive


def train(
    bundle: Path,
    data: Path,
    out: Path,
    settings: list[str],
    parent: Path | None = None,
) -> None:
    if (out / "metrics.json").is_file():
        return
    began = time.process_time()
    medseg.train(
        bundle,
        data=data,
        out=out,
        device="cpu",
        overrides=settings,
        start_from=parent,
    )
    print(f"{out.name}: {time.process_time() - began:.0f} CPU s", flush=True)


def measure(
    automatic: Path,
    interactive: Path,
    cases: list[tuple[str, Volume, Array]],
    seed: int,
    clicks: int,
) -> Iterator[Row]:
    """Score both bundles without clicks, then the interactive one click by click."""
    before = medseg.Segmenter(automatic, "cpu")
    segmenter = medseg.Segmenter(interactive, "cpu")
    labels = segmenter.spec.label_set
    for name, scan, reference in cases:
        found = before.segment(scan).labels
        yield from score(seed, name, "automatic", found, reference, labels)
        mask = segmenter.segment(scan).labels
        yield from score(seed, name, 0, mask, reference, labels)
        correction = segmenter.begin_correction(scan)
        given = {label.name: ([], []) for label in labels}
        for number in range(1, clicks + 1):
            found_error = find_largest_error(mask, reference, labels)
            if found_error is not None:
                label, click = found_error
                given[label][not click.is_inside].append(click.point)
                inside, outside = given[label]
                mask = correction.correct(
                    mask, label, inside, outside, around=[click.point]
                )
            yield from score(seed, name, number, mask, reference, labels)
        best = segmenter.segment(scan).labels
        for number in range(1, clicks + 1):
            mend_largest_error(best, reference, labels)
            clicked = f"perfect {number}"
            yield from score(seed, name, clicked, best, reference, labels)


def mend_largest_error(
    mask: Array, reference: Array, labels: medseg.LabelSet
) -> None:
    """Make a mask right in the whole connected error that the next click lies in."""
    found_error = find_largest_error(mask, reference, labels)
    if found_error is None:
        return
    name, click = found_error
    index = next(label.index for label in labels if label.name == name)
    error = find_connected_error(mask, reference, index, click)
    mask[error] = reference[error]


def find_largest_error(
    mask: Array, reference: Array, labels: medseg.LabelSet
) -> tuple[str, Click] | None:
    """Return the click on the largest error of any label, and which label it is of."""
    largest, found = 0, None
    for label in labels:
        is_there, should_be = mask == label.index, reference == label.index
        click = find_next_click(is_there, should_be)
        if click is None:
            continue
        size = int(
            find_connected_error(mask, reference, label.index, click).sum()
        )
        if size > largest:
            largest, found = size, (label.name, click)
    return found


def find_connected_error(
    mask: Array, reference: Array, index: int, click: Click
) -> Array:
    """Return the connected error of a label that a click lies in, booleans."""
    is_there, should_be = mask == index, reference == index
    wrong = is_there & ~should_be
    if click.is_inside:
        wrong = should_be & ~is_there
    parts, _ = ndimage.label(wrong)
    connected: Array = parts == parts[click.point]
    return connected


def score(
    seed: int,
    case: str,
    clicks: object,
    mask: Array,
    reference: Array,
    labels: medseg.LabelSet,
) -> Iterator[Row]:
    for label, dice in score_dice(mask, reference, labels).items():
        yield {
            "seed": seed,
            "case": case,
            "clicks": clicks,
            "label": label,
            "dice": dice,
        }


def write_rows(file: Path, rows: list[Row]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def make_table(rows: list[Row]) -> str:
    """Return Dice and the share of the error that is left, over cases and seeds."""
    dice = defaultdict(list)
    for row in rows:
        dice[str(row["clicks"]), row["seed"], row["case"]].append(row["dice"])
    by_clicks: dict[str, dict[Any, float]] = defaultdict(dict)
    for (clicks, *case), values in dice.items():
        by_clicks[clicks][tuple(case)] = float(np.mean(values))
    without = by_clicks["0"]
    lines = [
        "| clicks | Dice, mean ± sd | paired difference to none | error left |",
        "| --- | --- | --- | --- |",
    ]
    for clicks, values in by_clicks.items():
        numbers = np.array([values[case] for case in without])
        reference = np.array(list(without.values()))
        difference = bootstrap_interval((numbers - reference).tolist())
        left = (1 - numbers).mean() / (1 - reference).mean()
        change = (numbers - reference).mean()
        lines.append(
            f"| {clicks} | {numbers.mean():.4f} ± {numbers.std(ddof=1):.4f} | "
            f"{change:+.4f} ({difference.low:+.4f} to {difference.high:+.4f}) | {left:.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
