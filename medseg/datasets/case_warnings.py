"""What is odd about the cases of a data set, in as few lines as a person reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from medseg.datasets.mask_colours import EXACT, EdgeShares, describe_edges
from medseg.errors import MOST_ALIKE, find_kind, join_figures
from medseg.names import abbreviate


def list_warnings(
    by_case: Mapping[str, Sequence[str]], cases: int
) -> Iterator[str]:
    """Yield a line for each warning, or one for many cases with the same.

    Warnings that differ in their figures alone are the same; of each figure the least and the
    greatest are shown.

    Args:
        by_case: Name of a case → its warnings. What is said of a mask's soft edges becomes one
            line for all, with the share of all voxels and the worst mask.
        cases: How many cases there are.
    """
    edges: dict[str, EdgeShares] = {}
    by_kind: dict[str, list[tuple[str, str]]] = {}
    for name, warnings in by_case.items():
        for text in warnings:
            shares = EdgeShares.parse(text)
            if shares != EXACT:
                edges[name] = shares
                continue
            by_kind.setdefault(find_kind(text), []).append((name, text))
    for warned in by_kind.values():
        yield from _describe_kind(warned, cases)
    yield from describe_edges(edges, cases)


def _describe_kind(
    warned: Sequence[tuple[str, str]], cases: int
) -> Iterator[str]:
    """Yield the lines for one kind of warning: names of cases and its text."""
    names = list(dict.fromkeys(name for name, _ in warned))
    if len(names) <= MOST_ALIKE:
        yield from (f"{name}: {text}" for name, text in warned)
        return
    shown = join_figures([text for _, text in warned])
    yield f"{len(names)} of {cases} cases ({abbreviate(names)}): {shown}"
