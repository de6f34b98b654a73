"""How long the report of a very long ledger takes, and how much memory.

    python workflows/benchmarks/batches/report.py [--scans 100000] [--labels 5] [--keep FOLDER]

Makes up a ledger with failures, flags and outliers, and pictures; reads it, writes report and
volumes, and prints seconds, peak memory and the size of the first page.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medseg.inference.batch_overview import survey
from medseg.inference.ledger import read_ledgers
from medseg.inference.ledger_entry import Entry, QualityEntry
from medseg.inference.report import write_summaries
from medseg.labels import Label, LabelSet

NAMES = ("liver", "spleen", "kidney_left", "kidney_right", "pancreas")
COMMON_ML = (1500, 200, 160, 160, 90)
COLOURS = (
    (230, 60, 60),
    (70, 170, 255),
    (90, 200, 80),
    (255, 190, 40),
    (190, 100, 230),
)
MOST_LINKS = 50_000
CAUSES = (
    "the file ends too early; copy it again",
    "is MR by its DICOM header, and the bundle takes CT",
    "slices are missing between 41 and 42; export the series again",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=100_000)
    parser.add_argument("--labels", type=int, default=len(NAMES))
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    labels = make_labels(asked.labels)
    with tempfile.TemporaryDirectory() as temporary:
        out = asked.keep or Path(temporary)
        make_ledger(out, asked.scans, labels.names)
        measure(out, labels)


def make_labels(count: int) -> LabelSet:
    labels = []
    for number in range(count):
        name = NAMES[number] if number < len(NAMES) else f"label_{number + 1}"
        colour = COLOURS[number % len(COLOURS)]
        labels.append(Label(number + 1, name, number + 1, colour))
    return LabelSet(labels)


def measure(out: Path, labels: LabelSet) -> None:
    start = time.perf_counter(), time.process_time()
    entries, _ = read_ledgers(out)
    read = time.perf_counter(), time.process_time()
    overview = survey(entries.as_list(), labels)
    write_summaries(out, overview, "abdomen 1.0.0")
    end = time.perf_counter(), time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"scans            {len(entries)}")
    print(
        f"ledger read      {read[0] - start[0]:.2f} s, CPU {read[1] - start[1]:.2f} s"
    )
    print(
        f"report, volumes  {end[0] - read[0]:.2f} s, CPU {end[1] - read[1]:.2f} s"
    )
    print(f"peak memory      {peak / 1024:.0f} MB")
    print(
        f"report.html      {(out / 'report.html').stat().st_size / 1000:.0f} kB"
    )


def make_ledger(out: Path, scans: int, names: Sequence[str]) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    previews = out / "previews"
    previews.mkdir(parents=True, exist_ok=True)
    pixels = random.integers(0, 60, (48, 160, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    with (out / "ledger.jsonl").open("w") as ledger:
        for number in range(scans):
            entry = make_entry(f"scan_{number:06}", names, random)
            ledger.write(entry.model_dump_json() + "\n")
            # File systems limit how many names a file may have.
            first = previews / f"picture_{number // MOST_LINKS}.webp"
            if number % MOST_LINKS == 0:
                picture.save(first)
            if entry.is_good:
                (previews / f"{entry.scan}.webp").hardlink_to(first)


def make_entry(
    name: str, names: Sequence[str], random: np.random.Generator
) -> Entry:
    facts = {
        "bundle": "abdomen 1.0.0",
        "medseg": "1.0",
        "finished": "2026-01-01T00:00:00+00:00",
        "content": "0" * 64,
    }
    if random.random() < 0.01:
        error = CAUSES[random.integers(len(CAUSES))]
        return Entry(scan=name, state="failed", error=error, **facts)
    count = len(names)
    volumes = np.exp(random.normal(np.log(np.resize(COMMON_ML, count)), 0.15))
    if random.random() < 0.001:
        volumes[random.integers(count)] *= 4
    dice = np.clip(random.normal(0.93, 0.03, count), 0, 1)
    expected = float(dice.mean())
    return Entry(
        scan=name,
        state="done",
        files={f"{name}.nii.gz": "0" * 64},
        volumes_ml=dict(zip(names, volumes.round(4).tolist(), strict=True)),
        quality=QualityEntry(
            expected_dice=expected,
            lower_bound=expected - 0.1,
            labels={
                label: (float(value), float(value) - 0.1)
                for label, value in zip(names, dice, strict=True)
            },
            is_calibrated=True,
            review=expected < 0.9,
            reasons=("expected Dice below 0.90",) if expected < 0.9 else (),
            is_range_known=True,
        ),
        shape=(512, 512, 200),
        spacing_mm=(0.8, 0.8, 1.5),
        seconds={"read": 0.5, "infer": 3.0, "write": 0.4},
        **facts,
    )


if __name__ == "__main__":
    main()
