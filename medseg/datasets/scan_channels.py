"""Scans whose channels are files called after them: ``BraTS20_001_flair``, ``BraTS20_001_t1``, …"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from medseg.datasets.scan_candidates import Candidate, Search, flatten
from medseg.names import (
    abbreviate,
    fold_name,
    make_safe_name,
    split_suffix,
)

_SEPARATORS = "_-. "

_Base = tuple[Path, str]
"""Folder of files and what their names share."""


def take_named_channels(
    root: Path,
    files: Sequence[Path],
    search: Search,
) -> list[Path]:
    """Make scans of files that are called after the bundle's channels; return the other files.

    Args:
        root: The folder that is searched.
        files: Image files in it.
        search: Knows the channels' names, and takes the scans.
    """
    names = [fold_name(name) for name in search.channel_names]
    groups: dict[_Base, dict[str, Path]] = defaultdict(dict)
    for file in files:
        for name in names:
            base = _find_base(file, name)
            if base is not None:
                groups[base][name] = file
    whole = {
        base: group
        for base, group in groups.items()
        if len(group) == len(names)
    }
    # One name alone may be anything; only where all are found do names tell channels.
    if len(names) < 2 or not whole:
        return list(files)
    taken: set[Path] = set()
    for base, group in groups.items():
        taken.update(group.values())
        _add_scan(root, base, group, search)
    return _leave_neighbours(groups, files, taken, search)


def _find_base(file: Path, name: str) -> _Base | None:
    """Return what a file's name has before a channel's name; ``None`` where it has none."""
    stem, _ = split_suffix(file.name)
    folded = fold_name(stem)
    if folded == name:
        return file.parent, ""
    rest = folded.removesuffix(name)
    is_named = rest != folded and rest[-1:] in _SEPARATORS
    if not is_named:
        return None
    return file.parent, rest.rstrip(_SEPARATORS)


def _add_scan(
    root: Path,
    base: _Base,
    group: dict[str, Path],
    search: Search,
) -> None:
    """Add the scan of some channels, or leave it out where they are not all there."""
    folder, start = base
    first = next(iter(group.values()))
    stem, _ = split_suffix(first.name)
    own = stem[: len(start)]
    is_folder = not own or own == folder.name
    path = folder if is_folder else folder / own
    where = path.relative_to(root).as_posix()
    name = flatten(where) if where != "." else own or folder.name
    names = [fold_name(channel) for channel in search.channel_names]
    missing = [channel for channel in names if channel not in group]
    if missing:
        reason = f"has no image of {len(missing)} of the bundle's channels"
        search.leave_out(
            make_safe_name(name),
            where,
            reason,
            ", ".join(missing),
        )
        return
    parts = tuple((group[channel],) for channel in names)
    search.candidates.append(Candidate(name, where, parts))


def _leave_neighbours(
    groups: Iterable[_Base],
    files: Iterable[Path],
    taken: set[Path],
    search: Search,
) -> list[Path]:
    """Return the files that are no channels; those of the same scans are passed over."""
    others: list[Path] = []
    beside: list[Path] = []
    bases = set(groups)
    for file in files:
        if file in taken:
            continue
        kind = beside if _belongs(file, bases) else others
        kind.append(file)
    if beside:
        names = abbreviate(file.name for file in beside)
        search.notes.append(
            f"{len(beside)} files beside the channels of scans are none of the bundle's: {names}"
        )
    return others


def _belongs(file: Path, bases: set[_Base]) -> bool:
    """Tell whether a file is called like the channels of a scan beside it."""
    stem, _ = split_suffix(file.name)
    folded = fold_name(stem)
    for end, sign in enumerate(folded):
        is_start = sign in _SEPARATORS and (file.parent, folded[:end]) in bases
        if is_start:
            return True
    return (file.parent, "") in bases
