"""Segment one CT-like scan with medseg and with stock MONAI, on the same weights.

    python workflows/benchmarks/inference.py prepare WORK          # data, and a short training
    python workflows/benchmarks/inference.py compare WORK -n 3     # a table in Markdown
    python workflows/benchmarks/inference.py forward WORK -n 5     # the networks alone, fp32
    python workflows/benchmarks/inference.py large WORK            # 512×512×800, 25 classes
    python workflows/benchmarks/inference.py classes WORK          # memory of 2 and of 104 classes

Stock MONAI runs the MONAI Bundle that medseg exported with the weights: LoadImaged … Spacingd,
SlidingWindowInferer, Invertd, AsDiscreted, SaveImaged. Each measurement is a process of its own;
the contestants take turns. What is timed goes from the file of the scan to the file of its
labels; importing libraries and loading weights is not. An older processor is imitated by
``ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2`` in the environment, for all contestants.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from medseg import Bundle

WINDOW = 96
NETWORKS: dict[str, dict[str, Any]] = {
    "small": {"channels": [8, 16, 32], "strides": [1, 2, 2], "norm": "batch"},
    "mid": {
        "channels": [16, 32, 64, 128],
        "strides": [1, 2, 2, 2],
        "norm": "instance",
    },
}
TASKS = ("prepare", "compare", "forward", "large", "classes", "once")
CONTESTANTS = ("monai", "medseg-fp32", "medseg-openvino", "medseg-bf16")
AT_HALF = "medseg-balanced-at-0.5"
"""What was decided, but at stock MONAI's overlap of windows."""
SPEEDS = (AT_HALF, "medseg-balanced", "medseg-fast")  # of speed_settings.py


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("work", type=Path)
    parser.add_argument("-n", "--repeats", type=int, default=3)
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--contestant", choices=(*CONTESTANTS, *SPEEDS))
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--scan", type=Path)
    given = parser.parse_args()
    if given.task == "prepare":
        prepare(given.work, given.network, given.steps)
    elif given.task == "compare":
        compare(given.work, given.network, given.repeats, given.threads)
    elif given.task == "forward":
        forward(given.repeats, given.threads)
    elif given.task == "large":
        large(given.work, given.threads)
    elif given.task == "classes":
        few_and_many(given.work, given.threads)
    else:
        out = given.work / given.contestant
        print(
            json.dumps(
                once(
                    given.contestant,
                    given.bundle,
                    given.scan,
                    out,
                    given.threads,
                )
            )
        )


def prepare(work: Path, network: str, steps: int) -> None:
    """Make the scan and the data set, and train for a moment: random weights agree on nothing."""
    import medseg
    from medseg.testing import write_dataset

    if not (work / "scan").is_dir():
        write_scan(work / "scan" / "scan.nii.gz", (512, 512, 200))
        if not (work / "data").is_dir():
            write_dataset(work / "data", 3)
    bundle = {
        "name": f"benchmark_{network}",
        "channels": [{"name": "CT", "modality": "CT"}],
        "labels": [
            {"index": 1, "name": "liver"},
            {"index": 2, "name": "kidney"},
        ],
        "data": {"root": "../../data", "format": "msd", "folds": 3},
        "preprocessing": {
            "spacing_mm": [1.5, 1.5, 1.5],
            "intensity": {"kind": "window", "low": -200, "high": 300},
            "crop_above": -500,
        },
        "network": {"kind": "unet", **NETWORKS[network]},
        "training": {
            "patch": [48, 48, 48],
            "batch_size": 2,
            "steps": steps,
            "optimizer": "adamw",
            "learning_rate": 0.003,
            "foreground_share": 0.7,
            "augmentation": "none",
            "validate_every": steps,
        },
        "quality": {"corrupted_copies": 0},
        "tracking": {"register_model": False},
    }
    folder = work / "bundles" / network
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bundle.json").write_text(json.dumps(bundle))
    trained = medseg.train(
        folder, data=work / "data", out=work / network, device="cpu"
    )
    widen(trained)


def widen(bundle: Path) -> None:
    """Let a trained bundle slide windows of 96³, in medseg's words and in MONAI's."""
    spec = json.loads((bundle / "bundle.json").read_text())
    spec["training"]["patch"] = [WINDOW] * 3
    (bundle / "bundle.json").write_text(json.dumps(spec))
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    config["inferer"]["roi_size"] = [WINDOW] * 3
    (bundle / "configs" / "inference.json").write_text(json.dumps(config))


