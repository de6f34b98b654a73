"""Patterns that say which files are images and labels: what their wildcards stand for pairs them.

``scans/*.nii.gz`` and ``truth/*_manual.nii.gz`` pair ``scans/p7.nii.gz`` with
``truth/p7_manual.nii.gz``. A wildcard that only the labels' pattern has is the name of a structure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import DatasetError
from medseg.layouts.tree_case import Form, TreeCase
from medseg.layouts.tree_names import SEPARATORS, NamedFile
from medseg.names import normalize_name, split_suffix

_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[[^\]/]+\]|[^*?\[]+|\[")
_WILDCARDS = {"**/": "(?:(.*)/)?", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern of paths: ``*`` within a name, ``**`` across folders, ``?``, ``[abc]``.

    Attributes:
        text: As a person wrote it. Without a ``/`` it is a file's name in any folder.
        expression: The same as a regular expression, with one group for each wildcard.
    """

    text: str
    expression: re.Pattern[str]

    def match(self, path: str) -> tuple[str, ...] | None:
        """Return what the wildcards stand for in a path; ``None`` where it does not fit."""
        match = self.expression.fullmatch(normalize_name(path))
        if match is None:
            return None
        return tuple(part or "" for part in match.groups())

    @property
    def literal(self) -> str:
        """What stands in the file's name besides wildcards and its ending."""
        stem, _ = split_suffix(self.text.rpartition("/")[2])
        return re.sub(
            r"[*?]|\[[^\]]*\]",
            "",
            stem,
        ).strip(SEPARATORS)


def parse_pattern(text: str) -> Pattern:
    """Return a pattern.

    Examples:
        >>> parse_pattern("scans/*.nii.gz").match("scans/p7.nii.gz")
        ('p7',)
        >>> parse_pattern("*_seg.nii").match("a/b/p7_seg.nii")
        ('a/b', 'p7')
    """
    path = normalize_name(text)
    if "/" not in path:
        path = f"**/{path}"
    path = path.removeprefix("./")
    parts = []
    for token in _TOKENS.findall(path):
        if token in _WILDCARDS:
            parts.append(_WILDCARDS[token])
        elif token.startswith("[") and len(token) > 1:
            parts.append(_translate_class(token[1:-1]))
        else:
            parts.append(re.escape(token))
    return Pattern(text, re.compile("".join(parts)))


def _translate_class(signs: str) -> str:
    negation = "^" if signs.startswith("!") else ""
    inner = re.escape(signs.removeprefix("!")).replace(r"\-", "-")
    return f"([{negation}{inner}])"


def select_files(
    root: Path, files: Iterable[NamedFile], patterns: Sequence[str]
) -> list[NamedFile]:
    """Return the files that fit one of some patterns."""
    fitting: set[Path] = set()
    listed = list(files)
    for text in patterns:
        fitting.update(
            file.file
            for _, file in _find(
                root,
                listed,
                text,
            )
        )
    return [file for file in listed if file.file in fitting]


def pair_by_patterns(
    root: Path,
    files: Sequence[NamedFile],
    images: Sequence[str],
    labels: str,
) -> Form:
    """Pair images and labels for which the wildcards of their patterns stand for the same.

    Args:
        root: The data folder, to which the patterns are relative.
        files: Its image files.
        images: The pattern of each channel.
        labels: The pattern of the labels.

    Raises:
        DatasetError: If a pattern fits no file, or they have unequal numbers of wildcards.
    """
    cases: dict[tuple[str, ...], TreeCase] = {}
    names = _name_channels(images)
    count = -1
    for name, text in zip(
        names,
        images,
        strict=True,
    ):
        for parts, file in _find(
            root,
            files,
            text,
        ):
            case = cases.setdefault(parts, TreeCase((), _join(parts)))
            case.add_image(name, file)
            count = len(parts)
    orphans = []
    for parts, file in _find(
        root,
        files,
        labels,
    ):
        extra = len(parts) - count
        if extra not in (0, 1):
            raise DatasetError(
                f"the pattern of the labels has {len(parts)} wildcards and that of the images "
                f"{count}; it needs as many, or one more for the names of structures"
            )
        case_of_label = cases.get(parts[:count])
        if case_of_label is None:
            orphans.append(file)
        elif extra:
            case_of_label.masks[parts[-1]] = file
        else:
            case_of_label.labels.append(file)
    labelled = [case for case in cases.values() if case.labels or case.masks]
    return Form(
        "patterns",
        tuple(labelled),
        tuple(orphans),
        channels=names,
    )


def _find(
    root: Path, files: Iterable[NamedFile], text: str
) -> Iterator[tuple[tuple[str, ...], NamedFile]]:
    pattern = parse_pattern(text)
    is_found = False
    for file in files:
        parts = pattern.match(file.file.relative_to(root).as_posix())
        if parts is not None:
            is_found = True
            yield parts, file
    if not is_found:
        raise DatasetError(
            "no image file fits a pattern; patterns are relative to the data folder, * stands for "
            "anything in a name and **/ for any folders",
            source=root,
            detail=f"the pattern is {text}",
        )


def _name_channels(patterns: Sequence[str]) -> tuple[str, ...]:
    """Name channels by what their patterns have of their own, else by number."""
    if len(patterns) == 1:
        return ("",)
    names = tuple(parse_pattern(text).literal for text in patterns)
    if len({*names}) == len(names) and all(names):
        return names
    return tuple(f"channel {number}" for number in range(1, len(names) + 1))


def _join(parts: Sequence[str]) -> str:
    """Return the name of a case; a part that repeats the one before stands once."""
    kept: list[str] = []
    for part in parts:
        if part and part not in kept[-1:]:
            kept.append(part)
    return "/".join(kept)
