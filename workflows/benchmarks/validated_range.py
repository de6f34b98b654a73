"""Measure how often results are flagged for lying outside what a bundle was validated on.

    python workflows/benchmarks/validated_range.py references BUNDLE DATA --sizes 5 10 20 50 150
    python workflows/benchmarks/validated_range.py results RUN SCANS
    python workflows/benchmarks/validated_range.py phantoms

``references`` states the range of some cases of a data set, drawn at random, and takes others of
it, with their references as results: what is flagged are false alarms. ``results`` segments scans
with a trained bundle and counts the flags: false alarms where the scans are held-out ones, hits
where they show something else. ``phantoms`` states the range of 16 phantoms, as the demo does, and
takes 200 others, and limbs made up of muscle and bone in air, each with the labels of a phantom.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from medseg import Segmenter, load_bundle
from medseg.bundle.spec import BundleSpec, ValidatedRange
from medseg.datasets.cases import find_cases
from medseg.datasets.integrity import open_case
from medseg.datasets.measures import (
    CaseMeasures,
    measure_scan,
    measure_training_case,
)
from medseg.datasets.scans import find_scans
from medseg.datasets.validated_range import RangeCheck, measure_range
from medseg.io import read_image
from medseg.metrics.label_summary import summarise_labels
from medseg.testing import make_phantom
from medseg.volume import Array, Volume

REPEATS = 5
MOST_HELD_OUT = 100
TRAINING_PHANTOMS, FRESH_PHANTOMS, LIMBS = 16, 200, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    references = commands.add_parser("references")
    references.add_argument("bundle")
    references.add_argument("data", type=Path)
    references.add_argument("--sizes", type=int, nargs="+", default=[5, 20, 50])
    results = commands.add_parser("results")
    results.add_argument("bundle", type=Path)
    results.add_argument("scans", type=Path)
    commands.add_parser("phantoms")
    arguments = parser.parse_args()
    if arguments.command == "references":
        flag_references(arguments.bundle, arguments.data, arguments.sizes)
    elif arguments.command == "results":
        flag_results(arguments.bundle, arguments.scans)
    else:
        flag_phantoms()


def flag_references(bundle: str, data: Path, sizes: Sequence[int]) -> None:
    spec = load_bundle(bundle).spec
    opened = [open_case(case, spec) for case in find_cases(data, spec).cases]
    measures = [measure(volume, labels, spec) for volume, labels in opened]
    rng = np.random.default_rng(0)
    for size in sizes:
        told: list[tuple[str, ...]] = []
        for _ in range(REPEATS):
            order = rng.permutation(len(opened)).tolist()
            known = [measures[number] for number in order[:size]]
            validated = measure_range(known, spec)
            assert validated is not None
            for number in order[size : size + MOST_HELD_OUT]:
                told.append(check(validated, spec, *opened[number]))
        report(f"{size} training cases", told)


def flag_results(bundle: Path, scans: Path) -> None:
    segmenter = Segmenter(bundle)
    told = []
    for scan in find_scans(scans, len(segmenter.spec.channels)).scans:
        (files,) = scan.parts
        quality = segmenter.segment(read_image(files)).quality
        told.append(quality.departures)
    report(scans.name, told)


def flag_phantoms() -> None:
    spec = load_bundle("phantom_ct").spec
    known = []
    for seed in range(TRAINING_PHANTOMS):
        volume, labels = make_phantom(seed)
        known.append(measure(volume, labels, spec))
    validated = measure_range(known, spec)
    assert validated is not None
    fresh = []
    for seed in range(1000, 1000 + FRESH_PHANTOMS):
        volume, labels = make_phantom(seed)
        fresh.append(check(validated, spec, volume, labels))
    report("fresh phantoms", fresh)
    limbs = []
    for seed in range(LIMBS):
        _, labels = make_phantom(seed)
        limbs.append(check(validated, spec, make_limb(seed), labels))
    report("made-up limbs", limbs)


def make_limb(seed: int) -> Volume:
    """Make a limb on a phantom's grid: fat, muscle, and bone of 2 to 15 % of it."""
    rng = np.random.default_rng(seed)
    phantom, _ = make_phantom(seed)
    axes = [np.linspace(-1, 1, size) for size in phantom.shape]
    x, y, _ = np.meshgrid(*axes, indexing="ij")
    distance = np.hypot(x, y) / rng.uniform(0.2, 0.6)
    image = rng.normal(0, 20, phantom.shape)
    image += np.select(
        [
            distance < np.sqrt(rng.uniform(0.02, 0.15)),
            distance < 0.85,
            distance < 1,
        ],
        [rng.uniform(300, 1200), 50, -90],
        -1000,
    )
    return phantom.with_array(image[None].astype(np.float32))


def measure(volume: Volume, labels: Array, spec: BundleSpec) -> CaseMeasures:
    return measure_training_case(volume, labels, len(spec.label_set))


def check(
    validated: ValidatedRange, spec: BundleSpec, volume: Volume, labels: Array
) -> tuple[str, ...]:
    compared = RangeCheck(
        validated, spec, measure_scan(volume), volume.voxel_ml
    )
    found = summarise_labels(labels, spec.label_set.classes)
    return compared.find_departures(found)


def report(what: str, told: Iterable[tuple[str, ...]]) -> None:
    told = list(told)
    flagged = sum(bool(reasons) for reasons in told)
    share = 100 * flagged / len(told)
    print(f"{what}: {flagged} of {len(told)} flagged ({share:.1f} %)")
    kinds = Counter(reason[:40] for reasons in told for reason in reasons)
    for kind, count in kinds.most_common(5):
        print(f"    {count:4} {kind}…")


if __name__ == "__main__":
    main()
