"""Who may log in, and how a request says who it is from."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from medseg import MedsegError
from medseg.label_server.users import Users, is_loopback, read_users

PASSWORD = "correct horse"


@pytest.fixture
def users() -> Users:
    return Users({"anna": PASSWORD, "ben": "battery staple"})


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def write_users(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "users"
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.mark.parametrize(
    "password",
    [
        "",
        "c",
        PASSWORD[:-1],
        PASSWORD + "x",
        PASSWORD.upper(),
        "battery staple",
    ],
)
def test_only_the_whole_password_logs_in(users: Users, password: str) -> None:
    assert users.log_in("anna", password) is None
    assert users.authenticate(basic(f"anna:{password}")) is None
    assert users.log_in("anna", PASSWORD)
    assert users.authenticate(basic(f"anna:{PASSWORD}")) == "anna"


@pytest.mark.parametrize("name", ["", "carl", "ann", "annaa"])
@pytest.mark.parametrize("password", ["", PASSWORD])
def test_an_unknown_name_never_logs_in(
    users: Users, name: str, password: str
) -> None:
    assert users.log_in(name, password) is None
    assert users.authenticate(basic(f"{name}:{password}")) is None


def test_a_token_identifies_the_user_who_got_it(users: Users) -> None:
    tokens = {
        name: users.log_in(name, word)
        for name, word in users._passwords.items()
    }
    assert len(set(tokens.values())) == 2
    for name, token in tokens.items():
        assert users.authenticate(f"Bearer {token}") == name
        assert users.authenticate(f"bearer  {token}") == name
        assert token is not None
        for other in ("", token[:-1], f"{token}x", token.swapcase()):
            assert users.authenticate(f"Bearer {other}") is None


def test_tokens_differ_at_each_login(users: Users) -> None:
    assert users.log_in("anna", PASSWORD) != users.log_in("anna", PASSWORD)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic !!",
        "Basic /w==",
        "Negotiate x",
        "anna",
        basic("anna"),
    ],
)
def test_malformed_headers_identify_nobody(users: Users, header: str) -> None:
    assert users.authenticate(header) is None


def test_a_password_may_hold_colons_and_any_letters() -> None:
    users = Users({"änna": "a:b:ü-long"})
    assert users.authenticate(basic("änna:a:b:ü-long")) == "änna"


def test_login_is_required_where_there_are_users(users: Users) -> None:
    assert users.login_required
    assert not Users({}).login_required
    assert Users({}).log_in("", "") is None


def test_a_file_of_users_is_read_without_its_comments(tmp_path: Path) -> None:
    file = write_users(
        tmp_path, "# people\n\n anna : correct horse \nben:battery:staple\n"
    )
    users = read_users(file)
    assert users.log_in("anna", "correct horse")
    assert users.log_in("ben", "battery:staple")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644])
def test_a_file_that_others_can_open_is_refused(
    tmp_path: Path, mode: int
) -> None:
    file = write_users(tmp_path, f"anna: {PASSWORD}\n", mode)
    with pytest.raises(
        MedsegError, match="others can read this file"
    ) as refused:
        read_users(file)
    assert refused.value.source == str(file)


@pytest.mark.parametrize(
    "line",
    ["anna", "anna:", "anna: short12", ": correct horse", "anna correct"],
)
def test_a_line_without_name_and_password_is_refused_by_its_number(
    tmp_path: Path, line: str
) -> None:
    file = write_users(tmp_path, f"ben: battery staple\n{line}\n")
    with pytest.raises(
        MedsegError, match="line 2 is not 'name: password'"
    ) as refused:
        read_users(file)
    assert refused.value.detail is None, "a password may stand in the line"


def test_the_shortest_password_has_eight_characters(tmp_path: Path) -> None:
    assert read_users(write_users(tmp_path, "anna: 12345678\n")).log_in(
        "anna", "12345678"
    )


@pytest.mark.parametrize("text", ["", "# nobody\n", "\n\n"])
def test_a_file_without_users_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(MedsegError, match="names no user"):
        read_users(write_users(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named_apart_from_the_message(
    tmp_path: Path,
) -> None:
    for file in (tmp_path / "absent", write_users(tmp_path, "")):
        if file.exists():
            file.write_bytes(b"\xff\xfe\x00anna")
        with pytest.raises(MedsegError, match="cannot be read") as refused:
            read_users(file)
        assert str(tmp_path) not in refused.value.message


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(
    host: str, expected: bool
) -> None:
    assert is_loopback(host) == expected
