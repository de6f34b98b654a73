"""A trained bundle in an environment that has MONAI and not medseg: the same label maps."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from support.bundles import content, write_json
from support.scans import write_pictures, write_volumes

from medseg import segment, train
from medseg.errors import CheckpointError
from medseg.testing import make_phantom, write_dataset

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
CASES = 4


def write_channels(root: Path) -> Path:
    """Write phantoms with two channels each, in nnU-Net's layout."""
    for number in range(CASES):
        volume, labels = make_phantom(number)
        affine = np.array(volume.affine)
        for folder, name, array in (
            ("imagesTr", f"p{number}_0000", volume.array[0]),
            ("imagesTr", f"p{number}_0001", np.abs(volume.array[0]) ** 0.5),
            ("labelsTr", f"p{number}", labels),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(
                nib.Nifti1Image(array, affine), root / folder / f"{name}.nii.gz"
            )
    listing = {
        "channel_names": {"0": "CT", "1": "root"},
        "labels": {"background": 0, "liver": 1, "kidney": 2},
        "numTraining": CASES,
        "file_ending": ".nii.gz",
    }
    write_json(root, listing, "dataset.json")
    return root


def write_slices_as_pictures(root: Path) -> Path:
    """Write one slice of each phantom as a grey picture, every second one stored as colour."""
    for number in range(CASES):
        volume, labels = make_phantom(number)
        k = volume.shape[2] // 4
        grey = ((volume.array[0, :, :, k].T.clip(-200, 300) + 200) / 2).astype(
            np.uint8
        )
        picture = Image.fromarray(grey)
        for folder, image in (
            ("images", picture.convert("RGB") if number % 2 else picture),
            (
                "labels",
                Image.fromarray(np.ascontiguousarray(labels[:, :, k].T)),
            ),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            image.save(root / folder / f"p{number}.png")
    return root


def write_phantoms(root: Path) -> Path:
    return write_dataset(root, CASES)


TRAINING = {
    "patch": [32, 32, 32],
    "steps": 40,
    "batch_size": 4,
    "optimizer": "adamw",
    "learning_rate": 0.01,
    "validate_every": 20,
    "foreground_share": 0.9,
}
WINDOW = {"kind": "window", "low": -200, "high": 300}
KINDS: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "volume": (
        write_phantoms,
        {
            "preprocessing": {
                "spacing_mm": [4, 4, 5],
                "intensity": WINDOW,
                "crop_above": -500,
            },
            "inference": {"keep_largest": ["liver"]},
        },
    ),
    "slices": (
        write_phantoms,
        {
            "preprocessing": {
                "spacing_mm": [4, 4, None],
                "intensity": "zscore",
            },
            "network": {"dims": 2},
            "training": {"patch": [32, 32], "steps": 150, "validate_every": 50},
        },
    ),
    "channels": (
        write_channels,
        {
            "channels": [{"name": "CT"}, {"name": "root"}],
            "preprocessing": {
                "spacing_mm": [4, 4, 4],
                "intensity": [
                    WINDOW,
                    {"kind": "zscore", "clip_percentiles": [0.01, 0.99]},
                ],
            },
        },
    ),
    "pictures": (
        write_slices_as_pictures,
        {
            "preprocessing": {"input": "picture", "intensity": "zscore"},
            "network": {"dims": 2},
            "training": {"patch": [32, 32]},
            "inference": {"keep_largest": ["liver"]},
        },
    ),
    "foreign": (
        write_phantoms,
        {
            "preprocessing": {"spacing_mm": [4, 4, 4], "intensity": WINDOW},
            "network": {
                "kind": "SegResNet",
                "args": {"init_filters": 8, "norm": "batch"},
            },
            "training": {"steps": 60, "validate_every": 30},
        },
    ),
}


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Path, Path]]:
    """Train a bundle of each kind; return its folder and its data."""
    home = tmp_path_factory.mktemp("runs")
    trained = {}
    for kind, (write_data, sections) in KINDS.items():
        made = content(
            data={"folds": 2},
            **{k: v for k, v in sections.items() if k != "network"},
        )
        network = sections.get("network", {})
        made["network"] = (
            network if "kind" in network else made["network"] | network
        )
        made["training"] = (
            made["training"] | TRAINING | sections.get("training", {})
        )
        data = write_data(home / f"data_{kind}")
        bundle = write_json(home / f"bundle_{kind}", made)
        trained[kind] = (
            train(bundle, data=data, out=home / kind, device="cpu"),
            data,
        )
    return trained


