"""``medseg plan --draft-csv``: the cases of a data set as a table to correct and fill in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg._support.files import write_atomically
from medseg.errors import OutputError
from medseg.layouts import Selection
from medseg.planning.case_table import draft_case_table


def draft_table(
    dataset: str | Path,
    file: str | Path,
    *,
    images: Sequence[str] = (),
    labels: str | None = None,
) -> tuple[bool, int]:
    """Write the cases of a data set as a table; where none are found, every image file.

    Args:
        dataset: The data folder.
        file: The CSV to write.
        images: As for ``plan``.
        labels: As for ``plan``.

    Returns:
        Whether every case has its label, and how many lines there are.

    Raises:
        DatasetError: If there is no image file.
        OutputError: If the file exists or cannot be written.
    """
    selection = Selection(
        image_patterns=tuple(images), label_pattern=labels or ""
    )
    root, path = Path(dataset), Path(file)
    if path.exists():
        raise OutputError(
            "exists already; remove it, or choose another name", source=path
        )
    draft = draft_case_table(root, path.parent, selection)
    write_atomically(path, draft.text)
    return draft.is_complete, draft.lines
