"""The notebooks run from top to bottom, shortened, and show their pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the dev extra has it")
nbclient = pytest.importorskip("nbclient", reason="the dev extra has it")

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "docs" / "notebooks"


@pytest.mark.parametrize(
    ("name", "pictures"), [("train", 3), ("segment-dicom", 2)]
)
def test_a_notebook_runs_and_shows_its_pictures(
    name: str,
    pictures: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MEDSEG_NOTEBOOK_STEPS", "4")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    shown = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            shown += [kind for kind in output.get("data", {}) if "png" in kind]
    assert len(shown) == pictures
    left = [path for path in tmp_path.glob("medseg-*") if path.is_dir()]
    assert left == []
