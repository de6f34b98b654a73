"""Who may use the server: names and passwords from a file, tokens for clients that logged in."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from medseg.errors import MedsegError

SHORTEST_PASSWORD = 8


class Users:
    """The people who may log in.

    Args:
        passwords: Name → password. Empty: nobody needs to, which is for loopback only.
    """

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._passwords = dict(passwords)
        self._tokens: dict[str, str] = {}

    @property
    def are_asked(self) -> bool:
        """Whether people must log in."""
        return bool(self._passwords)

    def log_in(self, name: str, password: str) -> str | None:
        """Return a new token for a name and its password, or ``None`` where they do not fit."""
        if not self._fit(name, password):
            return None
        token = secrets.token_urlsafe(32)
        self._tokens[token] = name
        return token

    def known_by(self, authorization: str) -> str | None:
        """Return who an ``Authorization`` header names, or ``None``."""
        kind, _, value = authorization.partition(" ")
        if kind.lower() == "bearer":
            found = [name for token, name in self._tokens.items() if _same(token, value.strip())]
            return found[0] if found else None
        if kind.lower() == "basic":
            try:
                name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                return None
            return name if self._fit(name, password) else None
        return None

    def _fit(self, name: str, password: str) -> bool:
        # An unknown name takes as long as a wrong password.
        wanted = self._passwords.get(name, secrets.token_urlsafe(32))
        return _same(wanted, password)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def read_users(file: Path) -> Users:
    """Read a file of users: one ``name: password`` a line.

    Raises:
        MedsegError: If it cannot be read, others can read it, or a line is wrong.
    """
    try:
        if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise MedsegError(f"others can read {file}, which holds passwords; chmod 600 {file}")
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MedsegError(f"{file} cannot be read: {error}") from error
    passwords = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = (part.strip() for part in line.partition(":"))
        if not (name and colon) or len(password) < SHORTEST_PASSWORD:
            raise MedsegError(
                f"{file}, line {number}: write 'name: password', the password with at least "
                f"{SHORTEST_PASSWORD} characters"
            )
        passwords[name] = password
    if not passwords:
        raise MedsegError(f"{file} names no user; write one 'name: password' a line")
    return Users(passwords)


def is_loopback(host: str) -> bool:
    """Tell whether only programs on this machine reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
