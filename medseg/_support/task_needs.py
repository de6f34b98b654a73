"""What tasks of a cluster take of their nodes."""

from __future__ import annotations

from collections.abc import Sequence

from medseg._support.ray_cluster import RayCluster
from medseg._support.ray_head import Node
from medseg._support.ray_tasks import TaskNeeds
from medseg.errors import MedsegError
from medseg.events import Listener, Notice, notify

_CPUS = 4
"""Of a task without a GPU: more threads gain less than more scans at once."""
_MOST_CPUS_BESIDE_GPU = 8
_MOST_TASKS_PER_GPU = 100
"""Each holds the networks; Ray itself divides a GPU into 10 000 parts."""


def choose_needs(
    nodes: Sequence[Node], device: str, threads: int | None, tasks_per_gpu: int
) -> TaskNeeds:
    """Choose what each task takes of its node.

    Args:
        nodes: Those of the cluster.
        device: ``cpu``; ``cuda``; or ``auto``, which is ``cuda`` where a node has a GPU.
        threads: CPUs for each task, if a person said how many.
        tasks_per_gpu: How many share a GPU.

    Raises:
        MedsegError: If a device is named by its number, or so many tasks cannot share a GPU.

    Examples:
        >>> choose_needs([Node(16, 2)], "auto", None, 2)
        TaskNeeds(cpus=4, gpus=0.5)
        >>> choose_needs([Node(16, 0), Node(2, 0)], "auto", None, 1)
        TaskNeeds(cpus=2, gpus=0.0)
    """
    _check_asked(device, tasks_per_gpu)
    with_gpus = [node for node in nodes if node.gpus >= 1]
    if device == "cpu" or (device == "auto" and not with_gpus):
        counts = [node.cpus for node in nodes if node.cpus >= 1]
        fewest = min(counts, default=_CPUS)
        return TaskNeeds(threads or min(_CPUS, fewest))
    shares = [
        int(node.cpus / (node.gpus * tasks_per_gpu)) for node in with_gpus
    ]
    fewest = min(shares, default=1)
    cpus = threads or max(1, min(_MOST_CPUS_BESIDE_GPU, fewest))
    return TaskNeeds(cpus, 1 / tasks_per_gpu)


def _check_asked(device: str, tasks_per_gpu: int) -> None:
    if device not in ("auto", "cpu", "cuda"):
        raise MedsegError(
            f"on a cluster, Ray chooses the GPU of each task; got device '{device}', give auto, "
            "cpu or cuda"
        )
    if not 1 <= tasks_per_gpu <= _MOST_TASKS_PER_GPU:
        raise MedsegError(
            f"a GPU takes at least 1 task, and at most {_MOST_TASKS_PER_GPU} tasks share it; got "
            f"{tasks_per_gpu}"
        )


def announce_waiting(
    needs: TaskNeeds, cluster: RayCluster, listeners: Sequence[Listener]
) -> None:
    """Say so where no node can do a task yet, or others have taken what there is."""
    text = _describe_needs(needs)
    if not sum(needs.count_slots(cluster.list_nodes())):
        notify(listeners, Notice(f"waiting for a node with {text}"))
    elif not sum(needs.count_slots([cluster.count_free()])):
        others = f"others use the cluster: waiting for {text}"
        notify(listeners, Notice(others))


def _describe_needs(needs: TaskNeeds) -> str:
    text = "a free CPU" if needs.cpus == 1 else f"{needs.cpus} free CPUs"
    if needs.gpus:
        text += " and a GPU"
    return text
