"""How fast a bundle may be on a CPU: what is asked for, and what held-out cases decided."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from medseg.bundle.spec.exported import Digest
from medseg.bundle.spec.parts import Fraction, ShortText, Spec

Speed = Literal["exact", "balanced", "fast"]
SPEEDS: tuple[Speed, ...] = ("exact", "balanced", "fast")

Arithmetic = Literal["fp32", "bf16", "int8", "int8_bf16"]
QuantisedFile = Annotated[
    str, Field(pattern=r"^[a-z0-9_]{1,40}\.int8\.(xml|bin)$")
]
Change = Annotated[float, Field(ge=-1, le=1)]


class SpeedLimitsSpec(Spec):
    """How much Dice held-out cases may lose by a faster setting, against fp32."""

    mean: Annotated[float, Field(ge=0, le=1)] = 0.002
    """By how much the mean over cases and labels may be lower."""
    label: Annotated[float, Field(ge=0, le=1)] = 0.005
    """By how much that of any label may be lower."""

    def widened(self, factor: float) -> SpeedLimitsSpec:
        """Return the limits times a factor."""
        return SpeedLimitsSpec(
            mean=min(1.0, factor * self.mean),
            label=min(1.0, factor * self.label),
        )


class SpeedSetting(Spec):
    """In what arithmetic a CPU computes the network, and how windows overlap."""

    precision: Arithmetic = "fp32"
    """`int8` is post-training quantisation; `int8_bf16` has bf16 where nothing is quantised."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share by which neighbouring windows overlap."""

    @property
    def is_quantised(self) -> bool:
        """Whether it needs a network in int8."""
        return self.precision.startswith("int8")

    @property
    def name(self) -> str:
        """What people call it: `int8 + bf16, overlap 0.25`."""
        precision = self.precision.replace("_", " + ")
        return f"{precision}, overlap {self.overlap:g}"


class SpeedTrial(Spec):
    """What one setting did to held-out cases."""

    setting: SpeedSetting
    dice: Fraction
    """Mean Dice over cases and labels."""
    dice_change: Change
    """The same, minus that of `exact`; paired."""
    worst_change: Change
    """Of the label that loses most, mean over cases."""
    agreement: Fraction
    """Mean Dice of its label maps to those of `exact`."""
    relative_time: NonNegativeFloat
    """Its time for the same cases, divided by that of `exact`."""


class SpeedFinding(Spec):
    """Which settings keep the Dice of held-out cases."""

    network: Digest
    """Hash of the network and all weights it was decided for."""
    balanced: SpeedSetting | None = None
    """The fastest that keeps within the limits; `null` where none does, which is `exact`."""
    fast: SpeedSetting | None = None
    """The fastest that keeps within five times the limits."""
    cases: Annotated[int, Field(ge=0)] = 0
    """Held-out cases that decided."""
    dice: Fraction = 0.0
    """Mean Dice over cases and labels of `exact`."""
    trials: Annotated[tuple[SpeedTrial, ...], Field(max_length=100)] = ()
    """What was tried, in order."""
    files: Annotated[dict[QuantisedFile, Digest], Field(max_length=200)] = (
        Field(default={})
    )
    """Networks in int8, in `models/speed`, and their SHA-256."""
    made_with: Annotated[dict[ShortText, ShortText], Field(max_length=20)] = (
        Field(default={})
    )
    """Package → version, and the processor."""

    def get_setting(self, speed: str) -> SpeedSetting | None:
        """Return what was decided for a speed; ``None`` for `exact`."""
        settings = {"balanced": self.balanced, "fast": self.fast}
        return settings.get(speed)
