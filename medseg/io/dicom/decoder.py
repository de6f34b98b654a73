"""Decode compressed DICOM frames in a process of its own: run by ``pixels``, as a script.

Decoders are foreign C and C++ code. A forged file can make one abort or take all memory; here
that ends this process and not the batch. Imports nothing of medseg, to start quickly.

Standard input: JSON with ``memory`` (bytes), ``seconds``, ``keywords`` of the elements to read, and
``files``: ``[[path, [frame, …]], …]``, frames from 0.
Standard output: for each frame a line of JSON with ``shape`` and ``dtype``, then its raw bytes;
or a line with ``error``, which is the last.
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
        try:
            ds = pydicom.dcmread(path, specific_tags=request["keywords"])
            syntax = ds.file_meta.TransferSyntaxUID
            decoder = get_decoder(syntax)
            for pixels, _ in decoder.iter_array(
                ds, indices=indices, raw=True, correct_unused_bits=False
            ):
                _send(answer, pixels)
        except Exception as error:  # noqa: BLE001 (a border: the parent translates it)
            _send_line(answer, {"error": type(error).__name__})
            break
    answer.flush()


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
