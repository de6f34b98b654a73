"""Train nnU-Net v2 on the folds of a bundle in a given CPU time, and compare it with medseg.

    python workflows/benchmarks/nnunet.py --bundle W/hippocampus/bundle.json --nnunet PYTHON \\
      --minutes 60 --folds 0,1 --work N --medseg W/hippocampus/labels

``PYTHON`` is the interpreter of an environment of its own with nnunetv2; ``--medseg`` is the folder
of label maps that accuracy.py left. What is the same: the cases, their folds (nnU-Net gets them as
``splits_final.json``), the machine and its threads, and what scores the label maps. What is
nnU-Net's: its plan (3d_fullres), preprocessing, augmentation, loss, poly schedule and inference
with mirroring.

Its schedule is fitted to the CPU time: some steps and one epoch's end are measured, then
``num_epochs`` × ``num_iterations_per_epoch`` is set to what fits, a fifth as many validation steps
beside them as by default. The time counts from its first step to its last; imports, its planning,
preprocessing and the inference at the end come on top, in its favour. It augments in the training's
own process (``nnUNet_n_proc_DA=0``), so that its CPU time is known, and does not compile its
network, which on a CPU takes minutes.

In ``N``: ``fold-0.json`` (what a fold took), ``labels-0,1`` (a label map of each held-back case),
``nnunet.csv`` (Dice of each). A second call with the same ``N`` goes on from its preprocessing, and
trains only folds that are not there, so that folds can be trained side by side: one call for each,
then one for all.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

NAME = "Dataset001_Benchmark"
CONFIGURATION = "3d_fullres"
SPLITS = "splits_final.json"
SAFETY = 0.97
"""Share of the time that is planned for."""
MEASURED = 0.05
"""Share of the time that measuring takes; it does not count."""
MOST_EPOCHS = 100
VALIDATION_SHARE = 5
"""Training steps to a validation step, as by default: 250 to 50."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--bundle", type=Path, help="its data, labels and folds are used"
    )
    parser.add_argument(
        "--nnunet", type=Path, help="Python of an environment with nnunetv2"
    )
    parser.add_argument(
        "--minutes", type=float, required=True, help="CPU time of one training"
    )
    parser.add_argument("--folds", default="0", help="as in 0,1,2")
    parser.add_argument(
        "--work", type=Path, required=True, help="new, or of an earlier call"
    )
    parser.add_argument(
        "--medseg", type=Path, help="medseg's label maps, to compare with"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--cases", type=int, help="for a smoke run: segment only so many"
    )
    parser.add_argument("--once", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once is not None:
        print(
            json.dumps(
                train(given.once, given.minutes, given.threads, given.cases)
            )
        )
    else:
        compare(given)


def compare(given: argparse.Namespace) -> None:
    work: Path = given.work.resolve()
    environment = os.environ | {
        **{
            f"nnUNet_{part}": str(work / part)
            for part in ("raw", "preprocessed", "results")
        },
        "nnUNet_n_proc_DA": "0",
        "nnUNet_compile": "f",
        "nnUNet_def_n_proc": "1",
        "OMP_NUM_THREADS": str(given.threads),
        "OMP_WAIT_POLICY": "passive",
    }
    # Not resolved: a virtual environment's python is a link, and knows its packages by its place.
    python = str(given.nnunet.absolute())
    if not (work / "preprocessed" / NAME / SPLITS).is_file():
        prepare(given.bundle, work)
        preprocess(python, work, environment)
    labels = work / f"labels-{given.folds}"
    shutil.rmtree(labels, ignore_errors=True)
    labels.mkdir()
    for fold in (int(fold) for fold in given.folds.split(",")):
        known = work / f"fold-{fold}.json"
        if not known.is_file():
            command = [
                python,
                __file__,
                "--once",
                str(fold),
                "--minutes",
                str(given.minutes),
            ]
            command += ["--threads", str(given.threads), "--work", str(work)]
            command += ["--cases", str(given.cases)] if given.cases else []
            done = subprocess.run(
                command, env=environment, check=True, stdout=subprocess.PIPE
            )
            known.write_bytes(done.stdout.splitlines()[-1])
        found = json.loads(known.read_bytes())
        if found["minutes"] != given.minutes:
            raise SystemExit(
                f"{known}: was trained for {found['minutes']} minutes; give a new --work"
            )
        print(f"fold {fold}: {found}", flush=True)
        for file in Path(found["validation"]).glob("*.nii.gz"):
            shutil.copy(file, labels)
    report(given, work, labels)


def preprocess(python: str, work: Path, environment: dict[str, str]) -> None:
    """Let nnU-Net plan and preprocess, then give it the bundle's folds."""
    entry = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints"
    run = f"import {entry} as entry; entry.plan_and_preprocess_entry()"
    options = ["-d", "1", "-c", CONFIGURATION, "-np", "1", "-npfp", "1"]
    # Its planner counts its threads by the same variable, and fails at 0.
    threads = environment | {"nnUNet_n_proc_DA": "1"}
    subprocess.run([python, "-c", run, *options], env=threads, check=True)
    shutil.copy(work / SPLITS, work / "preprocessed" / NAME)


def prepare(bundle_file: Path, work: Path) -> None:
    """Write the bundle's cases as nnU-Net wants them, and its folds."""
    import nibabel as nib
    import numpy as np

    from medseg import load_bundle
    from medseg.datasets.cases import find_cases
    from medseg.datasets.folds import assign_folds
    from medseg.datasets.integrity import open_case

    bundle = load_bundle(bundle_file)
    spec, raw = bundle.spec, work / "raw" / NAME
    if spec.preprocessing.input == "picture":
        raise SystemExit(
            "pictures are not compared: nnU-Net reads them by other rules"
        )
    if spec.regions:
        raise SystemExit(
            "regions are not compared: give a bundle whose labels exclude each other"
        )
    cases = find_cases(bundle.data_root, spec).cases
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True, exist_ok=True)
    for case in cases:
        volume, reference = open_case(case, spec)
        for number, channel in enumerate(volume.array):
            image = nib.Nifti1Image(
                np.asarray(channel, np.float32), volume.affine
            )
            nib.save(
                image, raw / "imagesTr" / f"{case.name}_{number:04d}.nii.gz"
            )
        label = nib.Nifti1Image(np.asarray(reference, np.uint8), volume.affine)
        nib.save(label, raw / "labelsTr" / f"{case.name}.nii.gz")
    dataset = {
        "channel_names": {
            str(n): one.modality for n, one in enumerate(spec.channels)
        },
        "labels": {"background": 0}
        | {label.name: label.index for label in spec.label_set},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(
        json.dumps(dataset, indent=1), encoding="utf-8"
    )
    of = dict(
        zip(
            (case.name for case in cases),
            assign_folds(cases, spec.data),
            strict=True,
        )
    )
    splits = [
        {
            "train": [name for name, its in of.items() if its != fold],
            "val": [name for name, its in of.items() if its == fold],
        }
        for fold in range(max(of.values()) + 1)
    ]
    (work / SPLITS).write_text(json.dumps(splits, indent=1), encoding="utf-8")


def train(
    fold: int, minutes: float, threads: int, cases: int | None
) -> dict[str, Any]:
    """Train one fold by nnU-Net, in this process; return what it took and where results are."""
    import torch

    torch.set_num_threads(threads)
    # nnU-Net prints; the last line is ours.
    real_stdout, sys.stdout = (
        sys.stdout,
        sys.stderr,
    )
    step, validation, epoch_end = measured(
        trainer_of(fold), 60 * minutes * MEASURED
    )
    trainer = trainer_of(fold)
    epochs, iterations = fitted(
        60 * minutes * SAFETY, step, validation, epoch_end
    )
    trainer.num_epochs, trainer.num_iterations_per_epoch = epochs, iterations
    trainer.num_val_iterations_per_epoch = max(
        1, iterations // VALIDATION_SHARE
    )
    trainer.initialize()
    cpu, wall = time.process_time(), time.perf_counter()
    trainer.run_training()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    training, held_back = trainer.do_split()
    trainer.do_split = lambda: (training, held_back[:cases])
    trainer.perform_actual_validation(False)
    sys.stdout = real_stdout
    return {
        "minutes": minutes,
        "epochs": epochs,
        "iterations_per_epoch": iterations,
        "step_seconds": round(step, 3),
        "cpu_minutes": round(cpu / 60, 2),
        "wall_minutes": round(wall / 60, 2),
        "validation": str(Path(trainer.output_folder) / "validation"),
    }


def trainer_of(fold: int) -> Any:
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    return get_trainer_from_args(
        "1", CONFIGURATION, fold, device=torch.device("cpu")
    )


def measured(trainer: Any, seconds: float) -> tuple[float, float, float]:
    """Return the CPU seconds of a training step, of a validation step, and of an epoch's end."""
    import torch

    trainer.num_epochs = 2  # the last epoch's end would also end the training
    trainer.initialize()
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    # Slower, and does not count.
    outputs = [trainer.train_step(next(trainer.dataloader_train))]
    clock = time.process_time()
    while len(outputs) < 2 or time.process_time() - clock < seconds:
        outputs.append(trainer.train_step(next(trainer.dataloader_train)))
    step = (time.process_time() - clock) / (len(outputs) - 1)
    trainer.on_train_epoch_end(outputs)
    clock = time.process_time()
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        found = [trainer.validation_step(next(trainer.dataloader_val))]
        validation = time.process_time() - clock
        clock = time.process_time()
        trainer.on_validation_epoch_end(found)
    trainer.on_epoch_end()
    return step, validation, time.process_time() - clock


def fitted(
    seconds: float, step: float, validation: float, epoch_end: float
) -> tuple[int, int]:
    """Return epochs and training steps per epoch that fit into the seconds."""
    per_step = step + validation / VALIDATION_SHARE
    # Epochs' ends (a plot, a checkpoint) may take a twentieth; the rate falls from epoch to epoch.
    # Fewer than five steps to an epoch would give more of the time to validation than by default.
    most = int(seconds / per_step / VALIDATION_SHARE)
    epochs = min(int(0.05 * seconds / epoch_end), most, MOST_EPOCHS)
    epochs = max(epochs, 1)
    iterations = int((seconds / epochs - epoch_end) / per_step)
    if iterations < 1:
        raise SystemExit(
            f"{seconds:.0f} s are too short: a step takes {step:.1f} s"
        )
    # Whole steps take other time than was shared out: more or fewer epochs make up for it.
    validations = max(1, iterations // VALIDATION_SHARE)
    epoch = iterations * step + validations * validation + epoch_end
    return max(1, int(seconds / epoch)), iterations


def report(given: argparse.Namespace, work: Path, predicted: Path) -> None:
    """Score the label maps, write ``nnunet.csv``, and compare them with medseg's."""
    from medseg import LabelSet, evaluate, load_bundle
    from medseg.metrics.comparison import (
        bootstrap_interval,
        collect_case_values,
    )
    from medseg.metrics.metrics import MEAN

    spec = load_bundle(given.bundle).spec
    labels = LabelSet(
        [replace(label, value=label.index) for label in spec.label_set]
    )
    references = work / "raw" / NAME / "labelsTr"
    chosen = chosen_references(
        predicted, references, work / f"references-{given.folds}"
    )
    theirs = evaluate(predicted, chosen, labels=labels)
    with (work / "nnunet.csv").open(
        "w", newline="", encoding="utf-8"
    ) as handle:
        table = csv.writer(handle)
        table.writerow(["case", "label", "dice"])
        for case in theirs.cases:
            table.writerows(
                [case.case, name, f"{d:.6f}"]
                for name, d in case["dice"].items()
            )
    print("| nnU-Net | n | Dice | 95 % interval |\n| --- | ---: | --- | --- |")
    for name in (*labels.names, MEAN):
        dice = list(collect_case_values(theirs.cases, "dice", name).values())
        mean = f"{sum(dice) / len(dice):.4f}" if dice else "–"
        print(
            f"| {name} | {len(dice)} | {mean} | {between(bootstrap_interval(dice))} |"
        )
    if given.medseg is None:
        return
    both = evaluate(given.medseg, chosen, labels=labels, versus=predicted)
    print(
        "\n| medseg − nnU-Net | n | Dice | 95 % interval | better | worse | p (Wilcoxon) |"
    )
    print("| --- | ---: | --- | --- | ---: | ---: | --- |")
    for one in both.differences:
        if one.metric == "dice":
            print(
                f"| {one.label} | {one.n} | {one.mean:+.4f} | {between(one.interval)} | "
                f"{one.better} | {one.worse} | {'–' if one.n < 2 else format(one.p, '.2g')} |"
            )


def between(interval: Any) -> str:
    """Return where a mean lies; nothing is known of one case."""
    if math.isnan(interval.low):
        return "–"
    return f"{interval.low:.4f} to {interval.high:.4f}"


def chosen_references(labels: Path, references: Path, out: Path) -> Path:
    """Lay the references of the cases that were segmented in a folder of their own."""
    out.mkdir(exist_ok=True)
    for file in labels.glob("*.nii.gz"):
        shutil.copy(references / file.name, out)
    return out


if __name__ == "__main__":
    main()
