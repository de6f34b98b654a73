"""What networks return: one tensor of logits, or several levels of them from fine to coarse."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def list_levels(output: Any) -> list[torch.Tensor]:
    """Return a network's outputs from fine to coarse, whatever form its class gives them.

    Some MONAI networks return a list while training (``SegResNetDS``), some a stack of levels
    ``(batch, level, class, …)``, most a single tensor.
    """
    if isinstance(output, list | tuple):
        return [level for level in output if isinstance(level, torch.Tensor)]
    return [output]


class FinestLevel(nn.Module):
    """A network that returns the logits of its finest level and nothing else.

    Args:
        network: Its parameters are shared, not copied.
        channels: Which of its channels to return; all unless given.
    """

    def __init__(
        self, network: nn.Module, channels: slice = slice(None)
    ) -> None:
        super().__init__()
        self.network = network
        self._channels = channels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, channels, *patch)`` to logits ``(batch, classes, *patch)``."""
        finest = list_levels(self.network(image))[0]
        return finest[:, self._channels]


class SupervisedNetwork(nn.Module):
    """A network in training: returns its logits at every supervised level, fine to coarse.

    ``DynUNet`` enlarges its coarse outputs to full size before it returns them; scoring them at
    their own size costs a fraction and learns the same (as nnU-Net does), so its levels are read
    before that.

    Args:
        network: What ``build_network`` made; its parameters are shared, not copied.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Map ``(batch, channels, *patch)`` to a list of logits, each ``(batch, classes, …)``."""
        network: Any = self.network
        heads = getattr(network, "heads", None)
        has_heads = isinstance(heads, list) and getattr(
            network, "deep_supervision", False
        )
        if not has_heads:
            return list_levels(network(image))
        # DynUNet fills its heads while it computes the finest level.
        features = network.skip_layers(image)
        finest = network.output_block(features)
        return [finest, *network.heads]
