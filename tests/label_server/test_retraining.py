"""How versions are trained on submitted labels and compared."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import dicom
from support.bundles import content, made_spec, trained_bundle, write_json
from support.scans import affine_of, write_scan

from medseg import DatasetError, Volume, events, load_bundle
from medseg.datasets.cases import Scan
from medseg.io import read_image, read_labels, write_labels
from medseg.label_server.audit import AuditLog
from medseg.label_server.retraining import (
    average_dice,
    choose_held_out,
    compare_bundles,
    list_training_files,
    make_overrides,
    serve_unless_worse,
    train_new_version,
    write_case_table,
)
from medseg.label_server.state import StateFolder
from medseg.label_server.training_progress import (
    TrainingProgress,
    read_progress,
)
from medseg.label_server.versions import Version, VersionInfo, Versions
from medseg.metrics.metrics import score_case


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


def test_a_planned_bundles_time_does_not_replace_the_steps_asked_for(
    tmp_path: Path,
) -> None:
    planned = write_json(tmp_path, content(training={"budget_minutes": 20}))
    training = load_bundle(planned, make_overrides(40, None)).spec.training
    assert (training.steps, training.budget_minutes) == (40, None)
    assert training.validate_every == 10


def test_a_split_of_the_bundles_own_data_is_not_that_of_submitted_labels(
    tmp_path: Path,
) -> None:
    file = write_json(tmp_path, content(data={"splits": "splits_final.json"}))
    assert load_bundle(file).spec.data.splits
    assert load_bundle(file, make_overrides(1, None)).spec.data.splits is None


@pytest.mark.parametrize(
    "own",
    [
        {"format": "tree", "images": ["scans/*.nii.gz"], "labels": "gt/*.nii"},
        {"format": "csv", "columns": {"image": ["ct"], "label": ["truth"]}},
    ],
    ids=["patterns", "columns"],
)
def test_where_the_bundles_own_data_lies_says_nothing_of_submitted_labels(
    tmp_path: Path, own: dict[str, Any]
) -> None:
    file = write_json(tmp_path, content(data=own))
    assert load_bundle(file).spec.data.format == own["format"]
    data = load_bundle(file, make_overrides(1, None)).spec.data
    assert (data.format, data.columns) == ("csv", None)
    assert (data.images, data.labels) == ((), None)


def test_the_learning_rate_is_the_bundles_unless_given(tmp_path: Path) -> None:
    file = write_json(tmp_path, content(training={"learning_rate": 0.25}))
    assert (
        load_bundle(file, make_overrides(1, None)).spec.training.learning_rate
        == 0.25
    )
    assert (
        load_bundle(file, make_overrides(1, 0.5)).spec.training.learning_rate
        == 0.5
    )


def test_nothing_found_where_nothing_is_beats_something_found() -> None:
    labels, nothing = made_spec().label_set, np.zeros((4, 4, 4), np.uint8)
    something = nothing.copy()
    something[1, 1, 1] = 1
    right = average_dice([score_case(nothing, nothing, labels, (1, 1, 1))])
    wrong = average_dice([score_case(something, nothing, labels, (1, 1, 1))])
    assert (right, wrong) == (1.0, 0.0)


NAMES = [f"case_{number:03d}" for number in range(200)]


@pytest.mark.parametrize(
    ("cases", "amount"), [([], "is none"), (["a"], "is one")]
)
def test_training_needs_two_labels(
    state: StateFolder, cases: list[str], amount: str
) -> None:
    with pytest.raises(DatasetError, match=amount):
        choose_held_out(state, cases)
    assert not state.split.exists()


@pytest.mark.parametrize("count", [2, 3, 4, 5, 10])
def test_some_cases_are_held_out_and_never_all(
    state: StateFolder, count: int
) -> None:
    held_out = choose_held_out(state, NAMES[:count])
    assert 1 <= len(held_out) < count
    assert held_out <= set(NAMES)


def test_about_one_case_in_four_is_held_out(state: StateFolder) -> None:
    assert 35 <= len(choose_held_out(state, NAMES)) <= 65


def test_a_case_once_trained_on_is_never_held_out_later(
    state: StateFolder,
) -> None:
    former: dict[str, bool] = {}
    for count in (2, 3, 7, 20, 60):
        held_out = choose_held_out(state, NAMES[:count])
        choice = {name: name in held_out for name in NAMES[:count]}
        assert former.items() <= choice.items()
        former = choice


def test_the_choice_does_not_depend_on_the_order_of_cases(
    tmp_path: Path,
) -> None:
    one = choose_held_out(StateFolder(tmp_path / "a"), NAMES[:9])
    assert choose_held_out(StateFolder(tmp_path / "b"), NAMES[:9][::-1]) == one


def test_cases_whose_labels_are_gone_do_not_count(state: StateFolder) -> None:
    held_out = choose_held_out(state, NAMES[:6])
    trained_on = [name for name in NAMES[:6] if name not in held_out]
    assert choose_held_out(state, [*trained_on, "new"]) == {"new"}
    assert choose_held_out(state, [*held_out, "other"]) == held_out


def test_a_damaged_choice_is_told_not_made_again(state: StateFolder) -> None:
    state.root.mkdir()
    for text in ("", "[1]", "{"):
        state.split.write_text(text)
        with pytest.raises(
            DatasetError, match="is damaged; restore it"
        ) as refused:
            choose_held_out(state, NAMES[:4])
        assert str(state.root) not in refused.value.message
        assert state.split.read_text() == text


def write_label(file: Path, values: Any) -> Path:
    volume = Volume(
        np.zeros((1, *values.shape), np.int16), affine_of((2, 2, 3))
    )
    write_labels(file, values, volume)
    return file


def read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def test_the_table_holds_files_and_folds(
    state: StateFolder, tmp_path: Path
) -> None:
    values = np.zeros((20, 22, 18), np.uint8)
    labelled = []
    for name in ("a", 'b, "c"'):
        image = tmp_path / "scans" / f"{name}.nii.gz"
        write_scan(image, 0, values.shape, affine_of((2, 2, 3)))
        labelled.append(
            (
                Scan(name, ((image,),)),
                write_label(tmp_path / f"{name}.nii.gz", values),
            )
        )
    version = Version(2, state.versions / "0002")
    table = write_case_table(
        state, version, labelled, frozenset({"a"}), made_spec()
    )
    assert table == state.trainings / "0002" / "cases.csv"
    rows = read_rows(table)
    assert [(row["name"], row["fold"]) for row in rows] == [
        ("a", "0"),
        ('b, "c"', "1"),
    ]
    for row, (scan, label) in zip(rows, labelled, strict=True):
        assert Path(row["image"]) == scan.parts[0][0]
        assert Path(row["label"]) == label


def test_each_channel_has_a_column(state: StateFolder, tmp_path: Path) -> None:
    spec = made_spec(channels=[{"name": "T1"}, {"name": "T2"}])
    files = [tmp_path / f"a_{number:04d}.nii.gz" for number in (0, 1)]
    for file in files:
        write_scan(file, 0, (20, 22, 18), affine_of((2, 2, 3)))
    label = write_label(
        tmp_path / "label.nii.gz", np.zeros((20, 22, 18), np.uint8)
    )
    scan = Scan("a", ((files[0],), (files[1],)))
    version = Version(2, state.versions / "0002")
    (row,) = read_rows(
        write_case_table(state, version, [(scan, label)], frozenset(), spec)
    )
    assert (row["image_0"], row["image_1"]) == tuple(map(str, files))
    assert row["fold"] == "1"


def test_labels_get_the_values_of_the_bundles_own_data(
    state: StateFolder, tmp_path: Path
) -> None:
    spec = made_spec(
        labels=[
            {"index": 1, "name": "liver", "value": 1000},
            {"index": 2, "name": "kidney", "value": 7},
        ]
    )
    image = tmp_path / "a.nii.gz"
    write_scan(image, 0, (20, 22, 18), affine_of((2, 2, 3)))
    values = np.zeros((20, 22, 18), np.uint8)
    values[1, 2, 3], values[4, 5, 6] = 1, 2
    label = write_label(tmp_path / "label.nii.gz", values)
    version = Version(2, state.versions / "0002")
    labelled = [(Scan("a", ((image,),)), label)]
    (row,) = read_rows(
        write_case_table(state, version, labelled, frozenset(), spec)
    )
    assert Path(row["label"]) == state.trainings / "0002" / "a.nii.gz"
    written = read_labels(Path(row["label"])).array[0]
    assert np.array_equal(written, np.array([0, 1000, 7])[values])
    assert np.array_equal(read_labels(label).array[0], values), (
        "the submitted label stays"
    )


def test_training_reads_files_as_they_are_and_dicom_as_a_copy(
    state: StateFolder, tmp_path: Path
) -> None:
    file = tmp_path / "a.nii.gz"
    write_scan(file, 0, (20, 22, 18), affine_of((2, 2, 3)))
    folder = dicom.save(tmp_path / "series", dicom.series())
    slices = tuple(sorted(folder.iterdir()))
    files = list_training_files(state, Scan("a", ((file,), slices)))
    assert files == [file, state.images / "a_0001.nii.gz"]
    assert np.array_equal(read_image(files[1]).array, read_image(slices).array)


def test_training_leaves_out_the_padding_that_segmenting_leaves_out(
    state: StateFolder, tmp_path: Path
) -> None:
    stored = dicom.voxels() // 4 + 100
    stored[:2] = 63536
    datasets = dicom.series(stored, Modality="MR")
    for ds in datasets:
        ds.add_new("PixelPaddingValue", "US", 63536)
    folder = dicom.save(tmp_path / "series", datasets)
    slices = tuple(sorted(folder.iterdir()))
    expected = read_image(slices)
    (file,) = list_training_files(state, Scan("a", (slices,)))
    copy = read_image(file)
    for volume in (copy, expected):
        assert volume.padding is not None
    assert np.array_equal(copy.padding.get_mask(), expected.padding.get_mask())
    assert np.array_equal(copy.array, expected.array)
    # Viewers see numbers everywhere.
    assert read_image(state.images / "a.nii.gz").padding is None


def test_progress_is_noted_for_viewers(state: StateFolder) -> None:
    assert read_progress(state) == {}
    progress = TrainingProgress(state)
    progress(
        events.RunStarted(
            folder=state.root,
            run_id="x",
            name="x",
            experiment="x",
            parameters={},
            provenance={},
            resumed_at=None,
            total_steps=60,
        )
    )
    assert read_progress(state) == {
        "total_epochs": 60,
        "epoch": 0,
        "total_time": "",
    }
    for step in range(1, 13):
        progress(_step_done(step))
    assert read_progress(state)["epoch"] == 10
    for dice in (0.5, 0.25):
        progress(_validation_done(dice))
    assert read_progress(state)["best_metric"] == 0.5
    state.progress.write_text("{")
    assert read_progress(state) == {}


def _step_done(step: int) -> Any:
    return _event(events.StepDone, step=step, loss=1 / step)


def _validation_done(dice: float) -> Any:
    scores = {"dice": {"mean": dice}}
    return _event(events.ValidationDone, step=12, scores=scores)


def _event(kind: Any, **values: Any) -> Any:
    """Return an event with the fields that matter here."""
    made = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained bundle beside four phantoms with labels."""
    from medseg.testing import write_dataset

    home = tmp_path_factory.mktemp("retraining")
    write_dataset(home / "data", 4)
    spec = made_spec(
        preprocessing={"spacing_mm": [6, 6, 6]},
        quality={"corrupted_copies": 0},
        training={"patch": [16, 16, 16], "batch_size": 1},
    )
    trained_bundle(home / "bundle", spec)
    return home


