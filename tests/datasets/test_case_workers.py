"""Cases on a cluster: what one process finds, a fault where a case kills, a word on other disks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.bundles import made_spec
from support.rays import OneProcess, RayError

from medseg import DatasetError, MedsegError, plan
from medseg._support import cluster_nodes
from medseg.datasets import case_workers
from medseg.datasets.case_workers import CaseCluster
from medseg.datasets.cases import Case, Scan
from medseg.datasets.dataset import Dataset, open_dataset
from medseg.errors import OutputError
from medseg.events import Event, Notice, Progress
from medseg.testing import write_dataset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", 5, shape=(24, 20, 16), spacing=9.0)


def prepare(data: Path, cache: Path, on: str = "ray", **more: Any) -> Dataset:
    workers = CaseCluster(on, 1) if on else case_workers.HERE
    return open_dataset(data, made_spec(), None, cache, workers=workers, **more)


def read_files(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_the_cache_is_the_one_of_one_process_by_relative_paths_as_well(
    data: Path,
    tmp_path: Path,
    ray: OneProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[Event] = []
    whole = prepare(Path("data"), tmp_path / "whole", on="")
    found = prepare(Path("data"), Path("cache"), listeners=[told.append])
    assert ray.most > 1
    assert found.content_hash == whole.content_hash
    assert read_files(tmp_path / "cache") == read_files(tmp_path / "whole")
    done = [event.done for event in told if isinstance(event, Progress)]
    assert done == list(range(6))
    sent = len(ray._times)
    prepare(data, tmp_path / "cache")
    assert len(ray._times) == sent


def test_a_plan_is_the_one_of_one_process(
    data: Path, tmp_path: Path, ray: OneProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = {}
    for on in ("", "ray"):
        home = tmp_path / f"home{on}"
        home.mkdir()
        monkeypatch.chdir(home)
        plan(data, "bundle.json", device="cpu", on=on)
        planned[on] = read_files(home)
    assert ray.most > 1
    assert planned["ray"] == planned[""]
    assert len(planned[""]) == 2 + 5


def poison(arguments: list[Any], times: int) -> Exception | None:
    name = arguments[2].name
    return RayError() if name == "phantom_002" else None


def test_a_case_that_kills_its_process_three_times_is_a_bad_case(
    data: Path, tmp_path: Path, ray: OneProcess
) -> None:
    ray.kills = poison
    with pytest.raises(DatasetError, match="1 bad case") as raised:
        prepare(data, tmp_path / "cache")
    (fault,) = raised.value.faults
    assert fault.where == "phantom_002"
    assert "the process that read it died 3 times" in fault.what
    found = prepare(data, tmp_path / "cache", skip_bad_cases=True)
    assert len(found.training) == 4
    told: list[Event] = []
    plan(
        data,
        tmp_path / "b.json",
        device="cpu",
        on="ray",
        listeners=[told.append],
    )
    notes = [event.message for event in told if isinstance(event, Notice)]
    assert any("left out: phantom_002" in note for note in notes)


def test_a_case_that_was_kept_before_its_process_died_is_good(
    data: Path, tmp_path: Path, ray: OneProcess
) -> None:
    whole = prepare(data, tmp_path / "whole", on="")

    def die_late(arguments: list[Any], times: int) -> Exception | None:
        if arguments[2].name != "phantom_002":
            return None
        _, check, case = arguments
        check(case)
        return RayError()

    ray.kills = die_late
    told: list[Event] = []
    for skip in (True, False):
        found = prepare(
            data,
            tmp_path / f"cache{skip}",
            skip_bad_cases=skip,
            listeners=[told.append],
        )
        assert found.content_hash == whole.content_hash
    notes = [event.message for event in told if isinstance(event, Notice)]
    assert not [note for note in notes if "left out" in note]


def test_a_node_that_does_not_see_the_data_ends_the_call(
    data: Path, tmp_path: Path, ray: OneProcess
) -> None:
    def hide(arguments: list[Any], times: int) -> None:
        if data.exists():
            shutil.rmtree(data)

    ray.kills = hide
    with pytest.raises(MedsegError, match="does not see the data"):
        prepare(data, tmp_path / "cache")


def test_a_node_without_the_working_folder_does_not_take_its_own_for_it(
    tmp_path: Path, ray: OneProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    case = Case(Scan("a", ((Path("a.nii"),),)), Path("a_seg.nii"), None, "a")

    def leave(arguments: list[Any], times: int) -> None:
        os.chdir(tmp_path)
        shutil.rmtree(home, ignore_errors=True)

    ray.kills = leave
    with pytest.raises(MedsegError, match="does not see the data"):
        list(CaseCluster("ray", 1).map(str, [case], "naming"))


def test_a_cache_that_is_not_shared_ends_the_call(
    data: Path,
    tmp_path: Path,
    ray: OneProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster_nodes, "_PATIENCE_SECONDS", 0.0)

    def keep_elsewhere(arguments: list[Any], times: int) -> None:
        keeper = arguments[1].keywords["handle_case"]
        keeper._cache = tmp_path / "elsewhere"

    ray.kills = keep_elsewhere
    with pytest.raises(OutputError, match="does not see data and cache"):
        prepare(data, tmp_path / "cache")
