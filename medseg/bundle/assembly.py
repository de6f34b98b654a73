"""What an ``assembly.json`` and the bundles it names make together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medseg.bundle.spec import (
    AssemblySpec,
    BundleSpec,
    PartSpec,
    StageSpec,
)
from medseg.errors import Fault

_LONGEST_ORIGIN = 200


def get_name_table(
    step: StageSpec | PartSpec, bundle: BundleSpec
) -> dict[str, str]:
    """Return what labels of a bundle the assembly's result has, and their names in it."""
    if isinstance(step, StageSpec):
        return {}
    if step.labels is not None:
        return dict(step.labels)
    return {label.name: label.name for label in bundle.labels}


def find_misfits(
    spec: AssemblySpec, bundles: Sequence[BundleSpec]
) -> list[Fault]:
    """Find what of an assembly does not fit its bundles.

    Args:
        spec: The assembly.
        bundles: Those of ``spec.steps``, in order.
    """
    return [
        *_find_other_inputs(spec, bundles),
        *_find_unknown_sources(spec, bundles),
        *_find_unpaintable(spec, bundles),
    ]


def describe_as_bundle(
    spec: AssemblySpec, bundles: Sequence[BundleSpec]
) -> dict[str, Any]:
    """Return an assembly as the content of a ``bundle.json``: what scans need, and results name.

    Scans are compared with what the first of its bundles sees: that one looks at all of them.

    Args:
        spec: The assembly.
        bundles: Those of ``spec.steps``, in order.
    """
    first = bundles[0]
    shared = {"name", "version", "description", "intended_use", "authors"}
    shared |= {"licence", "references", "labels"}
    content = spec.model_dump(mode="json", include=shared)
    content["origin"] = _name_origin(spec, bundles)
    of_first = {"channels", "preprocessing", "network"}
    content |= first.model_dump(mode="json", by_alias=True, include=of_first)
    content["training"] = {"patch": first.training.patch}
    content["inference"] = {"keep_largest": []}
    return content


def _name_origin(spec: AssemblySpec, bundles: Sequence[BundleSpec]) -> str:
    """Return in one line what a result comes from: every bundle, with its version."""
    versions = []
    for step, bundle in zip(spec.steps, bundles, strict=True):
        versions.append(f"{step.name} {bundle.version}")
    text = f"assembly of {', '.join(versions)}"
    if spec.origin:
        text = f"{spec.origin}; {text}"
    if len(text) > _LONGEST_ORIGIN:
        text = f"{text[: _LONGEST_ORIGIN - 1]}…"
    return text


def _find_other_inputs(
    spec: AssemblySpec, bundles: Sequence[BundleSpec]
) -> Iterator[Fault]:
    """Find bundles that do not look at the same images as the first."""
    first = bundles[0]
    for place, bundle in zip(spec.places, bundles, strict=True):
        where = f"{place}.bundle"
        if bundle.preprocessing.input != first.preprocessing.input:
            yield Fault(
                where,
                f"is for {bundle.preprocessing.input}s, and the first one for "
                f"{first.preprocessing.input}s",
            )
        elif _list_channels(bundle) != _list_channels(first):
            yield Fault(
                where,
                f"has the channels {', '.join(_list_channels(bundle))}; all bundles of an assembly "
                f"have the same, and the first has {', '.join(_list_channels(first))}",
            )


def _list_channels(bundle: BundleSpec) -> list[str]:
    return [
        f"{channel.name} ({channel.modality})" for channel in bundle.channels
    ]


def _find_unknown_sources(
    spec: AssemblySpec, bundles: Sequence[BundleSpec]
) -> Iterator[Fault]:
    by_name = {
        step.name: bundle
        for step, bundle in zip(spec.steps, bundles, strict=True)
    }
    for place, step in zip(spec.places, spec.steps, strict=True):
        if step.crop is None:
            continue
        known = by_name[step.crop.source].label_set.names
        unknown = set(step.crop.labels) - set(known)
        what = f"{step.crop.source} has no label {{}}"
        yield from _tell(f"{place}.crop.labels", unknown, what)


def _find_unpaintable(
    spec: AssemblySpec, bundles: Sequence[BundleSpec]
) -> Iterator[Fault]:
    """Find labels that a part lacks, that two parts paint, or none."""
    names = [label.name for label in spec.labels]
    painted: set[str] = set()
    for place, step, bundle in zip(
        spec.places, spec.steps, bundles, strict=True
    ):
        where = f"{place}.labels"
        table = get_name_table(step, bundle)
        unknown = set(table) - set(bundle.label_set.names)
        yield from _tell(where, unknown, "the bundle has no label {}")
        unknown = set(table.values()) - set(names)
        what = "no label of the assembly is named {}; give the part's labels"
        yield from _tell(where, unknown, what)
        twice = painted & set(table.values())
        yield from _tell(where, twice, "an earlier part paints {}, too")
        painted |= set(table.values())
    yield from _tell("labels", set(names) - painted, "no part paints {}")


def _tell(where: str, names: set[str], what: str) -> Iterator[Fault]:
    if names:
        yield Fault(where, what.format(_enumerate(sorted(names))))


def _enumerate(names: Sequence[str], most: int = 10) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and others"


def trace_sources(
    crops: Mapping[str, str], wanted: Sequence[str]
) -> frozenset[str]:
    """Return the steps that are needed for some, which they themselves are.

    Args:
        crops: Step → the one whose labels say where it looks, for those that are cropped.
        wanted: Names of steps.
    """
    needed: set[str] = set()
    for name in wanted:
        following: str | None = name
        while following is not None and following not in needed:
            needed.add(following)
            following = crops.get(following)
    return frozenset(needed)