def write_scan(path: Path, shape: tuple[int, int, int]) -> None:
    """Write a phantom of 0.8×0.8×1.5 mm voxels as int16."""
    import nibabel as nib
    from scipy.ndimage import zoom

    from medseg.testing import make_phantom

    coarse, _ = make_phantom(
        7, (shape[0] // 4, shape[1] // 4, shape[2] // 4), 3.2
    )
    voxels = np.empty(shape, np.int16, order="F")
    rng = np.random.default_rng(7)
    for k in range(shape[2]):
        plane = zoom(
            coarse.array[0, :, :, k * coarse.shape[2] // shape[2]], 4, order=1
        )
        voxels[..., k] = np.rint(plane + rng.normal(0, 15, plane.shape))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([-0.8, -0.8, 1.5, 1.0])), path)


def once(
    name: str, bundle: Path, scan: Path, out: Path, threads: int
) -> dict[str, Any]:
    """Segment the scan once in this process; return what it took."""
    import torch

    torch.set_num_threads(threads)
    if "ONEDNN_MAX_CPU_ISA" in os.environ:
        imitate_older_processor()
    segment = (
        with_monai(bundle, scan, out)
        if name == "monai"
        else with_medseg(name, bundle, scan, out)
    )
    wall, cpu = time.perf_counter(), time.process_time()
    parts = segment()
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "stages": parts.get("wall", {}),
        "cpu_of_parts": parts.get("cpu", {}),
    }


def imitate_older_processor() -> None:
    """Choose arithmetic as on a processor without VNNI, AMX and bf16.

    oneDNN, within PyTorch and OpenVINO, then uses no more than ``ONEDNN_MAX_CPU_ISA`` either.
    """
    from medseg.inference.backends import processor

    processor.list_instructions = frozenset


def with_monai(
    bundle: Path, scan: Path, out: Path
) -> Callable[[], dict[str, Any]]:
    from monai.bundle import ConfigParser

    config = ConfigParser()
    config.read_config(bundle / "configs" / "inference.json")
    config["bundle_root"] = str(bundle)
    config["dataset_dir"], config["output_dir"] = str(scan.parent), str(out)
    evaluator = config.get_parsed_content("evaluator")

    def segment() -> dict[str, Any]:
        evaluator.run()
        return {}

    return segment


def with_medseg(
    name: str, bundle: Path, scan: Path, out: Path
) -> Callable[[], dict[str, Any]]:
    from medseg import Segmenter, load_bundle
    from medseg.datasets.input_checks import admit
    from medseg.inference.bundle_predictor import Ensemble
    from medseg.io import read_image, write_labels

    chosen = {
        "medseg-fp32": {"backend": "torch", "precision": "fp32"},
        "medseg-openvino": {"backend": "openvino", "precision": "fp32"},
        "medseg-bf16": {"backend": "torch", "precision": "bf16"},
        AT_HALF: {"speed": "balanced"},
        "medseg-balanced": {"speed": "balanced"},
        "medseg-fast": {"speed": "fast"},
    }
    loaded = load_bundle(bundle)
    if name == AT_HALF:
        loaded = with_overlap(loaded, 0.5)
    segmenter = Segmenter(loaded, "cpu", **chosen[name])

    parts = Parts()
    compute = Ensemble.__call__

    def compute_timed(*given: Any) -> Any:
        with parts("network"):
            return compute(*given)

    Ensemble.__call__ = compute_timed

    def segment() -> dict[str, Any]:
        with parts("read"):
            volume = read_image(scan)
        with parts("check"):
            volume = admit(volume, loaded.spec)
        # As Segmenter.segment, in two steps.
        with parts("predict"):
            prediction = segmenter.predict(volume)
        with parts("finish"):
            found = prediction.finish()
        with parts("write"):
            write_labels(out / "scan_seg.nii.gz", found.labels, volume)
        wall = {name: seconds for name, (seconds, _) in parts.taken.items()}
        cpu = {name: seconds for name, (_, seconds) in parts.taken.items()}
        stages = {"read": wall["read"], "check": wall["check"]}
        stages |= found.seconds
        stages |= {"finish": wall["finish"], "write": wall["write"]}
        # What its stages do not count: opening the volume again.
        stages["check"] += wall["predict"] - sum(found.seconds.values())
        cpu["input and labels"] = cpu.pop("predict") - cpu["network"]
        return {"wall": stages, "cpu": cpu}

    return segment


class Parts:
    """Adds up wall and CPU seconds of parts of the work.

    Attributes:
        taken: Part → wall seconds, CPU seconds of the whole process.
    """

    def __init__(self) -> None:
        self.taken: dict[str, tuple[float, float]] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        before = self.taken.get(name, (0.0, 0.0))
        self.taken[name] = (
            before[0] + time.perf_counter() - wall,
            before[1] + time.process_time() - cpu,
        )


