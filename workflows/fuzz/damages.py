"""What happens to files: kinds of damage that apply to any, and to those of one format."""

from __future__ import annotations

import gzip
import os
import re
import struct
import zlib
from collections.abc import Callable

import nibabel as nib
import numpy as np
from dicom_damages import DICOM_DAMAGES, SERIES_DAMAGES
from pydicom import config
from sound_files import Sound, pick_file
from text_damages import CSV_DAMAGES, JSON_DAMAGES

Random = np.random.Generator
Damage = Callable[[Sound, Random], None]

_HEADER_BYTES = 400
_SUFFIXES = ".nii .nii.gz .nrrd .nhdr .mha .mhd .png .tif .jpg .dcm .hdr .img .json .csv .txt .mgz"
_INTEGERS = (0, -1, 1, 2, 3, 255, 32767, -32768, 65535, 2**31 - 1, -(2**31))
_REALS = (0.0, -1.0, 1e-9, 1e9, 1e38, np.nan, np.inf, 1e-3, 1e3)
_SHORT_WORDS = ["0", "-1", "1e400", "nan", "inf", "abc", "1.5"]
_LONG_WORDS = ["\x00", "%s", "../../etc/passwd", "é", "-"]
_WORDS = ("", *_SHORT_WORDS, "9" * 400, *_LONG_WORDS, "1 2 3 4 5")


def damage(sound: Sound, random: Random) -> str:
    """Damage a sound file in place.

    Returns:
        The kind of damage.
    """
    own = OWN_DAMAGES.get(sound.kind, {})
    use_own = own and random.random() < 0.6
    kinds = own if use_own else BYTE_DAMAGES
    name = str(random.choice(sorted(kinds)))
    try:
        # Values are wrong on purpose.
        with config.disable_value_validation():
            kinds[name](sound, random)
    except Exception:  # noqa: BLE001 - it does not fit this file
        name = "truncated"
        BYTE_DAMAGES[name](sound, random)
    return name


# --- any file -----------------------------------------------------------------------------


def _change_bytes(
    change: Callable[[bytearray, Random], bytearray | bytes],
) -> Damage:
    def apply(sound: Sound, random: Random) -> None:
        file = pick_file(sound, random)
        changed = change(bytearray(file.read_bytes()), random)
        file.write_bytes(bytes(changed))

    return apply


def _flip(content: bytearray, random: Random, first: int, last: int) -> bytes:
    if last <= first:
        return bytes(content)
    for _ in range(int(random.integers(1, 9))):
        place = int(random.integers(first, last))
        content[place] ^= 1 << int(random.integers(8))
    return bytes(content)


def _flip_header(content: bytearray, random: Random) -> bytes:
    return _flip(content, random, 0, min(_HEADER_BYTES, len(content)))


def _flip_payload(content: bytearray, random: Random) -> bytes:
    return _flip(
        content, random, min(_HEADER_BYTES, len(content)), len(content)
    )


def _truncate(content: bytearray, random: Random) -> bytearray:
    return content[: int(random.integers(0, len(content) + 1))]


def _cut_tail(content: bytearray, random: Random) -> bytearray:
    return content[: -int(random.integers(1, 40))]


def _zero_block(content: bytearray, random: Random) -> bytearray:
    start = int(random.integers(len(content)))
    size = len(content[start : start + int(random.integers(1, 4096))])
    content[start : start + size] = bytes(size)
    return content


def _zero_tail(content: bytearray, random: Random) -> bytearray:
    start = int(random.integers(len(content)))
    content[start:] = bytes(len(content) - start)
    return content


def _cut_block(content: bytearray, random: Random) -> bytearray:
    start = int(random.integers(len(content)))
    del content[start : start + int(random.integers(1, 512))]
    return content


def _repeat_block(content: bytearray, random: Random) -> bytearray:
    start = int(random.integers(len(content)))
    block = content[start : start + int(random.integers(1, 512))]
    return content[:start] + block + content[start:]


def _insert_bytes(content: bytearray, random: Random) -> bytearray:
    start = int(random.integers(min(len(content), _HEADER_BYTES) + 1))
    noise = random.integers(0, 256, int(random.integers(1, 9)), np.uint8)
    return content[:start] + noise.tobytes() + content[start:]


