"""A model of MONAI's, however it was saved: the bundle that it becomes, and its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Fields = dict[str, Any]


@dataclass(slots=True)
class DescribedModel:
    """A model that MONAI trained, as a bundle.

    Attributes:
        kind: What was found, for people.
        name: How its makers call it.
        version: Theirs; may be empty.
        software: What trained it.
        dataset: What it was trained on; may be empty.
        licence: As far as its files tell; may be empty.
        content: Of ``bundle.json``, but for its name and where it comes from.
        file: Holds its weights.
        weights: By name, mapped from that file.
        order: Which output channel of the weights comes first, second, …; empty for theirs.
        sources: Files that it was read from: name → file.
        remarks: What a person should know.
    """

    kind: str
    name: str
    version: str
    software: str
    dataset: str
    licence: str
    content: Fields
    file: Path
    weights: Mapping[str, torch.Tensor]
    order: tuple[int, ...] = ()
    sources: Mapping[str, Path] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OverlappingChannels:
    """Structures that a network answers each by itself.

    Attributes:
        names: Of the output channels.
        painted: ``(channel, value)`` of each in label maps, the one that covers all others last.
        are_nested: Whether each lies in the one before it.
    """

    names: Sequence[str]
    painted: Sequence[tuple[int, int]]
    are_nested: bool

    @property
    def order(self) -> tuple[int, ...]:
        """The channels, the one that covers all others last."""
        return tuple(channel for channel, _ in self.painted)

    def describe(self) -> Fields:
        """Return the fields ``labels`` and ``regions`` of a bundle."""
        own = self._name_labels()
        regions = []
        for position, (channel, _) in enumerate(self.painted):
            inside = own[position:] if self.are_nested else [own[position]]
            region = {"name": self.names[channel], "labels": tuple(inside)}
            regions.append(region)
        values = [value for _, value in self.painted]
        ranks = sorted(range(len(values)), key=values.__getitem__)
        labels = []
        for index, rank in enumerate(ranks, start=1):
            label = {"index": index, "name": own[rank]}
            if values[rank] != index:
                label["value"] = values[rank]
            labels.append(label)
        return {"labels": tuple(labels), "regions": tuple(regions)}

    def _name_labels(self) -> list[str]:
        """Return the names of what each channel shows by itself."""
        names = [self.names[channel] for channel in self.order]
        if not self.are_nested:
            return names
        return [*(f"rest of {name}" for name in names[:-1]), names[-1]]


def describe_exclusive(names: Sequence[str]) -> Fields:
    """Return the field ``labels`` of channels that exclude each other, the background first."""
    labels = [
        {"index": index, "name": name}
        for index, name in enumerate(names[1:], start=1)
    ]
    return {"labels": tuple(labels)}
