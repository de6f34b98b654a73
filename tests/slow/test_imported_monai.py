"""An import of MONAI does what a trained bundle does; forms of the zoo give the labels of MONAI."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from support.bundles import run_stock
from support.label_servers import require_monai_label, run_server
from support.monai_models import load_script

from medseg import Segmenter, check, export
from medseg.bundle.bundle import load_bundle
from medseg.commands.import_model import import_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ZOO = load_script("monai_models")
AUTO = load_script("auto3dseg_models")
GRIDS = ("coarser", "oblique", "small")
BUNDLES = ("brats", "pediatric")
MODELS = (*BUNDLES, "ct")
"""Regions of four channels; a box found in the network's input; a model of Auto3DSeg's."""


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Imported bundles, by the form of what they were."""
    home = tmp_path_factory.mktemp("imported")
    made = {}
    for name in MODELS:
        source = home / f"{name}_source"
        if name in BUNDLES:
            ZOO.write_bundle(name, source)
        else:
            AUTO.write_model(name, source, steps=2)
        made[name] = home / name
        import_model(source, made[name])
    return made


def write_scans(name: str, folder: Path) -> dict[str, list[Path]]:
    if name not in BUNDLES:
        grids = ("within_tolerance", "oblique", "small")
        return dict(AUTO.write_scans(name, folder, grids))
    channels = 4 if name == "brats" else 1
    return dict(ZOO.write_scans(folder, channels, GRIDS))


def count_differences(one: Any, other: Any) -> float:
    """Return the share of labelled voxels whose labels differ."""
    either = int(((one > 0) | (other > 0)).sum())
    assert either > 500
    return int((one != other).sum()) / either


@pytest.mark.parametrize("name", MODELS)
def test_stock_monai_runs_the_export_of_an_import(
    name: str, imports: dict[str, Path], tmp_path: Path
) -> None:
    export(imports[name], tmp_path / "export", to="monai")
    scans = write_scans(name, tmp_path / "scans")
    if name != "brats":  # scans of one channel go by their own names
        for files in scans.values():
            files[0] = files[0].rename(
                files[0].with_name(files[0].name.replace("_0000", ""))
            )
    run_stock(
        tmp_path / "export",
        "inference.json",
        dataset_dir=str(tmp_path / "scans"),
        output_dir=str(tmp_path / "stock"),
        device="cpu",
    )
    segmenter = Segmenter(imports[name], "cpu", backend="torch")
    for files in scans.values():
        own = segmenter.segment(files).labels
        result = files[0].name.replace(".nii.gz", "_seg.nii.gz")
        theirs = np.asarray(nib.load(tmp_path / "stock" / result).dataobj)
        assert count_differences(own, theirs) <= 0.0005


def test_openvino_and_check_take_an_import_like_any_bundle(
    imports: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    assert not check(imports["brats"]).faults
    made = export(imports["brats"], tmp_path / "export", to="openvino")
    scans = write_scans("brats", tmp_path / "scans")
    own = Segmenter(imports["brats"], "cpu", backend="torch")
    exported = Segmenter(made.folder, "cpu", backend="openvino")
    for files in scans.values():
        ours, theirs = (each.segment(files).labels for each in (own, exported))
        # bf16, where the CPU has it, rounds a few voxels at borders to another label.
        assert count_differences(ours, theirs) <= 0.01


@pytest.mark.parametrize(
    "form",
    [
        "spleen",
        *(
            pytest.param(form, marks=pytest.mark.nightly)
            for form in ("whole_body", "swin")
        ),
    ],
)
def test_label_maps_are_those_of_the_command_of_monai(
    form: str, tmp_path: Path
) -> None:
    bundle = ZOO.write_bundle(form, tmp_path / "bundle")
    scans = ZOO.write_scans(tmp_path / "scans", 1, ("coarser", "oblique"))
    command = [
        *(sys.executable, "-m", "monai.bundle", "run"),
        *("--config_file", "configs/inference.json", "--bundle_root", "."),
        *("--dataset_dir", str(tmp_path / "scans")),
        *("--output_dir", str(tmp_path / "stock")),
    ]
    subprocess.run(command, cwd=bundle, check=True, capture_output=True)
    import_model(bundle, tmp_path / "imported")
    segmenter = Segmenter(tmp_path / "imported", "cpu", backend="torch")
    for files in scans.values():
        result = files[0].name.replace(".nii.gz", "_trans.nii.gz")
        theirs = nib.load(tmp_path / "stock" / result).get_fdata()
        own = segmenter.segment(files).labels
        assert count_differences(own, theirs) <= 0.0005


@pytest.mark.alone
def test_medseg_label_says_what_an_import_can_do(
    imports: dict[str, Path], tmp_path: Path
) -> None:
    require_monai_label()
    studies = tmp_path / "studies"
    AUTO.write_scans("ct", studies, ("small",))
    with run_server(imports["ct"], studies, tmp_path / "state") as server:
        models = server.ask("GET", "/info/").json()["models"]
    (model,) = models.values()
    labels = load_bundle(imports["ct"]).spec.labels
    assert {label.name for label in labels} <= set(model["labels"])
