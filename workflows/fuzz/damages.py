"""What happens to files: kinds of damage that apply to any, and to those of one format."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sound_files import Sound
from text_damages import CSV_DAMAGES, JSON_DAMAGES

Random = np.random.Generator
Damage = Callable[[Sound, Random], None]

_HEADER_BYTES = 400
_SUFFIXES = (
    ".nii",
    ".nii.gz",
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
    ".png",
    ".tif",
    ".jpg",
    ".dcm",
    ".hdr",
    ".img",
    ".json",
    ".csv",
    ".txt",
    ".mgz",
    "",
)
_NUMBERS = (0, -1, 1, 2, 3, 255, 32767, -32768, 65535, 2**31 - 1, -(2**31))
_REALS = (0.0, -1.0, 1e-9, 1e9, 1e38, float("nan"), float("inf"), 1e-3, 1e3)
_WORDS = (
    "",
    "0",
    "-1",
    "1e400",
    "nan",
    "inf",
    "abc",
    "1.5",
    "9" * 400,
    "\0",
    "%s",
    "../../etc/passwd",
    "é",
    "-",
    "1 2 3 4 5",
)


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


def _pick(sound: Sound, random: Random) -> Path:
    return sound.files[int(random.integers(len(sound.files)))]


def _change_bytes(
    change: Callable[[bytearray, Random], bytearray | bytes],
) -> Damage:
    def apply(sound: Sound, random: Random) -> None:
        file = _pick(sound, random)
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
    file = _pick(sound, random)
    file.unlink()
    file.mkdir()


def _make_pipe(sound: Sound, random: Random) -> None:
    file = _pick(sound, random)
    file.unlink()
    os.mkfifo(file)


def _link(target: str) -> Damage:
    def apply(sound: Sound, random: Random) -> None:
        file = _pick(sound, random)
        file.unlink()
        file.symlink_to(target.format(file=file.name))

    return apply


def _remove(sound: Sound, random: Random) -> None:
    _pick(sound, random).unlink()


def _rename(sound: Sound, random: Random) -> None:
    file = _pick(sound, random)
    suffix = str(random.choice(_SUFFIXES))
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
        lambda content, random: gzip.compress(bytes(content))
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
        changed = gzip.compress(changed)
    file.write_bytes(changed)


def _edit_nifti_field(header: nib.Nifti1Header, random: Random) -> None:
    fields = header.template_dtype.names
    name = str(random.choice(fields))
    block = header._structarr
    if block[name].dtype.kind in "SV":
        block[name] = random.bytes(4)
        return
    is_real = block[name].dtype.kind == "f"
    value = random.choice(_REALS if is_real else _NUMBERS)
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
    file.write_bytes(gzip.compress(changed) if is_packed else changed)


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


# --- DICOM --------------------------------------------------------------------------------


def _pick_some(sound: Sound, random: Random) -> list[Path]:
    """Return one, some or all files."""
    files = list(sound.files)
    share = random.choice((0.0, 0.5, 1.0))
    count = max(1, round(share * len(files)))
    return [files[int(n)] for n in random.permutation(len(files))[:count]]


def _edit_dicom(change: Callable[[Dataset, Random], None]) -> Damage:
    def apply(sound: Sound, random: Random) -> None:
        state = random.integers(1 << 60)
        is_alike = random.random() < 0.5
        for file in _pick_some(sound, random):
            ds = pydicom.dcmread(file, force=True)
            own = np.random.default_rng(state) if is_alike else random
            change(ds, own)
            ds.save_as(file)

    return apply


def _drop_element(ds: Dataset, random: Random) -> None:
    tags = list(ds.keys())
    del ds[tags[int(random.integers(len(tags)))]]


def _empty_element(ds: Dataset, random: Random) -> None:
    tags = list(ds.keys())
    element = ds[tags[int(random.integers(len(tags)))]]
    element.value = [] if element.VR == "SQ" else None


def _edit_element(ds: Dataset, random: Random) -> None:
    """Give an element, at any depth, another value of its kind."""
    holder = ds
    while True:
        tags = [tag for tag in holder if tag.VR not in ("OW", "OB", "OB or OW")]
        element = tags[int(random.integers(len(tags)))]
        if element.VR != "SQ" or not element.value:
            break
        holder = element.value[int(random.integers(len(element.value)))]
        if not len(holder):
            return
    values = _offer_values(element, random)
    value = values[int(random.integers(len(values)))]
    if element.VM > 1 and random.random() < 0.8:
        several = list(element.value)
        several[int(random.integers(len(several)))] = value
        value = several
    holder[element.tag] = DataElement(
        element.tag, element.VR, value, validation_mode=config.IGNORE
    )


def _offer_values(element: DataElement, random: Random) -> list[object]:
    if element.VR in ("US", "SS", "UL", "SL"):
        highest = 32767 if element.VR in ("SS", "SL") else 65535
        return [0, 1, 2, 3, 7, 8, 12, 15, 31, 255, 4096, highest]
    if element.VR in ("DS", "IS"):
        near = [str(float(value) * 1.1) for value in _floats(element)]
        return ["0", "-1", "1", "1e9", "0.001", "1e38", "-0.5", *near]
    if element.VR == "UI":
        return ["", "1.2.3", generate_uid(), "abc", "1..2", "9" * 70]
    if element.VR in ("FD", "FL"):
        return [0.0, -1.0, float("nan"), float("inf"), 1e30]
    return ["", "X" * 200, "MONOCHROME1", "RGB", "MR", "CT", "a\\b", "\x1b$)C"]


def _floats(element: DataElement) -> list[float]:
    values = element.value if element.VM > 1 else [element.value]
    return [float(value) for value in values if str(value)]


def _repeat_slice(sound: Sound, random: Random) -> None:
    file = _pick(sound, random)
    copy = file.with_name(f"{file.name}_copy")
    shutil.copy(file, copy)
    ds = pydicom.dcmread(copy)
    if random.random() < 0.5:
        ds.SOPInstanceUID = generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    if random.random() < 0.5:
        pixels = bytearray(ds.PixelData)
        pixels[len(pixels) // 2] ^= 1
        ds.PixelData = bytes(pixels)
    ds.save_as(copy)


def _lose_slices(sound: Sound, random: Random) -> None:
    files = list(sound.files)
    count = int(random.integers(1, max(2, len(files) // 2)))
    for place in random.permutation(len(files))[:count]:
        files[int(place)].unlink()


def _mislabel_syntax(ds: Dataset, random: Random) -> None:
    syntaxes = (
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.5",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.51",
        "1.2.3",
    )
    if hasattr(ds, "file_meta"):
        ds.file_meta.TransferSyntaxUID = str(random.choice(syntaxes))


def _relabel(sound: Sound, random: Random) -> None:
    """Write another transfer syntax into the file meta; the rest stays as it is."""
    for file in _pick_some(sound, random):
        content = file.read_bytes()
        for syntax in (b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"):
            other = random.choice(
                (b"1.2.840.10008.1.2.2\0", b"1.2.840.10008.1.2.1\0")
            )
            content = content.replace(syntax, bytes(other).ljust(20, b"\0"), 1)
        file.write_bytes(content)


def _drop_preamble(sound: Sound, random: Random) -> None:
    for file in _pick_some(sound, random):
        content = file.read_bytes()
        file.write_bytes(content[132:])


def _nest_deeply(ds: Dataset, random: Random) -> None:
    item = Dataset()
    for _ in range(150):
        outer = Dataset()
        outer.ReferencedImageSequence = [item]
        item = outer
    ds.ReferencedImageSequence = [item]


DICOM_DAMAGES: dict[str, Damage] = {
    "element lost": _edit_dicom(_drop_element),
    "element empty": _edit_dicom(_empty_element),
    "element edited": _edit_dicom(_edit_element),
    "elements edited": _edit_dicom(
        lambda ds, random: [_edit_element(ds, random) for _ in range(3)]
    ),
    "nested deeply": _edit_dicom(_nest_deeply),
    "syntax mislabelled": _relabel,
    "preamble lost": _drop_preamble,
}
SERIES_DAMAGES: dict[str, Damage] = {
    **DICOM_DAMAGES,
    "slice twice": _repeat_slice,
    "slices lost": _lose_slices,
}


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
