"""Where a fine-tuned bundle comes from: which weights go to which label and channel, by name.

Names alone decide, and every decision is a sentence, so that it is on record what a network knew
before its first step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from medseg.bundle.bundle import Bundle, load_bundle
from medseg.bundle.hashes import hash_file
from medseg.bundle.spec import (
    CLICK_CHANNELS,
    BundleSpec,
    ChannelSpec,
    UNetSpec,
)
from medseg.bundle.spec_files import list_differences
from medseg.errors import CheckpointError
from medseg.labels import LabelSet
from medseg.names import fold_name
from medseg.training.run_folder import RunFolder

Sources = tuple[int | None, ...]
"""For each slice of the new network's weights, the parent's slice it starts from, or ``None``."""

_NEW = "newly initialised, the parent has none of this name"
_UNKNOWN_LICENCE = "unknown"
_ZERO = "starts at zero, so that the network first sees what its parent saw"


@dataclass(frozen=True, slots=True)
class Lineage:
    """The parent of a fine-tuned bundle.

    Attributes:
        name: The parent's name.
        version: Its version.
        run_id: The run it came from; empty where unknown.
        weights: Hash of its weights.
        place: Its folder, for a resume; never published.
        decisions: What was taken over and what was newly initialised, one sentence each.
    """

    name: str
    version: str
    run_id: str
    weights: str
    place: str
    decisions: tuple[str, ...]

    @property
    def published(self) -> dict[str, Any]:
        """Everything but the folder."""
        fields = asdict(self)
        del fields["place"]
        return fields

    @property
    def parameters(self) -> dict[str, str]:
        """What identifies the parent, for tracking."""
        return {
            "from.name": self.name,
            "from.version": self.version,
            "from.run_id": self.run_id,
            "from.weights": self.weights,
        }


def trace_lineage(parent: Bundle, spec: BundleSpec) -> Lineage:
    """Record what a bundle takes over from a trained one.

    Raises:
        CheckpointError: If the parent has no weights.
    """
    file = initial_weights_file(parent)
    folder = RunFolder(parent.folder)
    run_id = ""
    if folder.has_begun:
        run_id = str(folder.read_info()["run_id"])
    return Lineage(
        name=parent.spec.name,
        version=parent.spec.version,
        run_id=run_id,
        weights=_hash_weights(file),
        place=str(parent.folder),
        decisions=tuple(_describe_decisions(parent, spec)),
    )


def read_lineage(info: Mapping[str, Any]) -> Lineage | None:
    """Return the lineage in a run's ``run.json``; ``None`` if it started from random weights.

    Raises:
        CheckpointError: If the entry is damaged.
    """
    entry = info.get("from")
    if entry is None:
        return None
    try:
        decisions = tuple(entry["decisions"])
        return Lineage(**(entry | {"decisions": decisions}))
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(
            "run.json is damaged: its entry 'from' is not the lineage of a run; start a new run",
            detail=str(error),
        ) from error


def open_parent(lineage: Lineage) -> Bundle:
    """Open the parent again, for a run that was stopped before its first checkpoint.

    Raises:
        CheckpointError: If its weights are gone or have changed.
    """
    folder = Path(lineage.place)
    if folder.is_dir():
        parent = load_bundle(folder)
        if _hash_weights(initial_weights_file(parent)) == lineage.weights:
            return parent
    raise CheckpointError(
        "the weights that the run started from are gone or have changed, and it has no "
        "checkpoint yet; start a new run",
        source=folder,
    )


def initial_weights_file(parent: Bundle) -> Path:
    """Return the file of the weights to fine-tune from: the first member of an ensemble.

    Raises:
        CheckpointError: If there is none.
    """
    first_member = parent.trained.members[0]
    file = parent.weights.with_name(first_member)
    if not file.is_file():
        raise CheckpointError(
            "the bundle given by --from has no weights to start from; give a trained bundle",
            source=file,
        )
    return file


def label_sources(parent: BundleSpec, spec: BundleSpec) -> Sources:
    """Return from which of the parent's output channels each output channel starts.

    Of labels background comes first; the same name wins, whatever its case; else the same code.
    Regions start from regions of the same name. Labels and regions never start from each other:
    the logits of a softmax mean nothing to a sigmoid.
    """
    if parent.regions or spec.regions:
        return _region_sources(parent.label_set, spec.label_set)
    by_name = {}
    by_code = {}
    for label in parent.labels:
        by_name[_fold(label)] = label.index
        if label.code:
            by_code[label.code] = label.index
    same_name = [by_name.get(_fold(label)) for label in spec.labels]
    sources: list[int | None] = [0]
    for label, source in zip(spec.labels, same_name, strict=True):
        if source is None and label.code:
            source = by_code.get(label.code)
            if source in same_name:
                source = None
        sources.append(source)
    return tuple(sources)


def _region_sources(parent: LabelSet, labels: LabelSet) -> Sources:
    if not (parent.has_regions and labels.has_regions):
        return (None,) * labels.channels
    by_name = {}
    for region in parent.regions:
        by_name[_fold(region)] = region.channel
    return tuple(by_name.get(_fold(region)) for region in labels.regions)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def _fold(named: _Named) -> str:
    """Return a name as it is compared: whatever its case and form of Unicode."""
    return fold_name(named.name)


def channel_sources(parent: BundleSpec, spec: BundleSpec) -> Sources:
    """Return from which of the parent's input channels each input channel starts.

    The same name wins, whatever its case; then the only one left of the same modality on both
    sides; and where both bundles have one channel, these two.
    """
    return match_channels(parent.channels, spec.channels)


def match_channels(
    parents: Sequence[ChannelSpec], channels: Sequence[ChannelSpec]
) -> Sources:
    """Return from which of the parent's channels each channel starts; see ``channel_sources``."""
    if len(channels) == len(parents) == 1:
        return (0,)
    sources: dict[int, int] = {}
    _match_channels(channels, parents, _fold, sources)
    _match_channels(channels, parents, _modality, sources)
    indices = range(len(channels))
    return tuple(sources.get(index) for index in indices)