def with_overlap(bundle: Bundle, overlap: float) -> Bundle:
    """Return a bundle whose decided speed has another overlap of windows."""
    from medseg.bundle.bundle import with_trained

    finding = bundle.trained.speed
    if finding is None or finding.balanced is None:
        raise SystemExit("no faster setting was decided for this bundle")
    setting = finding.balanced.model_copy(update={"overlap": overlap})
    changed = finding.model_copy(update={"balanced": setting})
    trained = bundle.trained.model_copy(update={"speed": changed})
    return with_trained(bundle, trained)


def measured(
    contestant: str,
    work: Path,
    bundle: Path,
    scan: Path,
    threads: int,
    checkout: Path | None = None,
) -> dict[str, Any]:
    """Return what one contestant took, in a process of its own.

    Args:
        contestant: Its name.
        work: Where results lie.
        bundle: The trained bundle.
        scan: The file of the scan.
        threads: How many.
        checkout: Of another state of medseg to be taken instead of the one that is imported.
    """
    command = [
        sys.executable, __file__, "once", str(work), "--contestant", contestant,
        "--bundle", str(bundle), "--scan", str(scan), "--threads", str(threads),
    ]  # fmt: skip
    # On a busy machine threads that wait actively burn more CPU than they compute.
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
    }
    if checkout is not None:
        environment["PYTHONPATH"] = str(checkout)
    run = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise SystemExit(run.stderr)
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    print(
        contestant,
        {k: round(found[k], 2) for k in ("wall", "cpu", "peak")},
        file=sys.stderr,
    )
    return found


