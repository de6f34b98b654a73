"""A planned bundle, and what it was made from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from medseg.bundle.spec import BundleSpec
from medseg.planning.choices import list_choices
from medseg.planning.fingerprint import Fingerprint
from medseg.planning.training_cost import TrainingCost


@dataclass(frozen=True, slots=True)
class Plan:
    """A bundle and what it was made from.

    Attributes:
        file: Where it was written.
        spec: The bundle; its ``notes`` say why.
        fingerprint: What the cases are like; without cases if nnU-Net's plans were converted.
        recognised: What the data set was taken for, and why; empty if plans were converted.
        cost: What training takes here, where it was measured.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from medseg import Plan, plan
        >>> from medseg.testing import write_dataset
        >>> folder = Path(tempfile.mkdtemp())
        >>> data = write_dataset(folder / "data", 2, shape=(24, 20, 16), spacing=9.0)
        >>> planned: Plan = plan(data, folder / "bundle.json", device="cpu")
        >>> planned.spec.preprocessing.spacing_mm
        (9.0, 9.0, 9.0)
        >>> reasons = {field: reason for field, value, reason in planned.rows()}
        >>> reasons["preprocessing.spacing_mm"]
        'Every scan has 9 × 9 × 9 mm'
    """

    file: Path
    spec: BundleSpec
    fingerprint: Fingerprint
    recognised: tuple[str, ...] = ()
    cost: TrainingCost | None = None

    @property
    def survey(self) -> Fingerprint:
        """What ``fingerprint`` was called in 0.1.0."""
        warnings.warn(
            "Plan.survey is now Plan.fingerprint; the old name will be removed in the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.fingerprint

    def rows(self) -> list[tuple[str, str, str]]:
        """Return field, value and reason of every choice."""
        return list_choices(self.spec)
