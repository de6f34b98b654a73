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

MIN_PASSWORD_LENGTH = 8


class Users:
    """The people who may log in.

    Args:
        passwords: Name → password. Empty: no login is required, which is for loopback only.
    """

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._passwords = dict(passwords)
        self._tokens: dict[str, str] = {}

    @property
    def login_required(self) -> bool:
        """Whether people must log in."""
        return bool(self._passwords)

    def log_in(self, name: str, password: str) -> str | None:
        """Return a new token for a name and its password, or ``None`` if they do not match."""
        if not self._check_password(name, password):
            return None
        token = secrets.token_urlsafe(32)
        self._tokens[token] = name
        return token

    def authenticate(self, authorization: str) -> str | None:
        """Return the user whom an ``Authorization`` header identifies, or ``None``.

        Args:
            authorization: ``Bearer TOKEN``, or ``Basic`` with name and password in base64.
        """
        scheme, _, value = authorization.partition(" ")
        match scheme.lower():
            case "bearer":
                return self._find_token(value.strip())
            case "basic":
                return self._check_basic(value)
        return None

    def _find_token(self, value: str) -> str | None:
        for token, name in self._tokens.items():
            if _equal(token, value):
                return name
        return None

    def _check_basic(self, value: str) -> str | None:
        try:
            credentials = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        name, _, password = credentials.partition(":")
        return name if self._check_password(name, password) else None

    def _check_password(self, name: str, password: str) -> bool:
        # An unknown name is compared, too, so that it takes as long as a wrong password.
        expected = self._passwords.get(name, secrets.token_urlsafe(32))
        return _equal(expected, password)


def _equal(expected: str, given: str) -> bool:
    # Takes equally long wherever the two differ, so that time does not give a password away.
    return hmac.compare_digest(expected.encode(), given.encode())


def read_users(file: Path) -> Users:
    """Read a file of users: one ``name: password`` per line; ``#`` begins a comment.

    Raises:
        MedsegError: If it cannot be read, others can read it, or a line is wrong.
    """
    try:
        mode = file.stat().st_mode
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MedsegError(
            "the file of users cannot be read; write UTF-8 text with one 'name: password' per line",
            source=file,
            detail=str(error),
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise MedsegError(
            "others can read this file, which holds passwords; make it yours alone by chmod 600",
            source=file,
        )
    passwords = {}
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith("#"):
            name, password = _parse_user(line, number, file)
            passwords[name] = password
    if not passwords:
        raise MedsegError(
            "names no user; write one 'name: password' per line", source=file
        )
    return Users(passwords)


def _parse_user(line: str, number: int, file: Path) -> tuple[str, str]:
    before, _, after = line.partition(":")
    name = before.strip()
    password = after.strip()
    if not name or len(password) < MIN_PASSWORD_LENGTH:
        raise MedsegError(
            f"line {number} is not 'name: password' with a password of at least "
            f"{MIN_PASSWORD_LENGTH} characters",
            source=file,
        )
    return name, password


def is_loopback(host: str) -> bool:
    """Tell whether only programs on this machine reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
