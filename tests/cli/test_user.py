"""``medseg user`` writes who may log in."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from support.cli import call

from medseg.label_server.users import Role, Users, read_users


def test_a_user_with_the_password_of_standard_input_may_log_in(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse\n"))
    file = tmp_path / "users.txt"
    arguments = ("user", "anna", "--role", "admin", "--users", file)
    assert call(monkeypatch, *arguments) == 0
    assert capsys.readouterr().out == "anna may log in as admin\n"
    users = read_users(file)
    assert users["anna"].role is Role.ADMIN
    assert Users(users).check_password("anna", "correct horse")


@pytest.mark.parametrize(
    ("role", "password", "told"),
    [
        ("root", "correct horse", "annotator, reviewer, admin"),
        ("admin", "short", "at least 8 characters"),
    ],
)
def test_a_wrong_role_or_password_is_told_and_nothing_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    role: str,
    password: str,
    told: str,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
    file = tmp_path / "users.txt"
    arguments = ("user", "anna", "--role", role, "--users", file)
    assert call(monkeypatch, *arguments) == 2
    assert told in capsys.readouterr().err
    assert not file.exists()
