"""TotalSegmentator's tasks become assemblies, from stand-ins for the weights it downloads."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.nnunet_models import edit_checkpoint
from support.totalsegmentator import write_weights

from medseg import Segmenter
from medseg.bundle.bundle import Assembly, load_bundle
from medseg.commands.import_totalsegmentator import import_totalsegmentator
from medseg.errors import MedsegError, OutputError
from medseg.interop.totalsegmentator.tasks import find_task, list_tasks
from medseg.volume import Volume


def write_all(results: Path, name: str) -> None:
    """Write stand-ins for every network of a task, its crops' as well."""
    task = find_task(name)
    for part in task.parts:
        write_weights(results, task, part)
    if task.crop is not None:
        write_all(results, task.crop.task)


def make_scan(
    shape: tuple[int, int, int] = (34, 30, 28), mm: float = 2.0
) -> Volume:
    noise = np.random.default_rng(0).normal(0, 120, (1, *shape))
    # Stored towards the left and the back, as DICOM is.
    affine = np.diag([-mm, -mm, mm, 1.0])
    return Volume((100 + noise).astype(np.float32), affine)


def test_parts_are_painted_as_if_run_one_by_one(tmp_path: Path) -> None:
    write_all(tmp_path / "results", "total_mr")
    made = import_totalsegmentator("total_mr", tmp_path, tmp_path / "out")
    assembly = load_bundle(tmp_path / "out")
    assert isinstance(assembly, Assembly)
    scan = make_scan()
    found = Segmenter(assembly, "cpu").segment(scan)
    names = [label.name for label in made.spec.labels]
    assert names[:2] == ["spleen", "kidney_right"]
    assert names[29] == "humerus_left"
    assert len(names) == 50
    wanted = np.zeros_like(found.labels)
    for step in assembly.steps:
        alone = Segmenter(step.bundle, "cpu").segment(scan)
        for label in alone.label_set:
            index = names.index(step.names[label.name]) + 1
            wanted[alone.labels == label.index] = index
    found_in = {int(index) > 29 for index in np.unique(wanted) if index}
    assert found_in == {False, True}  # organs, and muscles over them
    assert 0 in wanted
    assert np.array_equal(found.labels, wanted)


def test_bundles_do_what_totalsegmentator_does_otherwise_than_nnunet(
    tmp_path: Path,
) -> None:
    results = tmp_path / "results"
    write_all(results, "total")
    out = tmp_path / "out"
    import_totalsegmentator("total", results, out)
    assembly = load_bundle(out)
    assert isinstance(assembly, Assembly)
    assert len(assembly.spec.labels) == 117
    assert assembly.spec.licence == "Apache-2.0"
    assert str(assembly.spec.origin).startswith("TotalSegmentator total; ")
    for step in assembly.steps:
        spec = step.bundle.spec
        assert spec.preprocessing.axes == "SAR"
        assert spec.preprocessing.normalise == "after_resampling"
        assert spec.inference.overlap == 0.2
        assert not spec.inference.mirror
        assert spec.inference.resample == "labels"
        assert spec.inference.keep_largest_on == "input"
        assert step.bundle.trained.origin is not None
    # What is needed for two organs is one of five networks.
    segmenter = Segmenter(assembly, "cpu", labels=["liver", "spleen"])
    assert list(segmenter._predictor.parts) == ["organs"]


def test_a_task_that_is_cropped_looks_around_what_the_coarse_model_finds(
    tmp_path: Path,
) -> None:
    write_all(tmp_path / "results", "liver_segments_mr")
    import_totalsegmentator(
        "liver_segments_mr", tmp_path / "results", tmp_path / "out"
    )
    assembly = load_bundle(tmp_path / "out")
    assert isinstance(assembly, Assembly)
    stage, part = assembly.steps
    assert stage.spec.crop is None
    assert part.spec.crop is not None
    assert part.spec.crop.source == stage.spec.name == "total_mr_3mm"
    assert part.spec.crop.labels == ("liver",)
    assert part.spec.crop.margin_mm == 20
    assert not stage.names
    spacing = part.bundle.spec.preprocessing.spacing_mm
    assert spacing == pytest.approx((3, 1.1875, 1.125), abs=1e-6)


def test_a_task_that_is_not_known_is_refused_with_the_list(
    tmp_path: Path,
) -> None:
    with pytest.raises(MedsegError, match="total_fast, ") as caught:
        import_totalsegmentator("totl", tmp_path, tmp_path / "out")
    for name in list_tasks():
        assert name in caught.value.message


def test_missing_weights_are_named_all_at_once(tmp_path: Path) -> None:
    results = tmp_path / "results"
    task = find_task("total_mr")
    results.mkdir()
    with pytest.raises(MedsegError, match="2 of the folders") as caught:
        import_totalsegmentator("total_mr", results, tmp_path / "out")
    for part in task.parts:
        assert part.folder in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(MedsegError, match="is no folder"):
        import_totalsegmentator("total_mr", tmp_path / "no", tmp_path / "out")
    with pytest.raises(OutputError, match="is not empty"):
        import_totalsegmentator("total_mr", results, tmp_path)


def test_weights_with_other_labels_are_of_another_version(
    tmp_path: Path,
) -> None:
    task = find_task("liver_segments")
    assert task.crop is not None
    (part,) = task.parts
    write_all(tmp_path, task.crop.task)
    fewer = part.model_copy(update={"labels": part.labels[:-1]})
    swapped = part.model_copy(update={"labels": part.labels[::-1]})
    for number, other in enumerate((fewer, swapped)):
        model = write_weights(tmp_path, task, other)
        with pytest.raises(MedsegError, match="data set 570 have other labels"):
            import_totalsegmentator(
                "liver_segments", tmp_path, tmp_path / f"out{number}"
            )
        shutil.rmtree(model.parent)
    assert not list(tmp_path.glob("*out*"))


def test_a_licence_number_that_is_needed_is_said(tmp_path: Path) -> None:
    task = find_task("face")
    model = write_weights(tmp_path / "results", task, task.parts[0])
    edit_checkpoint(model, lambda c: c.update(trainer_name="MyTrainer"))
    made = import_totalsegmentator("face", tmp_path, tmp_path / "out")
    assert "need a licence number" in made.remarks[0]
    # What is said of each network is not lost on the way; flips it does not make are not said.
    assert [text.split(" ")[:3] for text in made.remarks[1:]] == [
        ["face:", "the", "trainer"]
    ]
    spec = load_bundle(tmp_path / "out").spec
    assert spec.licence == "TotalSegmentator licence number"
    own = import_totalsegmentator(
        "face", tmp_path, tmp_path / "own", licence="aca_123"
    )
    assert own.licence == "aca_123"


def test_every_task_of_the_table_has_its_networks_and_crops() -> None:
    tasks = list_tasks()
    folders: dict[int, str] = {}
    for name, task in tasks.items():
        labels = [label for part in task.parts for label in part.labels]
        named = [label for label in labels if label]
        assert len(named) == len(set(named)), name
        for part in task.parts:
            assert part.folder.startswith(f"Dataset{part.dataset:03d}_")
            assert folders.setdefault(part.dataset, part.folder) == part.folder
        if task.crop is not None:
            coarse = tasks[task.crop.task]
            assert len(coarse.parts) == 1
            assert set(task.crop.labels) <= set(coarse.parts[0].labels)
            assert coarse.modality == task.modality
    assert len(tasks) >= 40