def input_sources(parent: BundleSpec, spec: BundleSpec) -> Sources:
    """Return the same of all that the network sees: the channels, and what shows clicks."""
    sources = channel_sources(parent, spec)
    if spec.training.clicks is None:
        return sources
    if parent.training.clicks is None:
        return (*sources, *(None for _ in CLICK_CHANNELS))
    return (*sources, *range(len(parent.channels), parent.input_channels))


def _match_channels(
    channels: Sequence[ChannelSpec],
    parents: Sequence[ChannelSpec],
    key_of: Callable[[ChannelSpec], str],
    sources: dict[int, int],
) -> None:
    """Pair the channels that are left and whose key occurs exactly once on each side.

    Args:
        channels: The bundle's channels.
        parents: The parent's.
        key_of: Returns what must be equal.
        sources: Index of a channel → index of the parent's channel it starts from; grows.
    """
    keys = _keys_left(channels, key_of, sources.keys())
    parent_keys = _keys_left(parents, key_of, sources.values())
    counts = Counter(keys.values())
    parent_counts = Counter(parent_keys.values())
    parent_index = {key: index for index, key in parent_keys.items()}
    for index, key in keys.items():
        if counts[key] == parent_counts[key] == 1:
            sources[index] = parent_index[key]


def _keys_left(
    channels: Sequence[ChannelSpec],
    key_of: Callable[[ChannelSpec], str],
    taken: Collection[int],
) -> dict[int, str]:
    """Return the index and the key of the channels that are not taken yet."""
    keys = {}
    for index, channel in enumerate(channels):
        if index not in taken:
            keys[index] = key_of(channel)
    return keys


def _modality(channel: ChannelSpec) -> str:
    return channel.modality


def any_known(sources: Sources) -> bool:
    """Return whether anything is taken over."""
    return any(source is not None for source in sources)


