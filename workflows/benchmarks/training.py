"""Train a bundle and print Dice over CPU time: the figures in docs/benchmarks/training.md.

    python workflows/benchmarks/training.py bundles/hippocampus_mr --data Task04_Hippocampus

CPU time is that of the whole process, validations and start-up included; it stays comparable on a
machine that others use at the same time, where wall time does not.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

import medseg
from medseg._support.provenance import collect_provenance
from medseg.bundle.bundle import load_bundle
from medseg.datasets.cases import find_cases
from medseg.datasets.folds import split_cases
from medseg.datasets.integrity import open_case
from medseg.events import Event, ValidationDone


class Clock:
    """A listener that notes the CPU and wall time of every validation."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self.rows: list[tuple[int, float, float, dict[str, float]]] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, ValidationDone):
            wall = (time.perf_counter() - self._wall) / 60
            row = (
                event.step,
                time.process_time() / 60,
                wall,
                dict(event.scores["dice"]),
            )
            self.rows.append(row)
            print(
                f"step {row[0]:6d}  CPU {row[1]:6.2f} min  Dice {row[3]['mean']:.4f}",
                flush=True,
            )


def pooled_dice(
    run: Path, data: Path, fold: int, device: str
) -> dict[str, float]:
    """Return the Dice of the first label over all voxels of a patient, by anonymous patient.

    Pictures of one patient are slices of one heart; their pooled Dice is that of its volume.
    """
    bundle = load_bundle(run)
    _, held_back = split_cases(
        find_cases(data, bundle.spec).cases, bundle.spec.data, fold
    )
    segmenter = medseg.Segmenter(bundle, device)
    sums: dict[str, list[int]] = {}
    for case in held_back:
        volume, reference = open_case(case, bundle.spec)
        found = segmenter.segment(volume).labels == 1
        wanted = reference == 1
        here = sums.setdefault(case.group, [0, 0])
        here[0] += 2 * int((found & wanted).sum())
        here[1] += int(found.sum()) + int(wanted.sum())
    return {
        f"patient {n}": both / total
        for n, (both, total) in enumerate(sums.values(), 1)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--out", type=Path, required=True, help="run folder, new"
    )
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--pool",
        action="store_true",
        help="Dice of each patient's slices at once",
    )
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    given = parser.parse_args()

    torch.set_num_threads(given.threads)
    clock = Clock()
    run = medseg.train(
        given.bundle,
        data=given.data,
        out=given.out,
        fold=given.fold,
        device=given.device,
        overrides=given.overrides,
        listeners=[clock],
    )
    metrics = json.loads((run / "metrics.json").read_text())
    dice = metrics["scores"]["dice"]
    labels = [name for name in dice if name != "mean"]
    print(
        "\n| step | CPU min | wall min | "
        + " | ".join(f"Dice {la}" for la in labels)
        + " | mean |"
    )
    print("| ---: " * (4 + len(labels)) + "|")
    for step, cpu, wall, found in clock.rows:
        cells = " | ".join(f"{found[label]:.4f}" for label in labels)
        print(
            f"| {step} | {cpu:.1f} | {wall:.1f} | {cells} | {found['mean']:.4f} |"
        )
    print(
        f"\nbest step {metrics['best_step']}, scored on the scans' own grids: {dice}"
    )
    print(
        f"{metrics['training_cases']} training, {metrics['validation_cases']} held-back cases"
    )
    if given.pool:
        pooled = pooled_dice(run, given.data, given.fold, given.device)
        print({name: round(value, 4) for name, value in pooled.items()})
        print(f"mean over patients {sum(pooled.values()) / len(pooled):.4f}")
    print(json.dumps(collect_provenance(torch.device(given.device)), indent=1))


if __name__ == "__main__":
    main()
