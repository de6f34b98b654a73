"""What speed settings cost and bring: time against stock MONAI, and Dice against ``exact``.

    python workflows/benchmarks/speed_settings.py prepare WORK --steps 2000 # train, decide
    python workflows/benchmarks/speed_settings.py compare WORK -n 3      # 512×512×200, in turns
    python workflows/benchmarks/speed_settings.py parts WORK -n 3        # beside the network
    python workflows/benchmarks/speed_settings.py start WORK -n 5             # to the first window
    python workflows/benchmarks/speed_settings.py small WORK -n 5       # one window, all cores
    python workflows/benchmarks/speed_settings.py components                  # keep_largest
    python workflows/benchmarks/speed_settings.py dice RUN CASES              # balanced and exact

``parts`` says what each part takes, of ``--contestants`` if not of all speeds; with ``--before
CHECKOUT`` in turns with another state of medseg, whose label maps must be the same. ``prepare``
trains the mid-size network on phantoms and decides the speed on unseen ones, however long that
takes. ``dice`` scores labelled cases, which the run must not have learned from, with both settings,
paired, with a bootstrap interval over cases.
nnU-Net's own chain around the same network: ``nnunet_chain.py WORK --nnunet PYTHON``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import inference
import numpy as np

NETWORK = "mid"
CASES = 40
UNSEEN = 6
LARGE = (96, 96, 72)
CONTESTANTS = ("monai", "medseg-fp32", *inference.SPEEDS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tasks = (
        "prepare",
        "compare",
        "parts",
        "start",
        "small",
        "components",
        "dice",
    )
    parser.add_argument("task", choices=tasks)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("work"))
    parser.add_argument("cases", type=Path, nargs="?")
    parser.add_argument("-n", "--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--contestants", default=",".join(inference.SPEEDS))
    parser.add_argument("--before", type=Path)
    given = parser.parse_args()
    if given.task == "prepare":
        prepare(given.folder, given.steps)
    elif given.task == "compare":
        compare(given.folder, given.repeats, given.threads)
    elif given.task == "parts":
        names = given.contestants.split(",")
        parts(given.folder, names, given.repeats, given.threads, given.before)
    elif given.task == "start":
        start(given.folder, given.repeats)
    elif given.task == "small":
        small(given.folder, given.repeats, given.threads)
    elif given.task == "components":
        components(given.repeats)
    else:
        compare_dice(given.folder, given.cases)


def prepare(work: Path, steps: int) -> None:
    """Train on phantoms, then decide on others at the window of the comparison."""
    from medseg.testing import write_dataset

    write_dataset(work / "data", CASES)
    # The same bundle and scan as for ``inference.py``, on more cases and for longer.
    inference.prepare(work, NETWORK, steps)
    decide(work / NETWORK, work)


def decide(run: Path, work: Path) -> None:
    """Decide the speed on phantoms that the network has not seen."""
    from medseg.bundle.bundle import load_bundle
    from medseg.testing import make_phantom
    from medseg.training.held_out import HeldOutCase
    from medseg.training.speed_card import describe_finding
    from medseg.training.speed_settings import decide_speed
    from medseg.training.speed_trials import SpeedCases

    bundle = load_bundle(run)

    class Unseen:
        def __len__(self) -> int:
            return UNSEEN

        def open_case(self, position: int) -> HeldOutCase:
            # Large enough that a smaller overlap takes fewer windows.
            volume, reference = make_phantom(10_000 + position, LARGE, 3.2)
            return HeldOutCase(str(position), volume, reference)

    def draw() -> list[np.ndarray]:
        import torch

        from medseg.inference.sliding_window import SlidingWindow
        from medseg.inference.windows import cut_window

        sliding = SlidingWindow(bundle.spec, torch.device("cpu"))
        windows = []
        for seed in range(8):
            plan = sliding.plan(make_phantom(seed)[0])
            image = sliding.make_input(plan.volume, plan.grid)
            for corner in plan.windows.corners()[:4]:
                window = cut_window(
                    image, plan.windows, corner, sliding.outside
                )
                windows.append(window[None].contiguous().numpy())
        return windows

    decision = decide_speed(
        bundle, SpeedCases(Unseen(), draw), 1e6, work / "speed.json"
    )
    if decision.finding is None:
        raise SystemExit(decision.reason)
    for trial in decision.finding.trials:
        print(trial.model_dump_json())
    print("\n".join(describe_finding(decision.finding)))


def compare(work: Path, repeats: int, threads: int) -> None:
    """Segment the scan with each contestant in turn; a table in Markdown."""
    bundle, scan = work / NETWORK, work / "scan" / "scan.nii.gz"
    taken: dict[str, list[dict]] = {name: [] for name in CONTESTANTS}
    for _ in range(repeats):
        for name, runs in taken.items():
            runs.append(inference.measured(name, work, bundle, scan, threads))
    stock = inference.labels_of(work, "monai")
    print(f"\n{inference.where(threads)}; median of {repeats}\n")
    print(
        "| | wall s | CPU s | wall, MONAI = 1 | all but the network | voxels differ |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for name, runs in taken.items():
        cells = [
            inference.spread([run[of] for run in runs])
            for of in ("wall", "cpu")
        ]
        ratio = f"{inference.times(taken['monai'], runs, 'wall'):.2f}×"
        rest = ""
        if name != "monai":
            network = sum(run["stages"]["network"] for run in runs)
            total = sum(run["wall"] for run in runs)
            rest = f"{100 * (1 - network / total):.1f} %"
        differ = int((inference.labels_of(work, name) != stock).sum())
        print(f"| {name} | {' | '.join(cells)} | {ratio} | {rest} | {differ} |")


def parts(
    work: Path,
    names: Sequence[str],
    repeats: int,
    threads: int,
    before: Path | None,
) -> None:
    """Segment the scan with each contestant in turn; wall and CPU seconds of each part."""
    bundle, scan = work / NETWORK, work / "scan" / "scan.nii.gz"
    states = (
        {"now": None} if before is None else {"before": before, "now": None}
    )
    taken: dict[tuple[str, str], list[dict]] = {}
    labels: dict[tuple[str, str], np.ndarray] = {}
    for _ in range(repeats):
        for name in names:
            for state, checkout in states.items():
                run = inference.measured(
                    name, work, bundle, scan, threads, checkout
                )
                taken.setdefault((name, state), []).append(run)
                labels[name, state] = inference.labels_of(work, name)
    print(f"\n{inference.where(threads)}; median of {repeats}, seconds\n")
    of_wall = list(next(iter(taken.values()))[0]["stages"])
    of_cpu = list(next(iter(taken.values()))[0]["cpu_of_parts"])
    columns = ["wall", *of_wall, "all but the network", "peak GB"]
    columns += [f"CPU: {name}" for name in of_cpu]
    print(f"| | | {' | '.join(columns)} |")
    print("| --- " * (2 + len(columns)) + "|")
    for (name, state), runs in taken.items():
        cells = [inference.spread([run["wall"] for run in runs])]
        cells += [_middle(runs, "stages", part) for part in of_wall]
        share = statistics.median(
            1 - run["stages"]["network"] / run["wall"] for run in runs
        )
        peaks = [run["peak"] for run in runs]
        cells += [f"{100 * share:.0f} %", f"{statistics.median(peaks):.2f}"]
        cells += [_middle(runs, "cpu_of_parts", part) for part in of_cpu]
        print(f"| {name} | {state} | {' | '.join(cells)} |")
    for name in names if before else ():
        differ = (labels[name, "before"] != labels[name, "now"]).sum()
        print(f"{name}: {differ} voxels differ")


def _middle(runs: list[dict], kind: str, part: str) -> str:
    return f"{statistics.median(run[kind][part] for run in runs):.2f}"


START = """
import sys, time
began = time.perf_counter()
from medseg.cli import main
import medseg.inference.bundle_predictor as predictor
run = predictor.Ensemble.__call__
def first(*given):
    print("first window", time.perf_counter() - began, file=sys.stderr)
    predictor.Ensemble.__call__ = run
    return run(*given)