def labelled_of(home: Path) -> list[tuple[Scan, Path]]:
    images = sorted((home / "data" / "imagesTr").iterdir())
    return [
        (
            Scan(file.name.split(".")[0], ((file,),)),
            home / "data" / "labelsTr" / file.name,
        )
        for file in images
    ]


def test_two_bundles_are_compared_on_the_held_out_cases_alone(
    trained: Path, tmp_path: Path
) -> None:
    state = StateFolder(tmp_path / "state")
    bundle = load_bundle(trained / "bundle")
    other = load_bundle(trained_bundle(tmp_path / "other", bundle.spec, seed=5))
    version = Version(2, state.versions / "0002")
    held_out = frozenset({"phantom_001", "phantom_002"})
    spec = load_bundle(trained / "bundle", make_overrides(1, None)).spec
    table = write_case_table(
        state, version, labelled_of(trained), held_out, spec
    )
    bundle, other = (
        load_bundle(each.folder, make_overrides(1, None))
        for each in (bundle, other)
    )
    heard: list[Any] = []
    dice, other_dice = compare_bundles(
        bundle, other, table, "cpu", [heard.append]
    )
    assert [(event.done, event.total) for event in heard] == [
        (1, 4),
        (2, 4),
        (3, 4),
        (4, 4),
    ]
    assert (dice, other_dice) == (_dice(bundle, trained), _dice(other, trained))


