"""The quick way through an ordinary DICOM header: what was asked for, each value parsed once.

The files of a series say nearly the same, so values that came before are not parsed again, and
what was not asked for is stepped over. pydicom parses the values, and reads every file that is
not quite ordinary: deflated, without a preamble, with functional groups, or odd in any way.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydicom import uid as uids
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR
from pydicom.values import empty_value_for_VR

_START = 132
_CHUNK = 1 << 14
_HEAD = 12
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""The elements that hold pixels; the header ends before them."""
_FILE_META_GROUP = b"\x02\x00"
_DATASET_START = 0x00080000
_SYNTAX = 0x00020010
_DEEPEST = 8
_LONGEST = 1 << 16
_KEPT_BYTES = 128
_KNOWN = {
    vr.value.encode(): (vr.value, vr in EXPLICIT_VR_LENGTH_32) for vr in VR if len(vr.value) == 2
}
_EXPLICIT = struct.Struct("<HH2sH").unpack_from
_IMPLICIT = struct.Struct("<HHL").unpack_from
_LENGTH = struct.Struct("<L").unpack_from


class _OddError(Exception):
    """Something that pydicom is to judge."""


_Place = tuple[int, str | None, int, int]
"""An element's tag and value representation, and where its value begins and how long it is."""

_Raw = tuple[str | None, bytes | None]
"""A value representation, ``None`` if the file does not say it, and a value's bytes."""


class Elements:
    """Some elements of a header, parsed when they are asked for; reads like pydicom's ``Dataset``.

    Args:
        raw: The elements by tag.
        file_meta: The elements in front of the data set.
    """

    __slots__ = ("_raw", "file_meta")

    def __init__(self, raw: Mapping[int, _Raw], file_meta: Elements | None = None) -> None:
        self._raw = raw
        self.file_meta = self if file_meta is None else file_meta

    def __contains__(self, keyword: str) -> bool:
        return _tag(keyword) in self._raw

    def get(self, keyword: str, default: Any = None) -> Any:
        """Return a value as pydicom gives it, or ``default`` if the element is not there."""
        tag = _tag(keyword)
        found = self._raw.get(tag)
        if found is None:
            return default
        vr, content = found
        if content is not None and len(content) > _KEPT_BYTES:
            return _parsed(tag, vr, content)
        return _value(tag, vr, content)


def read_elements_fast(path: Path, tags: frozenset[str]) -> Elements | None:
    """Read the named elements that stand before the pixels, if the file is ordinary.

    Returns:
        ``None`` for what is no DICOM, or a DICOM file that pydicom has to look at.

    Raises:
        OSError: If the file may not be opened or read.
    """
    # Pipes and devices are never opened: reading one could wait for ever.
    if not path.is_file():
        return None
    handle = os.open(path, os.O_RDONLY)
    try:
        return _elements(_Walk(handle), _tags(tags))
    except _OddError:
        return None
    finally:
        os.close(handle)


def _elements(walk: _Walk, wanted: frozenset[int]) -> Elements | None:
    if walk.bytes_at(_START - 4, 4) != b"DICM":
        return None
    meta, start = walk.file_meta()
    explicit = _is_explicit(meta[_SYNTAX][1] or b"")
    if walk.looks_explicit(start) != explicit:
        raise _OddError
    raw = {}
    last = _DATASET_START - 1
    for tag, vr, at, length in walk.places(start, explicit):
        if tag <= last:
            raise _OddError
        last = tag
        if tag in wanted:
            raw[tag] = walk.value(tag, vr, at, length)
        elif tag in _PIXELS:
            break
    return Elements(raw, Elements(meta))


@lru_cache(maxsize=64)
def _is_explicit(syntax: bytes) -> bool:
    uid = uids.UID(syntax.rstrip(b"\0 ").decode("ascii", "replace"))
    if not uid.is_transfer_syntax or uid in (
        uids.ExplicitVRBigEndian,
        uids.DeflatedExplicitVRLittleEndian,
    ):
        raise _OddError
    return bool(uid != uids.ImplicitVRLittleEndian)


