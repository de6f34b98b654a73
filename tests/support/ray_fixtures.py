"""Ray for tests: in this process, or as two nodes that can be killed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.ray_nodes import RayNodes
    from support.rays import OneProcess


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[OneProcess]:
    """What stands for Ray wherever a cluster is joined: two nodes of a CPU, in this process."""
    from support.rays import cluster_in_process

    with cluster_in_process(monkeypatch, 1, 1) as one:
        yield one


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    """A cluster of two nodes, for all tests of a file."""
    from support.ray_nodes import ray_nodes

    with ray_nodes() as cluster:
        yield cluster
