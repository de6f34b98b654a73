"""What became of the scans of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from medseg._support.addresses import join_address
from medseg.inference.ledger_entry import Entry, Outcomes, get_review_order
from medseg.inference.scan_counts import count_scans
from medseg.inference.shards import Shard
from medseg.names import LEDGER


class Places(Mapping[str, str]):
    """Scan → where it was found; put together when somebody asks, which few do of many scans.

    Args:
        describe: Returns it.
    """

    def __init__(self, describe: Callable[[], Mapping[str, str]]) -> None:
        self._describe = describe

    @cached_property
    def _places(self) -> Mapping[str, str]:
        return self._describe()

    def __getitem__(self, scan: str) -> str:
        return self._places[scan]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@dataclass(frozen=True, slots=True)
class Batch(Outcomes):
    """What became of all scans.

    Attributes:
        out: Where the results are: their folder, or their address in an object store.
        results: One per scan, in the order worked on.
        places: Scan → where it was found: for the caller, in no result.
        gone: How many results in the folder are of scans that were not found this time.
        full_errors: Scan → what is wrong with it, with file names and texts of headers: for the
            caller, in no result.
        shard: Which part of the scans this was; ``None`` where it was all.
        address: Where the results are, if that is an object store.

    Examples:
        >>> from pathlib import Path
        >>> from medseg import Batch
        >>> batch = Batch(Path("results"), results=())
        >>> batch.failed
        ()
    """

    out: Path | str
    results: Sequence[Entry]
    places: Mapping[str, str] = field(default_factory=dict, repr=False)
    full_errors: Mapping[str, str] = field(default_factory=dict, repr=False)
    gone: int = 0
    shard: Shard | None = None
    address: str = ""

    @property
    def place(self) -> str:
        """Where the results are: their folder, or their address."""
        return self.address or str(self.out)

    @property
    def ledger(self) -> Path | str:
        """The file with a line for each scan worked on, or the object in a store."""
        if self.address:
            # There each call is a shard, since nothing in a store grows.
            shard = self.shard or Shard(1, 1)
            return join_address(self.address, shard.folder, LEDGER)
        folder = Path(self.out)
        if self.shard is not None:
            folder /= self.shard.folder
        return folder / LEDGER

    @property
    def to_review(self) -> tuple[Entry, ...]:
        """The results that someone should look at first, worst first."""
        flagged = [entry for entry in self.results if entry.needs_review]
        return tuple(sorted(flagged, key=get_review_order))

    @property
    def warned(self) -> tuple[Entry, ...]:
        """The results with a warning, worst first."""
        warned = [
            each for each in self.results if each.is_good and each.warnings
        ]
        return tuple(sorted(warned, key=get_review_order))

    @property
    def unjudged(self) -> str:
        """Why nobody can know how good the results are; empty where their quality was estimated."""
        return count_scans(self.results).why_unjudged

    @property
    def skipped(self) -> tuple[Entry, ...]:
        """The scans that were not asked for."""
        return tuple(entry for entry in self.results if entry.reason)

    def _list_entries(self) -> Sequence[Entry]:
        return self.results
