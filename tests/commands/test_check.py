"""``medseg check``: every fault, nothing trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.bundles import content, made_spec, trained_bundle, write_json

from medseg import DatasetError, check
from medseg.events import Event, Progress
from medseg.testing import write_dataset, write_example_bundle


def places(report: Any) -> list[str]:
    return [fault.where for fault in report.faults]


def test_a_right_bundle_without_data_has_no_fault(tmp_path: Path) -> None:
    report = check(write_json(tmp_path, content(data={"root": "nowhere"})))
    assert report.faults == ()
    assert report.cases is None


def test_every_fault_of_a_bundle_at_once(tmp_path: Path) -> None:
    made = content(nmae=1, training={"patch": [15, 16, 16]}, data={"folds": 1})
    assert set(places(check(write_json(tmp_path, made)))) == {
        "nmae",
        "training.patch",
        "data.folds",
    }
    absent = check(tmp_path / "absent")
    assert places(absent) == ["bundle"]
    assert "does not exist" in absent.faults[0].what


def test_overrides_are_checked(tmp_path: Path) -> None:
    file = write_json(tmp_path, content())
    assert places(check(file, overrides=["training.steps=0"])) == [
        "training.steps"
    ]
    assert places(check(file, overrides=["oops"])) == ["bundle"]


def test_a_network_that_does_not_fit_is_a_fault(tmp_path: Path) -> None:
    made = content()
    made["network"] = {"kind": "SegResNet", "args": {"spam": 1}}
    assert places(check(write_json(tmp_path, made))) == ["network.args.spam"]


def test_a_loss_that_is_not_installed_is_a_fault_until_the_bundle_is_trained(
    tmp_path: Path,
) -> None:
    loss = {"training": {"loss": "focal"}}
    assert places(check(write_json(tmp_path, content(**loss)))) == [
        "training.loss"
    ]
    assert (
        places(check(trained_bundle(tmp_path / "trained", made_spec(**loss))))
        == []
    )


def test_good_data_are_counted_with_progress(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", 3)
    events: list[Event] = []
    report = check(
        write_json(tmp_path, content(data={"root": "data"})),
        listeners=[events.append],
    )
    assert report.faults == ()
    assert report.cases == 3
    assert any(
        isinstance(event, Progress) and event.done == 3 for event in events
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bundle.json",
        "data",
    ]


def test_every_bad_case_is_named(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", 4)
    for number in (1, 2):
        (data / "labelsTr" / f"phantom_00{number}.nii.gz").write_bytes(b"x")
    report = check(write_json(tmp_path / "bundle", content()), data=data)
    assert places(report) == ["phantom_001", "phantom_002"]
    assert report.cases == 2


def test_data_of_another_kind_are_told(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", 2)
    made = content(
        preprocessing={"input": "picture"},
        network={"dims": 2},
        training={"patch": [16, 16]},
    )
    report = check(write_json(tmp_path / "bundle", made), data=data)
    assert "preprocessing.input" in places(report)
    with pytest.raises(DatasetError):
        check(
            write_json(tmp_path / "bundle", content()),
            data=tmp_path / "nowhere",
        )


def test_a_trained_bundles_weights_are_checked(tmp_path: Path) -> None:
    bundle = trained_bundle(tmp_path / "bundle", made_spec(data={"root": ".."}))
    assert check(bundle).faults == ()
    weights = bundle / "models" / "model.pt"
    torch.save({"another.weight": torch.ones(3)}, weights)
    assert places(check(bundle)) == ["models/model.pt"]
    weights.write_bytes(weights.read_bytes()[:100])
    assert places(check(bundle)) == ["models/model.pt"]


def test_an_unknown_layout_is_a_fault_before_there_are_data() -> None:
    report = check(write_example_bundle(), overrides=["data.format=scrolls"])
    (fault,) = report.faults
    assert fault.where == "data.format"
    assert "no such layout" in fault.what
    assert "nnunet" in fault.what
