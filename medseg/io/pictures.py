"""Pictures (PNG, TIFF, JPEG, BMP) ↔ volumes of one slice, on Pillow and, for deep TIFF, tifffile.

``i`` runs along the columns, ``j`` along the rows, ``k`` is 1. Pictures say nothing certain about
millimetres, so the affine is the identity: one "mm" per pixel.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from warnings import filterwarnings

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from medseg.errors import OutputError, ScanError
from medseg.io.formats import Format, single_file
from medseg.io.tiff import describe_unread, is_tiff, read_grey
from medseg.io.voxels import as_labels, check_size
from medseg.padding import replace_nonfinite
from medseg.volume import Volume

# Pillow's warnings are of tags that say nothing of the pixels, and name no file.
filterwarnings("ignore", category=UserWarning, module=r"PIL\b")
# Sizes are judged below, by what a file can hold.
filterwarnings("ignore", category=Image.DecompressionBombWarning)

Pixels = npt.NDArray[Any]

_KINDS = ("PNG", "TIFF", "JPEG", "BMP")
_GREY_MODES = ("1", "L", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS = 258
_TIFF_PHOTOMETRIC = 262
_TIFF_STRIPS = 273
_TIFF_ROWS_PER_STRIP = 278
_PIXELS_PER_BYTE = 10_000
"""More than any codec reaches; one bit per pixel, deflated, is 8256."""
_JPEG_PIXELS_PER_BYTE = 256
"""A block of 64 pixels takes two codes of a bit at least; Pillow fills up what is missing."""
_TURNED = "the camera's rotation mark (EXIF) is ignored: pixels are as stored"
_PNG_END = b"IEND\xaeB`\x82"
# What Pillow's decoders raise on broken or hostile files; SyntaxError is its word for bad PNGs.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read(files: Sequence[Path]) -> Volume:
    """Read a picture as an image: 1 channel if grey, 3 if coloured, float32.

    Grey stored as colour (R = G = B everywhere) is one channel. Palette pictures are their
    colours. Opaque alpha is dropped. Unsigned grey of a TIFF in which 0 is white (MinIsWhite) is
    turned around, so that larger is brighter as in all others. A camera's rotation mark is not
    applied, with a warning.

    Raises:
        ScanError: If it is broken, has pages, transparency or a colour space other than RGB.
    """
    path = single_file(files, "picture")
    pixels, warnings = _load(path, indices=False)
    with np.errstate(over="ignore"):
        image = pixels.astype(np.float32)
    channels_last = image.transpose(1, 2, 0)[:, :, None]
    padding, remarks = replace_nonfinite(channels_last, path)
    volume = _make_volume(path, image, (*warnings, *remarks))
    return replace(volume, padding=padding)


def read_labels(files: Sequence[Path]) -> Volume:
    """Read a picture as a label map: its grey values, its palette's indices, or its colours.

    Returns:
        Unsigned integers, shape ``(1, i, j, 1)``; ``(3, i, j, 1)`` where structures are told
        apart by true colours. Grey of 2 or 4 bits counts 0, 1, 2, … as stored, also where 0 is
        white.

    Raises:
        ScanError: If it is broken, has pages, transparency, or values that are no labels.
    """
    path = single_file(files, "picture")
    pixels, warnings = _load(path, indices=True)
    is_jpeg = path.suffix.lower() in (".jpg", ".jpeg")
    if is_jpeg:
        warnings += ("JPEG is lossy: label values may be smeared; use PNG",)
    labels = as_labels(pixels, path)
    return _make_volume(path, labels, warnings)


def read_palette(path: Path) -> tuple[tuple[int, int, int], ...]:
    """Return the colours of a palette picture's values; nothing where it has no palette.

    Raises:
        ScanError: If it is broken.
    """
    try:
        with Image.open(path, formats=_KINDS) as picture:
            if picture.mode != "P":
                return ()
            numbers = picture.getpalette("RGB") or []
    except _BROKEN as error:
        raise ScanError(
            "the palette cannot be read", source=path, detail=str(error)
        ) from error
    colours = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    return tuple(colours)


def write_labels(path: Path, labels: npt.NDArray[Any], like: Volume) -> None:
    """Write ``labels``, shape ``(i, j, 1)``, as a grey PNG of indices (8 bits, 16 if above 255).

    Raises:
        OutputError: If the label map has several slices or values above 65535.
    """
    slices = labels.shape[2]
    if slices != 1:
        raise OutputError(
            f"{slices} slices do not fit in a picture; write .nii.gz, .nrrd or .mha"
        )
    if labels.dtype.itemsize > 2:
        raise OutputError("a PNG holds label values up to 65535; write .nii.gz")
    # A copy, because Pillow wants rows one after the other.
    rows = np.ascontiguousarray(labels[:, :, 0].T)
    Image.fromarray(rows).save(path, format="PNG")


def _load(path: Path, *, indices: bool) -> tuple[Pixels, tuple[str, ...]]:
    """Return pixels of shape ``(channels, i, j)`` and warnings."""
    try:
        grey = read_grey(path, inverted=not indices) if is_tiff(path) else None
        if grey is not None:
            pixels, is_turned = grey
            return pixels.T[None], (_TURNED,) if is_turned else ()
        _refuse_damaged_png(path)
        with Image.open(path, formats=_KINDS) as picture:
            _refuse_unreadable(picture, path)
            is_rotated = picture.getexif().get(_EXIF_ORIENTATION, 1) != 1
            pixels = _read_pixels(picture, path, indices=indices)
    except PermissionError as error:
        raise ScanError(
            "the file cannot be read: you lack the permission", source=path
        ) from error
    except _BROKEN as error:
        is_unknown = isinstance(error, UnidentifiedImageError)
        unread = describe_unread(path) if is_unknown else ""
        if unread:
            raise ScanError(unread, source=path) from error
        raise ScanError(
            "the file cannot be read as a picture; it is truncated, damaged, too large or not a "
            "PNG, TIFF, JPEG or BMP",
            source=path,
            detail=str(error) or type(error).__name__,
        ) from error
    return pixels, (_TURNED,) if is_rotated else ()


def _refuse_damaged_png(path: Path) -> None:
    # Pillow stops reading at the last pixel it needs; verify() compares every checksum.
    with Image.open(path, formats=_KINDS) as picture:
        if picture.format != "PNG":
            return
        picture.verify()
    if _PNG_END not in path.read_bytes():
        raise EOFError("no end mark")


def _refuse_missing_strips(picture: Any, path: Path) -> None:
    """Refuse a TIFF with fewer strips than its rows need; Pillow fills up what is missing."""
    tags = picture.tag_v2
    if _TIFF_STRIPS not in tags:
        return
    rows = tags.get(_TIFF_ROWS_PER_STRIP) or picture.height
    needed = math.ceil(picture.height / rows)
    strips = len(tags[_TIFF_STRIPS])
    if strips < needed:
        raise ScanError(
            f"{strips} of {needed} strips of pixels are there; its header is wrong",
            source=path,
        )


def _pixels_per_byte(picture: Image.Image) -> int:
    """Return how many pixels a byte of a picture's file may stand for at most."""
    is_plain_jpeg = picture.format == "JPEG" and not picture.info.get(
        "progressive"
    )
    return _JPEG_PIXELS_PER_BYTE if is_plain_jpeg else _PIXELS_PER_BYTE


