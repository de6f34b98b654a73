"""Name the listed cases and find what is wrong with them, without opening a file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from medseg._support.folders import resolve_path
from medseg.bundle.spec import ChannelSpec
from medseg.errors import Fault
from medseg.layouts.channel_names import normalize_modality, read_modality
from medseg.layouts.contract import CaseListing, ListedCase
from medseg.names import (
    distinct_names,
    is_picture,
    make_safe_name,
    normalize_name,
    split_channel,
    split_suffix,
)

_MODALITY = "modality"
_MOST_FOLD_DIGITS = 4
_MOST_QUOTED = 20


def name_cases(
    cases: Sequence[ListedCase],
    make_name: Callable[[str], str] = make_safe_name,
) -> list[str]:
    """Name each case: as listed, else by its file, else by its path where files share a name.

    Args:
        cases: The listed cases.
        make_name: Makes a name of a text; those that become equal get a hash behind them.

    Returns:
        A safe name for each; cases that are the same by name and first file share one.
    """
    files = [_resolve_first_image(case) for case in cases]
    stems = [_stem_of(case) for case in cases]
    if len(set(stems)) < len(set(files)):
        stems = _add_folders(stems, files)
    origins = []
    texts: dict[str, str] = {}
    for case, stem, file in zip(cases, stems, files, strict=True):
        text = case.name or stem
        origin = f"{text}\n{file}"
        origins.append(origin)
        texts[origin] = text
    names = distinct_names([*texts.values()], texts, make_name)
    name_of = dict(zip(texts, names, strict=True))
    return [name_of[origin] for origin in origins]


def _resolve_first_image(case: ListedCase) -> Path:
    # Not the file itself: a link has the name that its case should have.
    image = case.images[0]
    return resolve_path(image.parent) / image.name


def find_case_faults(
    cases: Sequence[ListedCase], names: Sequence[str], channels: int
) -> list[list[Fault]]:
    """Find for each case what is wrong with the files and the fold it lists.

    Args:
        cases: The listed cases.
        names: Their names.
        channels: How many channels the bundle has.
    """
    repeats = _find_repeats(cases, names)
    faults = []
    for case, name, repeated in zip(cases, names, repeats, strict=True):
        where = case.name or name
        found = [
            *_find_missing(case, where),
            *_find_channel_faults(case, where, channels),
            *_find_fold_faults(case, where),
            *repeated,
        ]
        faults.append(found)
    return faults


def set_aside_modalities(
    listing: CaseListing, channels: Sequence[ChannelSpec]
) -> None:
    """Make faults of the cases that their list gives another modality than the bundle has.

    Args:
        listing: The listed cases.
        channels: The bundle's; where they are of several modalities, nothing is set aside.
    """
    modality, *others = {
        normalize_modality(channel.modality) for channel in channels
    }
    if others or modality is None:
        return
    if not any(has_field(case, _MODALITY) for case in listing.cases):
        return
    kept = []
    names = name_cases(listing.cases)
    for case, name in zip(listing.cases, names, strict=True):
        stated = read_modality(str(case.fields.get(_MODALITY, "")))
        if stated in (None, modality):
            kept.append(case)
            continue
        what = (
            f"its list says that it is {stated}, and the bundle's channels are {modality}; leave "
            "it out, correct the list, or insist on the bundle with --trust-values"
        )
        listing.faults.append(Fault(case.name or name, what))
    listing.cases = kept


def has_field(case: ListedCase, field: str) -> bool:
    """Tell whether the list says something under this field."""
    return case.fields.get(field) not in (None, "")


def path_exists(path: Path) -> bool:
    """Tell whether there is such a file or folder, and it may be looked at."""
    try:
        return path.exists()
    except (
        OSError
    ):  # a name no file can have, or a folder that may not be entered
        return False


def _stem_of(case: ListedCase) -> str:
    stem, _ = split_suffix(case.images[0].name)
    base, number = split_channel(stem)
    is_channel = len(case.images) > 1 and number == 0
    return base if is_channel else stem


def _add_folders(stems: Sequence[str], files: Sequence[Path]) -> list[str]:
    """Put before each stem the folders that its file does not share with all others."""
    folders = [file.parent for file in files]
    common = os.path.commonpath(folders)
    paths = []
    for stem, folder in zip(stems, folders, strict=True):
        path = folder.relative_to(common) / stem
        paths.append(path.as_posix())
    return paths


def _find_missing(case: ListedCase, where: str) -> Iterator[Fault]:
    for image in case.images:
        if not path_exists(image):
            yield Fault(where, "an image does not exist", str(image))
    if not path_exists(case.label):
        yield Fault(where, "the label does not exist", str(case.label))
    elif case.label.is_dir():
        yield Fault(
            where, "the label is a folder; one file is needed", str(case.label)
        )


def _find_channel_faults(
    case: ListedCase, where: str, channels: int
) -> Iterator[Fault]:
    first = case.images[0]
    count = len(case.images)
    if count not in (1, channels):
        yield Fault(
            where,
            f"has {count} channel files and the bundle {channels} channels; one file for each, or "
            "one for all is needed",
        )
        return
    # nnU-Net numbers pictures, too, which hold all channels in one file.
    if count == channels or is_picture(first):
        return
    stem, _ = split_suffix(first.name)
    _, number = split_channel(stem)
    if number == 0:
        what = f"has only channel 0 and the bundle has {channels} channels"
        yield Fault(where, what, first.name)


def _find_fold_faults(case: ListedCase, where: str) -> Iterator[Fault]:
    if not has_field(case, "fold"):
        return
    fold = case.fields["fold"]
    if not _is_fold(fold):
        text = str(fold)[:_MOST_QUOTED]
        yield Fault(
            where,
            "its fold must be a whole number such as 0",
            f"it is {text!r}",
        )


def _is_fold(value: object) -> bool:
    if isinstance(value, str):
        return (
            value.isascii()
            and value.isdigit()
            and len(value) <= _MOST_FOLD_DIGITS
        )
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _find_repeats(
    cases: Sequence[ListedCase], names: Sequence[str]
) -> Iterator[list[Fault]]:
    """Find names and files that are listed more than once, case by case."""
    listed_names = [normalize_name(case.name or "") for case in cases]
    counts = Counter(listed_names)
    first_users: dict[Path, int] = {}
    for number, case in enumerate(cases):
        where = case.name or names[number]
        files = _resolve_files(case)
        faults = []
        for file in files:
            user = first_users.setdefault(file, number)
            if user != number:
                what = "uses a file that another case uses"
                detail = f"the case {names[user]} uses {file.name}"
                faults.append(Fault(where, what, detail))
        count = counts[listed_names[number]]
        if case.name and count > 1:
            what = f"{count} cases have this name; give each its own"
            faults.append(Fault(where, what))
        if len(set(files)) < len(files):
            what = "lists one file twice; each channel and the label need their own"
            faults.append(Fault(where, what))
        yield faults


def _resolve_files(case: ListedCase) -> list[Path]:
    return [resolve_path(file) for file in (*case.images, case.label)]