def _swap_pairs(content: bytearray, random: Random) -> bytearray:
    even = len(content) // 2 * 2
    content[0:even:2], content[1:even:2] = content[1:even:2], content[0:even:2]
    return content


def _make_random(content: bytearray, random: Random) -> bytes:
    return random.integers(0, 256, len(content), np.uint8).tobytes()


def _make_directory(sound: Sound, random: Random) -> None:
    file = pick_file(sound, random)
    file.unlink()
    file.mkdir()


def _make_pipe(sound: Sound, random: Random) -> None:
    file = pick_file(sound, random)
    file.unlink()
    os.mkfifo(file)


def _link(target: str) -> Damage:
    def apply(sound: Sound, random: Random) -> None:
        file = pick_file(sound, random)
        file.unlink()
        file.symlink_to(target.format(file=file.name))

    return apply


def _remove(sound: Sound, random: Random) -> None:
    pick_file(sound, random).unlink()


def _rename(sound: Sound, random: Random) -> None:
    file = pick_file(sound, random)
    suffix = str(random.choice([*_SUFFIXES.split(), ""]))
    file.rename(file.with_name(f"other{suffix}"))


BYTE_DAMAGES: dict[str, Damage] = {
    "truncated": _change_bytes(_truncate),
    "tail cut": _change_bytes(_cut_tail),
    "empty": _change_bytes(lambda content, random: b""),
    "header bits": _change_bytes(_flip_header),
    "payload bits": _change_bytes(_flip_payload),
    "zeros inside": _change_bytes(_zero_block),
    "zeros behind": _change_bytes(_zero_tail),
    "block lost": _change_bytes(_cut_block),
    "block twice": _change_bytes(_repeat_block),
    "bytes inserted": _change_bytes(_insert_bytes),
    "garbage behind": _change_bytes(
        lambda content, random: content + random.bytes(99)
    ),
    "line ends": _change_bytes(
        lambda content, random: content.replace(b"\n", b"\r\n")
    ),
    "seven bits": _change_bytes(
        lambda content, random: bytes(value & 127 for value in content)
    ),
    "bytes swapped": _change_bytes(_swap_pairs),
    "random bytes": _change_bytes(_make_random),
    "gzip around": _change_bytes(
        lambda content, random: gzip.compress(bytes(content), mtime=0)
    ),
    "a directory": _make_directory,
    "a pipe": _make_pipe,
    "link to itself": _link("{file}"),
    "link to nothing": _link("nowhere"),
    "link to zeros": _link("/dev/zero"),
    "gone": _remove,
    "other suffix": _rename,
}


# --- NIfTI --------------------------------------------------------------------------------


def _edit_nifti(sound: Sound, random: Random) -> None:
    file = sound.files[0]
    content = file.read_bytes()
    is_packed = content[:2] == b"\x1f\x8b"
    if is_packed:
        content = gzip.decompress(content)
    header = nib.Nifti1Header(content[:348], check=False)
    for _ in range(int(random.integers(1, 4))):
        _edit_nifti_field(header, random)
    changed = header.binaryblock + content[348:]
    if is_packed:
        changed = gzip.compress(changed, mtime=0)
    file.write_bytes(changed)


def _edit_nifti_field(header: nib.Nifti1Header, random: Random) -> None:
    fields = header.template_dtype.names
    name = str(random.choice(fields))
    block = header._structarr
    if block[name].dtype.kind in "SV":
        block[name] = random.bytes(4)
        return
    is_real = block[name].dtype.kind == "f"
    value = random.choice(_REALS if is_real else _INTEGERS)
    limits = None if is_real else np.iinfo(block[name].dtype)
    if limits is not None:
        value = int(np.clip(value, limits.min, limits.max))
    if block[name].shape:
        block[name][int(random.integers(block[name].size))] = value
    else:
        block[name] = value


def _swap_nifti(sound: Sound, random: Random) -> None:
    """Swap the header's bytes and leave the voxels."""
    file = sound.files[0]
    content = file.read_bytes()
    is_packed = content[:2] == b"\x1f\x8b"
    if is_packed:
        content = gzip.decompress(content)
    header = nib.Nifti1Header(content[:348], check=False)
    changed = header.as_byteswapped().binaryblock + content[348:]
    file.write_bytes(gzip.compress(changed, mtime=0) if is_packed else changed)


