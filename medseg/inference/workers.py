"""Who works on the scans of a batch: the devices of this machine, or a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from medseg._support.ray_cluster import connect_ray, parse_cluster
from medseg.bundle.bundle import Bundle
from medseg.errors import MedsegError
from medseg.events import Listener
from medseg.inference.batch import ScanBatch
from medseg.inference.cluster_workers import ClusterWorkers
from medseg.inference.devices_of_batch import count_ahead, load_segmenters
from medseg.inference.method import Method
from medseg.inference.pipeline import choose_pipelines, segment_scan
from medseg.inference.segmenter import Segmenter


class Workers(Protocol):
    """Whoever takes scans through the stages of a batch."""

    @property
    def method(self) -> Method:
        """What results are made with."""

    def prepare(self, batch: ScanBatch) -> Callable[..., list[Any]]:
        """Return what takes scans, and by ``record`` who enters their ends; as ``run_pipeline``."""


@dataclass(frozen=True, slots=True)
class LocalWorkers:
    """The devices of this machine.

    Attributes:
        segmenters: One for each.
    """

    segmenters: Sequence[Segmenter]

    @property
    def method(self) -> Method:
        """What results are made with."""
        return Method.of(self.segmenters[0])

    def prepare(self, batch: ScanBatch) -> Callable[..., list[Any]]:
        """Return the pipelines of the devices."""
        error_maps = batch.options.error_maps
        stages = [
            partial(segment_scan, segmenter._predictor, error_maps)
            for segmenter in self.segmenters
        ]
        return partial(
            choose_pipelines(stages),
            read=batch.read,
            write=batch.write,
            on_error=batch.on_error,
            ahead=count_ahead(self.segmenters),
        )


@contextlib.contextmanager
def open_workers(
    bundle: Bundle,
    device: str,
    choices: Mapping[str, Any],
    *,
    path: Path,
    root: Path,
    on: str = "",
    threads: int | None = None,
    tasks_per_gpu: int = 1,
    listeners: Sequence[Listener] = (),
) -> Iterator[Workers]:
    """Load a bundle where its scans will be segmented.

    Args:
        bundle: A trained bundle.
        device: What a person asked for.
        choices: What else ``Segmenter`` takes.
        path: Where the bundle lies.
        root: Where the scans were looked for.
        on: ``ray`` or ``ray=HOST:PORT`` for a cluster; empty for this machine.
        threads: Of arithmetic.
        tasks_per_gpu: How many scans share a GPU of a cluster.
        listeners: Told what a person should know of a cluster.

    Raises:
        MedsegError: As ``load_segmenters``, ``connect_ray`` and ``ClusterWorkers.load``; or if
            tasks are to share a GPU without a cluster.
    """
    if tasks_per_gpu != 1 and not on:
        raise MedsegError(
            "scans share a GPU only on a cluster; give --on ray, or leave out --tasks-per-gpu"
        )
    if not on:
        yield LocalWorkers(load_segmenters(bundle, device, **choices))
        return
    with connect_ray(parse_cluster(on)) as cluster:
        yield ClusterWorkers.load(
            cluster,
            bundle,
            path,
            device,
            choices,
            root=root,
            threads=threads,
            tasks_per_gpu=tasks_per_gpu,
            listeners=listeners,
        )
