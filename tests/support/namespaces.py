"""A network namespace: another machine, as far as addresses go."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Namespace:
    """Where programs have an address of their own, from which the test has another one.

    Attributes:
        command: Goes before a program's own command line, to run it there.
        address: Its address.
    """

    command: Sequence[str]
    address: str


@contextlib.contextmanager
def open_namespace() -> Iterator[Namespace]:
    """Make a namespace and a wire to it; skip where that is not allowed."""
    name = f"medseg-{os.getpid()}"
    here, there = f"ms{os.getpid()}a", f"ms{os.getpid()}b"
    # A network of its own for each process of tests, from what is for such uses (RFC 2544).
    net = f"198.18.{os.getpid() % 256}"
    try:
        _run("ip", "netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("network namespaces need root and iproute2")
    inside = ["ip", "netns", "exec", name]
    try:
        wire = ["ip", "link", "add", here, "type", "veth", "peer", "name"]
        _run(*wire, there, "netns", name)
        _run("ip", "addr", "add", f"{net}.1/24", "dev", here)
        _run("ip", "link", "set", here, "up")
        _run(*inside, "ip", "addr", "add", f"{net}.2/24", "dev", there)
        for device in (there, "lo"):
            _run(*inside, "ip", "link", "set", device, "up")
        yield Namespace(inside, f"{net}.2")
    finally:
        _run("ip", "netns", "del", name)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
