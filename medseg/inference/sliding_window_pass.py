"""One sliding-window pass over a scan: windows in, labels and confidence out, in bounded memory.

The scores of a whole scan are never held. Windows come in order of their first plane, so the
planes that no later window reaches are labelled, and their scores forgotten, as the pass goes on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np
import torch

from medseg.bundle.spec import BundleSpec
from medseg.inference.accumulator import Accumulator
from medseg.inference.confidence import (
    ClassTotals,
    ConfidenceAccumulator,
)
from medseg.inference.host_writer import HostWriter
from medseg.inference.label_writer import LabelWriter
from medseg.inference.pass_plan import PassPlan, PassResult
from medseg.inference.region_confidence import make_confidence, sum_by_channel
from medseg.inference.sliding_window import SlidingWindow
from medseg.inference.windows import Corner, Windows, cut_window
from medseg.metrics.confusion import count_voxels
from medseg.networks.loading import OutputLayout
from medseg.preprocessing.grid import NetworkGrid, crop_input
from medseg.preprocessing.grid_map import GridMap
from medseg.preprocessing.resampling import resample_nearest
from medseg.preprocessing.sending import send
from medseg.volume import Array

_log = logging.getLogger(__name__)


class SlidingWindowPass:
    """One pass over one scan: gives out windows, takes their scores, labels what is final.

    Whoever runs the network asks for the next windows, and adds their scores::

        with SlidingWindowPass(setup, plan) as scan_pass:
            while corners := scan_pass.next_corners():
                scan_pass.add(corners, network(scan_pass.cut(corners)))
            result = scan_pass.finish()

    What a GPU makes is taken into the host's memory by a thread. It ends with the context, before
    anything else may write where the pass has written.

    Args:
        setup: What is the same for all scans.
        plan: What is special about this one.
    """

    def __init__(self, setup: SlidingWindow, plan: PassPlan) -> None:
        self._setup = setup
        self._device = setup.device
        self._outside = setup.outside
        self._repeats_border = setup.repeats_border
        self._label_set = setup.spec.label_set
        image = plan.image
        if image is None:
            image = setup.make_input(plan.volume, plan.grid, plan.storage.image)
        self._image, plan = _crop_input(image, plan, setup.spec)
        self._plan = plan
        self._left = plan.windows.corners()
        self._stopwatch = plan.stopwatch
        self._stopwatch.lap("input")
        layout, sums_on = setup.layout, plan.storage.sums
        self._sums = Accumulator(
            plan.windows, layout.channels, sums_on, layout.labelled
        )
        self._host = HostWriter()
        self._own = self._make_confidence(layout, None)
        self._given = None
        if plan.given is not None:
            in_box = _crop(plan.given, plan.grid)
            given = resample_nearest(in_box, plan.grid.scan_to_network)
            self._given = self._make_confidence(layout, given)
        labels = _crop(plan.labels, plan.grid)
        probabilities = plan.probabilities
        if probabilities is not None:
            probabilities = plan.grid.crop(probabilities)
        writer = LabelWriter(
            plan.grid.network_to_scan,
            labels,
            sums_on,
            setup.decoding,
            probabilities,
            plan.temperatures[0],
            self._host,
        )
        self._writers = [writer]
        self._on_grid: Array | None = None
        if setup.spec.inference.keep_largest_on == "input":
            shape = plan.grid.shape
            self._on_grid = np.zeros(shape, labels.dtype, order="F")
            same = GridMap(np.eye(4), shape, shape)
            self._writers.append(
                LabelWriter(
                    same,
                    self._on_grid,
                    sums_on,
                    setup.decoding,
                    host=self._host,
                )
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._host.close()

    @property
    def windows(self) -> Windows:
        """Where the windows lie, within the box that the bundle looks at."""
        return self._plan.windows

    def list_corners(self) -> list[Corner]:
        """Return the corners of all windows that are left to compute."""
        return list(self._left)

    def next_corners(self) -> list[Corner]:
        """Return the corners of the windows to compute next; empty when all are done."""
        return self._left[: self._setup.batch_size]

    def cut(self, corners: Sequence[Corner]) -> torch.Tensor:
        """Return windows of the image on the network's device, ``(batch, channels, *size)``."""
        windows = []
        for corner in corners:
            window = cut_window(
                self._image,
                self._plan.windows,
                corner,
                self._outside,
                self._repeats_border,
            )
            windows.append(send(window, self._device))
        return torch.stack(windows)

    def halve_batch(self, tried: int) -> bool:
        """Compute half as many windows at a time from now on; ``False`` if it was one already.

        In the next scans, too: what did not fit would not fit then either.

        Args:
            tried: How many did not fit. Another thread may have halved the batch meanwhile.
        """
        if tried == 1:
            return False
        fewer = min(self._setup.batch_size, tried // 2)
        self._setup.batch_size = fewer
        _log.warning(
            "%d windows at a time do not fit the memory of %s; going on with %d",
            tried,
            self._device,
            fewer,
        )
        return True

    def add(self, corners: Sequence[Corner], scores: torch.Tensor) -> None:
        """Add the scores of the windows that were asked for last.

        Args:
            corners: From ``next_corners``.
            scores: ``(batch, channels, *size)``.

        Raises:
            MedsegError: If a score is not a finite number.
        """
        self._stopwatch.lap("network")
        self._left = self._left[len(corners) :]
        sums = self._sums
        for corner, window_scores in zip(corners, scores, strict=True):
            if not sums.has_room_for(corner):
                # No later window reaches the planes before this one's first.
                first_needed = self._take_planes_before(corner[2])
                sums.drop_before(first_needed)
            sums.add(corner, window_scores)
        self._stopwatch.lap("labels")

    def finish(self) -> PassResult:
        """Label the planes that are left and return what the pass made.

        Raises:
            MedsegError: If a score is not a finite number.
        """
        plan = self._plan
        self._take_planes_before(plan.grid.shape[2])
        self._host.finish()
        self._stopwatch.lap("labels")
        given = None
        if self._given is not None:
            given = self._given.sums.with_voxels_outside(
                self._count_given_outside()
            )
        return PassResult(
            plan.labels,
            plan.grid,
            self._own.sums,
            plan.temperatures,
            self._stopwatch.seconds,
            plan.warnings,
            given,
            plan.probabilities,
            self._on_grid,
        )

    def _make_confidence(
        self, layout: OutputLayout, given: Array | None
    ) -> ConfidenceAccumulator:
        shape, temperatures = self._plan.grid.shape, self._plan.temperatures
        return make_confidence(
            self._label_set, shape, layout, given, temperatures, self._host
        )

    def _take_planes_before(self, finished: int) -> int:
        """Label and judge the final planes; return the first plane that is still needed."""
        self._sums.settle_before(finished)
        needed = finished
        # No generator: what its closure holds stays with an error's traceback.
        for writer in self._writers:
            of_writer = writer.write_before(finished, self._sums)
            needed = min(needed, of_writer)
        self._own.add_before(finished, self._sums)
        if self._given is not None:
            self._given.add_before(finished, self._sums)
        return needed

    def _count_given_outside(self) -> ClassTotals:
        """Return how much of each given mask lies outside the box, in the network's voxels."""
        given, grid = self._plan.given, self._plan.grid
        label_set = self._label_set
        if given is None:
            return np.zeros(label_set.channels)
        in_box = _crop(given, grid)
        classes = label_set.classes
        outside = count_voxels(given, classes) - count_voxels(in_box, classes)
        network_voxels = math.prod(grid.shape)
        per_voxel = np.float64(network_voxels / in_box.size)
        return sum_by_channel(outside * per_voxel, label_set)


def _crop_input(
    image: torch.Tensor, plan: PassPlan, spec: BundleSpec
) -> tuple[torch.Tensor, PassPlan]:
    """Cut what the network sees to the box that the bundle looks at there, if it does."""
    cropped, grid = crop_input(
        image, plan.grid, spec.preprocessing, plan.volume
    )
    if grid is plan.grid:
        return image, plan
    windows = replace(plan.windows, shape=grid.shape)
    return cropped, replace(plan, grid=grid, windows=windows)


def _crop(labels: Array, grid: NetworkGrid) -> Array:
    """Return the box of a label map ``(i, j, k)`` that the network looks at, as a view."""
    with_channel = grid.crop(labels[None])
    box: Array = with_channel[0]
    return box
