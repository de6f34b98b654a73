"""A batch on a cluster: the same ledger and files, and clear words where nodes see other disks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.killed_batches import Wreck, facts, write_scans
from support.rays import OneProcess, RayError

import medseg
from medseg._support import cluster_nodes
from medseg._support.ray_head import ClusterError, Node
from medseg._support.task_needs import choose_needs
from medseg.errors import MedsegError, OutputError
from medseg.events import Event, Notice, Progress
from medseg.inference import cluster_workers, pipeline, scan_tasks
from medseg.inference.ledger import read_ledger
from medseg.inference.scan_tasks import Assignment

Segment = Callable[..., medseg.Batch]


@pytest.fixture
def cluster(ray: OneProcess) -> Iterator[OneProcess]:
    yield ray
    scan_tasks._load.cache_clear()


@pytest.fixture
def run(
    cluster: OneProcess,
    untrained_bundle: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Segment:
    """Segment four scans, one of them damaged, by a path that only this machine understands."""
    usual = untrained_bundle()
    scans = write_scans(tmp_path / "scans", 3)
    (scans / "torn.nii.gz").write_bytes(b"\x1f\x8b torn")
    monkeypatch.chdir(tmp_path)

    def segment(out: str, **options: object) -> medseg.Batch:
        given = {"on": "ray=head:1", "device": "cpu", "threads": 1} | options
        bundle = given.pop("bundle", usual)
        return medseg.segment(bundle, "scans", out, **given)

    return segment


def test_the_folder_is_what_one_process_leaves(
    run: Segment, tmp_path: Path
) -> None:
    told: list[Event] = []
    whole = run("whole", on="")
    found = run("out", listeners=[told.append])
    Wreck(tmp_path / "out", tmp_path / "whole").check_whole()
    states = [(entry.scan, entry.state) for entry in found.results]
    assert states == [(entry.scan, entry.state) for entry in whole.results]
    assert found.full_errors == whole.full_errors
    notes = [event.note for event in told if isinstance(event, Progress)]
    assert notes[-1].startswith("2 nodes, ")
    assert notes[-1].endswith(" scans/s")
    again = run("out")
    states = [entry.state for entry in again.results]
    assert states == ["skipped", "skipped", "skipped", "failed"]
    (tmp_path / "out/scan_00.nii.gz").write_bytes(b"changed")
    told.clear()
    run("out", listeners=[told.append])
    said = "\n".join(map(str, told))
    assert "scan_00.nii.gz was changed since it was written" in said


def test_a_scan_that_kills_its_worker_three_times_fails_with_that_reason(
    run: Segment, cluster: OneProcess, tmp_path: Path
) -> None:
    def kill(arguments: list[object], times: int) -> Exception | None:
        is_poison = "scan_01" in str(arguments[1:2])
        (tmp_path / "out/.part-killed").touch()
        return RayError() if is_poison else None

    (tmp_path / "out").mkdir()
    cluster.kills = kill
    batch = run("out")
    by_scan = {entry.scan: entry for entry in batch.results}
    poison = by_scan["scan_01"]
    assert poison.state == "failed"
    assert poison.error.startswith("its process died 3 times")
    assert by_scan["scan_02"].state == "done"
    entries, _ = read_ledger(tmp_path / "out/ledger.jsonl")
    assert facts(entries) == facts(by_scan)
    assert not list((tmp_path / "out").glob(".part-*"))


def test_a_bug_on_a_node_is_raised_at_the_end_with_its_traceback(
    run: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def segment_scan(*_: object) -> None:
        raise ZeroDivisionError("zaphod")

    monkeypatch.setattr(scan_tasks, "segment_scan", segment_scan)
    with pytest.raises(ZeroDivisionError) as raised:
        run("out")
    notes = "\n".join(raised.value.__notes__)
    assert "on a node of the cluster" in notes
    assert "in segment_scan" in notes


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"began": "2020"}, "does not see the folder of results"),
        ({"state": "/nowhere"}, "does not see the folder of results"),
        ({"root": "/nowhere"}, "does not see the scans"),
    ],
)
def test_a_node_that_sees_other_disks_ends_the_batch(
    run: Segment,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    what: str,
) -> None:
    def assign(**given: object) -> Assignment:
        return replace(Assignment(**given), **changes)

    monkeypatch.setattr(cluster_workers, "Assignment", assign)
    monkeypatch.setattr(cluster_nodes, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(cluster_nodes, "_LOOK_SECONDS", 0.0)
    with pytest.raises(MedsegError, match=what):
        run("out")


def test_a_node_with_another_bundle_segments_nothing(
    run: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_workers, "hash_bundle", lambda _: "0")
    with pytest.raises(MedsegError, match="the bundle is another one"):
        run("out")


def test_a_bundle_that_was_changed_since_a_process_loaded_it_is_loaded_anew(
    run: Segment, tmp_path: Path, untrained_bundle: Callable[..., Path]
) -> None:
    # Of a Ray that a program has connected itself, processes outlive a call.
    bundle = tmp_path / "own"
    shutil.copytree(untrained_bundle(), bundle)
    run("out", bundle=bundle)
    spec = bundle / "bundle.json"
    content = json.loads(spec.read_text()) | {"version": "7.7.7"}
    spec.write_text(json.dumps(content))
    found = run("out", bundle=bundle)
    said = {(entry.state, entry.bundle[-5:]) for entry in found.results}
    assert said == {("done", "7.7.7"), ("failed", "7.7.7")}


def test_a_node_without_a_scan_that_is_there_ends_the_batch(
    run: Segment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cluster_nodes, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(cluster_nodes, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(scan_tasks, "_sees", lambda _: False)
    with pytest.raises(MedsegError, match="does not see a scan") as raised:
        run("out")
    assert str(raised.value.source).endswith("torn.nii.gz")
    (tmp_path / "scans/torn.nii.gz").unlink()
    assert all(entry.is_good for entry in run("out").results)


def test_a_scan_that_was_removed_meanwhile_fails_alone(
    run: Segment,
    cluster: OneProcess,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def remove(arguments: list[object], times: int) -> None:
        (tmp_path / "scans/scan_01.nii.gz").unlink(missing_ok=True)

    monkeypatch.setattr(cluster_nodes, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(cluster_nodes, "_LOOK_SECONDS", 0.0)
    cluster.kills = remove
    states = [entry.state for entry in run("out").results]
    assert states == ["done", "failed", "done", "failed"]


def test_a_result_that_lies_elsewhere_is_not_called_done(
    run: Segment,
    cluster: OneProcess,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def write_elsewhere(arguments: list[object], times: int) -> None:
        if isinstance(arguments[0], Assignment):
            object.__setattr__(arguments[0], "out", str(tmp_path / "other"))

    monkeypatch.setattr(cluster_nodes, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(cluster_nodes, "_LOOK_SECONDS", 0.0)
    (tmp_path / "other").mkdir()
    cluster.kills = write_elsewhere
    with pytest.raises(OutputError, match="a result that is not there"):
        run("out")
    entries, _ = read_ledger(tmp_path / "out/ledger.jsonl")
    assert not [entry for entry in entries.values() if entry.is_good]


def test_times_in_the_ledger_are_of_one_clock(
    run: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_workers, "tell_time", lambda: "now")
    assert {entry.finished for entry in run("out").results} == {"now"}


def test_a_cluster_that_is_not_there_is_told_before_scans_are_looked_for(
    run: Segment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(on: str) -> None:
        raise ClusterError("not there")

    monkeypatch.setattr("medseg.commands.segment.find_cluster", refuse)
    shutil.rmtree(tmp_path / "scans")
    with pytest.raises(ClusterError, match="not there"):
        run("out")


def test_a_scan_without_an_end_is_told_once(
    run: Segment, cluster: OneProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []
    wait = cluster.wait

    def hang(references: list[int], **given: Any) -> Any:
        # The first scan does not end until all others have.
        hung = [one for one in references if b"scan_00" in cluster._calls[one]]
        return wait(hung + [r for r in references if r not in hung], **given)

    monkeypatch.setattr(cluster, "wait", hang)
    monkeypatch.setattr(cluster_workers, "_SLOW_SECONDS", 0.0)
    monkeypatch.setattr(cluster_workers, "_SLOW_TIMES", 1e-9)
    run("out", listeners=[told.append])
    notes = [event.message for event in told if isinstance(event, Notice)]
    hung = [note for note in notes if "its process may hang" in note]
    assert [note.partition(":")[0] for note in hung].count("scan_00") == 1


def test_another_version_of_medseg_on_a_node_is_refused(
    run: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_workers, "version", lambda _: "0.0.1")
    with pytest.raises(MedsegError, match=r"was begun with 0\.0\.1"):
        run("out")


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (("cuda:1", None, 1), "Ray chooses the GPU"),
        (("all", None, 1), "Ray chooses the GPU"),
        (("auto", None, 0), "at least 1 task"),
        (("auto", None, 101), "at most 100 tasks"),
    ],
)
def test_a_cluster_is_not_asked_for_what_it_cannot_do(
    given: tuple[str, None, int], what: str
) -> None:
    with pytest.raises(MedsegError, match=what):
        choose_needs([Node(4, 1)], *given)


def test_tasks_share_a_gpu_on_a_cluster_alone(run: Segment) -> None:
    with pytest.raises(MedsegError, match="give --on ray"):
        run("out", on="", tasks_per_gpu=2)


def test_a_gpu_that_failed_ends_its_worker_and_not_the_batch(
    run: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([RuntimeError("CUDA error: unspecified launch failure")])

    def segment_scan(*stage: object) -> object:
        for failure in failures:
            raise failure
        return pipeline.segment_scan(*stage)

    def end(status: int) -> None:
        raise RayError(status)

    monkeypatch.setattr(scan_tasks, "segment_scan", segment_scan)
    rests: list[float] = []
    monkeypatch.setattr(cluster_nodes.time, "sleep", rests.append)
    monkeypatch.setattr(cluster_nodes.os, "_exit", end)
    monkeypatch.setattr("medseg._support.ray_tasks.make_portable", _raise)
    states = [entry.state for entry in run("out").results]
    assert states == ["done", "done", "done", "failed"]
    # Or else a broken GPU would take every scan, and fail it.
    assert rests == [60.0]


def _raise(error: Exception) -> None:
    """Let what stands for the end of a worker through, as the end itself would be."""
    raise error


def test_scans_in_an_object_store_are_not_given_to_a_cluster(
    untrained_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(MedsegError, match="by --shard"):
        medseg.segment(
            untrained_bundle(), "s3://bucket/scans", tmp_path / "o", on="ray"
        )
