"""How people give the channels of a scan, said wherever some are missing."""

from __future__ import annotations

from collections.abc import Sequence

from medseg.bundle.spec import ChannelSpec
from medseg.errors import ScanError
from medseg.io import with_channels
from medseg.volume import Volume


def fit_channels(volume: Volume, channels: Sequence[ChannelSpec]) -> Volume:
    """Return a volume with as many channels as a bundle has: grey becomes R = G = B.

    Raises:
        ScanError: If the numbers differ in any other way; it says how channels are given.
    """
    try:
        return with_channels(volume, len(channels))
    except ScanError as error:
        names = [channel.name for channel in channels]
        text = f"{error.message} (its channels: {', '.join(names)})"
        if len(names) > 1:
            text = f"{text}; {describe_ways(names)}"
        raise ScanError(text, source=error.source) from error


def describe_missing(
    names: Sequence[str],
    found: Sequence[str],
    doubled: Sequence[str] = (),
    ways: str = "",
    elsewhere: Sequence[str] = (),
) -> str:
    """Say which channels of a scan are there and which are not, and how to give them.

    Args:
        names: The bundle's channels, in order.
        found: Those that the scan has.
        doubled: Those for which it has several images.
        ways: How to give them; as files unless given.
        elsewhere: Those among the missing ones that lie on another grid.

    Examples:
        >>> describe_missing(["T1", "FLAIR"], ["T1"]).partition(";")[0]
        'has no image of the channel FLAIR (found: T1)'
    """
    missing = [name for name in names if name not in (*found, *doubled)]
    parts = []
    if missing:
        parts.append(f"no image of the {_count(missing)}")
    if doubled:
        parts.append(f"several images that may be the {_count(doubled)}")
    there = ", ".join(found) or "none"
    if elsewhere:
        there += f"; on another grid: {', '.join(elsewhere)}"
    text = " and ".join(parts)
    return f"has {text} (found: {there}); {ways or describe_ways(names)}"


def describe_ways(names: Sequence[str]) -> str:
    """Say how to give the channels of a scan."""
    endings = ", ".join(f"_{name}" for name in names)
    last = f"_{len(names) - 1:04d}"
    columns = ",".join(names)
    return (
        "give each case a folder or a name of its own, with one file per channel that ends in the "
        f"channel's name ({endings}) or, in this order, in its number (_0000 to {last}); or a CSV "
        f"with the columns {columns} and a line per case"
    )


def _count(names: Sequence[str]) -> str:
    noun = "channel" if len(names) == 1 else "channels"
    return f"{noun} {', '.join(names)}"
