"""Other critics than medseg's own: does one of them make the adversarial term pay?"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from medseg.bundle.spec import BundleSpec, RefinementSpec
from medseg.networks.critic import Critic

REACH = 5
"""Voxels within which a distance is told from a larger one."""

DECAY = 0.5
"""Voxels over which a soft distance forgets; smaller is sharper."""


class TwoScales(nn.Module):
    """Two critics, the second of which sees image and mask half as fine (Wang et al., CVPR 2018).

    Args:
        spec: The bundle.
        refinement: Its refinement section.
    """

    def __init__(self, spec: BundleSpec, refinement: RefinementSpec) -> None:
        super().__init__()
        self.fine, self.coarse = (
            Critic(spec, refinement),
            Critic(spec, _shallower(refinement)),
        )
        self._halve = (
            functional.avg_pool3d
            if spec.network.dims == 3
            else functional.avg_pool2d
        )

    def forward(
        self, image: torch.Tensor, mask: torch.Tensor
    ) -> list[torch.Tensor]:
        """Return the feature maps of both, and last the scores of both ``(batch, patches)``."""
        fine = self.fine(image, mask)
        coarse = self.coarse(self._halve(image, 2), self._halve(mask, 2))
        scores = torch.cat(
            [maps[-1].flatten(1) for maps in (fine, coarse)], dim=1
        )
        return [*fine[:-1], *coarse[:-1], scores]


def _shallower(refinement: RefinementSpec) -> RefinementSpec:
    critic = refinement.critic.model_copy(update={"layers": 1})
    return refinement.model_copy(update={"critic": critic})


class Distances(nn.Module):
    """A critic that sees how far each voxel is from a structure's surface, not the mask itself.

    Distances are soft, so that gradients reach the mask: ``d = −λ log Σ_y p(y) exp(−|x − y| / λ)``
    (Karam et al., 2019), with city-block distances, which make the sum separable. They are cut at
    ``REACH``, and negative inside.

    Args:
        spec: The bundle.
        refinement: Its refinement section.
    """

    def __init__(self, spec: BundleSpec, refinement: RefinementSpec) -> None:
        super().__init__()
        self.critic, self._dims = Critic(spec, refinement), spec.network.dims

    def forward(
        self, image: torch.Tensor, mask: torch.Tensor
    ) -> list[torch.Tensor]:
        """Return what the critic says of the distances."""
        return self.critic(
            image, signed_distances(mask.clamp(0, 1), self._dims)
        )


def signed_distances(mask: torch.Tensor, dims: int) -> torch.Tensor:
    """Return the soft signed distance to each class, −1 deep inside to 1 far outside.

    Args:
        mask: Probabilities, ``(batch, classes, *patch)``.
        dims: Axes of a patch.
    """
    return (_distances(mask, dims) - _distances(1 - mask, dims)) / REACH


def _distances(mask: torch.Tensor, dims: int) -> torch.Tensor:
    steps = torch.arange(
        -REACH, REACH + 1, device=mask.device, dtype=mask.dtype
    )
    kernel = torch.exp(-steps.abs() / DECAY)
    near, classes = mask, mask.shape[1]
    convolve = functional.conv3d if dims == 3 else functional.conv2d
    for axis in range(dims):
        shape, padding = [classes, 1] + [1] * dims, [0] * dims
        shape[2 + axis], padding[axis] = len(kernel), REACH
        along = kernel.reshape(
            [1, 1] + [n if n > 1 else 1 for n in shape[2:]]
        ).expand(*shape)
        near = convolve(near, along, padding=padding, groups=classes)
    return (-DECAY * torch.log(near.clamp_min(1e-6))).clamp(0, REACH)
