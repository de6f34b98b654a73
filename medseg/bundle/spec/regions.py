"""Regions: structures that overlap, and whether label maps made of them can show them.

A label map holds one value per voxel, so overlapping regions are written into it one after the
other, as nnU-Net does by its ``regions_class_order``. A label map can be read again if every
label, shown as the last region that holds it shows it, ends up in the very regions it belongs to.
That is the rule checked here; it covers wrong orders and overlaps that no region stands for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medseg.bundle.spec.data import LabelSpec, RegionSpec
from medseg.bundle.spec.parts import Contradiction
from medseg.labels import Region

_SECTIONS = ("regions", "labels")
_RESERVED = ("mean", "background")

_Finding = tuple[str, str]
"""Where to mend a fault, and what is wrong."""


def check_regions(
    regions: Sequence[RegionSpec], labels: Sequence[LabelSpec]
) -> Iterator[Contradiction]:
    """Yield what is wrong with regions: first names, then what they hold, order, and display.

    Each check makes sense only where the ones before found nothing.
    """
    if not regions:
        return
    names = [label.name for label in labels]
    for findings in (
        list(_check_names(regions)),
        list(_check_contents(regions, names)),
        list(_check_order(regions)),
        list(_check_painted_labels(regions)),
    ):
        for where, what in findings:
            yield _SECTIONS, where, what
        if findings:
            return
    for what in _find_unreadable_labels(regions, names):
        yield _SECTIONS, "regions", what


def resolve_regions(
    regions: Sequence[RegionSpec], labels: Sequence[LabelSpec]
) -> tuple[Region, ...]:
    """Return regions that have no fault, with label indices in place of names."""
    index = {label.name: label.index for label in labels}
    resolved = []
    for channel, region in enumerate(regions):
        resolved.append(
            Region(
                name=region.name,
                labels=tuple(sorted(index[name] for name in region.labels)),
                channel=channel,
                paints=index[_painted_label(regions, channel)],
            )
        )
    return tuple(resolved)


def _painted_label(regions: Sequence[RegionSpec], position: int) -> str:
    """Return the label that shows a region; empty where the region must name it and does not."""
    region = regions[position]
    if region.paints:
        return region.paints
    own = _labels_in_no_later_region(regions, position)
    return own[0] if len(own) == 1 else ""


def _labels_in_no_later_region(
    regions: Sequence[RegionSpec], position: int
) -> list[str]:
    later: set[str] = set()
    for region in regions[position + 1 :]:
        later.update(region.labels)
    return [name for name in regions[position].labels if name not in later]


def _check_names(regions: Sequence[RegionSpec]) -> Iterator[_Finding]:
    seen: set[str] = set()
    for position, region in enumerate(regions):
        where = f"regions.{position}.name"
        name = region.name.lower()
        if name in seen:
            yield where, f"two regions have the name {region.name}"
        if name in _RESERVED:
            yield (
                where,
                f"no region can be named '{name}', which means something else in tables",
            )
        seen.add(name)


def _check_contents(
    regions: Sequence[RegionSpec], names: Sequence[str]
) -> Iterator[_Finding]:
    seen: dict[frozenset[str], str] = {}
    for position, region in enumerate(regions):
        yield from _check_labels_of(region, f"regions.{position}", names)
        labels = frozenset(region.labels)
        if labels in seen:
            what = f"{region.name} has the same labels as {seen[labels]}; keep one of them"
            yield f"regions.{position}", what
        seen[labels] = region.name
    covered = frozenset().union(*seen)
    left_out = [name for name in names if name not in covered]
    if left_out:
        what = f"{', '.join(left_out)} is in no region and would not be learned; put it into one"
        yield "regions", what


def _check_labels_of(
    region: RegionSpec, where: str, names: Sequence[str]
) -> Iterator[_Finding]:
    labels = set(region.labels)
    unknown = sorted(labels - set(names))
    if unknown:
        what = f"no label of this bundle is named {', '.join(unknown)}; it has {', '.join(names)}"
        yield f"{where}.labels", what
    if len(labels) < len(region.labels):
        yield f"{where}.labels", "names a label twice"
    namesakes = [name for name in names if name.lower() == region.name.lower()]
    if namesakes and labels != {namesakes[-1]}:
        what = (
            f"{region.name} is a label, and this region is not that label alone"
        )
        yield f"{where}.name", what


def _check_order(regions: Sequence[RegionSpec]) -> Iterator[_Finding]:
    for position, region in enumerate(regions):
        for later in regions[position + 1 :]:
            if set(region.labels) < set(later.labels):
                what = (
                    f"{region.name} lies in {later.name}, which comes later and would cover it; "
                    "put larger regions before smaller ones"
                )
                yield f"regions.{position}", what


def _check_painted_labels(regions: Sequence[RegionSpec]) -> Iterator[_Finding]:
    for position, region in enumerate(regions):
        where = f"regions.{position}.paints"
        label = _painted_label(regions, position)
        if not label:
            own = _labels_in_no_later_region(regions, position)
            which = (
                f"{' and '.join(own)} are" if own else "none of its labels is"
            )
            what = f"must name the label that shows {region.name}, since {which} in no later region"
            yield where, what
        elif label not in region.labels:
            what = f"{label} is not a label of {region.name}; it has {', '.join(region.labels)}"
            yield where, what


def _find_unreadable_labels(
    regions: Sequence[RegionSpec], names: Sequence[str]
) -> Iterator[str]:
    """Say which labels would be shown as a label of other regions."""
    holders = {name: _holders_of(name, regions) for name in names}
    for name in names:
        last = holders[name][-1]
        shown = _painted_label(regions, last)
        if holders[shown] != holders[name]:
            yield (
                f"voxels of {name} are in {_join_names(holders[name], regions)}, but "
                f"{regions[last].name}, the last of these, would show them as {shown}, which is in "
                f"{_join_names(holders[shown], regions)}; add a region of {name} alone at the end"
            )


def _holders_of(label: str, regions: Sequence[RegionSpec]) -> list[int]:
    """Return the positions of the regions that hold a label."""
    return [
        position
        for position, region in enumerate(regions)
        if label in region.labels
    ]


def _join_names(positions: Sequence[int], regions: Sequence[RegionSpec]) -> str:
    return " and ".join(regions[position].name for position in positions)
