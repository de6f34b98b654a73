"""How a trained network's masks are corrected, and the critic they are corrected against."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from medseg.bundle.spec.parts import Count, Extent, Fraction, Spec

CRITIC_LAYERS = {2: 3, 3: 2}
"""Layers of a critic by dimensions, unless the bundle says otherwise."""

SEPARATES = 0.3
"""Least distance between its scores of true and made masks at which a critic separates them."""


class CriticSpec(Spec):
    """The critic: a patch discriminator over image and mask (conditional PatchGAN, LSGAN)."""

    learning_rate: PositiveFloat = 1e-3
    """Learning rate of its Adam (betas 0.5 and 0.999), constant."""
    channels: Annotated[int, Field(ge=1, le=512)] = 16
    """Channels of its first layer; each further layer doubles them."""
    layers: Annotated[int, Field(ge=1, le=6)] | None = None
    """Layers between the first and the last; 2 in 3D and 3 in 2D unless given."""
    norm: Literal["instance", "batch"] = "instance"
    """Normalisation of its layers."""
    spectral_norm: bool = True
    """Limit how steep each layer can be (Miyato et al., 2018)."""
    instance_noise: NonNegativeFloat = 0.1
    """Noise on the masks it sees, as a standard deviation; falls to 0 over the steps."""
    mask_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of a true mask spread evenly over the classes, so that hard corners do not give it
    away."""
    real_label: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Target score of true masks (label smoothing); that of corrected ones is 0."""


class MaskPoolSpec(Spec):
    """The pool of imperfect masks that a refiner learns to correct."""

    faulty: Fraction = 0.3
    """Share of true masks with synthetic errors; the others are the network's own output."""
    final: Fraction = 0.45
    """Share of the network's own output that comes from its final weights; the rest comes from
    snapshots of its training, each equally often."""
    snapshots: Annotated[int, Field(ge=0, le=8)] = 3
    """Snapshots kept while the network trains: after 1/2, 1/4, 1/8, … of its steps."""
    corrupted: Fraction = 0.5
    """Share of images that are corrupted beyond the bundle's augmentation."""


class RefinementSpec(Spec):
    """Correction of masks, and adversarial training."""

    kind: Literal["corrector", "joint"] = "corrector"
    """`corrector`: once the network is trained, a small refiner learns to correct its masks.
    `joint`: no refiner; the network itself learns against a critic from the start."""
    steps: Count = 1000
    """Steps of the refiner, after those of the network; `joint` takes `training.steps`."""
    learning_rate: PositiveFloat = 1e-3
    """Highest learning rate of the refiner (AdamW, falls as a cosine); not for `joint`."""
    channels: Annotated[
        tuple[Extent, ...], Field(min_length=2, max_length=6)
    ] = (8, 16, 32, 64)
    """Channels of the refiner's levels from the top, each half as fine as the one above."""
    scale: PositiveFloat = 0.1
    """What the refiner's answer is first multiplied by before it is added to the logits; it is
    learned from there, one number per class."""
    dice_weight: NonNegativeFloat = 0.0
    """Weight of the Dice loss beside the refiner's cross-entropy, which weighs 1; not for
    `joint`, which takes the weights of `training`."""
    adversarial_weight: NonNegativeFloat = 0.05
    """Weight of the adversarial loss; at 0 no critic is built."""
    feature_matching: NonNegativeFloat = 0.5
    """Weight, within the adversarial loss, of the distance between the critic's feature maps of
    true and corrected masks (feature matching)."""
    start: Fraction = 0.2
    """Share of the steps before the adversarial loss counts; the critic learns from the first
    step."""
    ramp: Fraction = 0.2
    """Share of the steps over which the weight of the adversarial loss then rises."""
    critic: CriticSpec = CriticSpec()
    bank: MaskPoolSpec = MaskPoolSpec()

    @model_validator(mode="after")
    def _check_consistency(self) -> RefinementSpec:
        if self.kind == "joint" and not self.has_critic:
            raise ValueError(
                "kind 'joint' needs an adversarial_weight above 0; without a critic it is plain "
                "training, which is refinement null"
            )
        return self

    @property
    def has_critic(self) -> bool:
        """Whether a critic is built."""
        return self.adversarial_weight > 0

    def critic_layers(self, dims: int) -> int:
        """Return the layers of the critic between its first and its last."""
        return self.critic.layers or CRITIC_LAYERS[dims]

    def smallest_patch(self, dims: int) -> int:
        """Return the fewest voxels along an axis that the critic can see."""
        # Its convolutions are four voxels wide and padded by one: the first ones halve what they
        # see, each of the last two takes one voxel away, and one must be left.
        return int(3 * 2 ** self.critic_layers(dims))
