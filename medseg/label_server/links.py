"""``Links``: addresses by which one person fetches one file, for a while, without a header.

3D Slicer logs in and asks for the next case under its login; but it fetches the case's image from
an address that it makes itself of the case's ``id``, without a header. So the ``id`` that it is
answered ends in a token, which the gateway takes off again wherever a case is named:

    /datastore/image?image=case_1&token=…       as written out
    /datastore/image?image=case_1%26token%3D…   as Slicer quotes the id

A token is good for one method, one path, one case and one login, and ends with that login.
"""

from __future__ import annotations

import contextvars
import hmac
import re
import secrets
import time
from collections.abc import Callable
from hashlib import sha256
from urllib.parse import parse_qsl, urlencode

from medseg.label_server.users import User, Users

LINK_SECONDS = 600.0
"""How long a link can be used: a viewer follows it at once."""
LINKED_METHOD = "GET"
LINKED_PATH = "/datastore/image"

_TOKEN = r"[0-9a-f]{1,16}\.[0-9a-f]{64}\.[0-9a-f]{64}"
_LINKED_NAME = re.compile(rf"(.*)&token=({_TOKEN})", re.DOTALL)
_NAMES_OF_CASES = frozenset({"image", "label", "id"})


def _leave(case: str) -> str:
    return case


NAME_FOR_VIEWER: contextvars.ContextVar[Callable[[str], str]] = (
    contextvars.ContextVar("name for viewer", default=_leave)
)
"""Makes of a case's name the ``id`` that the person who asks is answered; set by the gateway."""


class Links:
    """Makes and recognises the tokens of links.

    Args:
        users: Who may log in.
        clock: Seconds that never go back.
    """

    def __init__(
        self, users: Users, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._users = users
        self._clock = clock
        self._key = secrets.token_bytes(32)

    def add_token(self, login: str, case: str) -> str:
        """Return a case's name with the token of a link to its image.

        Args:
            login: The login of the person who may use it, as ``Users.identify_login`` names it.
            case: The case.
        """
        expires = f"{int(self._clock() + LINK_SECONDS):x}"
        return (
            f"{case}&token={expires}.{login}.{self._sign(expires, login, case)}"
        )

    def find_user(self, token: str, case: str) -> User | None:
        """Return the person for whom a link to a case's image was made, while it is good."""
        if not re.fullmatch(_TOKEN, token):
            return None
        expires, login, signature = token.split(".")
        expected = self._sign(expires, login, case)
        if not hmac.compare_digest(signature, expected):
            return None
        if int(expires, 16) <= self._clock():
            return None
        return self._users.find_login(login)

    def _sign(self, expires: str, login: str, case: str) -> str:
        # None of the parts before the case has a blank.
        text = f"{LINKED_METHOD} {LINKED_PATH} {expires} {login} {case}"
        signed = text.encode("utf-8", "surrogatepass")
        return hmac.new(self._key, signed, sha256).hexdigest()


def take_token(query: str) -> tuple[str, str]:
    """Return a query without a link's token, and that token; it is empty if there is none."""
    token = ""
    kept = []
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key == "token":
            token = value
            continue
        match = _LINKED_NAME.fullmatch(value)
        if key in _NAMES_OF_CASES and match is not None:
            value, token = match.groups()
        kept.append((key, value))
    return (urlencode(kept), token) if token else (query, "")


def find_linked_case(method: str, path: str, query: str) -> str | None:
    """Return the case whose image a request asks for, as a link does; ``None`` if it does not."""
    parameters = parse_qsl(query, keep_blank_values=True)
    if (method, path) != (LINKED_METHOD, LINKED_PATH) or len(parameters) != 1:
        return None
    ((key, case),) = parameters
    return case if key == "image" else None
