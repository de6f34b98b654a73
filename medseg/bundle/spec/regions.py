"""Regions: structures that overlap, and whether label maps painted in their order can show them.

A label map holds one value per voxel, so overlapping regions are painted into it one after the
other. What was painted can be read again if every label, painted as the last region that holds it
paints, ends up in the very regions it belongs to. That is the rule checked here; it covers wrong
orders and overlaps that no region stands for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medseg.bundle.spec.data import LabelSpec, RegionSpec
from medseg.bundle.spec.parts import Contradiction
from medseg.labels import Region

_ABOUT = ("regions", "labels")
_TAKEN = ("mean", "background")


def check_regions(
    regions: Sequence[RegionSpec], labels: Sequence[LabelSpec]
) -> Iterator[Contradiction]:
    """Yield what is wrong with regions: first names, then what they hold, order, and painting."""
    if not regions:
        return
    names = [label.name for label in labels]
    for faults in (_names(regions), _contents(regions, names), _order(regions), _paints(regions)):
        found = list(faults)
        if found:
            yield from ((_ABOUT, where, what) for where, what in found)
            return
    yield from ((_ABOUT, "regions", what) for what in _unreadable(regions, names))


def resolve_regions(
    regions: Sequence[RegionSpec], labels: Sequence[LabelSpec]
) -> tuple[Region, ...]:
    """Return regions that have no fault, with label indices in place of names."""
    index = {label.name: label.index for label in labels}
    return tuple(
        Region(
            name=region.name,
            labels=tuple(sorted(index[name] for name in region.labels)),
            channel=place,
            paints=index[paint],
        )
        for place, (region, paint) in enumerate(zip(regions, _painted(regions), strict=True))
    )


def _painted(regions: Sequence[RegionSpec]) -> list[str]:
    """Return the label that each region paints; no name where it should say so and does not."""
    painted = []
    for place, region in enumerate(regions):
        own = _in_no_later(regions, place)
        painted.append(region.paints or (own[0] if len(own) == 1 else ""))
    return painted


def _in_no_later(regions: Sequence[RegionSpec], place: int) -> list[str]:
    later = {name for region in regions[place + 1 :] for name in region.labels}
    return [name for name in regions[place].labels if name not in later]


def _names(regions: Sequence[RegionSpec]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for place, region in enumerate(regions):
        where, name = f"regions.{place}.name", region.name.lower()
        if name in seen:
            yield where, f"two regions have the name {region.name}"
        if name in _TAKEN:
            yield where, f"no region can be named '{name}', which means something else in tables"
        seen.add(name)


def _contents(regions: Sequence[RegionSpec], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    known = {name.lower(): name for name in names}
    found: dict[frozenset[str], str] = {}
    for place, region in enumerate(regions):
        where, held = f"regions.{place}", frozenset(region.labels)
        unknown = sorted(held - set(names))
        if unknown:
            what = f"no label of this bundle is named {', '.join(unknown)}; it has "
            yield f"{where}.labels", what + ", ".join(names)
        if len(held) < len(region.labels):
            yield f"{where}.labels", "names a label twice"
        if held in found:
            yield where, f"{region.name} has the same labels as {found[held]}; keep one of them"
        if region.name.lower() in known and held != {known[region.name.lower()]}:
            what = f"{region.name} is a label, and this region is not that label alone"
            yield f"{where}.name", what
        found[held] = region.name
    left_out = [name for name in names if not any(name in region.labels for region in regions)]
    if left_out:
        what = f"{', '.join(left_out)} is in no region and would not be learned; put it into one"
        yield "regions", what


def _order(regions: Sequence[RegionSpec]) -> Iterator[tuple[str, str]]:
    for place, region in enumerate(regions):
        for later in regions[place + 1 :]:
            if set(region.labels) < set(later.labels):
                what = (
                    f"{region.name} lies in {later.name}, which comes later and would be painted "
                    "over it; put larger regions before smaller ones"
                )
                yield f"regions.{place}", what


def _paints(regions: Sequence[RegionSpec]) -> Iterator[tuple[str, str]]:
    for place, (region, paint) in enumerate(zip(regions, _painted(regions), strict=True)):
        where = f"regions.{place}.paints"
        if not paint:
            own = _in_no_later(regions, place)
            which = f"{' and '.join(own)} are" if own else "none of its labels is"
            what = f"must name the label that shows {region.name}, since {which} in no later region"
            yield where, what
        elif paint not in region.labels:
            yield where, f"{paint} is no label of {region.name}; it has {', '.join(region.labels)}"


def _unreadable(regions: Sequence[RegionSpec], names: Sequence[str]) -> Iterator[str]:
    """Say which labels would be painted as a label of other regions."""
    painted = _painted(regions)
    holders = {name: [one.name for one in regions if name in one.labels] for name in names}
    for name in names:
        last = max(place for place, region in enumerate(regions) if name in region.labels)
        shown = painted[last]
        if holders[shown] != holders[name]:
            yield (
                f"voxels of {name} are in {' and '.join(holders[name])}, but {regions[last].name}, "
                f"the last of these, would show them as {shown}, which is in "
                f"{' and '.join(holders[shown])}; add a region of {name} alone at the end"
            )
