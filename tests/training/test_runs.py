"""A training run as it was requested: new, or resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.bundles import content, made_spec, write_json

from medseg._support import files
from medseg._support.files import PART
from medseg.bundle.bundle import Bundle, load_bundle
from medseg.bundle.spec_files import list_differences
from medseg.errors import BundleError, CheckpointError, OutputError
from medseg.training.restarts import may_begin
from medseg.training.runs import (
    ALL,
    begin_run,
    find_resumable_run,
    open_fold_run,
    plan_run,
    require_same_cases,
)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.chdir(tmp_path)  # runs/ is made where one is
    return load_bundle(
        write_json(tmp_path / "bundle", content(data={"root": "../data"}))
    )


def test_a_new_run_has_a_folder_of_its_own_and_writes_nothing_yet(
    asked: Bundle,
) -> None:
    run = plan_run(asked, None, None, 2)
    assert run.folder.path.parent == Path("runs/made_up")
    assert run.folder.path.name.endswith("-fold2")
    for fold, name in ((None, "foldnone"), (ALL, "foldall")):
        path = plan_run(asked, None, None, fold).folder.path
        assert path.name.endswith(f"-{name}")
    assert run.data == asked.data_root
    assert not Path("runs").exists()
    assert run.run_id != plan_run(asked, None, None, 2).run_id


def test_the_usual_folder_may_be_another_runs(asked: Bundle) -> None:
    run = plan_run(asked, None, None, 2)
    begin_run(run)
    # The clock may go on between the two; the folder is then another.
    later = plan_run(asked, None, None, 2)
    assert later.folder.claim().path != run.folder.path
    assert replace(later, folder=run.folder).folder.claim().path != (
        run.folder.path
    )


def test_home_is_shared_by_runs_side_by_side(
    asked: Bundle, tmp_path: Path
) -> None:
    assert plan_run(asked, None, None, 0).home == tmp_path / "runs"
    assert plan_run(asked, None, Path("out/one"), 0).home == tmp_path / "out"
    assert plan_run(asked, None, Path("runs/a/b"), 0).home == tmp_path / "runs"


def test_a_full_folder_is_refused(asked: Bundle, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").touch()
    with pytest.raises(OutputError):
        plan_run(asked, None, tmp_path / "out", 0)


def test_a_run_is_resumed_as_it_began(asked: Bundle, tmp_path: Path) -> None:
    run = plan_run(asked, tmp_path / "data", tmp_path / "out", 1)
    begin_run(run)
    again = find_resumable_run(asked, None, tmp_path / "out")
    assert (again.run_id, again.fold, again.data) == (
        run.run_id,
        1,
        tmp_path / "data",
    )
    assert again.spec == load_bundle(tmp_path / "out").spec
    moved = find_resumable_run(asked, tmp_path / "elsewhere", tmp_path / "out")
    assert moved.data == tmp_path / "elsewhere"


def test_a_run_is_not_resumed_with_another_bundle_and_every_change_is_named(
    asked: Bundle, tmp_path: Path
) -> None:
    begin_run(plan_run(asked, None, tmp_path / "out", 0))
    changed = Bundle(made_spec(training={"steps": 9, "seed": 3}, data={"root": "../data"}),
                     asked.folder)  # fmt: skip
    with pytest.raises(BundleError) as caught:
        find_resumable_run(changed, None, tmp_path / "out")
    assert {fault.where: fault.what for fault in caught.value.faults} == {
        "training.steps": "4 → 9",
        "training.seed": "0 → 3",
    }


@pytest.mark.parametrize("killed_at", ["run.json", "bundle.json"])
def test_a_run_that_was_killed_as_it_began_is_begun_or_resumed(
    asked: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed_at: str,
) -> None:
    rename = files.rename

    def kill(part: Path, target: Path) -> None:
        if target.name == killed_at:
            part.with_name(f"{PART}left").touch()
            raise KeyboardInterrupt
        rename(part, target)

    run = plan_run(asked, None, tmp_path / "out", 0)
    with monkeypatch.context() as patch:
        patch.setattr(files, "rename", kill)
        with pytest.raises(KeyboardInterrupt):
            begin_run(run)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    if killed_at == "run.json":
        assert may_begin(run.folder.path)
        begin_run(plan_run(asked, None, run.folder.path, 0))
    assert not may_begin(run.folder.path)
    again = find_resumable_run(asked, None, run.folder.path)
    assert list_differences(again.spec, run.spec) == []
    assert load_bundle(run.folder.path).spec == again.spec


def test_a_run_whose_bundle_was_edited_is_not_resumed(
    asked: Bundle, tmp_path: Path
) -> None:
    run = plan_run(asked, None, tmp_path / "out", 0)
    begin_run(run)
    own = load_bundle(run.folder.path)
    assert find_resumable_run(own, None, run.folder.path).run_id == run.run_id
    edited = json.loads(run.folder.bundle.read_text())
    edited["training"]["optimizer"] = "adamw"
    run.folder.bundle.write_text(json.dumps(edited))
    with pytest.raises(
        BundleError, match="was edited after its run began"
    ) as caught:
        find_resumable_run(load_bundle(run.folder.path), None, run.folder.path)
    assert [fault.where for fault in caught.value.faults] == [
        "training.optimizer"
    ]


def test_the_newest_unfinished_run_is_found(asked: Bundle) -> None:
    with pytest.raises(CheckpointError, match="no unfinished run"):
        find_resumable_run(asked, None, None)
    for name, finished in (
        ("1-fold0", False),
        ("2-fold0", False),
        ("3-fold0", True),
    ):
        run = plan_run(asked, None, Path("runs/made_up") / name, 0)
        begin_run(run)
        if finished:
            run.folder.metrics.write_text("{}")
    Path("runs/made_up/4-no-run").mkdir()
    assert find_resumable_run(asked, None, None).folder.path == Path(
        "runs/made_up/2-fold0"
    )


def test_a_folder_without_a_run_is_not_resumed(
    asked: Bundle, tmp_path: Path
) -> None:
    for folder in (tmp_path / "absent", tmp_path / "bundle"):
        with pytest.raises(CheckpointError, match="no run to resume"):
            find_resumable_run(asked, None, folder)


def test_a_resumed_fold_keeps_the_steps_that_its_time_budget_set(
    tmp_path: Path,
) -> None:
    made = content(training={"steps": 9000, "budget_minutes": 5})
    whole = plan_run(
        load_bundle(write_json(tmp_path, made)), None, tmp_path / "out", ALL
    )
    begin_run(whole)
    first = open_fold_run(whole, 0)
    assert first.spec.training.steps == 9000
    fitted = first.spec.training.model_copy(update={"steps": 300})
    begin_run(
        replace(first, spec=first.spec.model_copy(update={"training": fitted}))
    )
    again = open_fold_run(whole, 0)
    assert (again.spec.training.steps, again.run_id) == (300, first.run_id)
    assert open_fold_run(whole, 1).spec.training.steps == 9000


def test_a_run_is_resumed_only_with_the_cases_it_began_with(
    asked: Bundle, tmp_path: Path
) -> None:
    run = plan_run(asked, None, tmp_path / "out", 0)
    begin_run(run, "abc")
    require_same_cases(run.folder, "abc")
    with pytest.raises(CheckpointError, match="other cases"):
        require_same_cases(run.folder, "def")
    # As earlier versions began one.
    before = plan_run(asked, None, tmp_path / "before", 0)
    begin_run(before)
    require_same_cases(before.folder, "def")


def test_no_ensemble_is_trained_for_clicks(tmp_path: Path) -> None:
    training = {"clicks": {}}
    file = write_json(tmp_path, content(training=training))
    with pytest.raises(BundleError) as caught:
        plan_run(load_bundle(file), None, tmp_path / "run", "all")
    assert [fault.where for fault in caught.value.faults] == ["training.clicks"]
    assert plan_run(load_bundle(file), None, tmp_path / "run", 0).fold == 0
