"""What happens to DICOM files: elements lost, empty or edited, slices lost or twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from sound_files import Sound, pick_file

Random = np.random.Generator
Damage = Callable[[Sound, Random], None]

_OTHER_UID = "1.2.826.0.1.3680043.8.498.1"


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
        return ["", "1.2.3", _OTHER_UID, "abc", "1..2", "9" * 70]
    if element.VR in ("FD", "FL"):
        return [0.0, -1.0, float("nan"), float("inf"), 1e30]
    return ["", "X" * 200, "MONOCHROME1", "RGB", "MR", "CT", "a\\b", "\x1b$)C"]


def _floats(element: DataElement) -> list[float]:
    values = element.value if element.VM > 1 else [element.value]
    return [float(value) for value in values if str(value)]


def _repeat_slice(sound: Sound, random: Random) -> None:
    file = pick_file(sound, random)
    copy = file.with_name(f"{file.name}_copy")
    shutil.copy(file, copy)
    ds = pydicom.dcmread(copy)
    if random.random() < 0.5:
        ds.SOPInstanceUID = f"{ds.SOPInstanceUID[:60]}.1"
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
