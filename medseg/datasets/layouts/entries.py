"""What every layout becomes. A row says what is listed, not whether it is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.bundle.spec import ChannelSpec
from medseg.datasets.dicom_structures import Structures
from medseg.datasets.mask_files import Masks
from medseg.errors import Fault


@dataclass(frozen=True, slots=True)
class Selection:
    """What a bundle wants of data whose files say what they are.

    Attributes:
        channels: Its channels; none where there is no bundle yet.
        labels: Name → value of its labels; empty for every label there is.
    """

    channels: tuple[ChannelSpec, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ListedCase:
    """One case as a data set lists it.

    Attributes:
        images: The file of each channel, or one file that holds all.
        label: Its label file.
        name: The name the list gives it, if it does.
        fields: What else the list says of it: ``fold``, ``patient``, …; keys in lower case.
        series: The files of each channel, where that is a DICOM series; ``images`` has the first
            of each.
        volume: Which volume of these files it is, where they hold several.
        structures: Its labels, where DICOM objects or several masks hold them; ``label`` is the
            first of these.
    """

    images: tuple[Path, ...]
    label: Path
    name: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    series: tuple[tuple[Path, ...], ...] = ()
    volume: str = ""
    structures: Structures | Masks | None = None


@dataclass(slots=True)
class CaseListing:
    """What a layout found.

    Attributes:
        origin: The list or folder it was found in.
        has_fields: Whether rows of this layout can say more than their files.
        rows: The cases, in the order of the list.
        faults: What is listed and cannot be a case.
        warnings: What a person should know.
        channel_names: What the layout calls the channels, in order; empty where it does not.
        label_names: What the layout calls the values of label files; empty where it does not.
        ignore: The value that it gives voxels which nobody annotated, if it says one.
    """

    origin: Path
    has_fields: bool
    rows: list[ListedCase] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    channel_names: tuple[str, ...] = ()
    label_names: dict[int, str] = field(default_factory=dict)
    ignore: int | None = None
