"""A trained bundle for other software: the same label maps there, whole folders or none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from support.bundles import (
    made_spec,
    pickled_trap,
    refined_bundle,
    run_stock,
    trained_bundle,
)

from medseg import (
    CheckpointError,
    MedsegError,
    OutputError,
    ScanError,
    Segmenter,
    export,
    segment,
)
from medseg.bundle.bundle import load_bundle
from medseg.bundle.reading import parse_trained
from medseg.bundle.spec_files import write_trained
from medseg.commands.import_model import import_model
from medseg.events import Event, Progress
from medseg.networks.loading import load_network
from medseg.testing import write_dataset


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = write_dataset(
        tmp_path_factory.mktemp("data"), 2, shape=(24, 20, 16), spacing=9.0
    )
    return data / "imagesTr"


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two networks."""
    home = tmp_path_factory.mktemp("ensemble")
    bundle = trained_bundle(
        home / "bundle", made_spec(inference={"mirror": True}), seed=1
    )
    other = trained_bundle(home / "other", made_spec(), seed=2)
    models = bundle / "models"
    shutil.copy(models / "model.pt", models / "fold_0.pt")
    shutil.copy(other / "models" / "model.pt", models / "fold_1.pt")
    write_trained(
        parse_trained({"members": ["fold_0.pt", "fold_1.pt"]}), bundle
    )
    (bundle / "docs").mkdir()
    (bundle / "docs" / "README.md").write_text("# made up\n")
    scores = {
        "dice": {"liver": 0.5, "mean": 0.5},
        "nsd": {"liver": None, "mean": None},
    }
    (bundle / "metrics.json").write_text(json.dumps({"scores": scores}))
    (bundle / "checkpoints").mkdir()
    (bundle / "run.json").write_text("{}")
    return bundle


def files_of(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file()
    )


def test_monai_gets_a_bundle_that_stock_monai_runs(
    ensemble: Path, scans: Path, tmp_path: Path
) -> None:
    made = export(ensemble, tmp_path / "monai", to="monai")
    assert files_of(made.folder) == [
        "configs/inference.json",
        "configs/metadata.json",
        "configs/train.json",
        "docs/README.md",
        "models/fold_0.pt",
        "models/fold_1.pt",
        "models/model.pt",
    ]
    metadata = json.loads(
        (made.folder / "configs" / "metadata.json").read_text()
    )
    assert metadata["eval_metrics"] == {"mean_dice": 0.5}
    out = tmp_path / "stock"
    run_stock(
        made.folder,
        "inference.json",
        dataset_dir=str(scans),
        output_dir=str(out),
    )
    assert not segment(ensemble, scans, tmp_path / "own", device="cpu").failed
    for scan in scans.iterdir():
        stock = nib.load(out / scan.name.replace(".nii.gz", "_seg.nii.gz"))
        own = np.asarray(nib.load(tmp_path / "own" / scan.name).dataobj)
        assert np.array_equal(own, np.asarray(stock.dataobj))
        assert len(np.unique(own)) > 1