predictor.Ensemble.__call__ = first
sys.argv = ["medseg", "segment", *sys.argv[1:], "--device", "cpu", "--quiet"]
main()
"""


def start(work: Path, repeats: int) -> None:
    """Start ``medseg segment`` on a small scan; seconds to the first window, in turns."""
    from medseg.testing import write_dataset

    scans = write_dataset(work / "small", 1) / "imagesTr"
    taken: dict[str, list[float]] = {"exact": [], "balanced": []}
    for number in range(repeats):
        for speed, seconds in taken.items():
            out = work / "started" / f"{speed}{number}-{time.time_ns()}"
            command = [
                sys.executable,
                "-c",
                START,
                str(work / NETWORK),
                str(scans),
            ]
            run = subprocess.run(
                [*command, str(out), "--speed", speed],
                capture_output=True,
                text=True,
                check=True,
            )
            line = run.stderr[run.stderr.index("first window") :].splitlines()[
                0
            ]
            seconds.append(float(line.split()[-1]))
    for speed, seconds in taken.items():
        print(speed, [round(each, 2) for each in seconds])


def small(work: Path, repeats: int, threads: int) -> None:
    """Segment a scan of a single window in one thread and in several, in turns."""
    from medseg import Segmenter
    from medseg._support.threads import limit_threads
    from medseg.testing import make_phantom

    volume, _ = make_phantom(0, (80, 72, 64), 1.5)
    for speed in ("exact", "balanced"):
        taken: dict[int, list[float]] = {1: [], threads: []}
        labels: dict[int, np.ndarray] = {}
        for _ in range(repeats):
            for count, seconds in taken.items():
                with limit_threads(count):
                    segmenter = Segmenter(work / NETWORK, "cpu", speed=speed)
                    segmenter.segment(volume)  # the first compiles
                    began = time.perf_counter()
                    labels[count] = segmenter.segment(volume).labels
                    seconds.append(time.perf_counter() - began)
        ratio = statistics.median(taken[1]) / statistics.median(taken[threads])
        differ = int((labels[1] != labels[threads]).sum())
        print(
            f"{speed}: {ratio:.2f} times as fast in {threads} threads as in one; "
            f"{differ} voxels differ"
        )


def components(repeats: int) -> None:
    """Keep the largest component of one organ at 512×512×400, as now and as before."""
    import torch
    from monai.transforms import get_largest_connected_component_mask
    from scipy.ndimage import find_objects

    from medseg.inference.largest_components import keep_largest_components
    from medseg.metrics.label_summary import summarise_labels

    labels = np.zeros((512, 512, 400), np.uint8, order="F")
    x, y, z = np.ogrid[-1:1:220j, -1:1:200j, -1:1:160j]
    labels[150:370, 120:320, 100:260] = x * x + y * y + z * z < 0.9
    labels[100:110, 100:110, 90:99] = 1

    def before() -> np.ndarray:
        kept = labels.copy(order="F")
        (box,) = find_objects(labels)
        mask = np.ascontiguousarray(labels[box] == 1)
        largest = get_largest_connected_component_mask(torch.from_numpy(mask))
        kept[box][mask & ~largest.numpy().astype(bool)] = 0
        return kept

    taken: dict[str, list[float]] = {"before": [], "now": []}
    for _ in range(repeats):
        began = time.process_time()
        one = before()
        between = time.process_time()
        found = summarise_labels(labels, 2)
        other = keep_largest_components(found, [1]).labels
        taken["before"].append(between - began)
        taken["now"].append(time.process_time() - between)
        assert np.array_equal(one, other)
    for name, seconds in taken.items():
        print(name, f"{statistics.median(seconds):.3f} CPU s")


def compare_dice(run: Path, cases: Path) -> None:
    """Score cases with ``exact`` and ``balanced``, paired."""
    from medseg import Segmenter
    from medseg.bundle.bundle import load_bundle
    from medseg.datasets.labelled_cases import open_labelled_cases
    from medseg.metrics.comparison import bootstrap_interval
    from medseg.metrics.metrics import score_dice
    from medseg.training.held_out import HeldOutCases

    bundle = load_bundle(run)
    found = open_labelled_cases(cases, bundle.spec)
    opened = HeldOutCases(found.cases, found.ids, found.spec)
    segmenters = {
        speed: Segmenter(bundle, "cpu", speed=speed)
        for speed in ("exact", "balanced")
    }
    dice: dict[str, list[float]] = {speed: [] for speed in segmenters}
    seconds = dict.fromkeys(segmenters, 0.0)
    for number in range(len(opened)):
        case = opened.open_case(number)
        for speed, segmenter in segmenters.items():
            began = time.perf_counter()
            labels = segmenter.segment(case.volume).labels
            seconds[speed] += time.perf_counter() - began
            scores = score_dice(labels, case.reference, bundle.spec.label_set)
            dice[speed].append(float(np.nanmean(list(scores.values()))))
    changes = np.subtract(dice["balanced"], dice["exact"])
    interval = bootstrap_interval(changes.tolist())
    print(
        json.dumps(
            {
                "cases": len(changes),
                "setting": segmenters["balanced"].arithmetic,
                "exact": float(np.mean(dice["exact"])),
                "balanced": float(np.mean(dice["balanced"])),
                "change": float(changes.mean()),
                "interval": str(interval),
                "times as fast": seconds["exact"] / seconds["balanced"],
            }
        )
    )


if __name__ == "__main__":
    main()
