"""Links: for one file, one person, one login, and a while."""

from __future__ import annotations

from urllib.parse import quote_plus

import pytest

from medseg.label_server.links import (
    LINK_SECONDS,
    Links,
    find_linked_case,
    take_token,
)
from medseg.label_server.users import TOKEN_SECONDS, User, Users

ANNA = User("anna", "")


class Clock:
    """Seconds, as the test wants them."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def users(clock: Clock) -> Users:
    return Users({"anna": ANNA}, clock)


@pytest.fixture
def links(users: Users, clock: Clock) -> Links:
    return Links(users, clock)


def log_in(users: Users) -> tuple[str, str]:
    token = users.issue_token(ANNA)
    login = users.identify_login(token)
    assert login is not None
    return token, login


def split(linked: str) -> tuple[str, str]:
    case, _, token = linked.partition("&token=")
    return case, token


def test_a_link_is_good_for_its_case_alone(links: Links, users: Users) -> None:
    case, token = split(links.add_token(log_in(users)[1], "肝_1"))
    assert case == "肝_1"
    assert links.find_user(token, "肝_1") == ANNA
    assert links.find_user(token, "肝_2") is None
    assert links.find_user(token, "肝_1 ") is None
    assert token.isascii()
    assert quote_plus(token) == token


def test_a_link_ends_by_itself_and_with_its_login(
    links: Links, users: Users, clock: Clock
) -> None:
    first, login = log_in(users)
    _, second_login = log_in(users)
    _, token = split(links.add_token(login, "a"))
    _, other = split(links.add_token(second_login, "a"))
    clock.now += LINK_SECONDS - 1
    assert links.find_user(token, "a") == ANNA
    users.log_out(first)
    assert links.find_user(token, "a") is None
    assert links.find_user(other, "a") == ANNA
    clock.now += 2
    assert links.find_user(other, "a") is None
    clock.now += TOKEN_SECONDS - 2 * LINK_SECONDS
    _, late = split(links.add_token(second_login, "a"))
    clock.now += LINK_SECONDS - 1
    assert links.find_user(late, "a") is None


def test_a_forged_link_is_none(links: Links, users: Users) -> None:
    _, login = log_in(users)
    _, token = split(links.add_token(login, "a"))
    expires, _, signature = token.split(".")
    later = f"{int(expires, 16) + 1:x}"
    wrong = "0" * 64
    for forged in (
        f"{later}.{login}.{signature}",
        f"{expires}.{wrong}.{signature}",
        f"{expires}.{login}.{wrong}",
        f"{expires}.{login}.{signature}0",
        f"{expires}.{login}",
        f"-1.{login}.{signature}",
        "..",
        "",
        "\udcff",
    ):
        assert links.find_user(forged, "a") is None
    assert Links(users).find_user(token, "a") is None


def test_a_token_is_taken_off_however_a_client_writes_it(
    links: Links, users: Users
) -> None:
    linked = links.add_token(log_in(users)[1], "a b")
    case, token = split(linked)
    for query in (
        f"image={quote_plus(linked)}",
        f"image={quote_plus(case)}&token={token}",
        f"token={token}&image=a%20b",
    ):
        assert take_token(query) == ("image=a+b", token)
    assert take_token(f"tag=final&label={quote_plus(linked)}") == (
        "tag=final&label=a+b",
        token,
    )
    for query in ("image=a%26token%3Dx", "image=a%2Fb", "", "a=%26&b"):
        assert take_token(query) == (query, "")


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("HEAD", "/datastore/image", "image=a"),
        ("PUT", "/datastore/image", "image=a"),
        ("GET", "/datastore/image/", "image=a"),
        ("GET", "/datastore/label", "image=a"),
        ("GET", "/datastore/image", "image=a&image=b"),
        ("GET", "/datastore/image", "image=a&x=b"),
        ("GET", "/datastore/image", "label=a"),
        ("GET", "/datastore/image", ""),
    ],
)
def test_a_link_asks_for_one_image_and_nothing_else(
    method: str, path: str, query: str
) -> None:
    assert find_linked_case("GET", "/datastore/image", "image=a") == "a"
    assert find_linked_case(method, path, query) is None
