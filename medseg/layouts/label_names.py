"""Labels that files hold by name: which of them a bundle wants, and their values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from medseg.errors import DatasetError
from medseg.layouts.contract import CaseListing
from medseg.names import abbreviate

_MOST_NAMED = 20


def normalize_name(name: str) -> str:
    """Return a label's name as names are compared: capitals do not count."""
    return name.strip().casefold()


def find_known(
    names: Iterable[str], wanted: Mapping[str, int]
) -> dict[str, int]:
    """Return name → value of those names that a bundle has.

    Args:
        names: As files call their labels.
        wanted: Name → value of the bundle's labels.
    """
    known = {normalize_name(name): value for name, value in wanted.items()}
    values = {}
    for name in names:
        value = known.get(normalize_name(name))
        if value is not None:
            values[name] = value
    return values


def number_names(
    names: Sequence[str], label_names: Mapping[int, str]
) -> dict[str, int]:
    """Give each name a value; names that differ in capitals alone have the same.

    Args:
        names: As files call their labels.
        label_names: Value → name, where some names have a value already. Others get the next
            free one.
    """
    known = {normalize_name(name): value for value, name in label_names.items()}
    values = {}
    for name in names:
        plain = normalize_name(name)
        if plain not in known:
            known[plain] = max(known.values(), default=0) + 1
        values[name] = known[plain]
    return values


def select_labels(
    names: Sequence[str],
    wanted: Mapping[str, int],
    listing: CaseListing,
    kind: str,
) -> dict[str, int]:
    """Return the labels to take, name → value; those that the bundle does not name are warned of.

    Args:
        names: As files call their labels.
        wanted: Name → value of the bundle's labels.
        listing: Takes the warning.
        kind: What holds a label, such as ``mask``.

    Raises:
        DatasetError: If the bundle names none of them.
    """
    values = find_known(names, wanted)
    unnamed = [name for name in names if name not in values]
    if not values:
        raise DatasetError(
            f"holds no {kind} with the name of one of the bundle's labels ({abbreviate(wanted)})",
            source=listing.origin,
            detail=f"those there are {abbreviate(unnamed, _MOST_NAMED)}",
        )
    if unnamed:
        listing.warnings.append(
            f"{kind}s that the bundle does not name count as background: {abbreviate(unnamed)}"
        )
    return values
