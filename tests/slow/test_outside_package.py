"""A package outside medseg adds an image format, a network and a loss, from its own environment."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import write_json

from medseg.testing import make_phantom

pytestmark = [
    pytest.mark.slow,
    pytest.mark.nightly,
    pytest.mark.timeout(1800),
]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tests" / "outside_package"

BUNDLE: dict[str, Any] = {
    "name": "outside",
    "channels": [{"name": "CT", "modality": "CT"}],
    "labels": [{"index": 1, "name": "liver"}, {"index": 2, "name": "kidney"}],
    "data": {"folds": 4},
    "preprocessing": {
        "intensity": {"kind": "window", "low": -200, "high": 300}
    },
    "network": {
        "channels": [8, 16, 32],
        "strides": [1, 2, 2],
        "deep_supervision": False,
    },
    "training": {
        "patch": [32, 32, 32],
        "steps": 60,
        "optimizer": "adamw",
        "learning_rate": 0.005,
        "augmentation": "none",
        "validate_every": 60,
        "loss": "tversky",
    },
    "tracking": {"register_model": False},
}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a second environment that sees this one's packages and has one more."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    lines = [
        f"import site; site.addsitedir({str(path)!r})"
        for path in site.getsitepackages()
    ]
    (packages / "outer.pth").write_text("\n".join([*lines, str(ROOT)]) + "\n")
    source = folder / "source"  # a build writes into its folder
    shutil.copytree(PACKAGE, source)
    run(
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        source,
        cwd=folder,
    )
    return python


def clean_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONPATH"
    }


def run(python: Path, *arguments: object, cwd: Path) -> str:
    command = [str(python), *(str(argument) for argument in arguments)]
    done = subprocess.run(
        command,
        cwd=cwd,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_archives(root: Path) -> Path:
    """Write phantoms as archives, images and labels in folders."""
    for number in range(5):
        volume, labels = make_phantom(number)
        for folder, array in (("images", volume.array[0]), ("labels", labels)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            file = root / folder / f"phantom_{number}.npz"
            np.savez_compressed(file, array=array, affine=volume.affine)
    return root


def test_the_package_keeps_the_contracts(python: Path, tmp_path: Path) -> None:
    (tmp_path / "test_contracts.py").write_text(
        (PACKAGE / "contracts.py").read_text()
    )
    run(python, "-m", "pytest", "-q", "test_contracts.py", cwd=tmp_path)


def test_it_is_listed(python: Path, tmp_path: Path) -> None:
    listed = json.loads(
        run(python, "-m", "medseg", "plugins", "--json", cwd=tmp_path)
    )
    outside = {
        (one["group"], one["name"])
        for one in listed
        if one["package"] == "medseg-outside"
    }
    assert outside == {
        ("medseg.image_formats", "npz"),
        ("medseg.networks", "tiny"),
        ("medseg.losses", "tversky"),
    }
    assert all(not one["problem"] for one in listed)


def test_a_bundle_trains_with_its_loss_on_its_format_and_segments_it(
    python: Path, tmp_path: Path
) -> None:
    bundle = write_json(tmp_path, BUNDLE)
    data = write_archives(tmp_path / "data")
    run(
        python,
        "-m",
        "medseg",
        "train",
        bundle,
        "--data",
        data,
        "--out",
        "run",
        cwd=tmp_path,
    )
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["validations"][-1]["scores"]["dice"]["mean"] > 0.5
    assert not (tmp_path / "run" / "configs" / "train.json").exists()
    run(
        python,
        "-m",
        "medseg",
        "segment",
        "run",
        data / "images",
        "results",
        cwd=tmp_path,
    )
    assert len(list((tmp_path / "results").glob("*.nii.gz"))) == 5
    run(
        python,
        "-m",
        "medseg",
        "evaluate",
        "results",
        data / "labels",
        cwd=tmp_path,
    )


def test_without_the_package_the_bundle_says_what_is_missing(
    tmp_path: Path,
) -> None:
    bundle = write_json(tmp_path, BUNDLE)
    done = subprocess.run(
        [sys.executable, "-m", "medseg", "check", str(bundle)],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "tversky" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
