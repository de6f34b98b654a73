"""The critic: looks at an image and a mask, and says patch by patch how true the mask looks."""

from __future__ import annotations

import torch
from monai.networks.nets import PatchDiscriminator
from torch import nn
from torch.nn.utils import parametrizations

from medseg.bundle.spec import BundleSpec, RefinementSpec


class Critic(nn.Module):
    """A conditional patch discriminator (Isola et al., CVPR 2017) of MONAI's.

    Args:
        spec: The bundle.
        refinement: Its refinement section.
    """

    def __init__(self, spec: BundleSpec, refinement: RefinementSpec) -> None:
        super().__init__()
        critic, dims = refinement.critic, spec.network.dims
        self.discriminator = PatchDiscriminator(
            spatial_dims=dims,
            channels=critic.channels,
            in_channels=len(spec.channels) + spec.label_set.channels,
            num_layers_d=refinement.critic_layers(dims),
            norm=critic.norm.upper(),
        )
        if critic.spectral_norm:
            for layer in list(self.discriminator.modules()):
                if isinstance(layer, nn.Conv2d | nn.Conv3d):
                    parametrizations.spectral_norm(layer)

    def forward(
        self, image: torch.Tensor, mask: torch.Tensor
    ) -> list[torch.Tensor]:
        """Look at masks.

        Args:
            image: ``(batch, channels, *patch)``.
            mask: One number per class, ``(batch, classes, *patch)``.

        Returns:
            The feature maps of its layers, and last its scores ``(batch, 1, …)``, one per patch.
        """
        maps: list[torch.Tensor] = self.discriminator(
            torch.cat([image, mask], dim=1)
        )
        return maps
