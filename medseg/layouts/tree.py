"""Data sets whose folders and files say by their names what they are.

Two parallel folders, one folder per case, labels beside images, a folder of masks per case: the
ways in which people lay out data are found by looking (``tree_forms``). What names leave open, the
content of a few files decides; and what that leaves open, patterns in ``data.images`` and
``data.labels``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg._support.folders import Listing, list_files
from medseg.errors import DatasetError
from medseg.layouts.contract import CaseListing, Selection
from medseg.layouts.patterns import (
    pair_by_patterns,
    parse_pattern,
    select_files,
)
from medseg.layouts.tree_case import Form
from medseg.layouts.tree_cases import add_cases
from medseg.layouts.tree_content import find_labels_by_content
from medseg.layouts.tree_forms import find_form
from medseg.layouts.tree_modalities import join_modalities
from medseg.layouts.tree_names import (
    NamedFile,
    mark_label,
    name_files,
)
from medseg.names import abbreviate

_ANYTHING = Selection()
_ASKED = "as asked"
_MOST_KINDS = 4


@dataclass(frozen=True, slots=True)
class TreeReading:
    """What a tree was understood to be.

    Attributes:
        files: Its image files.
        form: Their cases.
        reason: How labels were told from images.
        label_pattern: The pattern that finds the same labels, where their content told them.
    """

    files: tuple[NamedFile, ...]
    form: Form
    reason: str
    label_pattern: str = ""


class TreeLayout:
    """Images and labels in folders of many forms, told apart by names."""

    def recognizes(self, root: Path) -> bool:
        """Tell whether names say which files are images and which are their labels."""
        return root.is_dir() and find_named_form(root) is not None

    def list_cases(
        self,
        root: Path,
        selection: Selection,
    ) -> CaseListing:
        """List the cases.

        Args:
            root: The data folder.
            selection: Its patterns say which files are images and labels, where names do not; its
                channels and labels choose by name among those of each case.

        Raises:
            DatasetError: If no label has an image, or it is not certain which files are labels.
        """
        listing = list_tree(
            root,
            list_files(root),
            selection,
        )
        if listing is None:
            raise DatasetError(
                "no image with a label was found; say which files are images and labels by "
                "--images and --labels, such as --images 'scans/*.nii.gz' --labels "
                "'truth/*_manual.nii.gz'",
                source=root,
            )
        return listing


def find_named_form(root: Path) -> Form | None:
    """Return the cases of a folder as far as names tell them; ``None`` where they do not."""
    files = name_files(root, list_files(root).files)
    form = _find_named(files)
    if form is None or not form.is_convincing:
        return None
    return form


def list_tree(
    root: Path, found: Listing, selection: Selection
) -> CaseListing | None:
    """List the cases of a folder whose files are listed already; ``None`` where it has none.

    Raises:
        DatasetError: If it is not certain which files are labels, or patterns fit nothing.
    """
    reading = read_tree(
        root,
        found.files,
        selection,
    )
    if reading is None:
        return None
    listing = CaseListing(
        root,
        has_fields=True,
        layout="tree",
    )
    listing.faults.extend(found.left_out)
    listing.label_pattern = reading.label_pattern
    add_cases(
        reading.form,
        reading.files,
        selection,
        listing,
    )
    if not listing.cases and not listing.faults:
        return None
    listing.recognised = (
        f"{_describe_labels(reading)}",
        *listing.recognised,
    )
    return listing


def read_tree(
    root: Path, paths: Iterable[Path], selection: Selection = _ANYTHING
) -> TreeReading | None:
    """Say which files of a folder are the images and labels of which case.

    Raises:
        DatasetError: As for ``list_tree``.
    """
    files = name_files(root, paths)
    images = selection.image_patterns
    labels = selection.label_pattern
    if images and labels:
        paired = pair_by_patterns(
            root,
            files,
            images,
            labels,
        )
        return TreeReading(
            tuple(files),
            paired,
            _ASKED,
        )
    if images or labels:
        return _read_chosen(
            root,
            files,
            selection,
        )
    asked = [channel.name for channel in selection.channels]
    form = _find_named(files, asked)
    if form is not None and form.is_convincing:
        return TreeReading(
            tuple(files),
            form,
            "by their names",
        )
    return _read_by_content(root, files)


def _read_chosen(
    root: Path, files: Sequence[NamedFile], selection: Selection
) -> TreeReading | None:
    """Read a tree whose images, or whose labels, a pattern names."""
    labels = [file for file in files if file.role == "label"]
    if selection.label_pattern:
        literal = parse_pattern(selection.label_pattern).literal
        chosen = select_files(
            root,
            files,
            [selection.label_pattern],
        )
        labels = [mark_label(file, literal) for file in chosen]
    images = _take_images(files, labels)
    if selection.image_patterns:
        images = select_files(
            root,
            images,
            selection.image_patterns,
        )
    form = find_form(images, labels)
    if form is None:
        raise DatasetError(
            "no label has an image of its name; give patterns for both, by --images and --labels, "
            "whose wildcards stand for the same",
            source=root,
        )
    asked = tuple(channel.name for channel in selection.channels)
    form = join_modalities(
        form,
        images,
        asked,
    )
    return TreeReading(
        tuple(files),
        form,
        _ASKED,
    )


def _find_named(
    files: Sequence[NamedFile], asked: Sequence[str] = ()
) -> Form | None:
    labels = [file for file in files if file.role == "label"]
    images = _take_images(files, labels)
    if not labels or not images:
        return None
    form = find_form(images, labels)
    if form is None:
        return None
    return join_modalities(
        form,
        images,
        asked,
    )


def _take_images(
    files: Iterable[NamedFile], labels: Iterable[NamedFile]
) -> list[NamedFile]:
    taken = {label.file for label in labels}
    return [
        file
        for file in files
        if file.role in ("image", "") and file.file not in taken
    ]


def _read_by_content(
    root: Path, files: Sequence[NamedFile]
) -> TreeReading | None:
    """Read a tree in which no name says what is a label."""
    found = find_labels_by_content(root, files)
    if found is None:
        return None
    labels, pattern = found
    form = find_form(_take_images(files, labels), labels)
    if form is None or not form.is_convincing:
        return None
    reason = "by their content, a few whole numbers"
    return TreeReading(
        tuple(files),
        form,
        reason,
        pattern,
    )


def _describe_labels(reading: TreeReading) -> str:
    """Say how the cases were found and which files are labels."""
    form = reading.form
    kinds = _list_kinds(form)
    named = f" ({abbreviate(kinds)})" if kinds else ""
    return (
        f"{form.summary}; labels{named} are told from images {reading.reason}"
    )


def _list_kinds(form: Form) -> list[str]:
    """Return what most label files share; nothing of a single case, whose name may stand there."""
    if len(form.cases) < 2:
        return []
    stems = {label.stem for case in form.cases for label in case.labels}
    if len(stems) == 1:
        return list(stems)
    counts: Counter[str] = Counter()
    for case in form.cases:
        counts.update({label.kind for label in case.label_files})
    half = len(form.cases) / 2
    return [
        kind for kind, count in counts.most_common(_MOST_KINDS) if count > half
    ]