# --- headers of text: NRRD, MetaImage -----------------------------------------------------


def _edit_lines(sound: Sound, random: Random) -> None:
    file = sound.files[0]
    content = file.read_bytes()
    end = _find_header_end(content)
    lines = content[:end].split(b"\n")
    for _ in range(int(random.integers(1, 3))):
        place = int(random.integers(len(lines)))
        _edit_line(lines, place, random)
    file.write_bytes(b"\n".join(lines) + content[end:])


def _find_header_end(content: bytes) -> int:
    for mark in (b"\n\n", b"ElementDataFile"):
        place = content.find(mark)
        if place >= 0:
            return place + (
                0 if mark == b"\n\n" else content[place:].find(b"\n")
            )
    return len(content)


def _edit_line(lines: list[bytes], place: int, random: Random) -> None:
    action = int(random.integers(5))
    line = lines[place]
    if action == 0:
        del lines[place]
    elif action == 1:
        lines.insert(place, line)
    elif action == 2:
        other = lines[int(random.integers(len(lines)))]
        name, _, _ = line.partition(b":" if b":" in line else b"=")
        _, sign, value = other.partition(b":" if b":" in other else b"=")
        lines[place] = name + sign + value
    else:
        numbers = list(re.finditer(rb"-?\d+(\.\d+)?(e-?\d+)?", line))
        word = str(random.choice(_WORDS)).encode()
        if not numbers:
            name, sign, _ = line.partition(b":" if b":" in line else b"=")
            lines[place] = name + sign + b" " + word
            return
        number = numbers[int(random.integers(len(numbers)))]
        lines[place] = line[: number.start()] + word + line[number.end() :]


# --- pictures -----------------------------------------------------------------------------


def _edit_png(sound: Sound, random: Random) -> None:
    """Edit the header chunk's fields, its checksum made right."""
    file = sound.files[0]
    content = bytearray(file.read_bytes())
    field = int(random.integers(16, 29))
    content[field] = int(random.choice((0, 1, 2, 3, 4, 6, 8, 16, 40, 255)))
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    file.write_bytes(bytes(content))


def _edit_tiff(sound: Sound, random: Random) -> None:
    """Edit values of the first directory."""
    file = sound.files[0]
    content = bytearray(file.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    for _ in range(int(random.integers(1, 3))):
        entry = start + 2 + 12 * int(random.integers(count))
        field = int(random.choice((0, 2, 4, 8)))
        value = int(random.choice((0, 1, 2, 3, 4, 8, 16, 32, 64, 300, 65535)))
        struct.pack_into("<H", content, entry + field, value)
    file.write_bytes(bytes(content))


def _edit_jpeg(sound: Sound, random: Random) -> None:
    """Edit bytes of the frame header: precision, size, sampling."""
    file = sound.files[0]
    content = bytearray(file.read_bytes())
    place = content.find(b"\xff\xc0")
    offset = int(random.integers(2, 17))
    content[place + offset] = int(random.choice((0, 1, 2, 8, 12, 17, 255)))
    file.write_bytes(bytes(content))


_NIFTI: dict[str, Damage] = {
    "fields edited": _edit_nifti,
    "header swapped": _swap_nifti,
}
_LINES: dict[str, Damage] = {"lines edited": _edit_lines}
OWN_DAMAGES: dict[str, dict[str, Damage]] = {
    "nifti": _NIFTI,
    "nifti gz": _NIFTI,
    "nifti pair": _NIFTI,
    "label map": _NIFTI,
    "nrrd": _LINES,
    "nhdr": _LINES,
    "mha": _LINES,
    "mhd": _LINES,
    "dicom": SERIES_DAMAGES,
    "dicom-seg": DICOM_DAMAGES,
    "rtstruct": DICOM_DAMAGES,
    "png": {"header edited": _edit_png},
    "tiff": {"directory edited": _edit_tiff},
    "jpg": {"frame edited": _edit_jpeg},
    "dataset.json": JSON_DAMAGES,
    "bundle.json": JSON_DAMAGES,
    "cases.csv": CSV_DAMAGES,
}
"""Kind of file → what can happen to it alone."""
