"""Fixtures every test may use."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from support.mlflow_stores import reuse_empty_store
from support.windows import skip_what_windows_lacks

# The same examples at each run, and no clock: a test fails for what it tests, or not at all.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

pytest_plugins = ["support.plugins", "support.ray_fixtures"]

ROOT = Path(__file__).resolve().parents[1]


# What is imported and collected stays to the end. To look for garbage among it takes a quarter of
# the time of collecting the tests, and a twelfth of that of running them.
gc.disable()


def pytest_collection_finish() -> None:
    """Look for garbage again, but only among what comes from now on."""
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


def pytest_runtest_setup() -> None:
    """Spare each training in a fresh folder the two seconds that a new MLflow store takes."""
    reuse_empty_store()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    """Skip tests that cannot be run on Windows, there."""
    try:
        return (yield)
    except (AttributeError, OSError) as error:
        skip_what_windows_lacks(error)
        raise


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; tests that need it skip where it is absent."""
    folder = Path(
        os.environ.get("MEDSEG_DATA", ROOT.parent / "shared" / "data")
    )
    if not folder.is_dir():
        pytest.skip(
            f"real data not found at {folder}; set MEDSEG_DATA to its folder"
        )
    return folder


@pytest.fixture
def untrained_bundle(tmp_path: Path) -> Callable[..., Path]:
    """A factory of small bundles with random weights: everything but the training is real."""

    def make(folder: str = "bundle", seed: int = 0, **sections: Any) -> Path:
        import torch

        from medseg.bundle.bundle import parse_spec
        from medseg.bundle.spec_files import write_bundle
        from medseg.networks.building import build_network
        from medseg.training.run_folder import RunFolder

        content: dict[str, Any] = {
            "name": "made_up",
            "channels": [{"name": "CT", "modality": "CT"}],
            "labels": [
                {"index": 1, "name": "liver"},
                {"index": 2, "name": "kidney"},
            ],
            "network": {
                "kind": "unet",
                "channels": [4, 8, 8],
                "strides": [1, 2, 2],
            },
            "training": {"patch": [16, 16, 16]},
        }
        spec = parse_spec(content | sections)
        run = RunFolder(tmp_path / folder)
        write_bundle(spec, run.bundle)
        torch.manual_seed(seed)
        run.save_weights(build_network(spec, supervised=False).state_dict())
        return run.path

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 64 KiB; needs the right to mount one."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
