"""Very many texts of which only hashes are held."""

from __future__ import annotations

from array import array
from bisect import bisect_left

from medseg._support.clashes import HASH_BITS


class TextHashes:
    """Texts that can be told from others; 10⁶ take 8 MB.

    First all are added, then they are asked for. That one of ten million others is taken for one
    of a million happens in one of two million searches.
    """

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._is_sorted = True

    def add(self, text: str) -> None:
        """Add a text."""
        self._hashes.append(hash(text) & HASH_BITS)
        self._is_sorted = False

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, text: str) -> bool:
        if not self._is_sorted:
            self._sort()
        wanted = hash(text) & HASH_BITS
        place = bisect_left(self._hashes, wanted)
        return place < len(self) and self._hashes[place] == wanted

    def _sort(self) -> None:
        import numpy as np

        np.frombuffer(self._hashes, dtype=np.uint64).sort()
        self._is_sorted = True
