"""What may be over in a moment is tried again, and nothing else."""

from __future__ import annotations

import pytest

from medseg._support import store_errors
from medseg._support.store_errors import (
    NoAnswerError,
    StorageError,
    try_again,
)

SECRET = "a-secret-that-stands-in-no-log"


class HttpError(Exception):
    """As aiohttp and Google raise it, by what they call the status."""

    def __init__(self, status: int, name: str = "status") -> None:
        super().__init__(SECRET)
        setattr(self, name, status)


class ClientError(Exception):
    """As Amazon's client raises it."""

    def __init__(self, status: int) -> None:
        super().__init__(SECRET)
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


class ReadTimeoutError(Exception):
    """As clients call it that a store sends nothing."""


class ParamValidationError(Exception):
    """As Amazon's client raises it of what cannot be the name of a bucket."""


def count_tries(error: Exception) -> tuple[int, StorageError]:
    tries = []

    def fail() -> None:
        tries.append(error)
        raise error

    with pytest.raises(StorageError) as caught:
        try_again(fail, f"https://host/a?signature={SECRET}")
    assert SECRET not in f"{caught.value} {caught.value.detail}"
    return len(tries), caught.value


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_errors, "WAITS", 5 * (0.0,))


def test_a_refusal_is_final_and_says_nothing_about_other_objects() -> None:
    for error in (
        HttpError(400),
        HttpError(405, "code"),
        HttpError(401, "status_code"),
        ClientError(403),
        ParamValidationError(SECRET),
    ):
        tries, told = count_tries(error)
        assert tries == 1
        assert not isinstance(told, NoAnswerError)


def test_what_may_be_over_in_a_moment_is_tried_again() -> None:
    for error in (HttpError(429), HttpError(503), ClientError(500)):
        tries, told = count_tries(error)
        assert tries == 6
        assert isinstance(told, NoAnswerError)
    assert "HTTP 500" in told.message


def test_a_store_that_sends_nothing_is_not_waited_for_as_often() -> None:
    # Each such try takes minutes.
    for error in (ReadTimeoutError(SECRET), TimeoutError(SECRET)):
        tries, told = count_tries(error)
        assert tries == 3
        assert isinstance(told, NoAnswerError)
