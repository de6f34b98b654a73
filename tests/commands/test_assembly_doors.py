"""Every door takes an assembly as it takes a bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
from support import dicom
from support.assemblies import make_scan, write_thorax
from support.cli import call

from medseg import (
    Segmenter,
    calibrate,
    check,
    export,
    plan,
    review,
    train,
)
from medseg.bundle.bundle import Assembly, load_bundle
from medseg.commands.segment import segment
from medseg.errors import BundleError, OutputError
from medseg.events import Event, Notice
from medseg.label_server.state import StateFolder
from medseg.label_server.versions import Versions


@pytest.fixture
def assembly(untrained_bundle: Callable[..., Path]) -> Path:
    return write_thorax(untrained_bundle)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    scan = make_scan()
    image = nib.Nifti1Image(scan.array[0], scan.affine)
    nib.save(image, folder / "case.nii.gz")
    return folder


def read(file: Path) -> np.ndarray:
    return np.asarray(nib.load(file).dataobj)


def test_a_batch_names_the_assembly_and_its_versions(
    assembly: Path, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    batch = segment(assembly, scans, out, device="cpu")
    (entry,) = batch.results
    assert entry.bundle == "thorax 1.2.0"
    assert entry.origin == "assembly of organs 0.1.0, bones 0.1.0"
    whole = read(out / "case.nii.gz")
    assert set(np.unique(whole)) == {0, 1, 2, 3}
    header = (out / "volumes.csv").read_text().splitlines()[0]
    assert header.startswith("scan,rib_ml,liver_ml,left_kidney_ml,")
    assert "thorax 1.2.0" in (out / "report.html").read_text()
    assert "not calibrated" in (out / "volumes.csv").read_text()
    # Results of some labels are other results; asked for again, they are kept.
    some = segment(
        assembly, scans, out, device="cpu", labels=["rib,left_kidney"]
    )
    assert [entry.state for entry in some.results] == ["done"]
    chosen = read(out / "case.nii.gz")
    assert set(np.unique(chosen)) == {0, 1, 3}
    header = (out / "volumes.csv").read_text().splitlines()[0]
    assert header.startswith("scan,rib_ml,left_kidney_ml,expected_dice")
    again = segment(
        assembly, scans, out, device="cpu", labels=["left_kidney", "rib"]
    )
    assert [entry.state for entry in again.results] == ["skipped"]


def test_dicom_results_name_the_structures_and_every_bundle(
    assembly: Path, tmp_path: Path
) -> None:
    pytest.importorskip("highdicom")
    ct = make_scan((16, 14, 8)).array[0] + 2000
    dicom.save(tmp_path / "ct", dicom.series(ct.astype(np.uint16)))
    batch = segment(
        assembly,
        tmp_path / "ct",
        tmp_path / "out",
        device="cpu",
        formats=["nifti", "dicom-seg"],
    )
    (entry,) = batch.results
    assert not entry.missing
    (file,) = (tmp_path / "out").glob("*.seg.dcm")
    stored = pydicom.dcmread(file)
    names = ["rib", "liver", "left_kidney"]
    assert [each.SegmentLabel for each in stored.SegmentSequence] == names
    (algorithm,) = stored.SegmentSequence[
        0
    ].SegmentationAlgorithmIdentificationSequence
    assert algorithm.AlgorithmName == "thorax"
    assert "assembly of organs 0.1.0, bones 0.1.0" in str(stored)
    # Each segment has as many voxels as its label in the NIfTI file.
    voxels = np.zeros(4, int)
    for frame, about in zip(
        stored.pixel_array,
        stored.PerFrameFunctionalGroupsSequence,
        strict=True,
    ):
        (segment_of_frame,) = about.SegmentIdentificationSequence
        voxels[segment_of_frame.ReferencedSegmentNumber] += int(frame.sum())
    whole = read(tmp_path / "out" / f"{entry.scan}.nii.gz")
    assert np.array_equal(
        voxels[1:], np.bincount(whole.ravel(), minlength=4)[1:]
    )
    assert np.count_nonzero(voxels) >= 2


def test_results_of_an_assembly_are_evaluated_by_its_labels(
    assembly: Path,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    segment(assembly, scans, out, device="cpu", report=False)
    given = ("evaluate", out, out, "--bundle", assembly, "--json")
    assert call(monkeypatch, *given) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]["dice"]
    assert scores == {"rib": 1, "liver": 1, "left_kidney": 1, "mean": 1}


def test_check_finds_weights_that_are_missing_in_a_part(
    assembly: Path,
) -> None:
    assert not check(assembly).faults
    (assembly / "parts" / "bones" / "models" / "model.pt").unlink()
    faults = check(assembly).faults
    assert [fault.where for fault in faults] == ["parts/bones/models/model.pt"]
    content = json.loads((assembly / "assembly.json").read_text())
    content["parts"][0]["bundle"] = "../elsewhere"
    (assembly / "assembly.json").write_text(json.dumps(content))
    faults = check(assembly).faults
    assert [fault.where for fault in faults] == ["parts.0.bundle"]


def test_each_bundle_is_exported_by_itself(
    assembly: Path, tmp_path: Path
) -> None:
    notices: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Notice):
            notices.append(event.message)

    out = tmp_path / "monai"
    export(assembly, out, to="monai", listeners=[listen])
    assert "other software neither paints their labels" in notices[0]
    for part in ("organs", "bones"):
        assert (out / "parts" / part / "configs" / "inference.json").is_file()
    with pytest.raises(OutputError, match="other than the assembly's own"):
        export(assembly, to="onnx")


def test_an_assembly_is_not_trained_as_a_whole(
    assembly: Path, untrained_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    for bundle, parent in (
        (assembly, None),
        (untrained_bundle("other"), assembly),
    ):
        with pytest.raises(BundleError, match="as a whole") as caught:
            train(
                bundle,
                start_from=parent,
                data=tmp_path,
                out=tmp_path / "run",
                device="cpu",
            )
        assert "parts/organs, parts/bones" in str(caught.value)
    with pytest.raises(BundleError, match="not calibrated as a whole"):
        calibrate(assembly, tmp_path / "out", data=tmp_path)
    with pytest.raises(BundleError, match="not fine-tuned as a whole"):
        plan(tmp_path, tmp_path / "bundle.json", start_from=assembly)


def test_masks_by_others_are_reviewed_with_an_assembly(
    assembly: Path, scans: Path, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    segment(assembly, scans, masks, device="cpu", report=False)
    judged = review(masks, scans, assembly, device="cpu")
    (mask,) = judged.cases
    assert not judged.faults
    assert mask.quality.mean is not None
    assert mask.quality.mean.dice == 1
    assert set(mask.quality.labels) == {"rib", "liver", "left_kidney"}
    assert judged.coverage is None


def test_the_label_server_keeps_a_version_of_all_bundles(
    assembly: Path, tmp_path: Path
) -> None:
    versions = Versions(StateFolder(tmp_path / "state"))
    versions.adopt(load_bundle(assembly))
    served = versions.find_served().load_bundle()
    assert isinstance(served, Assembly)
    scan = make_scan()
    assert np.array_equal(
        Segmenter(served, "cpu").segment(scan).labels,
        Segmenter(assembly, "cpu").segment(scan).labels,
    )


def test_the_command_takes_labels_and_says_which_there_are(
    assembly: Path,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    given = ("segment", assembly, scans, out, "--device", "cpu", "--labels")
    assert call(monkeypatch, *given, "spleen") == 2
    assert "it has rib, liver, left_kidney" in capsys.readouterr().err
    assert call(monkeypatch, *given, "rib", "--no-report") == 0
    assert set(np.unique(read(out / "case.nii.gz"))) == {0, 1}
    assert call(monkeypatch, "check", assembly) == 0


def test_mlflows_model_takes_an_assembly(assembly: Path, scans: Path) -> None:
    from medseg.pyfunc import SegmentationModel

    class Context:
        artifacts: ClassVar = {"bundle": str(assembly)}
        model_config = None

    model = SegmentationModel()
    model.load_context(Context())
    scan = str(scans / "case.nii.gz")
    rows = model.predict(None, pd.DataFrame({"scan": [scan]}))
    found = Segmenter(assembly, "cpu").segment(scan)
    assert np.array_equal(read(rows["label_map"][0]), found.labels)
    assert rows["left_kidney_ml"][0] == found.volumes_ml["left_kidney"]