def compare(work: Path, network: str, repeats: int, threads: int) -> None:
    bundle, scan = work / network, work / "scan" / "scan.nii.gz"
    taken: dict[str, list[dict[str, Any]]] = {
        name: [] for name in contestants()
    }
    for _ in range(repeats):
        for name in taken:
            taken[name].append(measured(name, work, bundle, scan, threads))
    stock = labels_of(work, "monai")
    print(
        f"\n{where(threads)}; network `{network}`; median of {repeats} (lowest to highest)\n"
    )
    print(
        "| | wall s | CPU s | peak RSS GB | CPU, MONAI = 1 | wall, MONAI = 1 | label maps |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, runs in taken.items():
        cells = [
            spread([run[of] for run in runs]) for of in ("wall", "cpu", "peak")
        ]
        ratios = [
            f"{times(taken['monai'], runs, of):.2f}×" for of in ("cpu", "wall")
        ]
        differ = int((labels_of(work, name) != stock).sum())
        agreement = f"{differ} of {stock.size} voxels differ"
        print(
            f"| {name} | {' | '.join(cells)} | {' | '.join(ratios)} | {agreement} |"
        )
    print(
        "\n| share of wall time | "
        + " | ".join(taken["medseg-fp32"][0]["stages"])
        + " |"
    )
    print("| --- " * (1 + len(taken["medseg-fp32"][0]["stages"])) + "|")
    for name in list(taken)[1:]:
        stages = [run["stages"] for run in taken[name]]
        total = sum(sum(stage.values()) for stage in stages)
        shares = (
            f"{100 * sum(s[stage] for s in stages) / total:.1f} %"
            for stage in stages[0]
        )
        print(f"| {name} | {' | '.join(shares)} |")
    print(
        "\nvoxels per label:",
        np.bincount(stock.ravel(order="K"), minlength=3).tolist(),
    )


def forward(repeats: int, threads: int) -> None:
    """Pass one window of 96³ through each network by either backend, in turns; CPU seconds.

    Errors are the largest of any score against the same network in float64.
    """
    import copy

    import torch

    from medseg.bundle.bundle import parse_spec
    from medseg.inference.backends.openvino import OpenVinoMember, convert
    from medseg.inference.backends.pytorch import TorchMember
    from medseg.networks.building import build_network

    torch.set_num_threads(threads)
    print(
        f"{where(threads)}; openvino {version('openvino')}; median of {repeats}\n"
    )
    print(
        "| network | torch fp32 CPU s | openvino fp32 CPU s | torch / openvino, paired "
        "| error torch | error openvino | largest score |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, network in NETWORKS.items():
        spec = parse_spec(
            {
                "name": name,
                "channels": [{"name": "CT"}],
                "labels": [
                    {"index": 1, "name": "liver"},
                    {"index": 2, "name": "kidney"},
                ],
                "network": {"kind": "unet", **network},
                "training": {"patch": [WINDOW] * 3},
            }
        )
        torch.manual_seed(0)
        built = build_network(spec, supervised=False).eval()
        members = (
            TorchMember(built, 3, torch.device("cpu"), torch.float32),
            OpenVinoMember(convert(built, spec), torch.float32),
        )
        window = torch.randn(1, 1, WINDOW, WINDOW, WINDOW)
        with torch.inference_mode():
            exact = copy.deepcopy(built).double()(window.double())
            errors = [
                float((member(window) - exact).abs().max())
                for member in members
            ]
            pairs = [
                [cpu_seconds(member, window) for member in members]
                for _ in range(repeats)
            ]
        cells = [spread([pair[which] for pair in pairs]) for which in (0, 1)]
        cells += [spread([one / other for one, other in pairs])]
        cells += [
            f"{value:.1e}" for value in (*errors, float(exact.abs().max()))
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def cpu_seconds(act: Callable[[Any], Any], argument: Any) -> float:
    began = time.process_time()
    act(argument)
    return time.process_time() - began


def contestants() -> list[str]:
    """Return who takes part: bf16 only where the CPU computes in it."""
    import torch

    from medseg.networks.devices import choose_precision

    has_bf16 = choose_precision("auto", torch.device("cpu")) == torch.bfloat16
    return [name for name in CONTESTANTS if has_bf16 or name != "medseg-bf16"]


def large(work: Path, threads: int) -> None:
    """Segment a long scan into 25 classes."""
    scan = work / "large" / "scan.nii.gz"
    if not scan.is_file():
        write_scan(scan, (512, 512, 800))
    contestant = (
        "medseg-bf16" if "medseg-bf16" in contestants() else "medseg-fp32"
    )
    found = measured(contestant, work, with_classes(work, 25), scan, threads)
    print(where(threads), contestant)
    print(
        {stage: round(seconds, 1) for stage, seconds in found["stages"].items()}
    )
    print(
        f"peak RSS {found['peak']:.1f} GB, wall {found['wall']:.0f} s, CPU {found['cpu']:.0f} s"
    )


def few_and_many(work: Path, threads: int) -> None:
    """Compare the peaks of 2 and of 104 classes, less what the sums of scores take by design."""
    from medseg.bundle.bundle import load_bundle
    from medseg.inference.accumulator import count_bytes_held
    from medseg.inference.windows import Windows
    from medseg.io import read_image
    from medseg.preprocessing.grid import compute_network_grid

    scan = work / "scan" / "scan.nii.gz"
    volume = read_image(scan)
    peak_of, beyond = {}, {}
    print(
        "| classes | peak RSS GB | sums GB | peak less sums GB |\n| --- | --- | --- | --- |"
    )
    for classes in (2, 104):
        bundle = with_classes(work, classes)
        spec = load_bundle(bundle).spec
        shape = compute_network_grid(volume, spec.preprocessing).shape
        sums = (
            count_bytes_held(
                Windows((WINDOW,) * 3, shape, spec.inference.overlap), classes
            )
            / 2**30
        )
        peak = measured("medseg-fp32", work, bundle, scan, threads)["peak"]
        peak_of[classes], beyond[classes] = peak, peak - sums
        print(
            f"| {classes} | {peak:.2f} | {sums:.2f} | {beyond[classes]:.2f} |"
        )
    ratios = beyond[104] / peak_of[2], beyond[104] / beyond[2]
    print(
        f"\n{where(threads)}; 104 classes less sums, to 2 classes: {ratios[0]:.2f}×"
    )
    print(f"the same, less the sums of 2 classes, too: {ratios[1]:.2f}×")


def with_classes(work: Path, classes: int) -> Path:
    """Return the small bundle with so many classes; random weights, only memory is measured."""
    import torch

    from medseg.bundle.bundle import load_bundle
    from medseg.bundle.spec_files import write_bundle
    from medseg.networks.building import build_network
    from medseg.training.run_folder import RunFolder

    content = json.loads(
        load_bundle(work / "small").spec.model_dump_json(by_alias=True)
    )
    content["labels"] = [
        {"index": n, "name": f"label{n}"} for n in range(1, classes)
    ]
    folder = RunFolder(work / f"classes_{classes}")
    torch.manual_seed(0)
    made = load_bundle(work / "small").spec.model_validate(content)
    write_bundle(made, folder.bundle)
    folder.save_weights(build_network(made, supervised=False).state_dict())
    return folder.path


def labels_of(work: Path, contestant: str) -> Any:
    import nibabel as nib

    return np.asanyarray(
        nib.load(next((work / contestant).glob("scan*_seg.nii.gz"))).dataobj
    )


def spread(values: list[float]) -> str:
    return (
        f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"
    )


def times(
    reference: list[dict[str, Any]], runs: list[dict[str, Any]], of: str
) -> float:
    """Return how many times faster the median of some runs is than that of others."""
    return statistics.median(run[of] for run in reference) / statistics.median(
        run[of] for run in runs
    )


def where(threads: int) -> str:
    names = ", ".join(
        f"{name} {version(name)}" for name in ("medseg", "torch", "monai")
    )
    return f"{time.strftime('%Y-%m-%d')}; {names}; {platform.machine()}, {threads} threads"


if __name__ == "__main__":
    main()
