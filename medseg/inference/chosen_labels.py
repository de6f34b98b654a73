"""Results with some of a bundle's labels alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from medseg.bundle.spec import BundleSpec
from medseg.errors import MedsegError
from medseg.inference.segmentation import Segmentation
from medseg.labels import LabelSet
from medseg.quality.estimates import select_labels
from medseg.volume import Array

_MOST_LISTED = 20


def choose_labels(
    spec: BundleSpec, wanted: Sequence[str] | str | None
) -> frozenset[str]:
    """Return the names of the labels that results have.

    Args:
        spec: The bundle.
        wanted: Those that were asked for, one or several with commas between in each text; all
            unless given.

    Raises:
        MedsegError: If the bundle has no such label, none is asked for, or it has regions.
    """
    names = spec.label_set.names
    if wanted is None:
        return frozenset(names)
    if spec.regions:
        raise MedsegError(
            "labels cannot be chosen from this bundle: its structures are regions that overlap, "
            "and each result shows all of them"
        )
    chosen = _split_names(
        (wanted,) if isinstance(wanted, str) else wanted, names
    )
    unknown = sorted(chosen - set(names))
    if unknown or not chosen:
        listed = ", ".join(names[:_MOST_LISTED])
        rest = len(names) - _MOST_LISTED
        more = f" and {rest} more" if rest > 0 else ""
        raise MedsegError(
            f"the bundle has no label {', '.join(unknown) or '(none was named)'}; it has {listed}"
            f"{more}"
        )
    return frozenset(chosen)


def _split_names(texts: Sequence[str], known: Sequence[str]) -> set[str]:
    """Return names that stand one or several, with commas between, in each text."""
    names: set[str] = set()
    for text in texts:
        # A comma may belong to a name.
        parts = (text,) if text in known else text.split(",")
        names.update(part.strip() for part in parts)
    return names


def keep_labels(
    labels: Array, label_set: LabelSet, names: frozenset[str]
) -> Array:
    """Return a label map with some labels alone; the others become background."""
    if names.issuperset(label_set.names):
        return labels
    table = np.zeros(label_set.classes, labels.dtype)
    for label in label_set:
        if label.name in names:
            table[label.index] = label.index
    kept = np.empty_like(labels)
    for k in range(kept.shape[2]):
        kept[:, :, k] = table[labels[:, :, k]]
    return kept


def select_values(
    values: Mapping[str, float], label_set: LabelSet, names: frozenset[str]
) -> dict[str, float]:
    """Return the values of some structures; of regions, which are not chosen, all."""
    if names.issuperset(label_set.names):
        return dict(values)
    return {name: value for name, value in values.items() if name in names}


def keep_chosen(found: Segmentation, names: frozenset[str]) -> Segmentation:
    """Return a segmentation with some of its labels alone."""
    label_set = found.label_set
    if names.issuperset(label_set.names):
        return found
    return replace(
        found,
        labels=keep_labels(found.labels, label_set, names),
        volumes_ml=select_values(found.volumes_ml, label_set, names),
        confidence=select_values(found.confidence, label_set, names),
        quality=select_labels(found.quality, names),
    )