def _dice(bundle: Any, home: Path) -> float:
    from medseg import Segmenter

    segmenter = Segmenter(bundle, "cpu")
    scores = []
    for scan, label in labelled_of(home)[1:3]:
        volume = read_image(scan.parts[0])
        reference = read_labels(label).array[0]
        labels = segmenter.segment(volume).labels
        scores.append(
            score_case(
                labels,
                reference,
                bundle.spec.label_set,
                volume.spacing,
                case=scan.name,
                voxel_ml=volume.voxel_ml,
            )
        )
    return average_dice(scores)


@pytest.mark.parametrize(
    ("dice", "parent_dice", "served"),
    [
        (0.5, 0.5, 2),
        (0.6, 0.5, 2),
        (0.49, 0.5, 1),
        (0.0, 0.0, 2),
        (None, None, 1),
    ],
)
def test_a_new_version_is_served_unless_it_is_worse(
    trained: Path,
    tmp_path: Path,
    dice: float | None,
    parent_dice: float | None,
    served: int,
) -> None:
    versions = Versions(StateFolder(tmp_path / "state"))
    versions.adopt(load_bundle(trained / "bundle"))
    fresh = versions.next_version()
    trained_bundle(fresh.folder, load_bundle(trained / "bundle").spec)
    info = VersionInfo(parent=1, dice=dice, parent_dice=parent_dice)
    assert serve_unless_worse(versions, fresh, info) is (served == 2)
    assert versions.find_served().number == served
    assert fresh.read_info().promoted is (served == 2)
    assert (fresh.read_info().dice, fresh.read_info().parent_dice) == (
        dice,
        parent_dice,
    )


@pytest.mark.slow
def test_training_on_labels_makes_a_version_beside_the_served_one(
    trained: Path, tmp_path: Path
) -> None:
    state = StateFolder(tmp_path / "state")
    versions = Versions(state)
    versions.adopt(load_bundle(trained / "bundle"))
    result = train_new_version(
        state, labelled_of(trained), steps=1, device="cpu"
    )
    assert result.version.number == 2
    assert result.promoted is (result.dice >= result.parent_dice)
    assert versions.find_served().number == (2 if result.promoted else 1)
    info = result.version.read_info()
    assert (info.parent, info.labels + info.held_out) == (1, 4)
    assert (info.dice, info.parent_dice) == (result.dice, result.parent_dice)
    lines = list(AuditLog(state.audit_log).read_lines())
    assert [line["action"] for line in lines] == [
        "training started",
        "training ended",
    ]
    assert (lines[0]["parent"], lines[0]["labels"]) == ("0001", 4)
    assert lines[1]["promoted"] is result.promoted
    folds = Counter(
        row["fold"] for row in read_rows(state.trainings / "0002" / "cases.csv")
    )
    assert folds == {"0": info.held_out, "1": info.labels}
    assert json.loads(state.split.read_text())
