"""Windows of scans, on which the ranges of a network's activations are measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cache import (
    CachedCase,
    is_entry,
    make_entry_key,
    read_entry,
    write_entry,
)
from medseg.datasets.integrity import open_case
from medseg.datasets.labelled_cases import LabelledCases
from medseg.inference.windows import Corner, Windows, cut_window
from medseg.preprocessing.case_input import Preprocessing
from medseg.preprocessing.transforms import get_padding_value
from medseg.volume import Array

COUNT = 32
"""Windows to measure on: more change nothing that can be seen in the Dice."""


def draw_case_windows(cases: LabelledCases, cache: Path) -> list[Array]:
    """Cut windows out of labelled cases, brought onto the network's grid as for a training.

    Args:
        cases: The cases.
        cache: Folder to keep them in.

    Returns:
        As ``draw_windows``.

    Raises:
        ScanError: If a case cannot be read or brought onto the grid.
        OutputError: If it cannot be kept.
    """
    spec = cases.spec
    preprocess = Preprocessing(spec, with_label=True)
    ignored = spec.label_set.ignore_index
    cached = []
    for case, measures in zip(cases.cases, cases.measures, strict=True):
        entry = cache / make_entry_key(case, spec)
        if not is_entry(entry):
            volume, label = open_case(case, spec)
            write_entry(
                entry, case, volume, label, measures, preprocess, ignored
            )
        cached.append(read_entry(entry))
    return draw_windows(cached, spec)


def draw_windows(
    cases: Sequence[CachedCase], spec: BundleSpec, count: int = COUNT
) -> list[Array]:
    """Cut windows out of cases, every other one around a labelled voxel.

    Args:
        cases: The cases, on the network's grid.
        spec: The bundle.
        count: How many windows.

    Returns:
        float32 ``(1, channels, *size)`` each; always the same of the same cases.
    """
    x, y, z = (*spec.training.patch, 1)[:3]
    outside = get_padding_value(spec)
    windows = []
    for number in range(count):
        case = cases[number % len(cases)]
        rng = np.random.default_rng((spec.training.seed, number))
        places = Windows((x, y, z), case.shape, 0.0)
        centre = _choose_centre(case, rng, is_labelled=number % 2 == 0)
        corner = _place_window(places, centre)
        window = cut_window(case.image.float(), places, corner, outside)
        array: Array = window[None].cpu().numpy()
        windows.append(array[..., 0] if spec.network.dims == 2 else array)
    return windows


def _choose_centre(
    case: CachedCase, rng: np.random.Generator, *, is_labelled: bool
) -> tuple[int, ...]:
    """Return a voxel: of a label, each label equally often, or anywhere."""
    labels = [label for label, where in case.foreground.items() if len(where)]
    if is_labelled and labels:
        where = case.foreground[labels[int(rng.integers(len(labels)))]]
        flat = int(where[int(rng.integers(len(where)))])
        return tuple(int(i) for i in np.unravel_index(flat, case.shape))
    return tuple(int(rng.integers(length)) for length in case.shape)


def _place_window(windows: Windows, centre: Sequence[int]) -> Corner:
    """Return the corner of the window about a voxel that lies on the grid, if it is as large."""
    corner = []
    for axis, voxel in enumerate(centre):
        size, length = windows.size[axis], windows.shape[axis]
        if length <= size:
            corner.append(windows.starts(axis)[0])
        else:
            first = voxel - size // 2
            corner.append(min(max(first, 0), length - size))
    x, y, z = corner
    return x, y, z
