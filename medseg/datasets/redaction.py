"""Texts about scans, made fit for results: without what the scans' files and folders are called.

Names of DICOM files and folders often name the patient, so results say ``file 3 of 40`` (in the
order of their paths) and the scan's name instead. Other files give the scan its name themselves,
so theirs may stay; folders are cut off all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from medseg.datasets.cases import Scan
from medseg.datasets.names import make_printable, split_suffix
from medseg.datasets.scans import LeftOut
from medseg.errors import Fault
from medseg.io.dicom.volume import DICOM

_SURELY_A_NAME = 4
_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^/\s'\"]+/)+(?=[^/\s])")


def discreet(text: str, scan: Scan) -> str:
    """Return ``text`` without what the scan's DICOM files and all folders are called.

    Args:
        text: An error or a warning about the scan.
        scan: The scan, with the name it has in results.
    """
    files = sorted({file for part in scan.parts for file in part})
    folders = {str(file.parent) for file in files if len(file.parent.parts) > 1}
    for folder in sorted(folders, key=len, reverse=True):
        text = text.replace(f"{folder}/", "").replace(folder, scan.name)
    text = _FOLDERS.sub("", make_printable(text))
    instead: dict[str, str] = {}
    for number, file in enumerate(files, start=1):
        if _is_nameless(file):
            instead[file.parent.name or "/"] = scan.name
            instead[file.name] = f"file {number} of {len(files)}"
    return _replaced(text, {make_printable(name): told for name, told in instead.items()})


def discreet_left_out(entry: LeftOut, root: Path) -> Fault:
    """Say of something that was left out what results may say.

    Args:
        entry: What was left out.
        root: What was searched.
    """
    scan = Scan(entry.name, ((root / entry.where,),))
    return Fault(entry.name, discreet(entry.reason, scan))


def _is_nameless(file: Path) -> bool:
    return split_suffix(file.name)[1] in ("", *DICOM.suffixes)


def _replaced(text: str, instead: dict[str, str]) -> str:
    patterns = list(_patterns(instead))
    if not patterns:
        return text
    every = re.compile("|".join(patterns))
    return every.sub(lambda found: instead[found.group()], text)


def _patterns(instead: dict[str, str]) -> Iterator[str]:
    for name in sorted(instead, key=len, reverse=True):
        # Short names, such as 1 or CT, are common words, too; readers put a colon behind a name.
        behind = r"(?!\w)" if len(name) >= _SURELY_A_NAME else "(?=:)"
        yield rf"(?<!\w){re.escape(name)}{behind}"