def _refuse_unreadable(picture: Image.Image, path: Path) -> None:
    """Refuse by the header alone what is too large, has pages or colours Pillow would cut."""
    check_size((*picture.size, 1), path)
    file_bytes = path.stat().st_size
    if picture.width * picture.height > _pixels_per_byte(picture) * file_bytes:
        raise ScanError(
            f"{picture.width}×{picture.height} pixels cannot lie in so few bytes; its header is "
            "wrong",
            source=path,
        )
    if picture.format == "TIFF":
        _refuse_missing_strips(picture, path)
    pages = getattr(picture, "n_frames", 1)
    if pages > 1:
        raise ScanError(
            f"{pages} pages; one picture per file is read, so save the pages as single files (or "
            "as a .nii.gz if they are slices)",
            source=path,
        )
    if picture.mode in ("RGB", "RGBA", "LA") and _bits_per_channel(picture) > 8:
        raise ScanError(
            "colours of 16 bits per channel; save it with 8 bits, or as grey with 16",
            source=path,
        )


def _bits_per_channel(picture: Image.Image) -> int:
    """Return the stored bits per channel, which Pillow silently reduces to 8 in colours."""
    if picture.format == "PNG":
        with Path(picture.filename).open("rb") as file:  # type: ignore[attr-defined]
            start = file.read(25)
        # In IHDR, behind signature, length, type, width, height.
        return start[24]
    if picture.format == "TIFF":
        bits = picture.tag_v2.get(_TIFF_BITS, (8,))  # type: ignore[attr-defined]
        return int(max(bits))
    return 8


