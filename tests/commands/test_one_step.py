"""A run of a data set is found again, whatever became of others."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bundles import content, write_json

from medseg.bundle.bundle import load_bundle
from medseg.commands.one_step import TrainingRequest, plan_first
from medseg.errors import CheckpointError
from medseg.events import Event, Notice
from medseg.testing import write_dataset
from medseg.training.run_folder import RunFolder
from medseg.training.runs import begin_run, plan_run


def test_a_damaged_run_does_not_keep_others_from_being_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_dataset(tmp_path / "data", 1, shape=(8, 8, 8), spacing=9.0)
    runs = tmp_path / "runs" / "phantom"
    newer = runs / "20260102-000000-fold0"
    newer.mkdir(parents=True)
    (newer / "run.json").write_text("{")
    events: list[Event] = []

    def find() -> Path | None:
        request = TrainingRequest(data, None, ())
        return plan_first(
            request,
            None,
            data=None,
            device="cpu",
            resume=True,
            listeners=[events.append],
        ).out

    with pytest.raises(CheckpointError, match="no unfinished run"):
        find()
    older = RunFolder(runs / "20260101-000000-fold0")
    info = {"run_id": "a", "data": str(data.resolve()), "fold": 0}
    older.write_info(info)
    found = find()
    assert found is not None
    assert found.name == older.path.name
    assert "run.json is damaged" in events[0].message
    assert isinstance(events[0], Notice)


def test_a_run_of_a_data_set_that_was_killed_as_it_began_is_resumed(
    tmp_path: Path,
) -> None:
    data = write_dataset(tmp_path / "data", 1, shape=(8, 8, 8), spacing=9.0)
    bundle = load_bundle(write_json(tmp_path, content()))
    run = plan_run(bundle, data, tmp_path / "out", 0)
    begin_run(run)
    run.folder.bundle.unlink()
    request = plan_first(
        TrainingRequest(data, run.folder.path, ()),
        None,
        data=None,
        device="cpu",
        resume=True,
        listeners=[],
    )
    assert load_bundle(request.bundle).spec.name == bundle.spec.name
