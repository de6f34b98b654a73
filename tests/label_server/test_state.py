"""The state folder: apart from the scans, used by one server, cleared of what a killed one left."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg import OutputError
from medseg.label_server.state import StateFolder, is_plain_name


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "_",
        "0",
        "case-1.2_x",
        "1.2.840.10008",
        "A" * 200,
        "a.b.c",
        "ä",
        "肝_1",
        "e\u0301",
    ],
)
def test_plain_names(name: str) -> None:
    assert is_plain_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a..b",
        "con",
        "LPT1.nii",
        ".a",
        "-a",
        "a/b",
        "a\\b",
        "a b",
        "ä b",
        "ä\u200b",
        "ä" * 101,
        "a\n",
        "A" * 201,
        3,
        None,
    ],
)
def test_names_that_are_not_plain(name: object) -> None:
    assert not is_plain_name(name)


@pytest.mark.parametrize(
    ("state", "studies"),
    [
        ("x", "x"),
        ("x/state", "x"),
        ("x", "x/scans"),
        ("x/a/b/state", "x"),
        ("link/state", "x"),
    ],
)
def test_state_and_scans_lie_apart(
    tmp_path: Path, state: str, studies: str
) -> None:
    (tmp_path / "x" / "scans").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "x")
    with pytest.raises(OutputError, match="must lie apart") as refused:
        StateFolder(tmp_path / state).require_apart_from(tmp_path / studies)
    assert str(tmp_path) not in refused.value.message


def test_neighbours_lie_apart(tmp_path: Path) -> None:
    StateFolder(tmp_path / "scans2").require_apart_from(tmp_path / "scans")
    StateFolder(tmp_path / "scans").require_apart_from(tmp_path / "scans2")


def test_one_server_at_a_time_uses_a_state(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    with state.lock():
        with (
            pytest.raises(OutputError, match="another medseg label uses"),
            state.lock(),
        ):
            pass
        with StateFolder(tmp_path / "other").lock():
            pass
    with state.lock():
        pass


def test_what_a_killed_server_left_unfinished_is_removed(
    tmp_path: Path,
) -> None:
    state = StateFolder(tmp_path / "state")
    unfinished = [
        state.root / ".part-1",
        state.versions / ".part-2",
        state.series / ".part-3",
        state.images / ".part-4.nii.gz",
        state.labels / "final" / ".part-5.nii.gz",
        state.uploads / "tmp6",
        state.uploads / "tmp7",
    ]
    kept = [
        state.labels / "final" / "a.nii.gz",
        state.images / "a.nii.gz",
        state.versions / "0001" / ".part-8",
        state.audit_log,
    ]
    for number, path in enumerate([*unfinished, *kept]):
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 2 and path in unfinished:
            path.mkdir()
            (path / "inside").write_text("x")
        else:
            path.write_text("x")
    with state.lock():
        assert not [path for path in unfinished if path.exists()]
        assert all(path.exists() for path in kept)


def test_a_state_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(OutputError, match="cannot be written") as refused,
        StateFolder(tmp_path / "file" / "state").lock(),
    ):
        pass
    assert str(tmp_path) not in refused.value.message


def test_paths_do_not_follow_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert StateFolder(Path("state")).labels == tmp_path / "state" / "labels"
