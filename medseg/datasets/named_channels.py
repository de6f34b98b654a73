"""Names that stand for the channels of a bundle, by the rules of training."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from medseg.datasets.channel_ways import describe_missing
from medseg.errors import ScanError
from medseg.layouts.channel_names import find_channels, is_same_channel

Image = TypeVar("Image")


@dataclass(frozen=True, slots=True)
class NameMatch:
    """Which names stand for which channels.

    Attributes:
        options: Channel → the names that may stand for it; one where it is certain.
    """

    options: Mapping[str, Sequence[str]]

    @property
    def found(self) -> dict[str, str]:
        """Channel → its name, where that is certain."""
        certain = {}
        for channel, names in self.options.items():
            if len(names) == 1:
                certain[channel] = names[0]
        return certain

    @property
    def doubled(self) -> tuple[str, ...]:
        """Channels that several names may stand for."""
        several = [name for name, names in self.options.items() if names[1:]]
        return tuple(several)


def match_names(wanted: Sequence[str], names: Collection[str]) -> NameMatch:
    """Say which of some names stands for which channel: its own, or another word for it."""
    there = sorted(names)
    together = find_channels(wanted, there)
    options: dict[str, Sequence[str]] = {}
    for number, channel in enumerate(wanted):
        if together:
            options[channel] = [together[number]]
        elif channel in there:
            options[channel] = [channel]
        else:
            options[channel] = [
                name for name in there if is_same_channel(channel, name)
            ]
    return NameMatch(options)


def order_channels(
    images: Mapping[str, Image], channels: Sequence[str]
) -> list[Image]:
    """Return the images that are called after channels, in the order of these.

    Args:
        images: What each image is called → the image.
        channels: The bundle's, in its order.

    Raises:
        ScanError: If a channel has no image, or several.

    Examples:
        >>> order_channels({"t1ce": 1, "flair": 2, "t2": 3}, ["FLAIR", "T1gd"])
        [2, 1]
    """
    by_name = {str(name): image for name, image in images.items()}
    match = match_names(channels, by_name)
    found = match.found
    if len(set(found.values())) < len(channels):
        listed = ", ".join(channels)
        raise ScanError(
            describe_missing(
                channels,
                tuple(found),
                match.doubled,
                f"give one image under each of the bundle's names, which are {listed}",
            ),
            detail=f"got {', '.join(by_name)}",
        )
    return [by_name[found[channel]] for channel in channels]
