"""What ``metadata.json`` of a MONAI Bundle says of channels, labels and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.interop.monai_bundle.metadata import EXPORTED
from medseg.layouts.channel_names import guess_modality
from medseg.layouts.dataset_json import clean_text

Fields = dict[str, Any]

BACKGROUND = "background"

_KINDS = {"hounsfield": "CT"}
"""What ``format`` says of the modality."""
_UNTOLD = ("image", "")
_MOST_NAME = 200
_APACHE = ("Apache License", "Apache-2.0")
_LICENCES = ("LICENSE", "LICENSE.txt", "LICENCE")
_MOST_LICENCE_BYTES = 100_000


class Metadata:
    """What a bundle says of itself; empty where it says nothing, or nothing that makes sense.

    Args:
        content: Of ``metadata.json``.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content

    @property
    def is_exported(self) -> bool:
        """Whether medseg wrote it, beside the configs of a bundle of its own."""
        changes = self._content.get("changelog")
        return isinstance(changes, dict) and EXPORTED in changes.values()

    def get_text(self, field: str) -> str:
        """Return a field that is text, on one line."""
        return "".join(
            filter(str.isprintable, clean_text(self._content.get(field)))
        )

    def list_texts(self, field: str) -> tuple[str, ...]:
        """Return a field that is a list of texts."""
        listed = self._content.get(field)
        texts = map(clean_text, listed if isinstance(listed, list) else [])
        return tuple(text for text in texts if text)[:100]

    def describe_channels(
        self, count: int, selected: Sequence[int] = ()
    ) -> tuple[Fields, ...]:
        """Return the input channels as a bundle states them.

        Args:
            count: How many the network sees.
            selected: Which they are of those that scans have, if it sees some alone.
        """
        image = self._find("inputs", "image")
        names = _list_names(image, count, selected)
        stated = clean_text(image.get("modality")).upper()
        kind = _KINDS.get(clean_text(image.get("format")).lower())
        modality = guess_modality(stated) or kind
        channels = []
        for number, name in enumerate(names):
            own = modality or guess_modality(name)
            if name.lower() in _UNTOLD:
                name = own or "image"
                name += f" {number + 1}" if count > 1 else ""
            channels.append({"name": name, "modality": own or "OT"})
        distinct = make_distinct([channel["name"] for channel in channels])
        for channel, name in zip(channels, distinct, strict=True):
            channel["name"] = name
        return tuple(channels)

    def name_outputs(self, count: int) -> tuple[str, ...]:
        """Return the names of the output channels, ``label 1`` where they are not told."""
        names = _list_names(self._find("outputs", "pred"), count)
        told = [name or f"label {number}" for number, name in enumerate(names)]
        return make_distinct(told)

    def _find(self, side: str, key: str) -> Mapping[str, Any]:
        found: Any = self._content
        for name in ("network_data_format", side, key):
            found = found.get(name) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}


def make_distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of which none repeats another, whatever its case, and none is ``mean``."""
    seen = {"mean"}
    distinct = []
    for name in names:
        told, number = name, 1
        while told.lower() in seen:
            number += 1
            told = f"{name} {number}"
        seen.add(told.lower())
        distinct.append(told)
    return tuple(distinct)


def find_licence(folder: Path) -> str:
    """Return the licence that a folder's own file of that name holds; empty if it is not known."""
    title, name = _APACHE
    for file in (folder / licence for licence in _LICENCES):
        if file.is_file() and file.stat().st_size <= _MOST_LICENCE_BYTES:
            text = file.read_text(encoding="utf-8", errors="replace")
            return name if title in text[:_MOST_NAME] else ""
    return ""


def _list_names(
    entry: Mapping[str, Any], count: int, selected: Sequence[int] = ()
) -> list[str]:
    """Return a name for each channel; empty where none is told, or other numbers of them are.

    Args:
        entry: Of the metadata.
        count: How many channels there are.
        selected: Which they are, where more may be told of.
    """
    for field in ("channel_def", "label_def"):
        told = entry.get(field)
        if not isinstance(told, dict):
            continue
        numbers: Sequence[int] = range(count)
        if selected and len(told) > max(selected):
            numbers = selected
        elif len(told) != count:
            continue
        names = [clean_text(told.get(str(number))) for number in numbers]
        return [_to_name(name) for name in names]
    return [""] * count


def _to_name(text: str) -> str:
    return "".join(filter(str.isprintable, text))[:_MOST_NAME].strip()
