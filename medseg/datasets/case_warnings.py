"""What is odd about the cases of a data set, in as few lines as a person reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from medseg.datasets.mask_colours import EXACT, EdgeShares, describe_edges
from medseg.names import abbreviate

MOST_ALIKE = 2
"""From more cases than this with the same warning on, one line speaks for all."""


def list_warnings(
    by_case: Mapping[str, Sequence[str]], cases: int
) -> Iterator[str]:
    """Yield a line for each warning, or one for many cases with the same.

    Args:
        by_case: Name of a case → its warnings. What is said of a mask's soft edges becomes one
            line for all, with the share of all voxels and the worst mask.
        cases: How many cases there are.
    """
    edges: dict[str, EdgeShares] = {}
    by_text: dict[str, list[str]] = {}
    for name, warnings in by_case.items():
        for text in warnings:
            shares = EdgeShares.parse(text)
            if shares != EXACT:
                edges[name] = shares
            else:
                by_text.setdefault(text, []).append(name)
    for text, names in by_text.items():
        if len(names) > MOST_ALIKE:
            yield f"{len(names)} of {cases} cases ({abbreviate(names)}): {text}"
        else:
            yield from (f"{name}: {text}" for name in names)
    yield from describe_edges(edges, cases)
