"""Decode compressed DICOM frames in a process of its own: run by ``pixels``, as a script.

Decoders are foreign C and C++ code. A forged file can make one abort or take all memory; here
that ends this process and not the batch. Imports nothing of medseg, to start quickly.

Standard input: JSON with ``memory`` (bytes), ``seconds``, ``keywords`` of the elements to read, and
``files``: ``[[path, [frame, …]], …]``, frames from 0.
Standard output: for each frame a line of JSON with ``shape`` and ``dtype``, then its raw bytes;
or a line with ``error``, which is the last; its ``undecodable`` is the name of the transfer
syntax where no installed decoder reads it, so that the file need not be broken.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
from typing import Any, BinaryIO

_RLE_NOTHING = 128
"""The control byte of RLE that stands for nothing."""


def main() -> None:
    """Serve one request from standard input."""
    request = json.load(sys.stdin)
    memory = request["memory"]
    seconds = request["seconds"]
    _limit(memory, seconds)
    answer = _redirect_output()
    import pydicom
    from pydicom.pixels import get_decoder
    from pydicom.uid import RLELossless

    is_checked = False
    for path, indices in request["files"]:
        ds = pydicom.Dataset()
        try:
            ds = pydicom.dcmread(path, specific_tags=request["keywords"])
            syntax = ds.file_meta.TransferSyntaxUID
            decoder = get_decoder(syntax)
            if syntax == RLELossless and not is_checked:
                _refuse_longer_rle(ds)
                is_checked = True
            for pixels, _ in decoder.iter_array(
                ds, indices=indices, raw=True, correct_unused_bits=False
            ):
                _send(answer, pixels)
        except Exception as error:  # noqa: BLE001 (a border: the parent translates it)
            last_line = {"error": type(error).__name__}
            undecodable = _name_undecodable(ds)
            if undecodable:
                last_line["undecodable"] = undecodable
            _send_line(answer, last_line)
            break
    answer.flush()


def _refuse_longer_rle(ds: Any) -> None:
    """Refuse a frame that holds more than a row beyond its size; pydicom leaves that out.

    Other codecs state rows and columns themselves. One frame is looked at: this is slow, and
    slices whose headers differ in size are no series.
    """
    from pydicom.encaps import get_frame

    frames = int(ds.get("NumberOfFrames") or 1)
    frame = get_frame(ds.PixelData, 0, number_of_frames=frames)
    offsets = struct.unpack_from("<3L", frame)
    count, start, following = offsets
    end = following if count > 1 else len(frame)
    decoded = _count_decoded(frame[start:end])
    if decoded >= ds.Rows * ds.Columns + ds.Columns:
        raise ValueError("the frame holds more pixels than its header says")


def _count_decoded(segment: bytes) -> int:
    """Return how many bytes a segment of RLE stands for (DICOM PS3.5 G.3)."""
    total = 0
    place = 0
    while place < len(segment):
        control = segment[place]
        if control < _RLE_NOTHING:
            total += control + 1
            place += control + 2
        elif control > _RLE_NOTHING:
            total += 257 - control
            place += 2
        else:
            place += 1
    return total


def _name_undecodable(ds: Any) -> str:
    """Return the name of a file's transfer syntax if no installed decoder reads it."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGExtended12Bit, UID_dictionary

    meta = getattr(ds, "file_meta", {})
    syntax = meta.get("TransferSyntaxUID")
    if syntax is None or syntax not in UID_dictionary:
        return ""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return str(syntax.name)
    plugins = decoder.available_plugins
    is_lacking = not plugins
    if syntax == JPEGExtended12Bit and ds.get("BitsStored", 8) > 8:
        # GDCM and Pillow are for it, too, but read 8 bits only.
        is_lacking = "pylibjpeg" not in plugins
    return str(syntax.name) if is_lacking else ""


def _send(answer: BinaryIO, pixels: Any) -> None:
    shape = list(pixels.shape)
    dtype = pixels.dtype.str
    _send_line(answer, {"shape": shape, "dtype": dtype})
    answer.write(pixels.tobytes())


def _send_line(answer: BinaryIO, content: dict[str, Any]) -> None:
    line = json.dumps(content) + "\n"
    answer.write(line.encode())


def _redirect_output() -> BinaryIO:
    # Decoders print to standard output; what they say must not mix with the pixels.
    standard_output = os.dup(1)
    answer = os.fdopen(standard_output, "wb")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    return answer


def _limit(memory: int, seconds: int) -> None:
    try:
        import resource
    except ImportError:  # Windows; there, who started this process watches it
        return
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in limits.items():
        with contextlib.suppress(
            OSError, ValueError
        ):  # macOS takes no RLIMIT_AS
            resource.setrlimit(kind, (limit, limit))


if __name__ == "__main__":
    main()