NETWORKS: dict[str, dict[str, Any]] = {
    "volume": {},
    "slices": {
        "network": {"dims": 2, "norm": "batch"},
        "training": {"patch": [32, 16]},
    },
    "channels": {"channels": [{"name": "a"}, {"name": "b"}]},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
def test_onnx_files_compute_the_same_scores(kind: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript", reason="needs the extra [onnx]")
    spec = made_spec(**NETWORKS[kind])
    bundle = trained_bundle(tmp_path / "bundle", spec)
    made = export(bundle, tmp_path / "onnx", to="onnx")
    assert files_of(made.folder) == ["model.onnx"]
    file = made.folder / "model.onnx"
    session = onnxruntime.InferenceSession(
        file, providers=["CPUExecutionProvider"]
    )
    network = load_network(load_bundle(bundle), bundle / "models" / "model.pt")
    for batch in (1, 3):
        windows = torch.randn(batch, len(spec.channels), *spec.training.patch)
        (scores,) = session.run(["scores"], {"image": windows.numpy()})
        with torch.inference_mode():
            wanted = network(windows).numpy()
        assert np.abs(scores - wanted).max() < 1e-4
        assert (scores.argmax(1) != wanted.argmax(1)).mean() < 1e-3
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["medseg.bundle"])["name"] == "made_up"
    assert b"/medseg/" not in file.read_bytes()  # no path of this machine


def test_openvino_makes_a_copy_that_segments_alike(
    ensemble: Path, scans: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="needs the extra [openvino]")
    events: list[Event] = []
    out = tmp_path / "fast"
    made = export(
        ensemble, out, to="openvino", scans=scans, listeners=[events.append]
    )
    found = made.agreement
    assert found is not None
    assert (found.scans, found.made_up, found.voxels) == (
        2,
        False,
        2 * 24 * 20 * 16,
    )
    assert found.is_close
    assert events[-1] == Progress("comparing label maps", 2, 2)
    assert sorted(found.files) == [
        "fold_0.bin",
        "fold_0.xml",
        "fold_1.bin",
        "fold_1.xml",
    ]
    assert "run.json" not in files_of(out)
    assert not list(tmp_path.rglob(".part-*"))
    fast, slow = Segmenter(out, "cpu"), Segmenter(ensemble, "cpu")
    assert (fast.backend, slow.backend) == ("openvino", "torch")
    from medseg.io import read_image

    volume = read_image(next(scans.iterdir()))
    assert (
        fast.segment(volume).labels != slow.segment(volume).labels
    ).mean() < 1e-3


def test_a_copy_for_openvino_has_the_refiner(
    scans: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="needs the extra [openvino]")
    from medseg.io import read_image

    spec = made_spec(refinement={"adversarial_weight": 0})
    bundle = refined_bundle(tmp_path / "bundle", spec, applied=True)
    export(bundle, tmp_path / "fast", to="openvino", scans=scans)
    volume = read_image(next(scans.iterdir()))
    copy, original = (
        Segmenter(one, "cpu", backend="torch")
        for one in (tmp_path / "fast", bundle)
    )
    one, other = copy.segment(volume), original.segment(volume)
    assert np.array_equal(one.labels, other.labels)
    assert one.confidence == other.confidence


def test_what_was_exported_for_monai_is_not_imported_and_it_is_said_why(
    ensemble: Path, tmp_path: Path
) -> None:
    export(ensemble, tmp_path / "monai", to="monai")
    with pytest.raises(
        MedsegError, match=r"medseg wrote for stock MONAI.*run folder"
    ):
        import_model(tmp_path / "monai", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_exporting_again_replaces_what_is_stale(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs the extra [openvino]")
    bundle = trained_bundle(tmp_path / "bundle", made_spec(), seed=1)
    export(bundle, to="openvino")
    other = trained_bundle(tmp_path / "other", made_spec(), seed=2)
    shutil.copy(other / "models" / "model.pt", bundle / "models" / "model.pt")
    assert Segmenter(bundle, "cpu").backend == "torch"
    export(bundle, bundle, to="openvino")
    assert Segmenter(bundle, "cpu").backend == "openvino"
    assert not list(bundle.rglob(".part-*"))


def test_a_failed_export_leaves_nothing(tmp_path: Path, scans: Path) -> None:
    pytest.importorskip("openvino", reason="needs the extra [openvino]")
    bundle = trained_bundle(tmp_path / "bundle", made_spec())
    torn = tmp_path / "scans"
    torn.mkdir()
    (torn / "torn.nii.gz").write_bytes(next(scans.iterdir()).read_bytes()[:500])
    before = files_of(tmp_path)
    with pytest.raises(ScanError):
        export(bundle, tmp_path / "out", to="openvino", scans=torn)
    with pytest.raises(ScanError):
        export(bundle, to="openvino", scans=torn)
    assert files_of(tmp_path) == before
    # Nor does it take an earlier export away.
    export(bundle, to="openvino", scans=scans)
    before = files_of(tmp_path)
    with pytest.raises(ScanError):
        export(bundle, to="openvino", scans=torn)
    assert files_of(tmp_path) == before
    assert Segmenter(bundle, "cpu").backend == "openvino"


@pytest.mark.parametrize("kind", ["monai", "onnx", "openvino"])
def test_a_pickle_among_the_weights_is_not_opened(
    kind: str, tmp_path: Path
) -> None:
    bundle = trained_bundle(tmp_path / "bundle", made_spec())
    canary = tmp_path / "canary"
    (bundle / "models" / "model.pt").write_bytes(pickled_trap(canary))
    with pytest.raises(CheckpointError):
        export(bundle, tmp_path / "out", to=kind)
    assert not canary.exists()
    assert not (tmp_path / "out").exists()


def test_a_wrong_call_is_said(ensemble: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="not empty"):
        export(ensemble, tmp_path / "full", to="monai")
    with pytest.raises(OutputError, match="needs a folder"):
        export(ensemble, to="onnx")
    with pytest.raises(
        MedsegError, match="takes monai, onnx, openvino; got 'paper'"
    ):
        export(ensemble, tmp_path / "out", to="paper")
    with pytest.raises(MedsegError, match="--scans goes with --to openvino"):
        export(ensemble, tmp_path / "out", to="onnx", scans=tmp_path)
    (ensemble / "models" / "fold_1.pt").rename(tmp_path / "kept.pt")
    with pytest.raises(CheckpointError, match="train it first"):
        export(ensemble, tmp_path / "out", to="monai")
    (tmp_path / "kept.pt").rename(ensemble / "models" / "fold_1.pt")
