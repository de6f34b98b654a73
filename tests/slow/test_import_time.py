"""Importing what most people import costs seconds of a processor, not many."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.bundles import made_spec, trained_bundle
from support.killed_batches import write_scans
from support.processor_time import measure

pytestmark = [pytest.mark.slow, pytest.mark.alone]

MOST_SECONDS = 2.5


def test_a_segmenter_is_imported_in_little_more_than_pytorch() -> None:
    # In turns: a machine is not as busy all the time.
    taken, of_pytorch = [], []
    for _ in range(5):
        taken.append(measure("from medseg import Segmenter"))
        of_pytorch.append(measure("import torch"))
    # On a slow or busy machine PyTorch alone may take longer than the limit.
    assert min(taken) < max(MOST_SECONDS, 2.2 * min(of_pytorch))


UNUSED = {
    *("mlflow", "pandas", "matplotlib.pyplot", "ignite", "sklearn"),
    "scipy.ndimage",
}

SEGMENT = """
import sys
from medseg.cli import main
sys.argv = ["medseg", "segment", *sys.argv[1:], "--device", "cpu", "--quiet"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
used = {used} & sys.modules.keys()
sys.exit(" ".join(used) or 0)
"""


FROM_PYTHON = """
import sys
import medseg
bundle, scans, out = sys.argv[1:]
medseg.segment(bundle, scans, out, device="cpu")
used = {used} & sys.modules.keys()
assert not used, used
# What an embedding program does later is as it always is.
import mlflow, pandas
from ignite.engine import Engine
from monai.engines import SupervisedTrainer
from monai.utils import optional_import
from monai.utils.jupyter_utils import plt
assert issubclass(SupervisedTrainer, Engine)
assert optional_import("pandas") == (pandas, True)
assert plt.get_backend()
"""


def test_segmenting_from_python_imports_as_little_and_breaks_nothing(
    tmp_path: Path,
) -> None:
    bundle = trained_bundle(
        tmp_path / "bundle", made_spec(inference={"keep_largest": ["liver"]})
    )
    scans = write_scans(tmp_path / "scans", 1)
    code = FROM_PYTHON.replace("{used}", repr(UNUSED - {"ignite"}))
    command = [sys.executable, "-c", code, bundle, scans, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_segmenting_imports_nothing_that_it_does_not_use(
    tmp_path: Path,
) -> None:
    bundle = trained_bundle(
        tmp_path / "bundle", made_spec(inference={"keep_largest": ["liver"]})
    )
    scans = write_scans(tmp_path / "scans", 1)
    out = tmp_path / "out"
    code = SEGMENT.replace("{used}", repr(UNUSED))
    command = [sys.executable, "-c", code, bundle, scans, out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (out / "report.html").is_file()
