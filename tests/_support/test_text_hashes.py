"""Texts are known again by their hashes."""

from __future__ import annotations

from medseg._support.text_hashes import TextHashes


def test_what_was_added_is_known_and_nothing_else() -> None:
    texts = TextHashes()
    assert not texts
    assert "a" not in texts
    for number in range(100):
        texts.add(f"\udc80{number}")
    assert len(texts) == 100
    assert all(f"\udc80{number}" in texts for number in range(100))
    assert not any(f"{number}" in texts for number in range(100))
    texts.add("more")
    assert "more" in texts
    assert "\udc8099" in texts
