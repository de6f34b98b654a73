"""What a ledger says of one scan, and in which order people should look at results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from medseg.names import is_safe_name
from medseg.quality.estimates import LabelQuality, Quality


def _check_name(name: str) -> str:
    """Return a plain file name as it is.

    Raises:
        ValueError: If it is none.
    """
    if not is_safe_name(name):
        raise ValueError("not a plain file name")
    return name


PlainName = Annotated[str, AfterValidator(_check_name)]
"""A file's name that leads nowhere else."""

State = Literal["done", "failed", "error", "skipped"]

_FAILED, _GOOD, _NOT_ASKED_FOR = range(3)
"""How scans are ordered for review."""

_NOTHING_FOUND = -1.0
_UNKNOWN_DICE = 2.0
"""Where results without an expected Dice stand when sorted: first, and (older ones) last."""


class QualityEntry(BaseModel):
    """How good a result probably is, estimated without knowing the truth."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    expected_dice: float | None
    """Mean over the structures that were found; `null` if none was."""
    lower_bound: float | None
    """The true Dice is at or above it in the share of scans the bundle states; `null` if the
    bundle is not calibrated."""
    labels: dict[str, tuple[float, float | None]] = {}
    """Label name → expected Dice and its bound, of the structures found."""
    is_calibrated: bool
    """Whether the numbers were learned from held-out cases."""
    review: bool
    """Whether someone should look at this result first."""
    reasons: tuple[str, ...] = ()
    """Why, in plain words."""
    is_made_up: bool = False
    """Whether the bundle was trained on made-up data."""
    is_range_known: bool = False
    """Whether scan and result were compared with what the bundle was validated on."""

    @classmethod
    def from_quality(cls, quality: Quality) -> QualityEntry:
        """Make the ledger's record of an estimated quality."""
        labels = {}
        for name, estimate in quality.labels.items():
            labels[name] = (estimate.expected, estimate.lower)
        return cls(
            expected_dice=quality.expected,
            lower_bound=quality.lower,
            labels=labels,
            is_calibrated=quality.is_calibrated,
            review=quality.review,
            reasons=quality.reasons,
            is_made_up=quality.is_made_up,
            is_range_known=quality.is_range_known,
        )

    @property
    def standing(self) -> Quality:
        """An estimate without numbers, that tells whether those of this one mean anything."""
        return Quality(
            is_calibrated=self.is_calibrated, is_made_up=self.is_made_up
        )

    def to_quality(self) -> Quality:
        """Return the quality that this is the record of."""
        labels = {}
        for name, (expected, lower) in self.labels.items():
            labels[name] = LabelQuality(expected, lower)
        return Quality(
            expected=self.expected_dice,
            lower=self.lower_bound,
            labels=labels,
            is_calibrated=self.is_calibrated,
            review=self.review,
            reasons=self.reasons,
            is_made_up=self.is_made_up,
            is_range_known=self.is_range_known,
        )


class Entry(BaseModel):
    """What became of one scan. It holds no path, no patient's name, and no UID."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    scan: PlainName
    """Its name in this batch."""
    state: State
    """`done`; `failed`: something is wrong with the scan; `error`: a bug in medseg; `skipped`:
    nothing was done, because its result is there already and would be the same (returned to the
    caller, not written), or because it was not asked for."""
    reason: str = ""
    """Why it was not asked for; empty unless that is why it was skipped."""
    files: dict[PlainName, str] = {}
    """Result file → its SHA-256."""
    missing: dict[str, str] = {}
    """Format that was asked for and that the scan has no file of → why."""
    content: str = ""
    """Hash of the scan's files."""
    key: str = ""
    """Hash of the scan's content, the bundle and the options: a result's with the same key would
    be the same. Empty where a file is missing that may well be written next time."""
    volumes_ml: dict[str, float] = {}
    """Label name → millilitres."""
    quality: QualityEntry | None = None
    """How good the result probably is; absent in failed scans and in older ledgers."""
    shape: tuple[int, ...] = ()
    """Voxels along the scan's own axes."""
    spacing_mm: tuple[float, ...] = ()
    """Their sizes."""
    seconds: dict[str, float] = {}
    """Stage → time it took."""
    warnings: tuple[str, ...] = ()
    """What a person should know about the scan."""
    error: str = ""
    """What is wrong, what is allowed, what to do; empty if done."""
    bundle: str = ""
    """The bundle's name and version."""
    origin: Annotated[str, Field(exclude_if=lambda text: not text)] = ""
    """Where the bundle's weights come from, if other software trained them."""
    bundle_hash: str = ""
    """Of its `bundle.json` and weights."""
    medseg: str = ""
    """Version of medseg."""
    device: str = ""
    """Kind of device the network ran on."""
    arithmetic: str = ""
    """The backend that computed it, and its precision."""
    finished: str = ""
    """When, in UTC."""
    searched: str = ""
    """Hash of the path of the folder, file or table in which the scan was found."""

    @property
    def is_good(self) -> bool:
        """Whether there is a result."""
        return self.state in ("done", "skipped") and not self.reason

    @property
    def is_failed(self) -> bool:
        """Whether there should be a result and is none."""
        return self.state in ("failed", "error")

    @property
    def remarks(self) -> tuple[str, ...]:
        """All that a person should know of a result: warnings, and formats without a file."""
        reasons = [
            f"there is no {name} of this scan: {why}"
            for name, why in self.missing.items()
        ]
        return (*self.warnings, *reasons)

    @property
    def is_incomplete(self) -> bool:
        """Whether there is a result, but not in all formats that were asked for."""
        return self.is_good and bool(self.missing)

    @property
    def needs_review(self) -> bool:
        """Whether there is a result that someone should look at first."""
        return self.is_good and self.quality is not None and self.quality.review

    @property
    def review_reasons(self) -> tuple[str, ...]:
        """Why someone should look at the result first."""
        if not self.needs_review or self.quality is None:
            return ()
        return self.quality.reasons


class Outcomes(ABC):
    """Scans of a batch by what became of them; whoever holds their entries says which they are."""

    __slots__ = ()

    @abstractmethod
    def _list_entries(self) -> Sequence[Entry]:
        """Return the entries."""

    @property
    def good(self) -> tuple[Entry, ...]:
        """The scans with a result."""
        return tuple(each for each in self._list_entries() if each.is_good)

    @property
    def failed(self) -> tuple[Entry, ...]:
        """The scans that should have a result and have none."""
        return tuple(each for each in self._list_entries() if each.is_failed)

    @property
    def incomplete(self) -> tuple[Entry, ...]:
        """The results that lack a format that was asked for."""
        return tuple(
            each for each in self._list_entries() if each.is_incomplete
        )


def get_review_order(entry: Entry) -> tuple[int, bool, float, str]:
    """Return the sort key of what to look at first.

    Failed scans come first, then results flagged for review, then all others, each from the worst
    to the best. What was not asked for comes last.
    """
    name = entry.scan.casefold()
    quality = entry.quality
    rank = _FAILED if entry.is_failed else _NOT_ASKED_FOR
    is_quiet = not entry.needs_review
    if not entry.is_good:
        return rank, is_quiet, _UNKNOWN_DICE, name
    if quality is None:
        return _GOOD, is_quiet, _UNKNOWN_DICE, name
    if quality.expected_dice is None:
        return _GOOD, is_quiet, _NOTHING_FOUND, name
    return _GOOD, is_quiet, quality.expected_dice, name
