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

from medseg._support.platform.files import open_binary, read_at

_PREFIX_START = 128
_PREFIX = b"DICM"
_META_START = _PREFIX_START + len(_PREFIX)
_CHUNK_BYTES = 1 << 14
_ELEMENT_HEAD_BYTES = 12
_UNDEFINED_LENGTH = 0xFFFFFFFF
_ITEM = 0xFFFEE000
_ITEM_END = 0xFFFEE00D
_SEQUENCE_END = 0xFFFEE0DD
_PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""The elements that hold pixels; the header ends before them."""
_FILE_META_GROUP = b"\x02\x00"
_FIRST_TAG = 0x00080000
_TRANSFER_SYNTAX = 0x00020010
_MAX_DEPTH = 8
_MAX_VALUE_BYTES = 1 << 16
_MAX_CACHED_BYTES = 128
_UNPACK_EXPLICIT = struct.Struct("<HH2sH").unpack_from
_UNPACK_IMPLICIT = struct.Struct("<HHL").unpack_from
_UNPACK_LENGTH = struct.Struct("<L").unpack_from


class _UnusualHeaderError(Exception):
    """The header is unusual, so pydicom has to read it."""


_ElementHead = tuple[int, str | None, int, int]
"""An element's tag and value representation, and where its value begins and how long it is."""

_RawValue = tuple[str | None, bytes | None]
"""A value representation, ``None`` if the file does not say it, and a value's bytes."""


def _list_vrs() -> dict[bytes, tuple[str, bool]]:
    """Return each value representation by its code, and whether its length takes four bytes."""
    vrs = {}
    for vr in VR:
        name = vr.value
        # Longer names are pydicom's own, for choices such as "US or SS".
        if len(name) == 2:
            code = name.encode()
            has_long_length = vr in EXPLICIT_VR_LENGTH_32
            vrs[code] = (name, has_long_length)
    return vrs


_KNOWN_VRS = _list_vrs()


class Elements:
    """Some elements of a header, parsed when they are asked for; reads like pydicom's ``Dataset``.

    Args:
        raw: The elements by tag.
        file_meta: The elements in front of the data set.
    """

    __slots__ = ("_raw", "file_meta")

    def __init__(
        self, raw: Mapping[int, _RawValue], file_meta: Elements | None = None
    ) -> None:
        self._raw = raw
        self.file_meta = self if file_meta is None else file_meta

    def __contains__(self, keyword: str) -> bool:
        return _get_tag(keyword) in self._raw

    def get(self, keyword: str, default: Any = None) -> Any:
        """Return a value as pydicom gives it, or ``default`` if the element is not there."""
        tag = _get_tag(keyword)
        raw = self._raw.get(tag)
        if raw is None:
            return default
        vr, content = raw
        # Long values, such as private text, would only push the common ones out of the cache.
        is_long = content is not None and len(content) > _MAX_CACHED_BYTES
        if is_long:
            return _parse_value(tag, vr, content)
        return _parse_value_once(tag, vr, content)


def read_elements_fast(path: Path, keywords: frozenset[str]) -> Elements | None:
    """Read the named elements that stand before the pixels, if the file is ordinary.

    Returns:
        ``None`` for what is no DICOM, or a DICOM file that pydicom has to read.

    Raises:
        OSError: If the file may not be opened or read.
    """
    # Pipes and devices are never opened: reading one could wait for ever.
    if not path.is_file():
        return None
    wanted = _get_tags(keywords)
    handle = open_binary(path, os.O_RDONLY)
    try:
        reader = _HeaderReader(handle)
        return _read_elements(reader, wanted)
    except _UnusualHeaderError:
        return None
    finally:
        os.close(handle)


def _read_elements(
    reader: _HeaderReader, wanted: frozenset[int]
) -> Elements | None:
    prefix = reader.read_bytes(_PREFIX_START, len(_PREFIX))
    if prefix != _PREFIX:
        return None
    meta, start = reader.read_file_meta()
    _, syntax = meta[_TRANSFER_SYNTAX]
    is_explicit = _is_explicit(syntax or b"")
    looks_explicit = reader.looks_explicit(start)
    if looks_explicit != is_explicit:
        raise _UnusualHeaderError
    raw = {}
    last_tag = _FIRST_TAG - 1
    for head in reader.iterate(start, is_explicit):
        tag, vr, value_start, length = head
        if tag <= last_tag:
            raise _UnusualHeaderError
        last_tag = tag
        if tag in wanted:
            raw[tag] = reader.read_value(tag, vr, value_start, length)
        elif tag in _PIXEL_TAGS:
            break
    file_meta = Elements(meta)
    return Elements(raw, file_meta)


@lru_cache(maxsize=64)
def _is_explicit(syntax: bytes) -> bool:
    unpadded = syntax.rstrip(b"\0 ")
    text = unpadded.decode("ascii", "replace")
    uid = uids.UID(text)
    if not uid.is_transfer_syntax:
        raise _UnusualHeaderError
    if uid == uids.ExplicitVRBigEndian:
        raise _UnusualHeaderError
    if uid == uids.DeflatedExplicitVRLittleEndian:
        raise _UnusualHeaderError
    return bool(uid != uids.ImplicitVRLittleEndian)


