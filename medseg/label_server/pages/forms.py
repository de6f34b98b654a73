"""``FormKeys``: each form of medseg's pages holds a key, without which it changes nothing.

Browsers send a person's login along with whatever page makes them send a request. The gateway
refuses requests of other sites by their ``Origin``; the key holds where a browser sends none.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from hashlib import sha256

from medseg.label_server.request_checks import RefusedError

KEY_FIELD = "form_key"
LONGEST_FIELD = 4000

_ALLOWED = str.maketrans("", "", "\n\t\xa0\u2009\u202f\u3000\u200c\u200d")
"""What Python does not count as printable, and is text: blanks, and what joins or parts letters."""


class FormKeys:
    """Makes and checks the keys of forms; they hold until the server ends."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def make(self, person: str) -> str:
        """Return the key for a person's forms."""
        return hmac.new(self._secret, person.encode(), sha256).hexdigest()

    def check(self, person: str, fields: Mapping[str, str]) -> None:
        """Refuse a form that this server has not made for this person.

        Raises:
            RefusedError: If it is not.
        """
        key = fields.get(KEY_FIELD, "")
        if not hmac.compare_digest(key.encode(), self.make(person).encode()):
            raise RefusedError(
                403,
                "this form is not from a page of this server, or the server was started anew; "
                "reload the page and send it again",
            )


def read_field(fields: Mapping[str, str], name: str) -> str:
    """Return a field of a form, without blanks around it.

    Raises:
        RefusedError: If it is too long or holds what is no text.
    """
    text = fields.get(name, "").replace("\r\n", "\n").strip()
    if len(text) > LONGEST_FIELD:
        raise RefusedError(400, f"'{name}' may have {LONGEST_FIELD} characters")
    if not text.translate(_ALLOWED).isprintable():
        raise RefusedError(400, f"'{name}' holds signs that are no text")
    return text
