"""Who may use the server: names, roles and passwords from a file, tokens for who logged in."""

from __future__ import annotations

import base64
import binascii
import enum
import hmac
import ipaddress
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from medseg._support.files import write_atomically
from medseg._support.platform.files import may_others_read
from medseg.errors import MedsegError, MissingExtraError

MIN_PASSWORD_LENGTH = 8
LONGEST_PASSWORD = 1024

TOKEN_SECONDS = 12 * 3600.0
"""How long a login lasts: a working day."""
MOST_TOKENS = 50
"""Logins of one person at a time; the oldest ends with the next one."""
_REMEMBERED_SECONDS = 300.0
"""How long a password that was right need not be hashed again: browsers send it each time."""

_HASH_PREFIX = "$argon2"
_NAME = re.compile(r"[^\s:#][^\s:]{0,99}")


class Role(enum.IntEnum):
    """What a person may do; each may do what those before may."""

    ANNOTATOR = 1
    """Open cases, segment them and save corrections."""
    REVIEWER = 2
    """Judge the corrections of others, score cases and take the data set along."""
    ADMIN = 3
    """Train, promote versions, upload images and fetch weights."""

    @property
    def word(self) -> str:
        """Its name in files and messages."""
        return self.name.lower()

    @classmethod
    def parse(cls, word: str) -> Role:
        """Return the role of a name.

        Raises:
            MedsegError: If there is no such role.
        """
        for role in cls:
            if role.word == word:
                return role
        allowed = ", ".join(role.word for role in cls)
        raise MedsegError(
            f"there is no such role; roles are {allowed}", detail=word[:50]
        )


@dataclass(frozen=True, slots=True)
class User:
    """A person who may log in.

    Attributes:
        name: Without blanks and colons.
        secret: The password's argon2 hash.
        role: What the person may do.
    """

    name: str
    secret: str
    role: Role = Role.ANNOTATOR


@dataclass(frozen=True, slots=True)
class _Login:
    """One login of a person: whose, and until when on the monotonic clock."""

    user: User
    expires: float


class Users:
    """The people who may log in.

    Args:
        users: Each of them. Empty: no login is required, which is for loopback only.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        users: Mapping[str, User],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._users = dict(users)
        self._clock = clock
        self._tokens: dict[bytes, _Login] = {}
        self._verified: dict[bytes, _Login] = {}
        self._changing = threading.Lock()
        # What is remembered of passwords is worth nothing outside this process.
        self._key = secrets.token_bytes(32)
        self._no_secret = hash_password(secrets.token_urlsafe(32))

    @property
    def login_required(self) -> bool:
        """Whether people must log in."""
        return bool(self._users)

    def list_names(self) -> list[str]:
        """Return the names of those who may log in, sorted."""
        return sorted(self._users)

    def issue_token(self, user: User) -> str:
        """Return a new token for a person whose password was checked."""
        token = secrets.token_urlsafe(32)
        with self._changing:
            self._end_expired_logins()
            own = [
                digest
                for digest, login in self._tokens.items()
                if login.user == user
            ]
            # One more is about to be added; a dict keeps the order in which they came.
            surplus = max(0, len(own) + 1 - MOST_TOKENS)
            for digest in own[:surplus]:
                del self._tokens[digest]
            expires = self._clock() + TOKEN_SECONDS
            self._tokens[self._digest(token)] = _Login(user, expires)
        return token

    def log_out(self, token: str) -> None:
        """End the login of a token, if it is one."""
        with self._changing:
            self._tokens.pop(self._digest(token), None)

    def find_token(self, token: str) -> User | None:
        """Return the person whose login a token is, or ``None``."""
        # Looked up by a keyed digest, whose comparison tells nothing about the token.
        return self.find_login(self._digest(token).hex())

    def identify_login(self, token: str) -> str | None:
        """Return what names the login of a token, and is no token itself; ``None`` if it ended."""
        if self.find_token(token) is None:
            return None
        return self._digest(token).hex()

    def find_login(self, name: str) -> User | None:
        """Return the person of a login, as ``identify_login`` names it, until it ends."""
        login = self._tokens.get(bytes.fromhex(name))
        if login is None or login.expires <= self._clock():
            return None
        return login.user

    def recall_password(self, name: str, password: str) -> User | None:
        """Return the person, if this password was right a moment ago."""
        login = self._verified.get(self._digest(f"{name}\0{password}"))
        if login is None or login.expires <= self._clock():
            return None
        return login.user

    def check_password(self, name: str, password: str) -> User | None:
        """Return the person with this name and password, or ``None``; takes 50 ms or so."""
        user = self._users.get(name)
        # An unknown name is verified, too, so that it takes as long as a wrong password.
        secret = self._no_secret if user is None else user.secret
        if len(password) > LONGEST_PASSWORD or not _verify(secret, password):
            return None
        if user is None:
            return None
        with self._changing:
            self._end_expired_logins()
            digest = self._digest(f"{name}\0{password}")
            expires = self._clock() + _REMEMBERED_SECONDS
            self._verified[digest] = _Login(user, expires)
        return user

    def _digest(self, text: str) -> bytes:
        return hmac.new(
            self._key, text.encode("utf-8", "replace"), sha256
        ).digest()

    def _end_expired_logins(self) -> None:
        now = self._clock()
        for logins in (self._tokens, self._verified):
            expired = [
                digest
                for digest, login in logins.items()
                if login.expires <= now
            ]
            for digest in expired:
                del logins[digest]


def hash_password(password: str) -> str:
    """Return a password's argon2id hash, with its salt and settings.

    Raises:
        MissingExtraError: If argon2 is not installed.
    """
    try:
        from argon2 import PasswordHasher
    except ImportError as error:
        raise MissingExtraError(
            "passwords are hashed by argon2-cffi, which is not installed; install what medseg "
            "label needs by 'make label'"
        ) from error
    return PasswordHasher().hash(password)


def _verify(secret: str, password: str) -> bool:
    from argon2 import PasswordHasher
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return PasswordHasher().verify(secret, password)
    except (VerificationError, InvalidHashError):
        return False


def parse_basic(value: str) -> tuple[str, str] | None:
    """Return name and password of an ``Authorization: Basic`` header's value."""
    try:
        credentials = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    name, colon, password = credentials.partition(":")
    return (name, password) if colon else None


