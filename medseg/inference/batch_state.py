"""How far a batch is, and what its results hold: beside its ledger, for who reports on it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from medseg._support.files import write_atomically
from medseg.bundle.spec import BundleSpec
from medseg.errors import OutputError
from medseg.inference.ledger import Ledger
from medseg.inference.shards import Shard, list_shards
from medseg.inference.times import get_time_after
from medseg.labels import Label, LabelSet, Region

STATE = ".batch.json"
"""The file's name; it is hidden, for nobody needs to read it."""


class BatchState(BaseModel):
    """What a batch, or one shard of it, works on. It holds no path and no patient's name."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    title: str
    """The bundle's name and version."""
    labels: tuple[Label, ...]
    """The bundle's labels."""
    regions: tuple[Region, ...] = ()
    """Its regions, if it has some."""
    scans: int
    """How many scans were found, also those that cannot be read."""
    found: int | None = None
    """How many scans of all shards the search came upon; `null` where that is not known."""
    began: str
    """When, in UTC."""
    ended: str = ""
    """When all of them were done, in UTC; empty until then."""

    @classmethod
    def begin(
        cls,
        spec: BundleSpec,
        scans: int,
        found: int | None = None,
        former: str = "",
    ) -> BatchState:
        """Describe a batch that begins, after a former one began."""
        label_set = spec.label_set
        regions = label_set.regions if label_set.has_regions else ()
        return cls(
            title=f"{spec.name} {spec.version}",
            labels=tuple(label_set),
            regions=tuple(regions),
            scans=scans,
            found=found,
            began=get_time_after(former),
        )

    def end(self) -> BatchState:
        """Describe the same batch when it has ended."""
        return self.model_copy(update={"ended": get_time_after("")})

    @property
    def label_set(self) -> LabelSet:
        """The labels of the results."""
        return LabelSet(self.labels, regions=self.regions)


def write_state(ledger: Ledger, state: BatchState) -> None:
    """Write the state of a batch beside its ledger.

    Raises:
        OutputError: If it cannot be written.
    """
    text = state.model_dump_json(indent=2)
    write_atomically(ledger.path.with_name(STATE), f"{text}\n")


def read_state(folder: Path) -> BatchState | None:
    """Read the state beside a ledger; ``None`` where there is none, as in former versions' results.

    Args:
        folder: The folder of the ledger.

    Raises:
        OutputError: If it cannot be read.
    """
    path = folder / STATE
    try:
        return BatchState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(
            "the state of a batch cannot be read",
            source=path,
            detail=error.strerror,
        ) from error
    except (ValidationError, ValueError) as error:
        raise OutputError(
            "the state of a batch is damaged; remove it, and segment again: results are kept",
            source=path,
        ) from error


def find_former_begin(out: Path, shard: Shard | None) -> str:
    """Return when others began last who did not divide the scans as this shard does, or itself.

    Those of its own number are left out: they may be thousands.

    Args:
        out: The folder of results.
        shard: The shard; ``None`` for who does all scans.

    Returns:
        The time in UTC; empty if nobody did.
    """
    count = 0 if shard is None else shard.count
    others = [other for other in list_shards(out) if other.count != count]
    folders = [out / other.folder for other in others]
    if shard is not None:
        folders.append(out / shard.folder)
    times = [""]
    for folder in (out, *folders):
        # A damaged one is a report's matter, and its shard's own.
        with contextlib.suppress(OutputError):
            state = read_state(folder)
            times.append("" if state is None else state.began)
    return max(times)


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far the newest batch in a folder of results is.

    Attributes:
        states: Shard → its state, of those that have begun; with ``None`` for a shard where one
            process does all scans. Empty for results of former versions, which have none.
    """

    states: Mapping[Shard | None, BatchState]

    @property
    def newest(self) -> BatchState | None:
        """The state that was written last."""
        states = sorted(self.states.values(), key=lambda state: state.began)
        return states[-1] if states else None

    @property
    def scans(self) -> int | None:
        """How many scans there are; ``None`` while not all shards have begun."""
        if not self.states or self.list_waiting():
            return None
        return sum(state.scans for state in self.states.values())

    def list_waiting(self) -> list[Shard]:
        """Return the shards that have not begun."""
        begun = {shard for shard in self.states if shard is not None}
        count = max((shard.count for shard in begun), default=0)
        shards = [Shard(count, number) for number in range(1, count + 1)]
        return [shard for shard in shards if shard not in begun]

    def list_outdated(self) -> list[Shard]:
        """Return the shards that looked for scans before others were added.

        Where scans were taken away meanwhile there is nothing left to do.
        """
        newest = 0 if self.newest is None else self.newest.found or 0
        outdated = []
        for shard, state in self.states.items():
            is_behind = state.found is not None and state.found < newest
            if shard is not None and is_behind:
                outdated.append(shard)
        return outdated

    def list_unentered(self, names: Iterable[str]) -> list[Shard | None]:
        """Return the shards that have ended although not all of their scans are in a ledger.

        Args:
            names: Of the scans that some ledger knows.
        """
        known = Counter(map(self._find_shard, names))
        return [
            shard
            for shard, state in self.states.items()
            if state.ended and known[shard] < state.scans
        ]

    def _find_shard(self, name: str) -> Shard | None:
        """Return whose scan it is."""
        some = next(iter(self.states), None)
        return None if some is None else Shard.find(name, some.count)

    def list_unfinished(self) -> list[Shard | None]:
        """Return the shards that have begun, and not ended."""
        return [
            shard for shard, state in self.states.items() if not state.ended
        ]


def read_progress(out: Path) -> BatchProgress:
    """Read how far the newest batch in a folder of results is.

    Where shards were first of one number and then of another, those that began last count.

    Raises:
        OutputError: If it cannot be read.
    """
    by_count: dict[int, dict[Shard | None, BatchState]] = {}
    alone = read_state(out)
    if alone is not None:
        by_count[0] = {None: alone}
    for shard in list_shards(out):
        state = read_state(out / shard.folder)
        if state is not None:
            by_count.setdefault(shard.count, {})[shard] = state
    batches = [BatchProgress(states) for states in by_count.values()]
    return max(batches, key=_get_last_begin, default=BatchProgress({}))


def _get_last_begin(batch: BatchProgress) -> str:
    return "" if batch.newest is None else batch.newest.began
