"""Images that are called after the channels of a bundle → in the bundle's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from medseg.errors import ScanError
from medseg.names import fold_name

Image = TypeVar("Image")


def order_channels(
    images: Mapping[str, Image], channels: Sequence[str]
) -> list[Image]:
    """Return images in the order of the channels they are called after; case does not matter.

    Args:
        images: Channel name → its image.
        channels: The bundle's, in its order.

    Raises:
        ScanError: If a channel has no image, or an image no channel.
    """
    by_name: dict[str, Image] = {}
    for name, image in images.items():
        by_name[fold_name(str(name))] = image
    wanted = [fold_name(channel) for channel in channels]
    if sorted(by_name) != sorted(wanted) or len(by_name) != len(images):
        raise ScanError(
            f"the scan's channels are not the bundle's, which are {', '.join(channels)}; give one "
            "image under each of these names",
            detail=f"got {', '.join(map(str, images))}",
        )
    return [by_name[name] for name in wanted]
