"""medseg on systems that lack what Linux has: the whole way of a user, in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.uid import RLELossless
from support import dicom as made

TESTS = Path(__file__).resolve().parents[1]

START = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
folder = Path(sys.argv[2])
from support.windows import call, imitate_windows, require_refusals
"""

ON_WINDOWS = (
    START
    + """
imitate_windows()
(folder / "refusals").mkdir()
require_refusals(folder / "refusals")
from medseg.testing.bundles import write_example_bundle
from medseg.testing.phantoms import write_dataset
data = write_dataset(folder / "data", 5, shape=(24, 20, 16), spacing=9.0)
bundle = write_example_bundle(folder / "bundle")
run = folder / "run"
few = ["--set", "training.steps=4", "--set", "training.validate_every=2"]
call("check", bundle, "--data", data)
call("train", bundle, "--data", data, "--out", run, *few)
call("segment", run, data / "imagesTr", folder / "results")
# Again, with other results: each file takes the place of one that is there.
call("segment", run, data / "imagesTr", folder / "results", "--mirror")
call("segment", run, folder / "series", folder / "from_dicom", "--format", "dicom-seg")
call("evaluate", folder / "results", data / "labelsTr", "--out", folder / "scores")
call("plan", data, "--budget", "1m", "--out", folder / "planned" / "bundle.json")
call("export", run, folder / "monai", "--to", "monai")
"""
)


def run_child(code: str, folder: Path, **environment: str) -> str:
    """Run code in a process of its own; return what it printed."""
    child = subprocess.run(
        [
            sys.executable,
            *("-X", "warn_default_encoding"),
            *("-c", code, str(TESTS), str(folder)),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=850,
    )
    assert child.returncode == 0, child.stderr[-4000:]
    return child.stdout


@pytest.mark.timeout(900)
@pytest.mark.slow  # trains, and loads every library once
@pytest.mark.skipif(
    not Path("/proc/self/maps").is_file(),
    reason="asks Linux which files are open",
)
def test_a_system_without_posix_checks_trains_segments_evaluates_plans_exports(
    tmp_path: Path,
) -> None:
    slices = made.series(made.voxels((24, 20, 16)))
    for ds in slices:
        ds.compress(RLELossless)
    made.save(tmp_path / "series", slices)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    settings = {"PYTHONIOENCODING": "ascii", "TMPDIR": str(temporary)}
    run_child(ON_WINDOWS, tmp_path, **settings)
    # PyTorch keeps its own there.
    kept = {path.name.partition("_")[0] for path in temporary.iterdir()}
    assert kept <= {"torchinductor"}, "held open, and so not removed"
    results = {path.name for path in (tmp_path / "results").iterdir()}
    assert {"phantom_000.nii.gz", "report.html", "ledger.jsonl"} <= results
    assert (tmp_path / "monai" / "configs" / "inference.json").is_file()
    left = [path.name for path in tmp_path.rglob(".part-*")]
    assert not left