def _read_pixels(picture: Image.Image, path: Path, *, indices: bool) -> Pixels:
    """Return pixels of shape ``(channels, i, j)``; a palette's indices if they are wanted."""
    if picture.mode == "P" and indices:
        return _to_columns(picture)
    if picture.mode == "P":
        picture = picture.convert(
            "RGBA" if "transparency" in picture.info else "RGB"
        )
    if picture.mode in _GREY_MODES:
        return _read_grey(picture, indices=indices)
    if picture.mode in ("LA", "RGBA"):
        picture = _drop_alpha(picture, path)
    if picture.mode == "L":
        return _to_columns(picture)
    if picture.mode != "RGB":
        raise ScanError(
            f"colour space {picture.mode}; save it as grey or RGB", source=path
        )
    return _read_colours(picture)


def _to_columns(picture: Image.Image) -> Pixels:
    """Return pixels of one channel: Pillow gives rows first, ``i`` runs along the columns."""
    return np.asarray(picture).T[None]


def _read_colours(picture: Image.Image) -> Pixels:
    """Return three channels, or one where the colours are grey."""
    colours = np.asarray(picture).transpose(2, 1, 0)
    red, green, blue = colours
    is_grey = np.array_equal(red, green) and np.array_equal(red, blue)
    return colours[:1] if is_grey else colours


def _read_grey(picture: Image.Image, *, indices: bool) -> Pixels:
    pixels = _to_columns(picture)
    is_bool = pixels.dtype == bool
    if indices and _is_white_zero(picture):
        # Pillow turns the levels around, as a screen shows them; labels are as stored.
        pixels = ~pixels
    if is_bool:
        return pixels.astype(np.uint8)
    # Pillow stretches grey of 2 and 4 bits to 0…255; label indices are wanted as stored.
    bits = _bits_per_channel(picture) if picture.mode == "L" else 8
    if indices and bits < 8:
        stretched_by = 255 // (2**bits - 1)
        indexed: Pixels = pixels // stretched_by
        return indexed
    return pixels


def _is_white_zero(picture: Image.Image) -> bool:
    """Tell whether 0 is white in a picture's file, as in TIFF's MinIsWhite."""
    if picture.format != "TIFF":
        return False
    return picture.tag_v2.get(_TIFF_PHOTOMETRIC) == 0  # type: ignore[attr-defined, no-any-return]


def _drop_alpha(picture: Image.Image, path: Path) -> Image.Image:
    lowest, _ = picture.getchannel("A").getextrema()
    if lowest != 255:
        raise ScanError(
            "the picture has transparent pixels; flatten it, then save it without alpha",
            source=path,
        )
    return picture.convert("L" if picture.mode == "LA" else "RGB")


def _make_volume(
    path: Path, pixels: Pixels, warnings: tuple[str, ...]
) -> Volume:
    return Volume(pixels[..., None], np.eye(4), path.name, warnings)


PICTURE = Format(
    "picture",
    (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp"),
    read,
    read_labels,
    write_labels,
    label_suffixes=(".png",),
    is_picture=True,
)
