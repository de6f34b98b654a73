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

import json
import os
import sys
from typing import Any, BinaryIO


def main() -> None:
    """Serve one request from standard input."""
    request = json.load(sys.stdin)
    memory = request["memory"]
    seconds = request["seconds"]
    _limit(memory, seconds)
    answer = _redirect_output()
    import pydicom
    from pydicom.pixels import get_decoder

    for path, indices in request["files"]:
        ds = pydicom.Dataset()
        try:
            ds = pydicom.dcmread(path, specific_tags=request["keywords"])
            syntax = ds.file_meta.TransferSyntaxUID
            decoder = get_decoder(syntax)
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
    except (
        ImportError
    ):  # Windows has no such limits; the process is still one of its own
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
