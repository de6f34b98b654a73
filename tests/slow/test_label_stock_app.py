"""A trained bundle in MONAI Label's own ``monaibundle`` app, in an environment without medseg."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import made_spec, trained_bundle
from support.label_servers import free_port, require_monai_label, slicer_client

from medseg import segment
from medseg.io import read_labels
from medseg.label_server import shims
from medseg.label_server.environment import MONAI_LABEL, REQUIREMENTS
from medseg.testing import write_dataset

pytestmark = [
    pytest.mark.slow,
    pytest.mark.nightly,
    pytest.mark.timeout(1800),
]

ROOT = Path(__file__).resolve().parents[2]
NEEDED = [
    "torch", "monai", "nibabel", "pytorch-ignite", "fire", "einops", "scikit-image", "itk",
    "SimpleITK", "pydicom", "highdicom", "filelock", "pyyaml", "pillow", "scipy", "mlflow",
    "expiring_dict", "shapely",
]  # fmt: skip


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with MONAI Label and without medseg.

    ``MEDSEG_STOCK_LABEL_ENV`` names one to use, and to make if it is not there yet. What MONAI
    Label 0.8.5 cannot import beside numpy 2 is replaced by the same empty modules as in medseg.
    """
    require_monai_label()
    made = tmp_path_factory.mktemp("stock") / "env"
    folder = Path(os.environ.get("MEDSEG_STOCK_LABEL_ENV", made))
    python = folder / "bin" / "python"
    if not (folder / "monailabel").is_dir():
        subprocess.run(
            [sys.executable, "-m", "venv", folder], check=True, env=_clean()
        )
        pip = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "-c",
            ROOT / "constraints.txt",
        ]
        subprocess.run(
            [*pip, *NEEDED, "-r", REQUIREMENTS], check=True, env=_clean()
        )
        no_pins = ["--no-deps", f"monailabel=={MONAI_LABEL}"]
        subprocess.run([*pip, *no_pins], check=True, env=_clean())
    (site,) = (folder / "lib").glob("python3*/site-packages")
    shutil.copy(shims.__file__, site / "shims.py")
    (site / "shims.pth").write_text("import shims; shims.install_shims()\n")
    return python


def _clean() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON")
    }


@contextlib.contextmanager
def stock_server(python: Path, home: Path, studies: Path) -> Iterator[str]:
    port = free_port()
    call = [
        python,
        "-m",
        "monailabel.main",
        "start_server",
        "--app",
        home / "app",
    ]
    call += [
        "--studies",
        studies,
        "--conf",
        "models",
        "made_up",
        "--conf",
        "zoo_source",
        "local",
    ]
    call += ["--conf", "preload", "true", "--host", "127.0.0.1", "--port", port]
    settings = {"MONAI_LABEL_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}"}
    with (home / "stock.log").open("wb") as log:
        process = subprocess.Popen(
            list(map(str, call)),
            env=_clean() | settings | {"OMP_NUM_THREADS": "1"},
            cwd=home,
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 400
        while process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/info/", timeout=30).close()
                break
            time.sleep(0.5)
        else:
            raise AssertionError((home / "stock.log").read_text()[-4000:])
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_the_stock_app_gives_the_same_label_maps(
    stock: Path, tmp_path: Path
) -> None:
    gone = subprocess.run(
        [stock, "-c", "import medseg"],
        env=_clean(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "No module named 'medseg'" in gone.stderr
    app = stock.parents[1] / "monailabel" / "sample-apps" / "monaibundle"
    shutil.copytree(app, tmp_path / "app")
    spec = made_spec(
        preprocessing={
            "spacing_mm": [4, 4, 5],
            "intensity": {"kind": "window", "low": -200, "high": 300},
        }
    )
    bundle = trained_bundle(tmp_path / "app" / "model" / "made_up", spec)
    studies = write_dataset(tmp_path / "data", 1) / "imagesTr"
    shutil.copytree(studies, tmp_path / "studies")
    with stock_server(stock, tmp_path, tmp_path / "studies") as url:
        client = slicer_client(url, tmp_path)
        info = client.info()
        assert info["models"]["made_up"]["labels"] == {"liver": 1, "kidney": 2}
        assert "made_up" in info["trainers"]
        theirs = _infer(client, tmp_path)
    segment(bundle, studies, tmp_path / "out", device="cpu", report=False)
    ours = read_labels(tmp_path / "out" / "phantom_000.nii.gz")
    assert ours.array.any()
    assert np.array_equal(ours.array, theirs.array)


def _infer(client: Any, home: Path) -> Any:
    params = {
        "result_extension": ".nii.gz",
        "result_dtype": "uint8",
        "device": "cpu",
    }
    try:
        file, _ = client.infer("made_up", "phantom_000", params)
    except Exception as error:
        raise AssertionError(
            (home / "stock.log").read_text()[-4000:]
        ) from error
    return read_labels(Path(file))
