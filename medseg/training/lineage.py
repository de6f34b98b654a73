"""Where a fine-tuned bundle comes from: which weights go to which label and channel, by name.

Only names decide, and every decision is a sentence, so that nobody has to guess what a network
knew before its first step.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medseg.bundle.bundle import Bundle, differences, load_bundle
from medseg.bundle.spec import BundleSpec, ChannelSpec, UNetSpec
from medseg.errors import CheckpointError
from medseg.labels import LabelSet
from medseg.training.run_folder import RunFolder

Sources = tuple[int | None, ...]
"""For each place of the new network, the parent's place whose weights it takes, or ``None``."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """The parent of a fine-tuned bundle.

    Attributes:
        name: The parent's name.
        version: Its version.
        run_id: The run it came from; empty where it does not say.
        weights: Hash of its weights.
        place: Its folder, for a resume; never published.
        decisions: What was taken over and what starts afresh, one sentence each.
    """

    name: str
    version: str
    run_id: str
    weights: str
    place: str
    decisions: tuple[str, ...]

    @property
    def published(self) -> dict[str, Any]:
        """All of it but the folder."""
        return {key: value for key, value in asdict(self).items() if key != "place"}

    @property
    def parameters(self) -> dict[str, str]:
        """Who the parent is, for tracking."""
        return {
            "from.name": self.name,
            "from.version": self.version,
            "from.run_id": self.run_id,
            "from.weights": self.weights,
        }


def trace_lineage(parent: Bundle, spec: BundleSpec) -> Lineage:
    """Say what a bundle takes over from a trained one.

    Raises:
        CheckpointError: If the parent has no weights.
    """
    file = initial_weights_file(parent)
    folder = RunFolder(parent.folder)
    return Lineage(
        name=parent.spec.name,
        version=parent.spec.version,
        run_id=str(folder.read_info()["run_id"]) if folder.has_begun else "",
        weights=_hash(file),
        place=str(parent.folder),
        decisions=tuple(_decisions(parent, spec)),
    )


def read_lineage(facts: Mapping[str, Any]) -> Lineage | None:
    """Return the lineage that a run noted when it began; ``None`` if it started from nothing.

    Raises:
        CheckpointError: If the note is damaged.
    """
    noted = facts.get("from")
    if noted is None:
        return None
    try:
        return Lineage(**(noted | {"decisions": tuple(noted["decisions"])}))
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"run.json is damaged: what it says under 'from': {error}") from error


def open_parent(lineage: Lineage) -> Bundle:
    """Open the parent again, for a run that was stopped before its first checkpoint.

    Raises:
        CheckpointError: If its weights are gone or others.
    """
    folder = Path(lineage.place)
    if (
        not folder.is_dir()
        or _hash(initial_weights_file(parent := load_bundle(folder))) != lineage.weights
    ):
        raise CheckpointError(
            f"the run began from the weights of {folder}, which are gone or others now, and has no "
            "checkpoint yet; start a new run"
        )
    return parent


def initial_weights_file(parent: Bundle) -> Path:
    """Return the weights that children start from: the first of an ensemble.

    Raises:
        CheckpointError: If there are none.
    """
    file = parent.weights.with_name(parent.trained.members[0])
    if not file.is_file():
        raise CheckpointError(
            f"{parent.folder} has no weights ({file.relative_to(parent.folder)}) to start from; "
            "give --from a trained bundle"
        )
    return file


def label_sources(parent: BundleSpec, spec: BundleSpec) -> Sources:
    """Return which of the parent's output channels each channel goes on from.

    Of labels background comes first; the same name wins, whatever its case; else the same code.
    Regions go on from regions of the same name. Labels and regions never go on from each other:
    what a softmax compares says nothing to a sigmoid.
    """
    if parent.regions or spec.regions:
        return _region_sources(parent.label_set, spec.label_set)
    by_name = {label.name.casefold(): label.index for label in parent.labels}
    by_code = {label.code: label.index for label in parent.labels if label.code}
    named = {label.index: by_name.get(label.name.casefold()) for label in spec.labels}
    taken = {index for index in named.values() if index is not None}
    coded = {label.index: by_code.get(label.code) for label in spec.labels if label.code}
    free = {index: code for index, code in coded.items() if code not in taken}
    return (0, *(named[label.index] or free.get(label.index) for label in spec.labels))


def _region_sources(parent: LabelSet, labels: LabelSet) -> Sources:
    if not (parent.has_regions and labels.has_regions):
        return (None,) * labels.channels
    by_name = {region.name.casefold(): region.channel for region in parent.regions}
    return tuple(by_name.get(region.name.casefold()) for region in labels.regions)


def channel_sources(parent: BundleSpec, spec: BundleSpec) -> Sources:
    """Return which of the parent's channels each channel goes on from.

    The same name wins, whatever its case; then the only one left of the same modality on both
    sides; and where both bundles have one channel, these two.
    """
    if len(parent.channels) == len(spec.channels) == 1:
        return (0,)
    found: dict[int, int] = {}
    for key in (_name, _modality):
        free = [i for i in range(len(spec.channels)) if i not in found]
        left = [i for i in range(len(parent.channels)) if i not in found.values()]
        found |= _only_matches(spec.channels, free, parent.channels, left, key)
    return tuple(found.get(i) for i in range(len(spec.channels)))


def _only_matches(
    channels: Sequence[ChannelSpec],
    free: Sequence[int],
    parents: Sequence[ChannelSpec],
    left: Sequence[int],
    key: Callable[[ChannelSpec], str],
) -> dict[int, int]:
    """Pair channels whose key occurs once on each side."""
    ours = Counter(key(channels[i]) for i in free)
    theirs = Counter(key(parents[i]) for i in left)
    places = {key(parents[i]): i for i in left}
    return {
        i: places[key(channels[i])]
        for i in free
        if ours[key(channels[i])] == theirs[key(channels[i])] == 1
    }


def _name(channel: ChannelSpec) -> str:
    return channel.name.casefold()


def _modality(channel: ChannelSpec) -> str:
    return channel.modality


def _decisions(parent: Bundle, spec: BundleSpec) -> Iterator[str]:
    old = parent.spec
    members = len(parent.trained.members)
    if members > 1:
        yield f"weights: of the first of the parent's {members} members"
    if parent.trained.refinement is not None:
        yield "refiner of the parent: dropped"
    rows, columns = label_sources(old, spec), channel_sources(old, spec)
    yield from _told_of_labels(rows, spec.label_set, old.label_set)
    names, parents = [c.name for c in spec.channels], [c.name for c in old.channels]
    yield from _told("channel", columns, names, parents, _ZERO if any_known(columns) else _FRESH)
    if isinstance(spec.network, UNetSpec) and spec.network.deep_supervision:
        yield "coarse outputs, which only training uses: fresh"
    for change in differences(old, spec):
        if change.startswith("preprocessing."):
            yield f"{change}; the weights learned with the former"


def _told_of_labels(rows: Sources, labels: LabelSet, parents: LabelSet) -> Iterator[str]:
    """Say what became of labels or regions; background always goes on from background."""
    own = len(labels.regions)
    if labels.has_regions == parents.has_regions:
        what = "region" if labels.has_regions else "label"
        names, theirs = _outputs(labels)[-own:], _outputs(parents)
        yield from _told(what, rows[-own:], names, theirs, _FRESH)
    elif labels.has_regions:
        yield "regions: fresh, the parent has labels that exclude each other"
    else:
        yield "labels: fresh, the parent has regions, which overlap"


def _outputs(labels: LabelSet) -> list[str]:
    """Return the name of each output channel; background has none."""
    names = [region.name for region in labels.regions]
    return names if labels.has_regions else ["", *names]


_FRESH = "fresh, the parent has none of this name"
_ZERO = "starts at zero, so that the network first sees what its parent saw"


def any_known(sources: Sources) -> bool:
    """Tell whether anything is taken over."""
    return any(source is not None for source in sources)


def _told(
    what: str, sources: Sources, names: Sequence[str], parents: Sequence[str], fresh: str
) -> Iterator[str]:
    for name, source in zip(names, sources, strict=True):
        if source is None:
            yield f"{what} {name}: {fresh}"
        elif parents[source].casefold() == name.casefold():
            yield f"{what} {name}: taken over"
        else:
            yield f"{what} {name}: taken over from the parent's {parents[source]}"
    for place, name in enumerate(parents):
        if name and place not in sources:
            yield f"{what} {name} of the parent: dropped"


def _hash(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:16]
