"""Doors that take their time open to an assembly as to a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from support.assemblies import make_scan, write_thorax
from support.label_servers import require_monai_label, run_server, slicer_client

from medseg import Segmenter, export
from medseg.bundle.bundle import Assembly, load_bundle
from medseg.io import read_labels

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def assembly(untrained_bundle: Callable[..., Path]) -> Path:
    return write_thorax(untrained_bundle)


def test_an_export_to_openvino_is_an_assembly_of_the_same_label_maps(
    assembly: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    made = export(assembly, tmp_path / "fast", to="openvino")
    assert made.agreement is not None
    exported = load_bundle(made.folder)
    assert isinstance(exported, Assembly)
    segmenter = Segmenter(exported, "cpu", backend="openvino", precision="fp32")
    own = Segmenter(assembly, "cpu", backend="torch").segment(make_scan())
    theirs = segmenter.segment(make_scan())
    assert segmenter.backend == "openvino"
    assert set(np.unique(own.labels)) == {0, 1, 2, 3}
    differ = int((own.labels != theirs.labels).sum())
    assert differ <= 0.001 * own.labels.size


@pytest.mark.alone
def test_medseg_label_serves_an_assembly(
    assembly: Path, tmp_path: Path
) -> None:
    require_monai_label()
    studies = tmp_path / "studies"
    studies.mkdir()
    scan = make_scan()
    image = nib.Nifti1Image(scan.array[0], scan.affine)
    nib.save(image, studies / "case.nii.gz")
    with run_server(assembly, studies, tmp_path / "state") as server:
        (model,) = server.ask("GET", "/info/").json()["models"]
        client = slicer_client(server.url, tmp_path)
        file, about = client.infer(
            model, "case", {"result_extension": ".nii.gz"}
        )
        theirs: Any = read_labels(Path(file))
    ours = Segmenter(assembly, "cpu").segment(studies / "case.nii.gz")
    assert set(np.unique(ours.labels)) == {0, 1, 2, 3}
    assert np.array_equal(ours.labels, theirs.array[0])
    assert about["label_names"] == {"rib": 1, "liver": 2, "left_kidney": 3}
