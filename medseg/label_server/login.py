"""``Login``: finds out who asks, and slows down whoever tries passwords.

After a few failures of a name from one address, or of an address with whatever names, the next
attempt has to wait, twice as long each time. While it waits, no password is looked at, not even the
right one; people who are logged in go on. Failures are audited, in numbers that cannot fill a disk.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from medseg.label_server.audit import REQUESTER, AuditLog, Requester
from medseg.label_server.request_checks import RefusedError
from medseg.label_server.users import Role, User, Users, parse_basic

FREE_FAILURES_OF_A_NAME = 5
"""Failures of one name from one address after which an attempt has to wait."""
FREE_FAILURES_OF_AN_ADDRESS = 20
"""The same of all names from one address; a hospital's proxy is one address."""
LONGEST_WAIT_SECONDS = 300.0
_FORGOTTEN_SECONDS = 3600.0
"""Failures of so long ago no longer count."""
_MOST_KEYS = 10_000
"""Names and addresses whose failures are remembered; beyond that, the oldest are forgotten."""
_HASHING = 2
"""Passwords hashed at a time: each takes 64 MB."""

_LOCAL = User("local", "", Role.ADMIN)
_ANYBODY = "\0anybody"
_TOKEN = "\0token"
"""Under what wrong tokens count. They make nobody wait: they cannot be guessed, and a viewer goes
on with its old one after the server was started anew."""


@dataclass(slots=True)
class _Failures:
    """Failures of a name or an address.

    Attributes:
        count: How many.
        last: When the last was, on the monotonic clock.
    """

    count: int = 0
    last: float = -math.inf


class FailedLogins:
    """Remembers failures, and says how long the next attempt has to wait.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], _Failures] = OrderedDict()

    def find_wait(self, name: str, address: str) -> float:
        """Return for how many seconds no attempt is looked at; 0 if it may be made now."""
        waits = [0.0]
        for key, free in _list_keys(name, address):
            failures = self._failures.get(key)
            if failures is None or failures.count < free:
                continue
            pause = min(
                2.0 ** min(failures.count - free, 30), LONGEST_WAIT_SECONDS
            )
            waits.append(failures.last + pause - self._clock())
        return max(waits)

    def add(self, name: str, address: str) -> int:
        """Count a failure; return how many there are now of this name from this address."""
        now = self._clock()
        for key, _ in _list_keys(name, address):
            failures = self._failures.pop(key, _Failures())
            if now - failures.last > _FORGOTTEN_SECONDS:
                failures.count = 0
            failures.count += 1
            failures.last = now
            self._failures[key] = failures
        while len(self._failures) > _MOST_KEYS:
            self._failures.popitem(last=False)
        return self._failures[(name, address)].count

    def forget(self, name: str, address: str) -> None:
        """Let a login that succeeded end the waiting for its name there."""
        self._failures.pop((name, address), None)


def _list_keys(
    name: str, address: str
) -> tuple[tuple[tuple[str, str], int], ...]:
    """Return under what a failure counts, and how many of each are free."""
    of_the_name = ((name, address), FREE_FAILURES_OF_A_NAME)
    if name == _TOKEN:
        return (of_the_name,)
    return (of_the_name, ((_ANYBODY, address), FREE_FAILURES_OF_AN_ADDRESS))


class Login:
    """Identifies people by password or token.

    Args:
        users: Who may log in.
        audit: Told of failures.
        failures: Remembers them.
    """

    def __init__(
        self,
        users: Users,
        audit: AuditLog,
        failures: FailedLogins | None = None,
    ) -> None:
        self.users = users
        self._audit = audit
        self._failures = failures or FailedLogins()
        self._hashing = asyncio.Semaphore(_HASHING)

    async def identify(self, authorization: str, address: str) -> User:
        """Return the person whom an ``Authorization`` header identifies.

        Raises:
            RefusedError: If it identifies nobody (401), or attempts came too often (429).
        """
        if not self.users.login_required:
            return _LOCAL
        scheme, _, value = authorization.partition(" ")
        match scheme.lower():
            case "bearer":
                user = self.users.find_token(value.strip())
                if user is None:
                    self._refuse(_TOKEN, address)
                return user
            case "basic":
                name, password = parse_basic(value.strip()) or ("", "")
                return await self.check_password(name, password, address)
        raise _ask_for_login()

    def refuse_link(self, address: str) -> NoReturn:
        """Refuse a link that is not good, as a token that is none is refused.

        Raises:
            RefusedError: Always (401).
        """
        self._refuse(_TOKEN, address)

    async def check_password(
        self, name: str, password: str, address: str
    ) -> User:
        """Return the person with this name and password.

        Raises:
            RefusedError: If there is none (401), or attempts came too often (429).
        """
        user = self.users.recall_password(name, password)
        if user is not None:
            return user
        self._require_no_wait(name, address)
        async with self._hashing:
            # Others may have failed while this attempt waited for its turn.
            self._require_no_wait(name, address)
            user = await asyncio.to_thread(
                self.users.check_password, name, password
            )
        if user is None:
            self._refuse(name, address)
        self._failures.forget(name, address)
        return user

    def _require_no_wait(self, name: str, address: str) -> None:
        wait = self._failures.find_wait(name, address)
        if wait > 0:
            seconds = math.ceil(wait)
            raise RefusedError(
                429,
                f"too many failed logins; try again in {seconds} s",
                {"retry-after": str(seconds)},
            )

    def _refuse(self, name: str, address: str) -> NoReturn:
        count = self._failures.add(name, address)
        # The first ones, then 8, 16, 32, …: the log tells of an attack and is not filled by it.
        if count <= FREE_FAILURES_OF_A_NAME or count.bit_count() == 1:
            REQUESTER.set(Requester("", address))
            shown = "" if name == _TOKEN else name[:100]
            self._audit.write("login refused", name=shown, failures=count)
        raise _ask_for_login()


def _ask_for_login() -> RefusedError:
    return RefusedError(
        401,
        "log in with a name and its password",
        {"www-authenticate": 'Basic realm="medseg label"'},
    )
