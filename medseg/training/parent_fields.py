"""Fine-tuning: what a bundle leaves out is as in the trained bundle that it starts from.

Weights go with one network, one way of preparing scans and windows of about one size. A bundle that
says nothing of these takes them from its parent; what it does say holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medseg.bundle.bundle import Bundle
from medseg.bundle.spec import BundleSpec, ChannelSpec
from medseg.errors import MedsegError
from medseg.training.lineage import match_channels

Content = dict[str, Any]
"""Of a ``bundle.json``."""

SECTIONS = ("licence", "preprocessing", "network", "inference")
"""What is taken from the parent as a whole."""
TRAINING_FIELDS = ("patch", "batch_size", "augmentation")
"""Of ``training``: augmentation, because a network that tells left from right was never shown
mirrored scans."""

_ANY_MODALITY = "OT"
_ZSCORE: Content = {"kind": "zscore"}
_CHANNELS = TypeAdapter(tuple[ChannelSpec, ...])


def add_parent_fields(
    content: Mapping[str, Any], parent: BundleSpec
) -> Content:
    """Return the content of a ``bundle.json`` with what it leaves out, from the parent.

    Channels keep the normalisation of the channel they start from, unless its modality is another.
    Which components are kept is decided anew.

    Args:
        content: As the file has it; a fault in it is left for whoever parses it.
        parent: The trained bundle to start from.
    """
    return _complete(content, parent, ())


def replace_by_parent_fields(
    content: Mapping[str, Any], parent: Bundle
) -> Content:
    """Return a planned bundle with the parent's network and preprocessing instead of its own.

    A channel that the parent does not know keeps the normalisation that was planned for it.

    Raises:
        MedsegError: If one is for pictures and the other for volumes.
    """
    planned = content["preprocessing"]
    kind = parent.spec.preprocessing.input
    planned_kind = planned.get("input", "volume")
    if kind != planned_kind:
        raise MedsegError(
            f"the bundle given by --from takes a {kind}, and this data set holds {planned_kind}s; "
            "start from another bundle, or plan without --from",
            source=parent.folder,
        )
    own = _list_intensities(planned.get("intensity", _ZSCORE), content)
    replaced = {"preprocessing", "network", "inference"}
    kept = {k: v for k, v in content.items() if k not in replaced}
    training = dict(content["training"])
    for field in TRAINING_FIELDS:
        training.pop(field, None)
    completed = _complete(kept | {"training": training}, parent.spec, own)
    completed["notes"] = _replace_notes(content["notes"], parent.spec)
    return completed


def _complete(
    content: Mapping[str, Any], parent: BundleSpec, own: Sequence[Content]
) -> Content:
    known = parent.model_dump(mode="json")
    # No label of the parent need be one here, and of other labels other components are kept.
    del known["inference"]["keep_largest"]
    completed = dict(content)
    if "preprocessing" not in content:
        known["preprocessing"]["intensity"] = _choose_intensities(
            content, parent, own
        )
    for section in SECTIONS:
        completed.setdefault(section, known[section])
    training = content.get("training", {})
    if isinstance(training, dict):
        fields = {field: known["training"][field] for field in TRAINING_FIELDS}
        completed["training"] = fields | training
    return completed


def _choose_intensities(
    content: Mapping[str, Any], parent: BundleSpec, own: Sequence[Content]
) -> Content | list[Content]:
    """Return how the channels of a bundle are normalised, one entry where all are alike."""
    channels = _read_channels(content)
    former = [each.model_dump(mode="json") for each in parent.intensities]
    chosen: list[Content] = []
    sources = match_channels(parent.channels, channels)
    for number, source in enumerate(sources):
        entry = own[number] if own else _ZSCORE
        if source is not None:
            known, channel = parent.channels[source], channels[number]
            entry = former[source] if _may_be_alike(known, channel) else entry
        chosen.append(entry)
    if not chosen:
        return former[0]
    all_alike = all(entry == chosen[0] for entry in chosen)
    return chosen[0] if all_alike else chosen


def _may_be_alike(one: ChannelSpec, other: ChannelSpec) -> bool:
    """Tell whether two channels may have intensities of the same kind."""
    modalities = {one.modality, other.modality}
    return len(modalities) == 1 or _ANY_MODALITY in modalities


def _read_channels(content: Mapping[str, Any]) -> tuple[ChannelSpec, ...]:
    try:
        return _CHANNELS.validate_python(content.get("channels"))
    except ValidationError:
        return ()


def _list_intensities(
    intensity: Any, content: Mapping[str, Any]
) -> list[Content]:
    if isinstance(intensity, list | tuple):
        return list(intensity)
    return [intensity] * len(content["channels"])


def _is_within(field: str, sections: Iterable[str]) -> bool:
    """Tell whether a field is one of some, or stands in one of them."""
    return any(f"{field}.".startswith(f"{each}.") for each in sections)


def _replace_notes(
    notes: Mapping[str, str], parent: BundleSpec
) -> dict[str, str]:
    """Return the reasons of a plan, without those for what is the parent's now."""
    replaced = ("preprocessing", "network", "inference")
    fields = tuple(f"training.{field}" for field in TRAINING_FIELDS)
    kept = {
        field: reason
        for field, reason in notes.items()
        if not _is_within(field, (*replaced, *fields))
    }
    reason = f"As in {parent.name}, whose weights training starts from"
    return kept | dict.fromkeys((*replaced, *fields), reason)
