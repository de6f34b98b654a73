"""TotalSegmentator's tasks as data: networks, names of labels, crops, licences.

The table, ``tasks.json``, states facts of TotalSegmentator 2.18 alone; it holds no weights.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from medseg.bundle.spec.parts import Fraction, Name, ShortText, Spec
from medseg.errors import MedsegError

_TABLE = Path(__file__).with_name("tasks.json")


class TaskPart(Spec):
    """One network of a task."""

    name: Name
    """What the assembly calls it."""
    dataset: Annotated[int, Field(ge=1, le=999)]
    """Number of its data set, which its folder begins with."""
    folder: ShortText
    """How TotalSegmentator calls this folder."""
    labels: tuple[ShortText | None, ...]
    """Names of its labels 1, 2, …; none of auxiliary ones, which results do not show."""
    keep_largest: tuple[ShortText, ...] = ()
    """Labels of which only the largest piece is kept."""


class TaskCrop(Spec):
    """Where a task looks: around what another one has found."""

    task: Name
    """A task of one network."""
    labels: tuple[ShortText, ...]
    """Its labels."""
    margin_mm: float
    """Around them."""


class Task(Spec):
    """One of TotalSegmentator's tasks."""

    modality: Literal["CT", "MR"]
    """Of the scans."""
    licence: ShortText
    """Of the weights."""
    needs_licence_number: bool
    """Whether its makers give the weights only to those who have a licence number."""
    spacing_mm: tuple[float, float, float] | None
    """To which TotalSegmentator brings scans before its networks normalise them (right, anterior,
    superior); `null` where it leaves that to nnU-Net, which normalises first."""
    configuration: ShortText
    """Of nnU-Net."""
    folds: str
    """Which TotalSegmentator uses; nothing for all."""
    overlap: Fraction
    """Of windows: 1 less its step size."""
    crop: TaskCrop | None = None
    """Where the parts look; at the whole scan unless given."""
    left_out: ShortText = "nothing"
    """What TotalSegmentator does to results of this task, and an assembly does not."""
    parts: tuple[TaskPart, ...]
    """Its networks, in the order in which their labels are painted."""


@cache
def list_tasks() -> dict[str, Task]:
    """Return every task of the table, by name."""
    content = json.loads(_TABLE.read_text(encoding="utf-8"))
    return TypeAdapter(dict[str, Task]).validate_python(content)


def find_task(name: str) -> Task:
    """Return a task.

    Raises:
        MedsegError: If the table has none of this name; lists those it has.
    """
    tasks = list_tasks()
    if name not in tasks:
        raise MedsegError(
            f"TotalSegmentator's task '{name[:60]}' is not in medseg's table; it has "
            f"{', '.join(tasks)}"
        )
    return tasks[name]
