"""Passwords of the label server's tests are hashed cheaply: hundreds of logins check them."""

from __future__ import annotations

from collections.abc import Iterator

import argon2
import pytest

_DEFAULTS = argon2.PasswordHasher.__init__.__defaults__ or ()
_LEAST = (1, 8, 1)
"""Passes over the memory, KiB of it, and threads."""


def _set_cost(*cost: object) -> None:
    defaults = (*cost, *_DEFAULTS[len(cost) :])
    argon2.PasswordHasher.__init__.__defaults__ = defaults  # type: ignore[method-assign]


@pytest.fixture
def full_cost() -> Iterator[None]:
    """Hash as the passwords of people are hashed."""
    _set_cost()
    yield
    _set_cost(*_LEAST)


# Here, because some tests hash a password when they are imported.
_set_cost(*_LEAST)