class _HeaderReader:
    """Steps from element to element of an open file, reading no more than is passed by.

    Offsets are those of the file. ``_explicit`` and ``_implicit`` run for each of the thousands
    of elements of a series, so they look into the buffer themselves.
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._size = os.fstat(handle).st_size
        self._buffer_start = 0
        self._buffer = os.read(handle, _CHUNK_BYTES)

    def read_bytes(self, start: int, count: int) -> bytes:
        """Return some bytes, fewer where the file ends."""
        offset = start - self._buffer_start
        last_offset = len(self._buffer) - count
        if not 0 <= offset <= last_offset:
            offset = self._fetch(start, count)
        end = offset + count
        return self._buffer[offset:end]

    def read_value(
        self, tag: int, vr: str | None, start: int, length: int
    ) -> _RawValue:
        """Return the value of an element that has no items."""
        value_type = vr or _look_up_vr(tag)
        if length > _MAX_VALUE_BYTES or value_type == "SQ":
            raise _UnusualHeaderError
        if length == 0:
            empty_value = empty_value_for_VR(vr, raw=True)
            return vr, empty_value
        content = self.read_bytes(start, length)
        if len(content) != length:
            raise _UnusualHeaderError
        return vr, content

    def looks_explicit(self, start: int) -> bool:
        """Tell whether the element at an offset names its value representation."""
        vr_start = start + 4
        vr = self.read_bytes(vr_start, 2)
        return vr.isalpha() and vr.isupper() and vr.isascii()

    def read_file_meta(self) -> tuple[dict[int, _RawValue], int]:
        """Return the elements in front of the data set, and where it begins."""
        raw: dict[int, _RawValue] = {}
        start = _META_START
        while self.read_bytes(start, 2) == _FILE_META_GROUP:
            tag, vr, value_start, length = self._explicit(start)
            raw[tag] = self.read_value(tag, vr, value_start, length)
            start = value_start + length
        if _TRANSFER_SYNTAX not in raw:
            raise _UnusualHeaderError
        return raw, start

    def iterate(
        self, start: int, is_explicit: bool, depth: int = 0
    ) -> Iterator[_ElementHead]:
        """Give every element from an offset on, to the end of the file; without their items."""
        read_head = self._explicit if is_explicit else self._implicit
        while start < self._size:
            head = read_head(start)
            yield head
            tag, vr, value_start, length = head
            if length != _UNDEFINED_LENGTH:
                start = value_start + length
                if start > self._size:
                    raise _UnusualHeaderError
                continue
            value_type = vr if is_explicit else _look_up_vr(tag)
            if depth == _MAX_DEPTH or value_type != "SQ":
                raise _UnusualHeaderError
            start = self._skip_items(value_start, is_explicit, depth)

    def _explicit(self, start: int) -> _ElementHead:
        offset = start - self._buffer_start
        last_offset = len(self._buffer) - _ELEMENT_HEAD_BYTES
        if not 0 <= offset <= last_offset:
            offset = self._fetch(start, _ELEMENT_HEAD_BYTES)
        try:
            group, element, vr_code, length = _UNPACK_EXPLICIT(
                self._buffer, offset
            )
            tag = group << 16 | element
            known = _KNOWN_VRS.get(vr_code)
            if known is None:
                if tag == _ITEM_END:
                    return tag, None, start + 8, 0
                raise _UnusualHeaderError
            vr, is_long = known
            if is_long:
                (length,) = _UNPACK_LENGTH(self._buffer, offset + 8)
                return tag, vr, start + _ELEMENT_HEAD_BYTES, length
            return tag, vr, start + 8, length
        except struct.error:
            raise _UnusualHeaderError from None

    def _implicit(self, start: int) -> _ElementHead:
        offset = start - self._buffer_start
        last_offset = len(self._buffer) - _ELEMENT_HEAD_BYTES
        if not 0 <= offset <= last_offset:
            offset = self._fetch(start, _ELEMENT_HEAD_BYTES)
        try:
            group, element, length = _UNPACK_IMPLICIT(self._buffer, offset)
        except struct.error:
            raise _UnusualHeaderError from None
        tag = group << 16 | element
        return tag, None, start + 8, length

    def _skip_items(self, start: int, is_explicit: bool, depth: int) -> int:
        """Return where the items of a sequence of no stated length end."""
        while True:
            tag, _, value_start, length = self._implicit(start)
            if tag == _SEQUENCE_END:
                return value_start
            if tag != _ITEM:
                raise _UnusualHeaderError
            if length == _UNDEFINED_LENGTH:
                start = self._skip_item(value_start, is_explicit, depth)
            else:
                start = value_start + length

    def _skip_item(self, start: int, is_explicit: bool, depth: int) -> int:
        item_depth = depth + 1
        for tag, _, value_start, _ in self.iterate(
            start, is_explicit, item_depth
        ):
            if tag == _ITEM_END:
                return value_start
        raise _UnusualHeaderError

    def _fetch(self, start: int, count: int) -> int:
        """Read the file from an offset on; return where it lies in the buffer."""
        chunk_bytes = max(_CHUNK_BYTES, count)
        self._buffer = read_at(self._handle, chunk_bytes, start)
        self._buffer_start = start
        return 0


@lru_cache(maxsize=512)
def _look_up_vr(tag: int) -> str:
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return ""


@lru_cache(maxsize=512)
def _get_tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"DICOM knows no {keyword}")
    return int(tag)


@lru_cache(maxsize=8)
def _get_tags(keywords: frozenset[str]) -> frozenset[int]:
    tags = [_get_tag(keyword) for keyword in keywords]
    return frozenset(tags)


def _parse_value(tag: int, vr: str | None, content: bytes | None) -> Any:
    base_tag = BaseTag(tag)
    length = len(content or b"")
    is_implicit = vr is None
    raw = RawDataElement(base_tag, vr, length, content, 0, is_implicit, True)
    element = convert_raw_data_element(raw)
    return element.value


_parse_value_once = lru_cache(maxsize=4096)(_parse_value)
