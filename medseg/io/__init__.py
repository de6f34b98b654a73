"""Images on disk ↔ volumes: one contract (``formats.py``), one reader per kind of file.

``read_image`` and ``read_labels`` find the reader; training and batch inference use the same
ones. Packages add formats through ``registry.py``. Names are loaded when first used, since the
readers' libraries take longer to import than most commands.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.io.dicom.series import Series, SkippedFile
    from medseg.io.dicom.series_search import find_series, group_series
    from medseg.io.formats import Format
    from medseg.io.images import (
        Files,
        read_image,
        read_labels,
        stack_channels,
        with_channels,
        write_labels,
    )
    from medseg.io.registry import (
        IMAGE_FORMATS,
        find_format,
        find_label_format,
        list_label_suffixes,
        list_picture_suffixes,
        list_readable_suffixes,
    )

_HOMES = {
    "Files": "medseg.io.images",
    "Format": "medseg.io.formats",
    "IMAGE_FORMATS": "medseg.io.registry",
    "Series": "medseg.io.dicom.series",
    "SkippedFile": "medseg.io.dicom.series",
    "find_format": "medseg.io.registry",
    "find_label_format": "medseg.io.registry",
    "find_series": "medseg.io.dicom.series_search",
    "group_series": "medseg.io.dicom.series_search",
    "list_label_suffixes": "medseg.io.registry",
    "list_picture_suffixes": "medseg.io.registry",
    "list_readable_suffixes": "medseg.io.registry",
    "read_image": "medseg.io.images",
    "read_labels": "medseg.io.images",
    "stack_channels": "medseg.io.images",
    "with_channels": "medseg.io.images",
    "write_labels": "medseg.io.images",
}
"""Name → the module that it is loaded from."""

__all__ = [
    "IMAGE_FORMATS",
    "Files",
    "Format",
    "Series",
    "SkippedFile",
    "find_format",
    "find_label_format",
    "find_series",
    "group_series",
    "list_label_suffixes",
    "list_picture_suffixes",
    "list_readable_suffixes",
    "read_image",
    "read_labels",
    "stack_channels",
    "with_channels",
    "write_labels",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'medseg.io' has no attribute '{name}'")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