# --- the file of users --------------------------------------------------------------------


def read_users(file: Path) -> dict[str, User]:
    """Read a file of users: one ``name role: password`` per line; ``#`` begins a comment.

    The password is an argon2 hash, as ``write_user`` makes it, or plain text. Without a role a
    person is an annotator.

    Raises:
        MedsegError: If it cannot be read, others can read it, or a line is wrong.
    """
    users = {}
    for number, line in enumerate(_read_lines(file), start=1):
        if line.strip() and not line.startswith("#"):
            user = _parse_user(line, number, file)
            users[user.name] = user
    if not users:
        raise MedsegError(
            "names no user; add one with: medseg user NAME --users FILE",
            source=file,
        )
    return users


def holds_plain_passwords(file: Path) -> bool:
    """Tell whether a password in a file of users is not hashed."""
    for line in _read_lines(file):
        before, _, secret = line.partition(":")
        is_user = bool(before.strip()) and not line.startswith("#")
        if is_user and not secret.strip().startswith(_HASH_PREFIX):
            return True
    return False


def write_user(file: Path, name: str, password: str, role: Role) -> None:
    """Add a person to a file of users, or give them another password or role.

    The file is made if there is none, readable by its owner alone.

    Raises:
        MedsegError: If the name or the password is none, or the file cannot be read.
        OutputError: If it cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise MedsegError(
            "a user's name has neither blanks nor colons", detail=name[:100]
        )
    _check_password_length(password)
    lines = _read_lines(file) if file.exists() else []
    kept = [line for line in lines if _find_name(line) != name]
    kept.append(f"{name} {role.word}: {hash_password(password)}")
    write_atomically(file, "\n".join([*kept, ""]), mode=0o600)


def _read_lines(file: Path) -> list[str]:
    try:
        is_open_to_others = may_others_read(file)
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MedsegError(
            "the file of users cannot be read; make one with: medseg user NAME --users FILE",
            source=file,
            detail=str(error),
        ) from error
    if is_open_to_others:
        raise MedsegError(
            "others can read this file, which holds passwords; make it yours alone by chmod 600",
            source=file,
        )
    return lines


def _find_name(line: str) -> str:
    words = line.partition(":")[0].split()
    return words[0] if words and not line.startswith("#") else ""


def _parse_user(line: str, number: int, file: Path) -> User:
    before, _, after = line.partition(":")
    name, *words = before.split() or [""]
    secret = after.strip()
    if not _NAME.fullmatch(name) or len(words) > 1:
        raise MedsegError(
            f"line {number} is not 'name role: password'", source=file
        )
    try:
        role = Role.parse(words[0]) if words else Role.ANNOTATOR
        if not secret.startswith(_HASH_PREFIX):
            _check_password_length(secret)
            secret = hash_password(secret)
    except MedsegError as error:
        raise MedsegError(
            f"line {number}: {error.message}", source=file, detail=error.detail
        ) from error
    return User(name, secret, role)


def _check_password_length(password: str) -> None:
    if not MIN_PASSWORD_LENGTH <= len(password) <= LONGEST_PASSWORD:
        raise MedsegError(
            f"a password has at least {MIN_PASSWORD_LENGTH} characters and at most "
            f"{LONGEST_PASSWORD}"
        )


def is_loopback(host: str) -> bool:
    """Tell whether only programs on this machine reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
