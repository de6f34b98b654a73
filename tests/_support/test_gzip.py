"""Gzip streams: known by their first bytes, equal for equal content, damage noticed."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from medseg._support.gzip import (
    BROKEN_STREAM,
    is_gzipped,
    max_inflated_bytes,
    open_gzip_writer,
    open_maybe_gzipped,
)

CONTENT = np.random.default_rng(0).integers(0, 9, 100_000, np.uint8).tobytes()


def read_in_parts(path: Path) -> bytes:
    content = b""
    with open_maybe_gzipped(path) as stream:
        while part := stream.read(1 << 16):
            content += part
    return content


def test_streams_are_known_by_their_first_bytes_whatever_their_name(tmp_path):
    for name, content in (("a.gz", CONTENT), ("b", gzip.compress(CONTENT))):
        (tmp_path / name).write_bytes(content)
        assert read_in_parts(tmp_path / name) == CONTENT
    assert not is_gzipped(tmp_path / "a.gz")
    assert is_gzipped(tmp_path / "b")


def test_written_streams_are_equal_and_name_nobody(tmp_path):
    for name in ("mueller.gz", "other.gz"):
        with (
            (tmp_path / name).open("wb") as file,
            open_gzip_writer(file) as stream,
        ):
            stream.write(CONTENT)
    written = (tmp_path / "mueller.gz").read_bytes()
    assert written == (tmp_path / "other.gz").read_bytes()
    assert gzip.decompress(written) == CONTENT
    assert b"mueller" not in written


def test_no_stream_holds_more_than_is_said_possible(tmp_path):
    zeros = bytes(10_000_000)
    (tmp_path / "zipped").write_bytes(gzip.compress(zeros))
    (tmp_path / "plain").write_bytes(CONTENT)
    assert len(zeros) <= max_inflated_bytes(tmp_path / "zipped")
    assert max_inflated_bytes(tmp_path / "plain") == len(CONTENT)


@pytest.mark.parametrize("damage", ["cut", "checksum", "content"])
def test_damage_raises_one_of_the_errors_that_readers_catch(tmp_path, damage):
    content = bytearray(gzip.compress(CONTENT))
    if damage == "cut":
        content = content[:-100]
    else:
        content[-8 if damage == "checksum" else len(content) // 2] ^= 255
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(BROKEN_STREAM):
        read_in_parts(tmp_path / "a")
