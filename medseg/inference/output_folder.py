"""Make sure that results come into a folder where they replace nothing, and are not segmented."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from medseg._support.folders import refuse_file, resolve_path
from medseg._support.platform.locks import LOCK
from medseg.datasets.cases import Scan
from medseg.errors import DatasetError, OutputError
from medseg.inference.result_files import SUMMARIES, ResultFormat
from medseg.inference.shards import SHARDS
from medseg.names import LEDGER

_FOLDERS_KNOWN = 1000


def refuse_overwriting(
    root: Path,
    out: Path,
    scans: Sequence[Scan],
    formats: Mapping[str, ResultFormat],
) -> None:
    """Make sure that results replace nothing but results, and are never taken for scans.

    Args:
        root: Where the scans were looked for: a folder, a file or a table.
        out: The folder for results.
        scans: The scans found.
        formats: What will be written for each.

    Raises:
        OutputError: If ``out`` holds scans or other files that would be replaced.
        DatasetError: If ``root`` is a folder of results itself.
    """
    refuse_file(out)
    real_root, real_out = resolve_path(root), resolve_path(out)
    if (root / LEDGER).is_file() and real_root != real_out:
        raise DatasetError(
            f"this folder holds results of medseg ({LEDGER}), not scans; give the folder of scans",
            source=root,
        )
    folders = itertools.chain([real_root], _list_folders(scans))
    if any(
        _would_be_searched(real_root, real_out, folder) for folder in folders
    ):
        raise OutputError(
            "this folder holds scans that are to be segmented; results among them would be taken "
            "for scans next time. Give an empty folder, or one that does not exist yet",
            source=out,
        )
    if not out.exists() or (out / LEDGER).exists():
        return
    _refuse_existing(out, SUMMARIES)
    for kind in formats.values():
        _refuse_existing(out, (f"{scan.name}{kind.ending}" for scan in scans))


def holds_no_others(out: Path) -> bool:
    """Tell whether results that come into a folder can replace nothing but results."""
    if (out / LEDGER).exists():
        return True
    try:
        names = {file.name for file in out.iterdir()}
    except FileNotFoundError:
        return True
    except OSError:  # who writes into it will say why it cannot be read
        return False
    # What another shard makes first.
    return names <= {SHARDS, LOCK}


def _would_be_searched(root: Path, out: Path, folder: Path) -> bool:
    """Tell whether results in ``out`` would lie among the scans of a folder below ``root``."""
    if out in (root, folder):
        return True
    return out.is_relative_to(root) and folder.is_relative_to(out)


def _list_folders(scans: Iterable[Scan]) -> Iterator[Path]:
    """Give the folders in which the scans' files truly lie, some of them several times."""
    resolve = lru_cache(_FOLDERS_KNOWN)(resolve_path)
    last = None
    for scan in scans:
        for file in itertools.chain.from_iterable(scan.parts):
            folder = file.parent
            # Only what is a link can lie elsewhere than its folder.
            if file.is_symlink():
                yield resolve_path(file).parent
            elif folder != last:
                last = folder
                yield resolve(folder)


def _refuse_existing(out: Path, names: Iterable[str]) -> None:
    for name in names:
        if (out / name).exists():
            raise OutputError(
                f"this file exists already and is not a result of medseg (there is no {LEDGER} "
                "beside it); give another folder, so that nothing is replaced",
                source=out / name,
            )
