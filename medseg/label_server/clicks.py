"""Clicks as viewers send them, and the label map that follows them, click by click.

MONAI Label's plugins send all clicks of a case with every request and never the label map: 3D
Slicer and OHIF for models of type ``deepedit`` a list of points for each label and for
``background``, for ``deepgrow`` the lists ``foreground`` and ``background`` beside a ``label``. A
point is a voxel ``[i, j, k]`` of the scan's array. So the server remembers the label map of the
clicks it has seen: a request that has one more costs one window. Clicks that were taken back, and
all that came after them, are made undone.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from medseg.errors import ScanError
from medseg.inference.clicks import parse_clicks
from medseg.inference.correction import Correction
from medseg.labels import LabelSet
from medseg.volume import Array, Volume

BACKGROUND = "background"
FOREGROUND = "foreground"

MOST_IN_REQUEST = 100
"""Clicks of all labels in one request: each may take a window, and others wait meanwhile."""
MOST_SCANS = 4
"""Scans that are remembered, each with its voxels; of more, the one used longest ago is opened
again."""

Point = tuple[float, float, float]


class GivenClick(NamedTuple):
    """A click as a person made it.

    Attributes:
        label: The index of the label that lies there; 0 for background.
        point: Where, in voxels of the scan.
    """

    label: int
    point: Point


@dataclass(frozen=True, slots=True)
class ClickRequest:
    """What a request asks for.

    Attributes:
        clicks: All clicks of the case.
        edited: The label that the person works on, if the request names one.
        named: The labels that the request names: those the viewer will show.
    """

    clicks: Sequence[GivenClick]
    edited: int | None
    named: frozenset[int]


def read_clicks(
    request: Mapping[str, Any], label_set: LabelSet, scan: Volume
) -> ClickRequest:
    """Read the clicks of a request.

    Args:
        request: Its parameters.
        label_set: The bundle's labels.
        scan: The scan's grid.

    Raises:
        ScanError: If there is no such label, or a click is none or lies outside the scan.
    """
    indices = {label.name: label.index for label in label_set}
    edited = _find_edited(request, indices)
    lists = _list_points(request, indices, edited)
    clicks: list[GivenClick] = []
    for name, index in lists.items():
        points = parse_clicks(request[name] or [], scan, f"'{name}'")
        for i, j, k in points.tolist():
            clicks.append(GivenClick(index, (i, j, k)))
    if len(clicks) > MOST_IN_REQUEST:
        raise ScanError(
            f"{len(clicks)} clicks were sent; {MOST_IN_REQUEST} are the most in one request"
        )
    named = {index for index in lists.values() if index}
    if edited is not None:
        named.add(edited)
    return ClickRequest(clicks, edited, frozenset(named))


def _find_edited(
    request: Mapping[str, Any], indices: Mapping[str, int]
) -> int | None:
    """Return the label that a request names as the one to correct, if it names one."""
    name = request.get("label")
    if name in (None, "", BACKGROUND):
        return None
    if isinstance(name, str) and name in indices:
        return indices[name]
    raise ScanError(f"'label' must be one of {', '.join(indices)}")


def _list_points(
    request: Mapping[str, Any],
    indices: Mapping[str, int],
    edited: int | None,
) -> dict[str, int]:
    """Return the parameters that hold clicks, and what label lies there."""
    known = {**indices, BACKGROUND: 0}
    if FOREGROUND not in indices and request.get(FOREGROUND):
        known[FOREGROUND] = _require_edited(indices, edited)
    for name, value in request.items():
        if name in known or not isinstance(value, list) or not value:
            continue
        raise ScanError(
            f"there are clicks on a label that this bundle does not have; it has "
            f"{', '.join(indices)}, and '{BACKGROUND}'",
            detail=str(name)[:100],
        )
    return {name: known[name] for name in request if name in known}


def _require_edited(indices: Mapping[str, int], edited: int | None) -> int:
    """Return the label that a request without labels is about: the only one need not be named."""
    if edited is not None:
        return edited
    if len(indices) == 1:
        return next(iter(indices.values()))
    raise ScanError(
        f"'{FOREGROUND}' needs 'label', the label to correct: one of {', '.join(indices)}"
    )


@dataclass(frozen=True, slots=True)
class _Step:
    """What one click changed.

    Attributes:
        click: The click.
        voxels: Which voxels, as an index.
        labels: What they became.
    """

    click: GivenClick
    voxels: tuple[npt.NDArray[np.intp], ...]
    labels: Array


@dataclass(slots=True)
class ClickHistory:
    """The clicks of one person on one scan, and what each changed.

    Attributes:
        correction: The scan, prepared for clicks.
        automatic: The label map before the first click.
        steps: What each click changed, in the order in which they were made.
        lock: Held while a request follows its clicks.
    """

    correction: Correction
    automatic: Array
    steps: list[_Step] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def follow(self, request: ClickRequest) -> Array:
        """Return the label map that follows all clicks of a request, and no others.

        Raises:
            ScanError: If a click lies where the network does not look.
        """
        mask, clicks = self._take_back(request.clicks)
        for click in clicks:
            mask = self._add(click, request.edited, mask)
        return mask

    def _take_back(
        self, clicks: Sequence[GivenClick]
    ) -> tuple[Array, list[GivenClick]]:
        """Undo what follows clicks that are gone; return the label map, and what is new."""
        new = Counter(clicks)
        mask = self.automatic.copy()
        kept: list[_Step] = []
        for step in self.steps:
            if not new[step.click]:
                break
            new[step.click] -= 1
            mask[step.voxels] = step.labels
            kept.append(step)
        self.steps = kept
        # A click that is sent twice is new once.
        return mask, list(+new)

    def _add(self, click: GivenClick, edited: int | None, mask: Array) -> Array:
        label = click.label or edited or self._find_label(click, mask)
        changed = mask
        if label:
            inside, outside = self._sort_clicks(label, click)
            changed = self.correction.correct(
                mask, label, inside, outside, around=[click.point]
            )
        voxels = np.nonzero(changed != mask)
        self.steps.append(_Step(click, voxels, changed[voxels]))
        return changed

    def _sort_clicks(
        self, label: int, last: GivenClick
    ) -> tuple[list[Point], list[Point]]:
        """Return the clicks inside and outside a label; of two on one point the later counts."""
        latest = {step.click.point: step.click.label for step in self.steps}
        latest[last.point] = last.label
        inside = [point for point, of in latest.items() if of == label]
        outside = [point for point, of in latest.items() if of != label]
        return inside, outside

    def _find_label(self, click: GivenClick, mask: Array) -> int:
        """Return the label that lies where a click says that there is none."""
        shape = np.array(mask.shape)
        voxel = np.floor(np.array(click.point) + 0.5).astype(int)
        return int(mask[tuple(voxel.clip(0, shape - 1))])


class ClickHistories:
    """The scans on which people click; those used longest ago are forgotten.

    Args:
        most: How many are remembered.
    """

    def __init__(self, most: int = MOST_SCANS) -> None:
        self._most = most
        self._histories: OrderedDict[tuple[object, ...], ClickHistory] = (
            OrderedDict()
        )
        self._lock = threading.Lock()

    def get(
        self, key: tuple[object, ...], begin: Callable[[], ClickHistory]
    ) -> ClickHistory:
        """Return what is remembered under a key; else begin anew.

        Args:
            key: The case, the version that is served, and the person.
            begin: Opens the scan.
        """
        with self._lock:
            history = self._histories.get(key)
            if history is not None:
                self._histories.move_to_end(key)
                return history
        history = begin()
        with self._lock:
            history = self._histories.setdefault(key, history)
            while len(self._histories) > self._most:
                self._histories.popitem(last=False)
        return history
