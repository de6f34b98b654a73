"""Masks of structures, one file each: the values they get, and the label map they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from medseg.errors import ScanError
from medseg.layouts.contract import CaseListing
from medseg.layouts.label_names import number_names, select_labels
from medseg.layouts.mask_files import MaskFiles
from medseg.names import abbreviate, fold_name

OVERLAP_RULE = (
    "where masks overlap, a voxel is of the structure with the fewest voxels"
)


def choose_structures(
    names: Iterable[str], wanted: Mapping[str, int], listing: CaseListing
) -> Mapping[str, int]:
    """Return name → value of the structures to take; all, numbered by name, without a bundle.

    Args:
        names: Of all cases' masks.
        wanted: Name → value of the bundle's labels; empty where there is no bundle yet.
        listing: Takes the names, and a warning of structures that the bundle does not name.

    Raises:
        DatasetError: If the bundle names none of them.
    """
    ordered = sorted({*names}, key=lambda name: (fold_name(name), name))
    if not ordered:
        return {}
    if wanted:
        return select_labels(
            ordered,
            wanted,
            listing,
            "mask",
        )
    values = number_names(ordered, {})
    for name, value in values.items():
        listing.label_names.setdefault(value, name)
    count = len({*values.values()})
    listing.recognised += (f"{count} structures; {OVERLAP_RULE}",)
    return values


def join_structures(
    masks: Mapping[str, Path], values: Mapping[str, int]
) -> MaskFiles:
    """Return the masks of a case as one label map; a structure without a file is absent.

    Args:
        masks: File of each structure, by name.
        values: Name → value of the structures to take.

    Raises:
        ScanError: If none of the masks is one to take.
    """
    taken = [(masks[name], name) for name in sorted(masks) if name in values]
    if not taken:
        names = abbreviate(sorted(masks))
        raise ScanError(
            "has no mask of the labels", detail=f"its masks are {names}"
        )
    taken_values = {name: values[name] for _, name in taken}
    return MaskFiles(
        tuple(taken),
        taken_values,
        smaller_wins=True,
    )


def warn_of_missing_masks(
    values: Mapping[str, int], listing: CaseListing
) -> None:
    """Say which structures have no mask in some cases, where there are masks at all."""
    held: Counter[int] = Counter()
    for case in listing.cases:
        source = case.label_source
        if isinstance(source, MaskFiles):
            held.update({*source.values.values()})
    lacking = []
    for name, value in values.items():
        absent = len(listing.cases) - held[value]
        if absent:
            lacking.append(f"{name} in {absent}")
    if lacking:
        listing.warnings.append(
            f"cases without the mask of a structure, of {len(listing.cases)}, count as having none "
            f"of it: {abbreviate(lacking)}"
        )
