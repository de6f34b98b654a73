"""Segment one CT-like scan with medseg and with nnU-Net's own chain around the same network.

    python workflows/benchmarks/inference.py prepare WORK          # data, and a short training
    python workflows/benchmarks/nnunet_chain.py WORK --nnunet PYTHON -n 3

``PYTHON`` is the interpreter of an environment of its own with nnunetv2, and monai for the
network's class. nnU-Net reads, crops, resamples and normalises as its default preprocessor does,
slides its window without mirroring, resamples the scores back and writes: all in one process,
which is its fastest way for one scan. Each measurement is a process of its own; the contestants
take turns. What is timed goes from the file of the scan to the file of its labels.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WINDOW = 96
ARCHITECTURES = "dynamic_network_architectures.architectures"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("-n", "--repeats", type=int, default=3)
    parser.add_argument("--network", default="small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--nnunet", type=Path, help="Python of an environment with nnunetv2"
    )
    parser.add_argument("--contestants", default="medseg-fp32,medseg-openvino")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        print(json.dumps(once(given.work, given.network, given.threads)))
    else:
        compare(given)


def compare(given: argparse.Namespace) -> None:
    names = ["nnunet", *given.contestants.split(",")]
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(given.repeats):
        for name in names:
            found = measured(name, given)
            taken[name].append(found)
            print(
                name,
                {key: round(value, 2) for key, value in found.items()},
                file=sys.stderr,
            )
    reference = taken["nnunet"]
    print(
        f"network `{given.network}`; median of {given.repeats} (lowest to highest)\n"
    )
    print(
        "| | wall s | CPU s | peak RSS GB | CPU, nnU-Net = 1 | wall, nnU-Net = 1 |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for name, runs in taken.items():
        cells = [
            spread([run[of] for run in runs]) for of in ("wall", "cpu", "peak")
        ]
        ratios = [
            f"{middle(reference, of) / middle(runs, of):.2f}×"
            for of in ("cpu", "wall")
        ]
        print(f"| {name} | {' | '.join([*cells, *ratios])} |")


def measured(name: str, given: argparse.Namespace) -> dict[str, float]:
    work = given.work.resolve()
    common = [
        str(work),
        "--network",
        given.network,
        "--threads",
        str(given.threads),
    ]
    if name == "nnunet":
        command = [str(given.nnunet), __file__, *common, "--once"]
    else:
        bundle, scan = work / given.network, work / "scan" / "scan.nii.gz"
        command = [
            sys.executable, str(Path(__file__).with_name("inference.py")), "once", *common,
            "--contestant", name, "--bundle", str(bundle), "--scan", str(scan),
        ]  # fmt: skip
    environment = os.environ | {
        "OMP_NUM_THREADS": str(given.threads),
        "OMP_WAIT_POLICY": "passive",
        "nnUNet_raw": str(work), "nnUNet_preprocessed": str(work), "nnUNet_results": str(work),
    }  # fmt: skip
    run = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise SystemExit(run.stderr)
    found = json.loads(run.stdout.splitlines()[-1])
    return {of: float(found[of]) for of in ("wall", "cpu", "peak")}


def once(work: Path, network: str, threads: int) -> dict[str, float]:
    """Segment the scan once by nnU-Net, in this process; return what it took."""
    import torch

    torch.set_num_threads(threads)
    predictor = nnunet_predictor(work / network)
    scan, out = work / "scan" / "scan.nii.gz", work / "nnunet" / "scan"
    out.parent.mkdir(exist_ok=True)
    wall, cpu = time.perf_counter(), time.process_time()
    predictor.predict_from_files_sequential(
        [[str(scan)]], [str(out)], save_probabilities=False, overwrite=True
    )
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def nnunet_predictor(bundle: Path) -> Any:
    """Return nnU-Net's predictor around the bundle's network and weights."""
    import torch
    from monai.networks.nets import DynUNet
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    definition = json.loads(
        (bundle / "configs" / "inference.json").read_text()
    )["network_def"]
    arguments = {
        name: value for name, value in definition.items() if name != "_target_"
    }
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    network = DynUNet(**arguments)
    network.load_state_dict(weights)
    plans = PlansManager(plans_of())
    predictor = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "kidney": 2},
        "file_ending": ".nii.gz",
    }
    predictor.manual_initialization(
        network.eval(), plans, plans.get_configuration("3d_fullres"), [weights], dataset,
        "nnUNetTrainer", None,
    )  # fmt: skip
    return predictor


def plans_of() -> dict[str, Any]:
    """State the benchmark's bundle (window -200 to 300 HU, 1.5 mm, 96³) as nnU-Net's plans."""
    resample = {
        "is_seg": False,
        "order": 3,
        "order_z": 0,
        "force_separate_z": None,
    }
    scores = {**resample, "order": 1}
    labels = {
        "is_seg": True,
        "order": 1,
        "order_z": 0,
        "force_separate_z": None,
    }
    return {
        "dataset_name": "benchmark",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.5, 0.8, 0.8],
        "original_median_shape_after_transp": [200, 512, 512],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "mean": 50,
                "std": 250,
                "percentile_00_5": -200,
                "percentile_99_5": 300,
            }
        },
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": [WINDOW] * 3,
                "spacing": [1.5, 1.5, 1.5],
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": resample,
                "resampling_fn_seg_kwargs": labels,
                "resampling_fn_probabilities_kwargs": scores,
                "batch_dice": False,
                # Named because plans need one; the benchmark hands the network in.
                "architecture": {
                    "network_class_name": f"{ARCHITECTURES}.unet.PlainConvUNet",
                    "arch_kwargs": {},
                    "_kw_requires_import": [],
                },
            }
        },
    }


def middle(runs: list[dict[str, float]], of: str) -> float:
    return statistics.median(run[of] for run in runs)


def spread(values: list[float]) -> str:
    return (
        f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"
    )


if __name__ == "__main__":
    main()
