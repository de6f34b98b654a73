"""Is medseg right on this GPU, and how fast? One prepared session, each row by itself.

    python workflows/gpu/check.py --minutes 12 --data Task04_Hippocampus --out gpu
    python workflows/gpu/check.py --dry          tiny sizes, on a pretend GPU: is the script sound?

Rows come in the order of what is worth most, and ``OUT/gpu.json`` and ``OUT/gpu.md`` are written
anew after each of them: a session that ends early has brought the first ones home. A row that
fails says so, and the next one goes on; a row for which no time is left says that. Exits with 1 if
a row is not as it should be.

A bare machine needs torch, monai, pytorch-ignite, nibabel, pydicom, pydantic, scipy, Pillow and
connected-components-3d, and the metadata of medseg (``pip install --no-deps -e .``); no SimpleITK
and no MLflow.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import arithmetic
import segmenting
import session
import training

ROWS = (
    *((arithmetic.list_facts, 5), (arithmetic.check_convolutions, 20)),
    (segmenting.compare_labels_with_cpu, 40),
    (segmenting.run_out_of_memory, 30),
    *((training.count_patches, 20), (training.time_steps_of_networks, 60)),
    *((training.resume, 30), (segmenting.time_large_scans, 120)),
    (segmenting.time_five_networks, 60),
    *((training.learn_hippocampus, 200), (training.refine_hippocampus, 60)),
    (training.run_under_torchrun, 30),
)
"""What is done, and about how many seconds it needs."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument(
        "--data", type=Path, help="Task04_Hippocampus; its row needs it"
    )
    parser.add_argument(
        "--out", type=Path, help="where results go; a new folder unless given"
    )
    parser.add_argument(
        "--dry", action="store_true", help="tiny sizes, on a pretend GPU"
    )
    parser.add_argument(
        "--only", nargs="*", help="names of rows, such as resume"
    )
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp(prefix="medseg-gpu-"))
    out.mkdir(parents=True, exist_ok=True)
    checks = session.Session(out, given.minutes, given.data, dry=given.dry)
    with _pretend() if given.dry else contextlib.nullcontext():
        for act, seconds in ROWS:
            if not given.only or act.__name__ in given.only:
                checks.attempt(act, seconds)
    print(f"results are in {out}")
    return int(checks.has_failed)


@contextlib.contextmanager
def _pretend() -> Iterator[None]:
    import torch

    tests = Path(__file__).resolve().parents[2] / "tests"
    sys.path.append(str(tests))
    from support.pretend_gpu import pretend_gpus

    torch.set_num_threads(1)
    with pretend_gpus():
        yield


if __name__ == "__main__":
    sys.exit(main())
