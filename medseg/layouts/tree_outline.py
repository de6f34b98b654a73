"""A folder that no layout fits, shown: its tree, and what is missing from the nearest form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath

from medseg._support.folders import Listing
from medseg.layouts.tree_forms import find_form
from medseg.layouts.tree_names import NamedFile, name_files
from medseg.names import abbreviate, make_printable

_MOST_FOLDERS = 12
_MOST_FILES = 3
"""Files and folders of one folder that are shown."""
_MOST_DEPTH = 4


def describe_tree(
    root: Path,
    found: Listing,
) -> str:
    """Show what a folder holds, in a few lines, and say what is missing for it to be a data set.

    Args:
        root: The folder.
        found: Its files.
    """
    paths = [file.relative_to(root) for file in found.files]
    if not paths:
        return "it holds nothing"
    lines = [*_draw(paths)]
    tree = make_printable("\n".join(lines))
    return f"it holds\n{tree}\n{_name_missing(root, found)}"


def _draw(
    paths: Sequence[PurePath],
    depth: int = 0,
) -> Iterator[str]:
    """Yield one line per folder and file, a few of each folder."""
    indent = "  " * (depth + 1)
    folders: dict[str, list[PurePath]] = {}
    files = []
    for path in paths:
        top, *below = path.parts
        if below:
            folders.setdefault(top, []).append(PurePath(*below))
        else:
            files.append(top)
    # Deep down, one folder of a kind shows what the others are like.
    most = _MOST_FOLDERS if depth == 0 else _MOST_FILES
    for name in list(folders)[:most]:
        yield f"{indent}{name}/"
        if depth < _MOST_DEPTH:
            yield from _draw(folders[name], depth + 1)
    yield from _count_rest(
        indent,
        len(folders) - most,
        "folder",
    )
    for name in files[:_MOST_FILES]:
        yield f"{indent}{name}"
    yield from _count_rest(
        indent,
        len(files) - _MOST_FILES,
        "file",
    )


def _count_rest(
    indent: str,
    count: int,
    what: str,
) -> Iterator[str]:
    ending = "" if count == 1 else "s"
    if count > 0:
        yield f"{indent}and {count} more {what}{ending}"


def _name_missing(
    root: Path,
    found: Listing,
) -> str:
    """Say which form is nearest and what is missing from it."""
    files = name_files(root, found.files)
    if not files:
        return f"none of its files is an image that can be read: {_count_endings(found.files)}"
    labels = [file for file in files if file.role == "label"]
    images = [file for file in files if file.role in ("image", "")]
    if not labels:
        return (
            f"{len(files)} image files, and none is called a label: what is missing is a folder "
            "such as labels/ or masks/, or names that end in _seg, _label, _mask or _gt"
        )
    if not images:
        return f"{len(labels)} label files, and no image beside them"
    form = find_form(images, labels)
    return _describe_mismatch(
        images,
        labels,
        len(form.orphans) if form else 0,
    )


def _describe_mismatch(
    images: Sequence[NamedFile], labels: Sequence[NamedFile], orphans: int
) -> str:
    kinds = Counter(label.kind for label in labels)
    named = abbreviate([kind for kind, _ in kinds.most_common(3)])
    missing = orphans or len(labels)
    return (
        f"nearest is a set of {len(images)} images and {len(labels)} labels ({named}), but "
        f"{missing} labels have no image of their name: {_join_names(labels)} does not go with "
        f"{_join_names(images)}"
    )


def _join_names(files: Iterable[NamedFile]) -> str:
    (first, *_) = files
    return "/".join((*first.folders, first.file.name))


def _count_endings(files: Iterable[Path]) -> str:
    counts = Counter(file.suffix or "no ending" for file in files)
    return abbreviate(
        f"{count} × {ending}" for ending, count in counts.most_common()
    )
