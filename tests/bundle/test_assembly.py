"""An assembly is data: it names its bundles, and what is wrong with it is told at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.assemblies import number_labels, write_assembly, write_thorax

from medseg.bundle.bundle import Assembly, is_bundle, load_bundle
from medseg.bundle.hashes import hash_bundle
from medseg.bundle.reading import parse_assembly
from medseg.bundle.spec_files import format_assembly
from medseg.errors import BundleError

ORGANS = {"name": "organs", "bundle": "parts/organs"}
BONES = {"name": "bones", "bundle": "parts/bones", "labels": {"rib": "rib"}}
CROP = {"source": "organs", "labels": ["liver"]}


def faults_of(folder: Path) -> dict[str, str]:
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    assert caught.value.faults
    return {fault.where: fault.what for fault in caught.value.faults}


def test_an_assembly_is_a_bundle_to_others(
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = write_thorax(untrained_bundle, origin="somebody's", licence="MIT")
    for path in (folder, folder / "assembly.json"):
        assembly = load_bundle(path)
        assert isinstance(assembly, Assembly)
        assert assembly.is_trained
        spec = assembly.spec
        assert (spec.name, spec.version) == ("thorax", "1.2.0")
        assert spec.licence == "MIT"
        assert spec.label_set.names == ("rib", "liver", "left_kidney")
        assert spec.origin == (
            "somebody's; assembly of organs 0.1.0, bones 0.1.0"
        )
        assert [channel.name for channel in spec.channels] == ["CT"]
    assert is_bundle(folder / "assembly.json")
    again = parse_assembly(json.loads(format_assembly(assembly.assembly)))
    assert again.parts == assembly.assembly.parts


def test_labels_need_their_parts_and_where_these_look(
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = write_thorax(
        untrained_bundle,
        stages=[{"name": "coarse", "bundle": "parts/organs"}],
        parts=[
            ORGANS | {"labels": {"liver": "liver", "kidney": "left_kidney"}},
            BONES | {"crop": CROP | {"source": "coarse"}},
        ],
    )
    assembly = load_bundle(folder)
    assert isinstance(assembly, Assembly)
    chosen = {
        label: [step.spec.name for step in assembly.select([label])]
        for label in ("liver", "rib")
    }
    assert chosen == {"liver": ["organs"], "rib": ["coarse", "bones"]}


def test_the_hash_is_that_of_every_part(
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = write_thorax(untrained_bundle)
    first = hash_bundle(load_bundle(folder))
    assert hash_bundle(load_bundle(folder)) == first
    weights = folder / "parts" / "bones" / "models" / "model.pt"
    shutil.copyfile(folder / "parts/organs/models/model.pt", weights)
    changed = hash_bundle(load_bundle(folder))
    assert changed != first
    write_assembly(folder, version="1.2.1")
    assert hash_bundle(load_bundle(folder)) not in (first, changed)


@pytest.mark.parametrize(
    ("bundle", "what"),
    [
        ("../organs", "inside the assembly's"),
        ("/etc", "inside the assembly's"),
        ("parts/../../organs", "inside the assembly's"),
        ("parts\\organs", "inside the assembly's"),
        ("C:organs", "inside the assembly's"),
        (".", "inside the assembly's"),
        ("parts/nothing", "is no folder with a bundle.json"),
        ("parts/link", "lies outside the assembly's folder"),
        ("parts/inner", "is an assembly"),
    ],
)
def test_bundles_lie_inside_and_are_no_assemblies(
    bundle: str, what: str, untrained_bundle: Callable[..., Path]
) -> None:
    folder = write_thorax(untrained_bundle)
    outside = untrained_bundle("outside")
    (folder / "parts" / "link").symlink_to(outside)
    inner = folder / "parts" / "inner"
    inner.mkdir()
    shutil.copyfile(folder / "assembly.json", inner / "assembly.json")
    write_assembly(folder, parts=[ORGANS | {"bundle": bundle}, BONES])
    assert what in faults_of(folder)["parts.0.bundle"]


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ({"parts": []}, "parts", "at least 1 item"),
        ({"parts": [ORGANS] * 40}, "parts", "at most 32 items"),
        ({"labels": number_labels(["a", "A"])}, "labels", "the same name"),
        ({"exec": "rm"}, "exec", "is not a known field"),
        (
            {"parts": [ORGANS, BONES | {"name": "organs"}]},
            "parts.1.name",
            "is the name of an earlier one",
        ),
        (
            {"parts": [ORGANS | {"crop": CROP}, BONES]},
            "parts.0.crop.source",
            "must name an earlier stage or part; there is none",
        ),
        (
            {
                "parts": [
                    ORGANS | {"crop": CROP | {"source": "bones"}},
                    BONES | {"crop": CROP},
                ]
            },
            "parts.0.crop.source",
            "must name an earlier",
        ),
        (
            {"parts": [ORGANS | {"labels": {"liver": "lung"}}, BONES]},
            "parts.0.labels.liver",
            "no label of the assembly is named lung",
        ),
        (
            {"parts": [ORGANS | {"labels": {"liver": "rib"}}, BONES]},
            "parts.1.labels.rib",
            "is painted twice",
        ),
    ],
)
def test_faults_of_the_file_are_told_with_their_place(
    content: dict[str, Any],
    where: str,
    what: str,
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = write_thorax(untrained_bundle, **content)
    assert what in faults_of(folder)[where]


@pytest.mark.parametrize(
    ("parts", "where", "what"),
    [
        (
            [ORGANS, BONES],
            "parts.0.labels",
            "no label of the assembly is named",
        ),
        (
            [ORGANS | {"labels": {"spleen": "liver"}}, BONES],
            "parts.0.labels",
            "the bundle has no label spleen",
        ),
        ([BONES], "labels", "no part paints left_kidney, liver"),
        (
            [ORGANS, BONES | {"crop": CROP | {"labels": ["lung"]}}],
            "parts.1.crop.labels",
            "organs has no label lung",
        ),
    ],
)
def test_what_does_not_fit_the_bundles_is_told(
    parts: list[dict[str, Any]],
    where: str,
    what: str,
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = write_thorax(untrained_bundle, parts=parts)
    assert what in faults_of(folder)[where]


def test_all_bundles_look_at_the_same_channels(
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = write_thorax(untrained_bundle)
    untrained_bundle(
        "thorax/parts/bones",
        labels=number_labels(["rib"]),
        channels=[{"name": "T1", "modality": "MR"}],
    )
    assert "has the channels T1 (MR)" in faults_of(folder)["parts.1.bundle"]


def test_a_folder_is_a_bundle_or_an_assembly(
    untrained_bundle: Callable[..., Path],
) -> None:
    folder = write_assembly(untrained_bundle())
    with pytest.raises(BundleError, match="holds both"):
        load_bundle(folder)