def _describe_decisions(parent: Bundle, spec: BundleSpec) -> Iterator[str]:
    old = parent.spec
    members = len(parent.trained.members)
    if members > 1:
        yield f"weights: of the first of the parent's {members} members"
    if parent.trained.refinement is not None:
        yield "refiner of the parent: dropped"
    outputs = label_sources(old, spec)
    yield from _describe_outputs(outputs, spec.label_set, old.label_set)
    inputs = channel_sources(old, spec)
    yield from _describe_channels(inputs, spec, old)
    yield from _describe_clicks(spec, old)
    if isinstance(spec.network, UNetSpec) and spec.network.deep_supervision:
        yield "deep supervision outputs, which only training uses: newly initialised"
    yield from _describe_preprocessing(inputs, spec, old)
    yield from _describe_licence(spec, old)


def _describe_outputs(
    sources: Sources, labels: LabelSet, parents: LabelSet
) -> Iterator[str]:
    """Describe what became of labels or regions; background always starts from background."""
    if labels.has_regions and not parents.has_regions:
        yield "regions: newly initialised, the parent has labels that exclude each other"
        return
    if parents.has_regions and not labels.has_regions:
        yield "labels: newly initialised, the parent has regions, which overlap"
        return
    names = [region.name for region in labels.regions]
    parent_names = [region.name for region in parents.regions]
    if labels.has_regions:
        yield from _describe_sources(
            "region", sources, names, parent_names, _NEW
        )
        return
    of_labels = sources[1:]
    parent_names.insert(0, "")  # background is a channel without a name
    yield from _describe_sources("label", of_labels, names, parent_names, _NEW)


def _describe_channels(
    sources: Sources, spec: BundleSpec, parent: BundleSpec
) -> Iterator[str]:
    names = [channel.name for channel in spec.channels]
    parent_names = [channel.name for channel in parent.channels]
    without_source = _ZERO if any_known(sources) else _NEW
    yield from _describe_sources(
        "channel", sources, names, parent_names, without_source
    )


def _describe_preprocessing(
    sources: Sources, spec: BundleSpec, parent: BundleSpec
) -> Iterator[str]:
    """Say what of preprocessing differs; channels in another order are no difference."""
    former = []
    for own, source in zip(spec.intensities, sources, strict=True):
        former.append(own if source is None else parent.intensities[source])
    has_single = not isinstance(spec.preprocessing.intensity, tuple)
    all_alike = all(intensity == former[0] for intensity in former)
    intensity = former[0] if has_single and all_alike else tuple(former)
    if intensity == spec.intensities:
        intensity = spec.preprocessing.intensity
    preprocessing = parent.preprocessing.model_copy(
        update={"intensity": intensity}
    )
    aligned = spec.model_copy(update={"preprocessing": preprocessing})
    changes = list_differences(aligned, spec)
    if not changes:
        yield "preprocessing: as the parent's"
    for change in changes:
        yield f"{change}; the weights learned with the former"


def _describe_licence(spec: BundleSpec, parent: BundleSpec) -> Iterator[str]:
    if parent.origin is not None:
        yield f"weights of the parent: from {parent.origin}"
    if parent.licence not in (spec.licence, _UNKNOWN_LICENCE):
        yield (
            f"licence: {spec.licence}; that of the parent's weights is {parent.licence}"
        )


def _describe_clicks(spec: BundleSpec, parent: BundleSpec) -> Iterator[str]:
    shows, showed = spec.training.clicks, parent.training.clicks
    if shows is not None:
        yield f"inputs for clicks: {'taken over' if showed else _ZERO}"
    elif showed is not None:
        yield "inputs for clicks of the parent: dropped"


def _describe_sources(
    kind: str,
    sources: Sources,
    names: Sequence[str],
    parent_names: Sequence[str],
    without_source: str,
) -> Iterator[str]:
    for name, source in zip(names, sources, strict=True):
        if source is None:
            yield f"{kind} {name}: {without_source}"
            continue
        parent_name = parent_names[source]
        if fold_name(parent_name) == fold_name(name):
            yield f"{kind} {name}: taken over"
        else:
            yield f"{kind} {name}: taken over from the parent's {parent_name}"
    for index, name in enumerate(parent_names):
        if name and index not in sources:
            yield f"{kind} {name} of the parent: dropped"


def _hash_weights(file: Path) -> str:
    return hash_file(file)[:16]
