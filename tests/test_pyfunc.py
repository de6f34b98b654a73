"""The model MLflow loads, through MLflow: logged by the tracker, registered, loaded, served."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

import medseg
from medseg import MedsegError
from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec_files import write_bundle
from medseg.events import RunDone, RunStarted
from medseg.inference.segmenter import Segmenter
from medseg.io import read_image, read_labels
from medseg.networks.building import build_network
from medseg.tracking.tracker import MlflowTracker

MODEL_CODE = Path(medseg.__file__).with_name("pyfunc.py")
SPEC: dict[str, Any] = {
    "name": "blobs",
    "channels": [{"name": "CT"}],
    "labels": [{"index": 1, "name": "core"}, {"index": 2, "name": "left rim"}],
    "network": {"kind": "unet", "channels": [4, 4, 4], "strides": [1, 2, 2]},
    "training": {"patch": [16, 16, 16]},
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained bundle in form; its weights are random, so that every label occurs."""
    folder = tmp_path_factory.mktemp("trained")
    spec = parse_spec(SPEC)
    write_bundle(spec, folder / "bundle.json")
    torch.manual_seed(0)
    (folder / "models").mkdir()
    weights = build_network(spec, supervised=False).state_dict()
    torch.save(weights, folder / "models" / "model.pt")
    return folder


