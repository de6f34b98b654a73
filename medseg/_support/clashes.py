"""Texts that come more than once among very many, found without holding them all."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Set

HASH_BITS = (1 << 64) - 1


def find_clashes(texts: Callable[[], Iterable[str]]) -> Set[str]:
    """Return the texts that come more than once; 10⁶ others take 16 MB meanwhile.

    Args:
        texts: Gives them, the same ones as often as it is asked.
    """
    hashes = array("Q")
    for text in texts():
        hashes.append(hash(text) & HASH_BITS)
    # Two texts may share a hash, though hardly ever.
    suspects = find_doubled(hashes)
    if not suspects:
        return frozenset()
    counts: Counter[str] = Counter()
    for text in texts():
        if hash(text) & HASH_BITS in suspects:
            counts[text] += 1
    return {text for text, count in counts.items() if count > 1}


def find_doubled(hashes: array[int]) -> Set[int]:
    """Return the values that come more than once."""
    import numpy as np

    ordered = np.sort(np.frombuffer(hashes, dtype=np.uint64))
    is_repeated = ordered[1:] == ordered[:-1]
    return frozenset(ordered[1:][is_repeated].tolist())
