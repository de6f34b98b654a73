"""What a network that follows clicks sees behind the image, and what it sees where there are none.

Of the label that is corrected: a small Gaussian at each click inside it, one at each click outside,
and its mask before the clicks. Where nobody clicked all three are zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn


def draw_clicks(
    points: Iterable[Sequence[float]],
    shape: Sequence[int],
    sigma: float,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Draw a Gaussian of height 1 at each point; where several overlap, the highest counts.

    Args:
        points: Positions in voxels along each axis of ``shape``; they may lie outside.
        shape: Size of the image.
        sigma: Standard deviation in voxels.
        device: Where to draw.

    Returns:
        float32 of this shape, 0 to 1.
    """
    drawn = torch.zeros(*shape, device=device)
    for point in points:
        gaussian = torch.ones((), device=device)
        for centre, length in zip(point, shape, strict=True):
            distance = torch.arange(length, device=device) - centre
            along = torch.exp(-0.5 * (distance / sigma) ** 2)
            gaussian = gaussian[..., None] * along
        drawn = torch.maximum(drawn, gaussian)
    return drawn


def draw_click_inputs(
    inside: Iterable[Sequence[float]],
    outside: Iterable[Sequence[float]],
    mask: torch.Tensor,
    sigma: float,
) -> torch.Tensor:
    """Return what shows the clicks on one label: float32 ``(3, *mask.shape)``.

    Args:
        inside: Positions of clicks inside the label, in voxels of the mask.
        outside: Positions of clicks outside of it.
        mask: Where the label is, before the clicks.
        sigma: The bundle's ``training.clicks.sigma``.
    """
    shape, device = mask.shape, mask.device
    return torch.stack(
        [
            draw_clicks(inside, shape, sigma, device),
            draw_clicks(outside, shape, sigma, device),
            mask.float(),
        ]
    )


def append_no_clicks(images: torch.Tensor, channels: int) -> torch.Tensor:
    """Add empty channels until there are as many as the network takes.

    Args:
        images: ``(batch, channels, …)``; returned as they are where nothing is missing.
        channels: What the network takes: ``BundleSpec.input_channels``.
    """
    missing = channels - images.shape[1]
    if not missing:
        return images
    empty = images.new_zeros(len(images), missing, *images.shape[2:])
    return torch.cat([images, empty], dim=1)


class WithoutClicks(nn.Module):
    """A network as it answers for the image alone.

    Args:
        network: Its parameters are shared, not copied.
        channels: What it takes: ``BundleSpec.input_channels``.
    """

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network = network
        self._channels = channels
        self.train(network.training)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, channels, *patch)`` to what the network returns."""
        scores: torch.Tensor = self.network(
            append_no_clicks(image, self._channels)
        )
        return scores
