"""The labels of a data set by what its masks hold: merged, named, ignored, left out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medseg.datasets.mask_codes import pack
from medseg.labels import Code
from medseg.names import abbreviate
from medseg.planning.constraints import Notes
from medseg.planning.label_requests import LabelRequest

Fields = dict[str, Any]
"""A label or section as ``bundle.json`` writes it."""

_MOST_CHARACTERS = 4000
"""That a note may have."""


@dataclass(frozen=True, slots=True)
class LabelWishes:
    """What a person asks of labels.

    Attributes:
        requests: Structures, and the values or colours that mean them.
        stray_voxels: Values with so many voxels at most, in all masks together, are left out.
    """

    requests: tuple[LabelRequest, ...] = ()
    stray_voxels: int = 0

    def __bool__(self) -> bool:
        return bool(self.requests or self.stray_voxels)


NO_WISHES = LabelWishes()
"""Nothing is asked."""


@dataclass(frozen=True, slots=True)
class MaskLabels:
    """How label files show labels.

    Attributes:
        labels: The labels as the bundle has them.
        background: Codes that count as background, besides 0 and black.
        ignore: Codes of what nobody annotated.
        colour_coded: Whether label pictures hold colours.
        remarks: Why, for the bundle's notes.
        strays: What was left out because a person asked for it; names cases.
    """

    labels: tuple[Fields, ...]
    background: tuple[Code, ...]
    ignore: tuple[Code, ...]
    colour_coded: bool
    remarks: tuple[str, ...]
    strays: tuple[str, ...] = ()

    @property
    def names(self) -> dict[int, str]:
        """Number under which a fingerprint counts a label → its name."""
        return {find_key(label): label["name"] for label in self.labels}

    def keep(self, keys: Collection[int]) -> MaskLabels:
        """Return the labels that a fingerprint counts under some numbers, numbered anew."""
        kept: list[Fields] = []
        absent = []
        for label in self.labels:
            if find_key(label) in keys:
                kept.append(label | {"index": len(kept) + 1})
            else:
                absent.append(label["name"])
        if not absent:
            return self
        remark = f"No case that can be used has {abbreviate(absent)}; left out"
        remarks = (*self.remarks, remark)
        return replace(self, labels=tuple(kept), remarks=remarks)

    def describe(self, notes: Notes) -> list[Fields]:
        """Return the labels as the bundle has them; the reasons go into its notes."""
        if self.remarks:
            notes["labels"] = ". ".join(self.remarks)[:_MOST_CHARACTERS]
        return list(self.labels)

    def list_data_fields(self) -> Fields:
        """Return what the bundle's section ``data`` says of label files."""
        fields: Fields = {}
        if self.ignore:
            only, *others = self.ignore
            is_one_value = isinstance(only, int) and not others
            fields["ignore"] = (
                only if is_one_value else write_codes(self.ignore)
            )
        if self.background:
            fields["background"] = write_codes(self.background)
        if self.colour_coded:
            fields["colour_coded"] = True
        return fields


def write_codes(codes: Sequence[Code]) -> list[Any]:
    """Return values, and colours as lists."""
    return [code if isinstance(code, int) else list(code) for code in codes]


def find_key(label: Fields) -> int:
    """Return the number under which a fingerprint counts a label of a bundle."""
    if "value" in label:
        value = label["value"]
        return int(value[0] if isinstance(value, list) else value)
    if "colour" not in label:
        return int(label["index"])
    colour = label["colour"]
    if isinstance(colour[0], list):
        colour = colour[0]
    return int(pack(colour))
