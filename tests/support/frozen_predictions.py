"""Makes ``frozen_predictions.npz``: what a small network said of phantoms, good and failed.

    PYTHONPATH=.:tests python -m support.frozen_predictions tests/inference/frozen_predictions.npz

A network is trained on phantoms for a minute. It then sees other phantoms as they are and made
worse, by kinds of damage and at strengths that make some results fail. The arrays, of ``n`` results
on a grid of ``(x, y, z)``:

* ``logits``: int8 ``(n, 2, x, y, z)``, of the two organs minus background, in halves, ±8 at
  most;
* ``references``: uint8 ``(n, x, y, z)``;
* ``case``: which phantom; the first ``CALIBRATION`` of them are for calibration;
* ``is_clean``: whether the phantom was as it is.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import medseg
from medseg.bundle.bundle import load_bundle
from medseg.networks.loading import load_network
from medseg.preprocessing.grid import compute_network_grid
from medseg.preprocessing.network_input import NetworkInput
from medseg.quality.corruptions import CORRUPTIONS, corrupt_volume
from medseg.testing import make_phantom, write_dataset
from support.bundles import content, write_json

SHAPE, SPACING = (20, 16, 16), 11.0
TRAINING, CALIBRATION, TEST = 48, 12, 20
FIRST_SEEN, FIRST_NEW = 1000, 5000
"""Seeds of phantoms that are learned from and of those that are not."""

STEPS_PER_LOGIT, MOST = 2, 8


def train(folder: Path) -> Path:
    """Train a small network on phantoms; return its bundle."""
    data = write_dataset(
        folder / "data", TRAINING, FIRST_SEEN, shape=SHAPE, spacing=SPACING
    )
    spec = content(
        preprocessing={
            "spacing_mm": [SPACING] * 3,
            "intensity": {"kind": "window", "low": -200, "high": 300},
        },
        network={"channels": [8, 16, 32], "deep_supervision": False},
        training={
            "patch": list(SHAPE),
            "steps": 400,
            "batch_size": 4,
            "optimizer": "adamw",
            "learning_rate": 0.003,
            "validate_every": 400,
            "augmentation": {"mirror_axes": [], "rotation": 0, "scaling": 0},
        },
        quality={"corrupted_copies": 0},
    )
    out = folder / "run"
    return medseg.train(
        write_json(folder, spec), data=data, out=out, fold=None, device="cpu"
    )


def predict(bundle: Path) -> dict[str, np.ndarray]:
    """Return what the network says of phantoms that it has not seen, as they are and worse."""
    opened = load_bundle(bundle)
    network = load_network(opened, opened.members[0])
    make_input = NetworkInput(opened.spec)
    rows: list[tuple[np.ndarray, np.ndarray, int, bool]] = []
    for case in range(CALIBRATION + TEST):
        volume, reference = make_phantom(FIRST_NEW + case, SHAPE, SPACING)
        rng = np.random.default_rng(case)
        images = [volume]
        for kind in rng.choice(list(CORRUPTIONS), 2, replace=False):
            severity = float(rng.uniform(0.05, 1.0))
            images.append(
                corrupt_volume(
                    volume, str(kind), severity, int(rng.integers(2**31))
                )
            )
        for number, image in enumerate(images):
            grid = compute_network_grid(image, opened.spec.preprocessing)
            with torch.inference_mode():
                scores = network(make_input(image, grid)[None].contiguous())[
                    0
                ].numpy()
            steps = np.rint(
                STEPS_PER_LOGIT * (scores[1:] - scores[:1]).clip(-MOST, MOST)
            )
            rows.append((steps.astype(np.int8), reference, case, number == 0))
    logits, references, cases, clean = zip(*rows, strict=True)
    return {
        "logits": np.stack(logits),
        "references": np.stack(references),
        "case": np.array(cases, np.int16),
        "is_clean": np.array(clean),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        np.savez_compressed(sys.argv[1], **predict(train(Path(folder))))


if __name__ == "__main__":
    main()