@pytest.fixture(scope="module")
def registry(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store in which the tracker registered the bundle."""
    store = tmp_path_factory.mktemp("runs") / "mlflow.db"
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracker = MlflowTracker(store, model_code=MODEL_CODE, say=said.append)
        tracker(RunStarted(bundle, "r1", "blobs", "blobs", {}, {}, None, 1))
        tracker(RunDone(bundle, {}))
    assert said == []
    return f"sqlite:///{store}"


@pytest.fixture(scope="module")
def model(registry: str) -> str:
    """Where the registry says that the model lies."""
    from mlflow import MlflowClient

    (version,) = MlflowClient(tracking_uri=registry).search_model_versions()
    return str(version.source)


def scan(path: Path, seed: int = 0) -> Path:
    voxels = (
        np.random.default_rng(seed).normal(size=(20, 18, 17)).astype(np.float32)
    )
    affine = np.diag([-1.5, 2.0, 3.0, 1.0])
    affine[:3, 3] = (10, -20, 30)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def test_a_loaded_model_segments_as_the_segmenter_does(
    model: str, bundle: Path, tmp_path: Path
) -> None:
    import mlflow

    first, second = scan(tmp_path / "a.nii.gz", 1), scan(tmp_path / "b.nii", 2)
    loaded = mlflow.pyfunc.load_model(model)
    rows = loaded.predict(
        {"scan": [str(first), str(second)]}, params={"out": str(tmp_path / "o")}
    )
    volumes, judged = (
        ["core_ml", "left rim_ml"],
        ["expected_dice", "lower_bound", "review", "quality", "reasons"],
    )
    assert list(rows.columns) == [
        "scan",
        "label_map",
        "error",
        "warnings",
        *volumes,
        *judged,
    ]
    assert list(rows["scan"]) == [str(first), str(second)]
    assert [Path(path).name for path in rows["label_map"]] == [
        "a.nii.gz",
        "b.nii.gz",
    ]
    for row, file in zip(rows.itertuples(), (first, second), strict=True):
        expected = Segmenter(bundle).segment(read_image(file))
        written = read_labels(Path(row.label_map))
        assert np.array_equal(written.array[0], expected.labels)
        assert len(np.unique(expected.labels)) > 1, (
            "an empty result would prove nothing"
        )
        assert written.on_same_grid(read_image(file))
        assert row.core_ml == pytest.approx(expected.volumes_ml["core"])
        # The bundle is not calibrated, so words stand in a number's place.
        assert np.isnan(row.expected_dice)
        assert np.isnan(row.lower_bound)
        assert row.quality == "not calibrated"


def test_a_bad_scan_is_a_row_with_its_error_and_the_others_are_done(
    model: str, tmp_path: Path
) -> None:
    import mlflow

    good = scan(tmp_path / "good.nii.gz")
    (tmp_path / "cut.nii.gz").write_bytes(good.read_bytes()[:2000])
    scans = [
        str(tmp_path / "cut.nii.gz"),
        str(
            tmp_path / ";".join(f"{number}_none.nii.gz" for number in range(99))
        ),
        str(good),
    ]
    rows = mlflow.pyfunc.load_model(model).predict({"scan": scans})
    assert [error == "" for error in rows["error"]] == [False, False, True]
    assert rows["label_map"][0] == ""
    assert list(np.isnan(rows["core_ml"])) == [True, True, False]
    assert list(rows["quality"]) == ["", "", "not calibrated"]
    assert list(rows["review"]) == [True, True, False]
    assert all(rows["error"][:2].str.len() > 20)
    assert not rows["error"].str.contains("none|cut|nii").any(), (
        "file names may name a patient"
    )
    assert Path(rows["label_map"][2]).is_file()


def test_it_imports_only_public_names_since_models_outlive_releases() -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(MODEL_CODE.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").partition(".")[0] == "medseg"
        ):
            assert node.module == "medseg"
            imported |= {name.name for name in node.names}
        if isinstance(node, ast.Import):
            assert not any(
                name.name.startswith("medseg") for name in node.names
            )
    assert imported
    assert imported <= set(medseg.__all__)


def test_channel_files_are_separated_by_semicolons(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from support.bundles import made_spec, trained_bundle

    from medseg.pyfunc import SegmentationModel

    channels = [
        {"name": "a", "modality": "MR"},
        {"name": "b", "modality": "MR"},
    ]
    bundle = trained_bundle(
        tmp_path_factory.mktemp("two") / "bundle", made_spec(channels=channels)
    )
    files = [scan(tmp_path / "p_0.nii.gz", 1), scan(tmp_path / "p_1.nii.gz", 2)]
    model = SegmentationModel()
    model._segmenter = Segmenter(bundle, "cpu")
    folder = tmp_path / "case"
    folder.mkdir()
    scan(folder / "case_A.nii.gz", 1)
    scan(folder / "case_B.nii.gz", 2)
    table = pd.DataFrame(
        {"scan": [";".join(map(str, files)), str(files[0]), str(folder)]}
    )
    both, one, case = model.predict(
        None, table, {"out": str(tmp_path / "o")}
    ).to_dict("records")
    expected = Segmenter(bundle, "cpu").segment(files)
    assert np.array_equal(
        read_labels(Path(both["label_map"])).array[0], expected.labels
    )
    assert "bundle needs 2" in one["error"]
    assert "channels: a, b" in one["error"]
    assert np.array_equal(
        read_labels(Path(case["label_map"])).array[0], expected.labels
    )


def test_every_way_to_pass_scans_that_mlflow_knows(
    model: str, tmp_path: Path
) -> None:
    import mlflow

    files = [str(scan(tmp_path / name)) for name in ("a.nii", "b.nii")]
    loaded = mlflow.pyfunc.load_model(model)
    table = pd.DataFrame({"scan": files})
    for given in (table, {"scan": files}, [{"scan": file} for file in files]):
        rows = loaded.predict(given)
        assert list(rows["scan"]) == files
        assert list(rows["error"]) == ["", ""]


def test_scans_of_one_name_do_not_overwrite_each_other(
    model: str, tmp_path: Path
) -> None:
    import mlflow

    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    scans = [
        str(scan(tmp_path / f / "t1.nii.gz", n)) for n, f in enumerate("xy")
    ]
    rows = mlflow.pyfunc.load_model(model).predict({"scan": scans})
    assert len(set(rows["label_map"])) == 2
    assert (
        Path(rows["label_map"][0]).parent == Path(rows["label_map"][1]).parent
    )


def test_label_maps_keep_the_letters_of_every_alphabet(
    model: str, tmp_path: Path
) -> None:
    import mlflow

    scans = [
        str(scan(tmp_path / f"{name}.nii.gz"))
        for name in ("Mu\u0308ller 肝", "x\u202ey")
    ]
    rows = mlflow.pyfunc.load_model(model).predict({"scan": scans})
    assert [Path(path).name for path in rows["label_map"]] == [
        "M\u00fcller_肝.nii.gz",
        "xy.nii.gz",
    ]


@pytest.mark.slow
def test_mlflows_command_line_runs_the_registered_model(
    registry: str, tmp_path: Path
) -> None:
    request = {
        "dataframe_records": [{"scan": str(scan(tmp_path / "a.nii.gz"))}],
        "params": {"out": str(tmp_path / "out")},
    }
    (tmp_path / "in.json").write_text(json.dumps(request))
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "predict",
        "-m",
        "models:/blobs/1",
    ]
    command += [
        "-i",
        "in.json",
        "-o",
        "out.json",
        "-t",
        "json",
        "--env-manager",
        "local",
    ]
    settings = {
        "MLFLOW_TRACKING_URI": registry,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, **settings},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    (row,) = json.loads((tmp_path / "out.json").read_text())["predictions"]
    assert row["label_map"] == str(tmp_path / "out" / "a.nii.gz")
    assert row["error"] == ""
    assert Path(row["label_map"]).is_file()


def test_a_model_is_loaded_at_the_speed_asked_for(model: str) -> None:
    import mlflow

    def speed_of(**config: str) -> str:
        loaded = mlflow.pyfunc.load_model(model, model_config=config)
        segmenter = loaded.unwrap_python_model()._segmenter
        speed: str = segmenter.choices.get("speed", "as decided")
        return speed

    assert speed_of() == "as decided"
    assert speed_of(speed="exact") == "exact"
    with pytest.raises(MedsegError, match="speed takes exact, balanced"):
        speed_of(speed="faster")