class _Walk:
    """Steps from element to element of an open file, reading no more than is passed by."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._size = os.fstat(handle).st_size
        self._base = 0
        self._buffer = os.read(handle, _CHUNK)

    def bytes_at(self, at: int, count: int) -> bytes:
        """Return some bytes, fewer where the file ends."""
        offset = at - self._base
        if not 0 <= offset <= len(self._buffer) - count:
            offset = self._fetch(at, count)
        return self._buffer[offset : offset + count]

    def value(self, tag: int, vr: str | None, at: int, length: int) -> _Raw:
        """Return an element that has no items."""
        if length > _LONGEST or (vr or _known_vr(tag)) == "SQ":
            raise _OddError
        content = self.bytes_at(at, length) if length else empty_value_for_VR(vr, raw=True)
        if length and len(content) != length:
            raise _OddError
        return vr, content

    def looks_explicit(self, at: int) -> bool:
        """Tell whether the element at a place names its value representation."""
        vr = self.bytes_at(at + 4, 2)
        return vr.isalpha() and vr.isupper() and vr.isascii()

    def file_meta(self) -> tuple[dict[int, _Raw], int]:
        """Return the elements in front of the data set, and where it begins."""
        raw: dict[int, _Raw] = {}
        at = _START
        while self.bytes_at(at, 2) == _FILE_META_GROUP:
            tag, vr, at, length = self._explicit(at)
            raw[tag] = self.value(tag, vr, at, length)
            at += length
        if _SYNTAX not in raw:
            raise _OddError
        return raw, at

    def places(self, at: int, explicit: bool, depth: int = 0) -> Iterator[_Place]:
        """Give every element from a place on, to the end of the file; without their items."""
        read = self._explicit if explicit else self._implicit
        while at < self._size:
            place = read(at)
            yield place
            tag, vr, at, length = place
            if length == _UNDEFINED:
                if depth == _DEEPEST or (vr if explicit else _known_vr(tag)) != "SQ":
                    raise _OddError
                at = self._behind_items(at, explicit, depth)
            else:
                at += length
                if at > self._size:
                    raise _OddError

    def _explicit(self, at: int) -> _Place:
        offset = at - self._base
        if not 0 <= offset <= len(self._buffer) - _HEAD:
            offset = self._fetch(at, _HEAD)
        try:
            group, element, name, length = _EXPLICIT(self._buffer, offset)
            tag = group << 16 | element
            known = _KNOWN.get(name)
            if known is None:
                if tag == _ITEM_END:
                    return tag, None, at + 8, 0
                raise _OddError
            vr, is_long = known
            if is_long:
                return tag, vr, at + _HEAD, _LENGTH(self._buffer, offset + 8)[0]
            return tag, vr, at + 8, length
        except struct.error:
            raise _OddError from None

    def _implicit(self, at: int) -> _Place:
        offset = at - self._base
        if not 0 <= offset <= len(self._buffer) - _HEAD:
            offset = self._fetch(at, _HEAD)
        try:
            group, element, length = _IMPLICIT(self._buffer, offset)
        except struct.error:
            raise _OddError from None
        return group << 16 | element, None, at + 8, length

    def _behind_items(self, at: int, explicit: bool, depth: int) -> int:
        """Return where the items of a sequence of no stated length end."""
        while True:
            tag, _, at, length = self._implicit(at)
            if tag == _SEQUENCE_END:
                return at
            if tag != _ITEM:
                raise _OddError
            stated = length != _UNDEFINED
            at = at + length if stated else self._behind_item(at, explicit, depth)

    def _behind_item(self, at: int, explicit: bool, depth: int) -> int:
        for tag, _, start, _ in self.places(at, explicit, depth + 1):
            if tag == _ITEM_END:
                return start
        raise _OddError

    def _fetch(self, at: int, count: int) -> int:
        """Read the file from a place on; return where the place lies in the buffer."""
        self._buffer = os.pread(self._handle, max(_CHUNK, count), at)
        self._base = at
        return 0


@lru_cache(maxsize=512)
def _known_vr(tag: int) -> str:
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return ""


@lru_cache(maxsize=512)
def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"DICOM knows no {keyword}")
    return int(tag)


@lru_cache(maxsize=8)
def _tags(keywords: frozenset[str]) -> frozenset[int]:
    return frozenset(_tag(keyword) for keyword in keywords)


def _parsed(tag: int, vr: str | None, content: bytes | None) -> Any:
    length = len(content or b"")
    raw = RawDataElement(BaseTag(tag), vr, length, content, 0, vr is None, True)
    return convert_raw_data_element(raw).value


_value = lru_cache(maxsize=4096)(_parsed)
