"""Rows on segmenting: right labels, a memory that runs out, and large scans."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
import torch
from made import NNUNET, TINY, make_spec, write_assembly, write_trained
from session import Session

from medseg import Segmenter, Volume
from medseg.testing import make_phantom

_MOST_DIFFERENT = {"fp32": 1e-3, "bf16": 0.02, "fp16": 0.01}
"""Largest share of voxels whose label may not be the CPU's, of a network that learned."""

_MOST_SECONDS_OF_FIVE = 10.0


def compare_labels_with_cpu(session: Session) -> None:
    """Labels against those of the CPU, in each precision, wherever image and scores lie."""
    edge = 16 if session.dry else 64
    steps = 4 if session.dry else 150
    learning = {"patch": [edge] * 3, "batch_size": 2, "steps": steps}
    learning |= {"warmup_steps": 1, "ema": None, "validate_every": steps}
    spec = make_spec(training=learning, network=TINY if session.dry else {})
    bundle = write_trained(spec, learns=True)
    shape = (24, 22, 20) if session.dry else (120, 110, 90)
    volume, _ = make_phantom(1, shape, 1.0)
    here = Segmenter(bundle, "cpu", backend="torch").segment(volume)
    little = 1 << 14 if session.dry else 40 << 20
    for precision, most in _MOST_DIFFERENT.items():
        for room in (None, 0, little):
            there = Segmenter(
                bundle, "cuda", precision=precision, gpu_memory=room
            )
            found = there.segment(volume)
            differ = float((found.labels != here.labels).mean())
            session.add(
                f"labels in {precision}, {room} bytes for image and scores",
                f"{100 * differ:.4f} % differ",
                ok=differ <= most,
                structures=len(np.unique(here.labels)) - 1,
            )


def run_out_of_memory(session: Session) -> None:
    """A limit between what image and scores take on the host and on the GPU: same labels."""
    if session.dry:
        session.add("memory that runs out", "needs the allocator of a GPU")
        return
    spec = make_spec(
        training={"patch": [96, 96, 96]}, inference={"batch_size": 1}
    )
    bundle = write_trained(spec)
    volume, _ = make_phantom(1, (300, 300, 200), 1.0)
    on_host = Segmenter(bundle, "cuda", precision="fp32", gpu_memory=0)
    session.measure_peak()
    wanted = on_host.segment(volume)
    least = torch.cuda.max_memory_allocated()
    whole = Segmenter(bundle, "cuda", precision="fp32", gpu_memory=1 << 40)
    session.measure_peak()
    whole.segment(volume)
    most = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    limit = least + 0.3 * (most - least)
    torch.cuda.set_per_process_memory_fraction(1.1 * limit / total)
    try:
        found = whole.segment(volume)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    differ = float((found.labels != wanted.labels).mean())
    session.add(
        "memory that runs out",
        "; ".join(found.warnings),
        ok=bool(found.warnings) and differ < 1e-3,
        differ=differ,
    )


def time_large_scans(session: Session) -> None:
    """A scan of 512×512×400 with few and many classes, beside the bundle's chain in stock MONAI."""
    shape = (24, 24, 20) if session.dry else (512, 512, 400)
    volume = _make_large_scan(shape)
    folder = Path(tempfile.mkdtemp())
    file = folder / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(volume.array[0], volume.affine), file)
    for classes in (3, 25, 117):
        _time_classes(session, volume, folder, classes)


def _make_large_scan(shape: tuple[int, int, int]) -> Volume:
    """Return a phantom of int16, each voxel of which was made four times along each axis."""
    i, j, k = (-(-length // 4) for length in shape)
    small, _ = make_phantom(7, (i, j, k))
    array = small.array[0].repeat(4, 0).repeat(4, 1).repeat(4, 2)
    whole = array[: shape[0], : shape[1], : shape[2]].astype(np.int16)
    return Volume.from_numpy(np.asfortranarray(whole), spacing=(0.8, 0.8, 1.0))


def time_five_networks(session: Session) -> None:
    """Five networks with 117 labels in all over one scan, as TotalSegmentator has them."""
    shape = (24, 24, 20) if session.dry else (512, 512, 531)
    patch = 16 if session.dry else 128
    specs = []
    for part, count in enumerate((24, 26, 18, 23, 26)):
        names = [f"part {part} label {n}" for n in range(1, count + 1)]
        labels = [{"index": n, "name": name} for n, name in enumerate(names, 1)]
        spec = make_spec(
            training={"patch": [patch] * 3},
            network=TINY if session.dry else NNUNET,
            labels=labels,
            preprocessing={"spacing_mm": [1.5] * 3, "intensity": "zscore"},
        )
        specs.append(spec)
    volume = _make_large_scan(shape)
    segmenter = Segmenter(write_assembly(specs), "cuda")
    if not session.dry:
        segmenter.segment(volume)  # the first is slower and does not count
    session.measure_peak()
    with session.watch() as found:
        segmentation = segmenter.segment(volume)
    segmenter.close()
    within = found["wall"] < _MOST_SECONDS_OF_FIVE
    session.add(
        f"segment {volume.shape}, five networks",
        f"{found['wall']} s",
        ok=None if session.dry else within,
        **found,
        stages=dict(segmentation.seconds),
        peak_gb=session.measure_peak(),
    )


def _time_classes(
    session: Session, volume: Volume, folder: Path, classes: int
) -> None:
    labels = [{"index": n, "name": f"l{n}"} for n in range(1, classes)]
    patch = 16 if session.dry else 128
    spec = make_spec(
        training={"patch": [patch] * 3},
        network=TINY if session.dry else NNUNET,
        labels=labels,
        preprocessing={"spacing_mm": [1.5] * 3, "intensity": "zscore"},
    )
    bundle = write_trained(spec)
    segmenter = Segmenter(bundle, "cuda")
    if not session.dry:
        segmenter.segment(volume)  # the first is slower and does not count
    session.measure_peak()
    with session.watch() as found:
        segmentation = segmenter.segment(volume)
    session.add(
        f"segment {volume.shape}, {classes} classes",
        f"{found['wall']} s",
        **found,
        stages=dict(segmentation.seconds),
        peak_gb=session.measure_peak(),
    )
    segmenter.close()
    if session.dry and classes > 3:
        return
    seconds = min(90.0, session.seconds_left)
    took = _time_stock(bundle, folder, seconds)
    session.add(f"stock MONAI, {classes} classes", took)


def _time_stock(bundle: Path, scans: Path, seconds: float) -> str:
    """Return how long the bundle's own chain takes in stock MONAI, reading and writing as well."""
    command = [sys.executable, str(Path(__file__).with_name("stock.py"))]
    began = time.perf_counter()
    try:
        run = subprocess.run(
            [*command, str(bundle), str(scans)],
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return f"not done after {time.perf_counter() - began:.0f} s"
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["?"])[-1]
        return f"failed: {last[:200]}"
    return run.stdout.strip().splitlines()[-1]
