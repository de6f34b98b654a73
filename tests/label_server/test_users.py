"""Who may log in, and how a request says who it is from."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from support.clocks import Clock

from medseg import MedsegError
from medseg.label_server.users import (
    MOST_TOKENS,
    TOKEN_SECONDS,
    Role,
    User,
    Users,
    hash_password,
    holds_plain_passwords,
    is_loopback,
    parse_basic,
    read_users,
    write_user,
)

PASSWORD = "correct horse"
ANNA = User("anna", hash_password(PASSWORD), Role.ADMIN)
BEN = User("ben", hash_password("battery staple"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def users(clock: Clock) -> Users:
    return Users({"anna": ANNA, "ben": BEN}, clock)


def basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def write_users(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "users"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_only_the_whole_password_is_right(users: Users) -> None:
    for password in (
        "",
        "c",
        PASSWORD[:-1],
        PASSWORD + "x",
        PASSWORD.upper(),
        "battery staple",
        PASSWORD + "\0",
        "x" * 2000,
    ):
        assert users.check_password("anna", password) is None
    assert users.check_password("anna", PASSWORD) == ANNA


@pytest.mark.parametrize("name", ["", "carl", "ann", "annaa"])
def test_an_unknown_name_has_no_password(users: Users, name: str) -> None:
    for password in ("", PASSWORD):
        assert users.check_password(name, password) is None


def test_a_right_password_is_remembered_for_minutes_and_no_wrong_one(
    users: Users, clock: Clock
) -> None:
    assert users.recall_password("anna", PASSWORD) is None
    users.check_password("anna", PASSWORD)
    users.check_password("anna", "wrong horse")
    assert users.recall_password("anna", PASSWORD) == ANNA
    assert users.recall_password("ben", PASSWORD) is None
    assert users.recall_password("anna", "wrong horse") is None
    clock.now = 301.0
    assert users.recall_password("anna", PASSWORD) is None


def test_a_token_identifies_the_user_who_got_it(users: Users) -> None:
    for user in (ANNA, BEN):
        token = users.issue_token(user)
        assert users.find_token(token) == user
        for other in ("", token[:-1], f"{token}x", token.swapcase()):
            assert users.find_token(other) is None


def test_a_login_ends_after_a_working_day(users: Users, clock: Clock) -> None:
    token = users.issue_token(ANNA)
    clock.now = TOKEN_SECONDS - 1
    assert users.find_token(token) == ANNA
    clock.now = TOKEN_SECONDS
    assert users.find_token(token) is None


def test_a_login_ends_by_logging_out(users: Users) -> None:
    token, other = users.issue_token(ANNA), users.issue_token(ANNA)
    users.log_out(token)
    users.log_out("no token")
    assert users.find_token(token) is None
    assert users.find_token(other) == ANNA


def test_the_oldest_of_too_many_logins_ends(users: Users) -> None:
    of_ben = users.issue_token(BEN)
    tokens = [users.issue_token(ANNA) for _ in range(MOST_TOKENS + 1)]
    assert users.find_token(tokens[0]) is None
    assert all(users.find_token(token) for token in tokens[1:])
    assert users.find_token(of_ben) == BEN


@pytest.mark.parametrize("value", ["", "!!", "/w==", "x", basic("anna")])
def test_a_malformed_header_holds_no_name(value: str) -> None:
    assert parse_basic(value) is None


def test_a_password_may_hold_colons_and_any_letters() -> None:
    assert parse_basic(basic("änna:a:b:ü")) == ("änna", "a:b:ü")


def test_login_is_required_where_there_are_users(users: Users) -> None:
    assert users.login_required
    assert not Users({}).login_required
    assert Users({}).check_password("", "") is None


def test_a_file_of_users_is_read_without_its_comments(tmp_path: Path) -> None:
    file = write_users(
        tmp_path,
        "# people\n\n anna : correct horse \nben reviewer:battery:staple\n",
    )
    read = read_users(file)
    assert (read["anna"].role, read["ben"].role) == (
        Role.ANNOTATOR,
        Role.REVIEWER,
    )
    users = Users(read)
    assert users.check_password("anna", "correct horse")
    assert users.check_password("ben", "battery:staple")
    assert holds_plain_passwords(file)


def test_a_written_user_is_read_again_and_no_password_is_in_the_file(
    tmp_path: Path,
) -> None:
    file = tmp_path / "users"
    write_user(file, "anna", PASSWORD, Role.ADMIN)
    write_user(file, "ben", "battery staple", Role.ANNOTATOR)
    write_user(file, "anna", "another horse", Role.REVIEWER)
    assert file.stat().st_mode & 0o777 == 0o600
    assert "horse" not in file.read_text()
    assert not holds_plain_passwords(file)
    users = read_users(file)
    assert {name: user.role for name, user in users.items()} == {
        "anna": Role.REVIEWER,
        "ben": Role.ANNOTATOR,
    }
    assert Users(users).check_password("anna", "another horse")
    assert not Users(users).check_password("anna", PASSWORD)


@pytest.mark.usefixtures("full_cost")
def test_a_password_costs_whoever_guesses_it() -> None:
    secret = hash_password(PASSWORD)
    assert secret.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert Users({"anna": User("anna", secret)}).check_password(
        "anna", PASSWORD
    )


@pytest.mark.parametrize("name", ["", "an na", "anna:", "#anna", "a\nb"])
def test_a_name_that_the_file_cannot_hold_is_refused(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(MedsegError, match="neither blanks nor colons"):
        write_user(tmp_path / "users", name, PASSWORD, Role.ADMIN)


def test_roles_are_ordered_and_known_by_their_words() -> None:
    assert Role.ANNOTATOR < Role.REVIEWER < Role.ADMIN
    assert [Role.parse(role.word) for role in Role] == list(Role)
    with pytest.raises(MedsegError, match="annotator, reviewer, admin"):
        Role.parse("root")


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
    [
        "anna",
        "anna:",
        "anna: short12",
        ": correct horse",
        "anna root: correct horse",
        "anna admin x: correct horse",
    ],
)
def test_a_line_without_name_and_password_is_refused_by_its_number(
    tmp_path: Path, line: str
) -> None:
    file = write_users(tmp_path, f"ben: battery staple\n{line}\n")
    with pytest.raises(MedsegError, match="line 2") as refused:
        read_users(file)
    assert "horse" not in str(refused.value), "a password may stand there"


def test_the_shortest_password_has_eight_characters(tmp_path: Path) -> None:
    users = read_users(write_users(tmp_path, "anna: 12345678\n"))
    assert Users(users).check_password("anna", "12345678")


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
