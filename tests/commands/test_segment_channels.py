"""Several channels, from every kind of tree, through the real ``segment``: a result per case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from support.cli import call
from support.scans import affine_of, write_scan
from support.studies import a_series

from medseg.commands.batch import Batch
from medseg.commands.evaluate import evaluate
from medseg.commands.segment import segment
from medseg.errors import ScanError
from medseg.inference.segmenter import Segmenter
from medseg.io import read_labels, stack_channels
from medseg.io.adapters import as_volume

MakeBundle = Callable[..., Path]
SHAPE = (16, 16, 16)
AFFINE = affine_of((9.0, 9.0, 9.0))
FOUR = ("FLAIR", "T1w", "T1gd", "T2w")
BRATS = ("flair", "t1", "t1ce", "t2")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def channels(*names: str, modality: str = "OT") -> dict[str, list]:
    entries = [{"name": name, "modality": modality} for name in names]
    return {"channels": entries}


def write(folder: Path, *files: str) -> None:
    for seed, file in enumerate(files):
        write_scan(folder / f"{file}.nii.gz", seed, SHAPE, AFFINE)


def states(batch: Batch) -> dict[str, str]:
    return {entry.scan: entry.state for entry in batch.results}


def check_labels(bundle: Path, result: Path, files: list[Path]) -> None:
    """Check that a result is that of these files in this order."""
    volume = stack_channels([as_volume(file) for file in files])
    expected = Segmenter(bundle, "cpu").segment(volume).labels
    assert np.array_equal(read_labels(result).array[0], expected)


def test_brats_cases_fail_alone_and_are_done_once_they_are_whole(
    untrained_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundle = untrained_bundle(**channels(*FOUR))
    scans, out = tmp_path / "scans", tmp_path / "out"
    for case in ("HGG/B_001", "LGG/B_002"):
        name = Path(case).name
        write(scans, *(f"{case}/{name}_{role}" for role in BRATS))
    late = scans / "LGG/B_002/B_002_t1ce.nii.gz"
    late.rename(tmp_path / late.name)
    batch = segment(bundle, scans, out)
    assert states(batch) == {"HGG_B_001": "done", "LGG_B_002": "failed"}
    (failed,) = batch.failed
    assert failed.error.startswith(
        "has no image of the channel T1gd (found: FLAIR, T1w, T2w); give each"
    )
    files = [scans / f"HGG/B_001/B_001_{role}.nii.gz" for role in BRATS]
    check_labels(bundle, out / "HGG_B_001.nii.gz", files)
    (tmp_path / late.name).rename(late)
    batch = segment(bundle, scans, out)
    assert states(batch) == {"HGG_B_001": "skipped", "LGG_B_002": "done"}
    # Every channel counts, not the first alone.
    write_scan(late, 9, SHAPE, AFFINE)
    batch = segment(bundle, scans, out)
    assert states(batch) == {"HGG_B_001": "skipped", "LGG_B_002": "done"}


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a_0000", "a_0001", "b_0000", "b_0001"], {"a", "b"}),
        (["T1w/a", "FLAIR/a"], {"a"}),
        (
            ["sub-1/anat/sub-1_FLAIR", "sub-1/anat/sub-1_T1w"],
            {"sub-1"},
        ),
        (["x_FLAIR", "x_T1"], {"x"}),
    ],
)
def test_two_channels_are_found_in_every_kind_of_tree(
    untrained_bundle: MakeBundle,
    tmp_path: Path,
    files: list[str],
    names: set[str],
) -> None:
    bundle = untrained_bundle(**channels("FLAIR", "T1w"))
    write(tmp_path / "scans", *files)
    batch = segment(bundle, tmp_path / "scans", tmp_path / "out", report=False)
    assert states(batch) == dict.fromkeys(names, "done")


def test_a_study_is_one_scan_with_dicom_results(
    untrained_bundle: MakeBundle, tmp_path: Path
) -> None:
    pytest.importorskip("highdicom")
    bundle = untrained_bundle(**channels("T1", "FLAIR", modality="MR"))
    for said in ("FLAIR ax", "T1 ax", "T2 ax"):
        a_series(
            tmp_path / "scans" / said, said, SeriesDescription=said, Modality="MR"
        )  # fmt: skip
    out = tmp_path / "out"
    batch = segment(
        bundle, tmp_path / "scans", out, formats=["nifti", "dicom-seg"]
    )
    (entry,) = batch.results
    assert (entry.state, entry.missing) == ("done", {})
    folders = [tmp_path / "scans" / said for said in ("T1 ax", "FLAIR ax")]
    check_labels(bundle, out / f"{entry.scan}.nii.gz", folders)


def test_what_is_no_case_says_how_channels_are_given(
    untrained_bundle: MakeBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = untrained_bundle(**channels("FLAIR", "T1w"))
    write(tmp_path / "scans", "p1", "p2")
    image = nib.Nifti1Image(
        np.random.default_rng(0).normal(size=(*SHAPE, 2)), AFFINE
    )
    nib.save(image, tmp_path / "scans/whole.nii.gz")
    code = call(
        monkeypatch,
        *("segment", bundle, tmp_path / "scans", tmp_path / "out"),
    )
    assert code == 1
    printed = capsys.readouterr().out
    assert printed.startswith("1 of 3 scans segmented")
    (line,) = [each for each in printed.splitlines() if "p1.nii.gz" in each]
    assert "has 1 channel(s), the bundle needs 2" in line
    assert "ends in the channel's name (_FLAIR, _T1w)" in line
    assert line.count("p1") == 1


def test_channels_on_grids_of_their_own_fail_as_in_training(
    untrained_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundle = untrained_bundle(**channels("FLAIR", "T1w"))
    write(tmp_path / "scans", "a_FLAIR", "a_T1w", "b_FLAIR")
    other = affine_of((8.0, 9.0, 9.0))
    write_scan(tmp_path / "scans/b_T1w.nii.gz", 5, SHAPE, other)
    batch = segment(bundle, tmp_path / "scans", tmp_path / "out")
    assert states(batch) == {"a": "done", "b": "failed"}
    assert "resample them to one grid first" in batch.failed[0].error


def test_results_pair_with_the_references_of_the_tree(
    untrained_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundle = untrained_bundle(**channels(*FOUR))
    tree = tmp_path / "brats"
    for case in ("HGG/B_001", "LGG/B_002"):
        name = Path(case).name
        write(tree, *(f"{case}/{name}_{role}" for role in BRATS))
        labels = np.zeros(SHAPE, np.uint8)
        labels[4:9, 4:9, 4:9] = 1
        seg = nib.Nifti1Image(labels, AFFINE)
        nib.save(seg, tree / f"{case}/{name}_seg.nii.gz")
    batch = segment(bundle, tree, tmp_path / "out", report=False)
    assert states(batch) == {"HGG_B_001": "done", "LGG_B_002": "done"}
    evaluation = evaluate(tmp_path / "out", tree)
    assert evaluation.faults == ()
    assert len(evaluation.cases) == 2


def test_a_case_folder_is_a_scan_in_python_too(
    untrained_bundle: MakeBundle, tmp_path: Path
) -> None:
    segmenter = Segmenter(untrained_bundle(**channels("FLAIR", "T1w")), "cpu")
    write(tmp_path / "p1", "p1_t1", "p1_flair", "p1_t2")
    write(tmp_path / "p2", "p2_t1", "p3_t1", "p3_flair")
    files = [tmp_path / f"p1/p1_{role}.nii.gz" for role in ("flair", "t1")]
    expected = segmenter.segment(files).labels
    whole = segmenter.segment(tmp_path / "p1")
    assert np.array_equal(whole.labels, expected)
    named = segmenter.segment({"t1": files[1], "flair": files[0], "t2": files})
    assert np.array_equal(named.labels, expected)
    assert any("the others are not used" in each for each in named.warnings)
    with pytest.raises(ScanError, match="no image of the channel FLAIR"):
        segmenter.segment(tmp_path / "p2")
    with pytest.raises(ScanError, match=r"found: T1w\); give one image under"):
        segmenter.segment({"t1": files[1], "x": files[0]})
    with pytest.raises(ScanError, match="with one file per channel that ends"):
        segmenter.segment(files[0])
