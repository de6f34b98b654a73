"""What a trained bundle does, an import does, too: other software, servers, fine-tuning."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from support.bundles import run_stock, write_json
from support.label_servers import require_monai_label, run_server, slicer_client
from support.nnunet_models import (
    copy_model,
    edit_checkpoint,
    load_script,
    make_scans,
)

from medseg import Segmenter, export, plan, train
from medseg.bundle.bundle import load_bundle
from medseg.commands.import_model import import_model
from medseg.events import Event, FineTuningStarted
from medseg.io import read_labels

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NAMES = ("isotropic", "resenc_m")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Imports of a plain and a residual network, without flips, which are eight times as slow."""
    home = tmp_path_factory.mktemp("imported")
    made = {}
    for name in NAMES:
        model = copy_model(name, home / f"model_{name}")
        edit_checkpoint(
            model, lambda c: c.update(inference_allowed_mirroring_axes=None)
        )
        made[name] = home / name
        import_model(model, made[name], licence="CC BY 4.0")
    return made


def write_cases(root: Path, name: str, count: int) -> Path:
    """Write scans of the model's kind on another grid, with a channel and an order of its own."""
    script = load_script()
    model = next(item for item in script.MODELS if item.name == name)
    affine = script.make_affine((2.0, 1.6, 2.2), 10)
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        (ct,), labels = script.make_case(
            model, 500 + number, (26, 30, 22), affine
        )
        # What is bright to the parent is dark here, so that it knows too little.
        ct = np.where(labels > 0, ct * 0.8, ct).astype(np.float32)
        noise = np.random.RandomState(number).normal(0, 1, ct.shape)
        turned = np.where(labels > 0, 3 - labels, 0).astype(np.uint8)
        stem = f"case_{number}"
        script.save(turned, affine, root / "labelsTr" / f"{stem}.nii.gz")
        for channel, image in enumerate((noise.astype(np.float32), ct)):
            file = root / "imagesTr" / f"{stem}_{channel:04d}.nii.gz"
            script.save(image, affine, file)
    listing = {
        "channel_names": {"0": "PET", "1": "CT"},
        "labels": {"background": 0, "lesion": 1, "organ": 2},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    write_json(root, listing, "dataset.json")
    return root


def mean_dice(bundle: Path, data: Path, channels: tuple[int, ...]) -> float:
    """Return the mean Dice over cases and labels, which are compared by name."""
    segmenter = Segmenter(bundle, "cpu")
    names = {
        label.name: label.index for label in load_bundle(bundle).spec.labels
    }
    scores = []
    for file in sorted((data / "labelsTr").iterdir()):
        stem = file.name.removesuffix(".nii.gz")
        images = [
            data / "imagesTr" / f"{stem}_{channel:04d}.nii.gz"
            for channel in channels
        ]
        labels = segmenter.segment(images).labels
        reference = np.asarray(nib.load(file).dataobj)
        for name, value in (("lesion", 1), ("organ", 2)):
            ours, theirs = labels == names[name], reference == value
            both = int((ours & theirs).sum())
            scores.append(2 * both / (int(ours.sum()) + int(theirs.sum())))
    return float(np.mean(scores))


@pytest.mark.parametrize("name", NAMES)
def test_training_improves_on_an_import_with_other_labels_and_channels(
    name: str, bundles: dict[str, Path], tmp_path: Path
) -> None:
    data = write_cases(tmp_path / "data", name, 5)
    parent = bundles[name]
    planned = plan(
        data, tmp_path / "bundle.json", start_from=parent, device="cpu"
    )
    before = load_bundle(parent).spec
    assert planned.spec.network == before.network
    assert planned.spec.preprocessing.axes == "kji"
    assert planned.spec.intensities[1] == before.intensities[0]
    told: list[Event] = []

    def listen(event: Event) -> None:
        told.append(event)

    run = train(
        planned.file,
        start_from=parent,
        out=tmp_path / "run",
        fold=None,
        device="cpu",
        overrides=["training.steps=40", "training.learning_rate=0.003"],
        listeners=[listen],
    )
    (started,) = [each for each in told if isinstance(each, FineTuningStarted)]
    assert "label lesion: taken over" in started.decisions
    assert any(
        each.startswith("channel PET: starts at zero")
        for each in started.decisions
    )
    assert "preprocessing: as the parent's" in started.decisions
    assert any("licence CC BY 4.0" in each for each in started.decisions)
    untuned = mean_dice(parent, data, (1,))
    tuned = mean_dice(run, data, (0, 1))
    assert tuned > untuned + 0.02
    # What it says of itself is no longer that nnU-Net trained it, but from what it started.
    assert load_bundle(run).spec.origin is None
    assert load_bundle(run).trained.origin is None
    card = (run / "docs" / "README.md").read_text()
    assert str(before.origin) in card


@pytest.fixture(scope="module")
def architectures(
    tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, Path]
) -> Path:
    """A folder with the package that the export of a residual network names, and no other."""
    about = json.loads(
        (bundles["resenc_m"] / "configs" / "metadata.json").read_text()
    )
    package = "dynamic_network_architectures"
    version = about["required_packages_version"][package]
    folder = tmp_path_factory.mktemp("packages")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run(
        [*pip, "--target", folder, f"{package}=={version}"], check=True
    )
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_stock_monai_runs_the_export(
    name: str,
    bundles: dict[str, Path],
    architectures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(architectures)
    export(bundles[name], tmp_path / "export", to="monai")
    scans = tmp_path / "scans"
    scans.mkdir()
    grids = make_scans(name, scans, ["same", "small", "coarser"])
    parser = run_stock(
        tmp_path / "export",
        "inference.json",
        dataset_dir=str(scans),
        output_dir=str(tmp_path / "stock"),
        device="cpu",
    )
    network = parser.get_parsed_content("network_def")
    kinds = {"isotropic": "DynUNet", "resenc_m": "ResidualEncoderUNet"}
    assert type(network).__name__ == kinds[name]
    segmenter = Segmenter(bundles[name], "cpu", backend="torch")
    shares = {}
    for grid, files in grids.items():
        ours = segmenter.segment(files).labels
        file = tmp_path / "stock" / f"{grid}_0000_seg.nii.gz"
        theirs = np.asarray(nib.load(file).dataobj)
        either = int(((ours > 0) | (theirs > 0)).sum())
        assert either > 20
        shares[grid] = int((ours != theirs).sum()) / either
    # One window on the scan's own grid is all the network: there is nothing to differ.
    assert shares["small"] == 0
    # What MONAI does otherwise with several windows and other grids, the export says.
    about = json.loads(
        (tmp_path / "export" / "configs" / "metadata.json").read_text()
    )
    assert any(
        "MONAI moves the last one" in each for each in about["departures"]
    )
    assert max(shares.values()) < 0.06  # of networks that have hardly learned


@pytest.mark.parametrize("name", NAMES)
def test_openvino_computes_the_same_label_maps(
    name: str, bundles: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    grids = make_scans(name, tmp_path, ["same", "coarser"])
    scans = tmp_path / "scans"
    scans.mkdir()
    for files in grids.values():
        for file in files:
            file.rename(scans / file.name)
    made = export(
        bundles[name], tmp_path / "export", to="openvino", scans=scans
    )
    assert made.agreement is not None
    exported = Segmenter(made.folder, "cpu", backend="openvino")
    own = Segmenter(bundles[name], "cpu", backend="torch")
    for file in sorted(scans.iterdir()):
        ours, theirs = (each.segment([file]).labels for each in (own, exported))
        assert len(np.unique(ours)) == 3
        # bf16, where the CPU has it, rounds a few voxels at borders to another label.
        differ = int((ours != theirs).sum())
        assert differ <= 0.005 * int(((ours > 0) | (theirs > 0)).sum())


@pytest.mark.alone
def test_medseg_label_serves_an_import(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    require_monai_label()
    studies = tmp_path / "studies"
    studies.mkdir()
    ((_, (scan,)),) = make_scans("resenc_m", studies, ["coarser"]).items()
    bundle = bundles["resenc_m"]
    with run_server(bundle, studies, tmp_path / "state") as server:
        (model,) = server.ask("GET", "/info/").json()["models"]
        case = scan.name.removesuffix(".nii.gz")
        client = slicer_client(server.url, tmp_path)
        file, about = client.infer(model, case, {"result_extension": ".nii.gz"})
        theirs: Any = read_labels(Path(file))
    ours = Segmenter(bundle, "cpu").segment([scan])
    assert np.array_equal(ours.labels, theirs.array[0])
    assert about["label_names"] == {"organ": 1, "lesion": 2}
