"""Forms that only the server's own pages can send."""

from __future__ import annotations

import pytest

from medseg.label_server.pages.forms import KEY_FIELD, FormKeys, read_field
from medseg.label_server.request_checks import RefusedError


def test_a_key_holds_for_one_person_and_one_server() -> None:
    keys = FormKeys()
    key = keys.make("anna")
    keys.check("anna", {KEY_FIELD: key})
    for person, sent in (("ben", key), ("anna", ""), ("anna", "é")):
        with pytest.raises(RefusedError, match="reload the page"):
            keys.check(person, {KEY_FIELD: sent})
    with pytest.raises(RefusedError):
        FormKeys().check("anna", {KEY_FIELD: key})


def test_a_field_is_text_of_a_bounded_length() -> None:
    assert read_field({"a": " x\r\ny "}, "a") == "x\ny"
    assert read_field({}, "a") == ""
    for text in ("5\xa0mm\tà\u202f?", "肝\u3000右", "می\u200cخواهم"):
        assert read_field({"a": text}, "a") == text
    for text in ("x" * 5000, "a\0b", "\x1b[2J", "a\u202eb"):
        with pytest.raises(RefusedError):
            read_field({"a": text}, "a")
