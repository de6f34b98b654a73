"""Saved label maps: the file counts, the former one is kept, every one is audited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg import DatasetError, OutputError, Volume
from medseg.bundle.hashes import hash_file
from medseg.io import read_labels
from medseg.label_server.audit import LOCAL, AuditLog
from medseg.label_server.labels import FINAL, ORIGINAL, Labels
from medseg.label_server.state import StateFolder

SCAN = Volume.from_numpy(np.zeros((4, 5, 6)), spacing=(1, 2, 3))


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


@pytest.fixture
def labels(state: StateFolder) -> Labels:
    return Labels(state)


def filled(value: int) -> Any:
    return np.full(SCAN.shape, value, np.uint8)


def test_a_saved_label_is_found_with_what_was_said_of_it(
    labels: Labels,
) -> None:
    info = {"client_id": "anna@slicer", "params": {"version": "0001"}}
    saved = labels.save("case_1", FINAL, filled(1), SCAN, info)
    found = labels.find("case_1", FINAL)
    assert found == saved
    assert found is not None
    assert np.array_equal(read_labels(found.file).array[0], filled(1))
    assert found.info["params"] == {"version": "0001"}
    assert found.info["name"] == "case_1.nii.gz"
    assert isinstance(found.info["ts"], int)


def test_what_is_not_there_is_not_found(labels: Labels) -> None:
    assert labels.find("case_1", FINAL) is None
    assert labels.find_all("case_1") == {}
    assert labels.list_tags() == []
    assert labels.list_cases(FINAL) == set()


def test_labels_are_listed_by_tag_and_case(
    labels: Labels, state: StateFolder
) -> None:
    labels.save("case_1", FINAL, filled(1), SCAN, {})
    labels.save("case_2", FINAL, filled(1), SCAN, {})
    labels.save("case_1", ORIGINAL, filled(2), SCAN, {})
    (state.labels / FINAL / ".part-x.nii.gz").write_bytes(b"x")
    assert labels.list_tags() == [FINAL, ORIGINAL]
    assert labels.list_cases(FINAL) == {"case_1", "case_2"}
    assert labels.list_cases(ORIGINAL) == {"case_1"}
    assert list(labels.find_all("case_1")) == [FINAL, ORIGINAL]
    assert list(labels.find_all("case_2")) == [FINAL]


def test_what_was_noticed_of_a_label_is_audited(
    labels: Labels, state: StateFolder
) -> None:
    info = {"warnings": ["label: doubtful", "label: odd"]}
    labels.save("case_1", FINAL, filled(1), SCAN, info)
    (line,) = AuditLog(state.audit_log).read_lines()
    assert line["warnings"] == "label: doubtful; label: odd"


def test_each_save_is_audited_with_the_hash_of_its_file(
    labels: Labels, state: StateFolder
) -> None:
    labels.save("case_1", FINAL, filled(1), SCAN, {"client_id": "anna@slicer"})
    first = hash_file(state.labels / FINAL / "case_1.nii.gz")
    labels.save("case_1", FINAL, filled(2), SCAN, {"client_id": ""})
    second = hash_file(state.labels / FINAL / "case_1.nii.gz")
    lines = list(AuditLog(state.audit_log).read_lines())
    assert [(line["case"], line["tag"], line["sha256"]) for line in lines] == [
        ("case_1", FINAL, first),
        ("case_1", FINAL, second),
    ]
    assert [line.get("client") for line in lines] == ["anna@slicer", None]


def test_a_replaced_label_is_kept_beside(
    labels: Labels, state: StateFolder
) -> None:
    for value in (1, 2, 1):
        labels.save("case_1", FINAL, filled(value), SCAN, {})
    kept = sorted((state.replaced / FINAL).iterdir())
    assert {int(read_labels(file).array.max()) for file in kept} == {1, 2}
    current = state.labels / FINAL / "case_1.nii.gz"
    assert f"case_1-{hash_file(current)[:12]}.nii.gz" in [
        file.name for file in kept
    ]
    assert not (state.replaced / ORIGINAL).exists()


def test_nothing_is_saved_if_the_former_label_cannot_be_kept(
    labels: Labels, state: StateFolder
) -> None:
    labels.save("case_1", FINAL, filled(1), SCAN, {})
    state.replaced.write_text("in the way")
    with pytest.raises(OutputError, match="nothing was saved") as refused:
        labels.save("case_1", FINAL, filled(2), SCAN, {})
    assert str(state.root) not in refused.value.message
    assert "case_1" not in refused.value.message
    current = labels.find("case_1", FINAL)
    assert current is not None
    assert np.array_equal(read_labels(current.file).array[0], filled(1))


def test_info_is_added_to_what_was_said_before(labels: Labels) -> None:
    labels.save("case_1", FINAL, filled(1), SCAN, {"model": "a", "quality": 1})
    labels.update_info("case_1", FINAL, {"model": "b"})
    found = labels.find("case_1", FINAL)
    assert found is not None
    assert (found.info["model"], found.info["quality"]) == ("b", 1)


@pytest.mark.parametrize("text", [None, "", "{", "[1]"])
def test_a_label_counts_without_its_info(
    labels: Labels, state: StateFolder, text: str | None
) -> None:
    labels.save("case_1", FINAL, filled(1), SCAN, {"model": "a"})
    file = state.labels / FINAL / "case_1.json"
    file.unlink() if text is None else file.write_text(text)
    found = labels.find("case_1", FINAL)
    assert found is not None
    assert found.info == {}


def test_labels_saved_by_a_killed_process_are_audited_once(
    labels: Labels, state: StateFolder
) -> None:
    labels.save("case_1", FINAL, filled(1), SCAN, {})
    labels.save("case_2", FINAL, filled(1), SCAN, {})
    lines = state.audit_log.read_bytes().splitlines(keepends=True)
    state.audit_log.write_bytes(lines[0])
    labels.enter_unrecorded()
    labels.enter_unrecorded()
    actions = [
        (line["action"], line["case"])
        for line in AuditLog(state.audit_log).read_lines()
    ]
    assert actions == [
        ("label saved", "case_1"),
        ("label found at start", "case_2"),
    ]


def test_a_label_that_changed_unrecorded_is_audited(
    labels: Labels, state: StateFolder
) -> None:
    labels.save("case_1", FINAL, filled(1), SCAN, {})
    file = state.labels / FINAL / "case_1.nii.gz"
    file.write_bytes(b"something else")
    labels.enter_unrecorded()
    *_, line = AuditLog(state.audit_log).read_lines()
    assert (line["action"], line["sha256"]) == (
        "label found at start",
        hash_file(file),
    )


def test_an_earlier_label_can_be_restored(
    labels: Labels, state: StateFolder
) -> None:
    for value in (1, 2):
        labels.save("case_1", FINAL, filled(value), SCAN, {"client_id": "anna"})
    new, old = labels.history.list_records("case_1")
    assert (new.is_current, old.is_current) == (True, False)
    assert old.author == "anna"
    restored = labels.restore("case_1", old.number)
    assert restored.info["restored"] == old.number
    assert np.array_equal(read_labels(restored.file).array[0], filled(1))
    latest, *others = labels.history.list_records("case_1")
    assert len(others) == 2
    assert latest.author == LOCAL.user, "who restores it is not known here"
    labels.restore("case_1", new.number)
    current = labels.find("case_1", FINAL)
    assert current is not None
    assert np.array_equal(read_labels(current.file).array[0], filled(2))
    actions = [
        line["action"] for line in AuditLog(state.audit_log).read_lines()
    ]
    assert actions == ["label saved"] * 2 + ["label restored"] * 2
    with pytest.raises(DatasetError, match="no such label"):
        labels.restore("case_2", old.number)
    with pytest.raises(DatasetError, match="no such label"):
        labels.restore("case_1", 999)


def test_the_history_is_made_again_from_the_files(
    labels: Labels, state: StateFolder
) -> None:
    for value in (1, 2, 3):
        labels.save("case_1", FINAL, filled(value), SCAN, {"client_id": "anna"})
    digests = [each.sha256 for each in labels.history.list_records("case_1")]
    state.store.unlink()
    again = Labels(state)
    again.enter_unrecorded()
    again.enter_unrecorded()
    found = again.history.list_records("case_1")
    assert found[0].sha256 == digests[0]
    assert found[0].author == "anna"
    assert {each.sha256 for each in found} == set(digests)
    assert [each.is_current for each in found] == [True, False, False]
