"""Who is identified, who has to wait, and what of it is audited."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clocks import Clock

from medseg.label_server.audit import REQUESTER, AuditLog, Requester
from medseg.label_server.login import (
    FREE_FAILURES_OF_A_NAME,
    FREE_FAILURES_OF_AN_ADDRESS,
    LONGEST_WAIT_SECONDS,
    FailedLogins,
    Login,
)
from medseg.label_server.request_checks import RefusedError
from medseg.label_server.users import Role, User, Users, hash_password

PASSWORD = "correct horse"
ANNA = User("anna", hash_password(PASSWORD), Role.REVIEWER)
HOME = "192.0.2.7"
AWAY = "198.51.100.1"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def audit(tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "audit.jsonl")


@pytest.fixture
def login(clock: Clock, audit: AuditLog) -> Iterator[Login]:
    before = REQUESTER.set(Requester())
    yield Login(Users({"anna": ANNA}, clock), audit, FailedLogins(clock))
    REQUESTER.reset(before)


def basic(password: str, name: str = "anna") -> str:
    text = base64.b64encode(f"{name}:{password}".encode()).decode()
    return f"Basic {text}"


def identify(login: Login, header: str, address: str = HOME) -> int:
    """Return the status a header is answered with."""
    try:
        asyncio.run(login.identify(header, address))
    except RefusedError as refused:
        return refused.status
    return 200


def test_a_person_is_identified_by_password_or_token(login: Login) -> None:
    token = login.users.issue_token(ANNA)
    for header in (basic(PASSWORD), f"Bearer {token}", f"bearer  {token}"):
        assert asyncio.run(login.identify(header, HOME)) == ANNA


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic !!", "Basic /w==", "Negotiate x", "anna"]
)
def test_a_malformed_header_identifies_nobody(
    login: Login, header: str
) -> None:
    assert identify(login, header) == 401


def test_nobody_has_to_log_in_where_there_are_no_users(
    audit: AuditLog,
) -> None:
    user = asyncio.run(Login(Users({}), audit).identify("", HOME))
    assert (user.name, user.role) == ("local", Role.ADMIN)


def test_after_a_few_failures_even_the_right_password_has_to_wait(
    login: Login, clock: Clock
) -> None:
    for _ in range(FREE_FAILURES_OF_A_NAME):
        assert identify(login, basic("wrong")) == 401
    assert identify(login, basic(PASSWORD)) == 429
    assert identify(login, basic(PASSWORD), AWAY) == 200
    clock.now += 1.01
    # By now her password is remembered, which asks nobody to wait.
    assert identify(login, basic("wrong")) == 401
    assert identify(login, basic("wrong")) == 429
    clock.now += 2.01
    assert identify(login, basic("wrong")) == 401


def test_the_wait_doubles_and_has_an_end(clock: Clock) -> None:
    failures = FailedLogins(clock)
    waits = []
    for _ in range(FREE_FAILURES_OF_A_NAME + 12):
        failures.add("anna", HOME)
        waits.append(failures.find_wait("anna", HOME))
    assert waits[: FREE_FAILURES_OF_A_NAME - 1] == [0.0] * 4
    assert waits[FREE_FAILURES_OF_A_NAME - 1 :][:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == LONGEST_WAIT_SECONDS


def test_a_right_password_ends_the_waiting(login: Login, clock: Clock) -> None:
    for _ in range(FREE_FAILURES_OF_A_NAME):
        identify(login, basic("wrong"))
    clock.now += 1.01
    assert identify(login, basic(PASSWORD)) == 200
    for _ in range(FREE_FAILURES_OF_A_NAME):
        assert identify(login, basic("wrong")) == 401


def test_an_address_that_tries_many_names_has_to_wait(clock: Clock) -> None:
    failures = FailedLogins(clock)
    for number in range(FREE_FAILURES_OF_AN_ADDRESS):
        assert failures.find_wait(f"name{number}", HOME) == 0.0
        failures.add(f"name{number}", HOME)
    assert failures.find_wait("another", HOME) > 0
    assert failures.find_wait("another", AWAY) == 0.0


def test_failures_are_forgotten_after_an_hour(clock: Clock) -> None:
    failures = FailedLogins(clock)
    for _ in range(FREE_FAILURES_OF_A_NAME):
        failures.add("anna", HOME)
    clock.now = 3601.0
    assert failures.add("anna", HOME) == 1
    assert failures.find_wait("anna", HOME) == 0.0


def test_no_attack_fills_the_memory(clock: Clock) -> None:
    failures = FailedLogins(clock)
    for number in range(20_000):
        failures.add("anna", str(number))
    assert len(failures._failures) <= 10_000


def test_stale_tokens_keep_nobody_from_logging_in(login: Login) -> None:
    for _ in range(100):
        assert identify(login, "Bearer stale") == 401
    assert identify(login, basic(PASSWORD)) == 200


def test_every_kind_of_failure_is_audited_and_many_do_not_fill_the_log(
    login: Login, clock: Clock, audit: AuditLog
) -> None:
    identify(login, basic("wrong horse"))
    identify(login, basic("wrong horse", "carl"))
    for _ in range(1000):
        identify(login, "Bearer stale")
    lines = list(audit.read_lines())
    assert [line["name"] for line in lines[:2]] == ["anna", "carl"]
    assert {line["action"] for line in lines} == {"login refused"}
    assert {(line["who"], line["address"]) for line in lines} == {("", HOME)}
    failures = [line["failures"] for line in lines[2:]]
    assert failures == [1, 2, 3, 4, 5, 8, 16, 32, 64, 128, 256, 512]
    assert "horse" not in str(lines)


def test_many_logins_at_once_are_all_answered(login: Login) -> None:
    async def run() -> list[object]:
        attempts = [
            login.identify(basic("wrong", f"name{number}"), HOME)
            for number in range(30)
        ]
        return await asyncio.gather(*attempts, return_exceptions=True)

    statuses = [error.status for error in asyncio.run(run())]  # type: ignore[attr-defined]
    assert set(statuses) == {401, 429}
    assert statuses.count(401) <= FREE_FAILURES_OF_AN_ADDRESS + 1