@pytest.fixture(scope="module")
def stock(
    tmp_path_factory: pytest.TempPathFactory, runs: dict[str, tuple[Path, Path]]
) -> Callable[..., None]:
    """An environment with what the bundles' metadata name, and nothing of medseg.

    ``MEDSEG_MONAI_ENV`` names one to use, and to make if it is not there yet.
    """
    folder = Path(
        os.environ.get(
            "MEDSEG_MONAI_ENV", tmp_path_factory.mktemp("stock") / "env"
        )
    )
    python = folder / "bin" / "python"
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON")
    }
    if not python.exists():
        subprocess.run(
            [sys.executable, "-m", "venv", folder], check=True, env=environment
        )
        wanted = {"fire"}  # MONAI's own command line asks for it
        for run, _ in runs.values():
            about = json.loads((run / "configs" / "metadata.json").read_text())
            wanted |= about["required_packages_version"].keys() | {
                "torch",
                "monai",
                "numpy",
            }
        pip = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "-c",
            ROOT / "constraints.txt",
        ]
        subprocess.run([*pip, *sorted(wanted)], check=True, env=environment)

    def call(*arguments: Any, cwd: Path) -> None:
        done = subprocess.run(
            [python, *map(str, arguments)],
            cwd=cwd,
            env=environment | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"

    call("-c", "import monai", cwd=folder)
    with pytest.raises(AssertionError, match="No module named 'medseg'"):
        call("-c", "import medseg", cwd=folder)
    return call


def read_map(file: Path) -> Any:
    if file.suffix == ".png":
        return np.asarray(Image.open(file))
    return np.asarray(nib.load(file).dataobj)


@pytest.mark.parametrize("kind", KINDS)
def test_stock_monai_gives_the_same_label_maps(
    kind: str,
    runs: dict[str, tuple[Path, Path]],
    stock: Callable[..., None],
    tmp_path: Path,
) -> None:
    run, data = runs[kind]
    channels = 2 if kind == "channels" else 1
    scans = tmp_path / "scans"
    if kind == "pictures":
        write_pictures(scans)
        images = data / "images"
    else:
        write_volumes(scans, channels)
        images = data / "imagesTr"
    for file in images.iterdir():
        shutil.copy(file, scans)
    bundle = shutil.copytree(run, tmp_path / "elsewhere" / "bundle")
    call = (
        "-m",
        "monai.bundle",
        "run",
        "--config_file",
        "configs/inference.json",
    )
    stock(
        *call,
        "--dataset_dir",
        scans,
        "--output_dir",
        tmp_path / "stock",
        cwd=bundle,
    )
    assert not segment(run, scans, tmp_path / "own", device="cpu").failed
    ending = "png" if kind == "pictures" else "nii.gz"
    names = sorted(
        file.name.removesuffix(f".{ending}") for file in scans.iterdir()
    )
    seen: set[int] = set()
    for name in names:
        scan, _, channel = name.partition("_000")
        if channels == 2 and channel != "0":
            continue
        scan = scan if channels == 2 else name
        ours = read_map(tmp_path / "own" / f"{scan}.{ending}")
        theirs = read_map(tmp_path / "stock" / f"{name}_seg.{ending}")
        assert ours.shape == theirs.shape
        assert int((ours != theirs).sum()) == 0, name
        if ending == "nii.gz":
            affines = [
                nib.load(tmp_path / "own" / f"{scan}.{ending}").affine,
                nib.load(tmp_path / "stock" / f"{name}_seg.{ending}").affine,
                nib.load(scans / f"{name}.{ending}").affine,
            ]
            assert np.allclose(affines[0], affines[1], atol=1e-4)
            assert np.allclose(affines[0], affines[2], atol=1e-4)
        seen |= set(np.unique(ours).tolist())
    assert len(seen) >= 2  # maps of background alone would prove nothing


@pytest.mark.parametrize("kind", ["volume", "slices"])
def test_stock_monai_trains_the_bundle_on(
    kind: str,
    runs: dict[str, tuple[Path, Path]],
    stock: Callable[..., None],
    tmp_path: Path,
) -> None:
    run, data = runs[kind]
    bundle = shutil.copytree(run, tmp_path / "bundle")
    before = (bundle / "models" / "model.pt").read_bytes()
    call = ("-m", "monai.bundle", "run", "--config_file", "configs/train.json")
    stock(*call, "--dataset_dir", data, "--epochs", 1, cwd=bundle)
    assert (bundle / "models" / "model.pt").read_bytes() != before
    scan = next((data / "imagesTr").iterdir())
    # Weights that are not those the run found good are taken when their owner says so.
    with pytest.raises(
        CheckpointError, match=r"remove the \.safetensors files"
    ):
        segment(bundle, scan, tmp_path / "out", device="cpu")
    for copy in (bundle / "models").glob("*.safetensors"):
        copy.unlink()
    assert not segment(bundle, scan, tmp_path / "out", device="cpu").failed


@pytest.mark.parametrize("kind", KINDS)
def test_stock_monai_finds_the_networks_input_and_output_as_described(
    kind: str, runs: dict[str, tuple[Path, Path]], stock: Callable[..., None]
) -> None:
    run, _ = runs[kind]
    call = (
        "-m",
        "monai.bundle",
        "verify_net_in_out",
        "--net_id",
        "network_def",
    )
    files = (
        "--meta_file",
        "configs/metadata.json",
        "--config_file",
        "configs/inference.json",
    )
    stock(*call, *files, "--device", "cpu", cwd=run)
