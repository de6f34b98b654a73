"""Regions are checked before anything is trained, and painting the truth gives the truth."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from support.bundles import NESTED, content, made_spec

from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec_files import format_spec
from medseg.errors import BundleError
from medseg.labels import Region


def faults(**sections: Any) -> dict[str, str]:
    with pytest.raises(BundleError) as caught:
        made_spec(**NESTED | sections)
    return {fault.where: fault.what for fault in caught.value.faults}


def region(name: str, *labels: str, **more: str) -> dict[str, Any]:
    return {"name": name, "labels": list(labels)} | more


def test_regions_are_the_networks_channels_and_paint_what_no_later_one_holds() -> (
    None
):
    labels = made_spec(**NESTED).label_set
    assert labels.has_regions
    assert labels.regions == (
        Region("whole", (1, 2, 3), channel=0, paints=1),
        Region("inner", (2, 3), channel=1, paints=2),
        Region("enhancing", (3,), channel=2, paints=3),
    )
    assert (labels.channels, labels.classes, labels.ignore_index) == (
        3,
        4,
        None,
    )
    assert made_spec(**NESTED, data={"ignore": 9}).label_set.ignore_index == 4


def test_without_regions_each_label_is_one() -> None:
    labels = made_spec().label_set
    assert not labels.has_regions
    assert labels.regions == (
        Region("liver", (1,), 1, 1),
        Region("kidney", (2,), 2, 2),
    )
    assert labels.channels == labels.classes == 3


def test_a_bundle_with_regions_is_written_and_read_again() -> None:
    spec = made_spec(**NESTED)
    again = parse_spec(json.loads(format_spec(spec)))
    assert again.regions == spec.regions
    assert again.label_set == spec.label_set


def test_a_region_that_is_all_parts_of_others_says_what_it_paints() -> None:
    parts = [
        region("both", "a", "b"),
        region("left", "a"),
        region("right", "b"),
    ]
    labels = [{"index": 1, "name": "a"}, {"index": 2, "name": "b"}]
    found = faults(labels=labels, regions=parts)
    assert (
        "none of its labels is in no later region" in found["regions.0.paints"]
    )
    parts[0]["paints"] = "b"
    spec = parse_spec(content(labels=labels, regions=parts))
    assert [one.paints for one in spec.label_set.regions] == [2, 1, 2]


def test_two_labels_may_be_one_region_that_says_which_it_paints() -> None:
    merged = [region("lesion", "edema", "core", "enhancing")]
    assert (
        "edema and core and enhancing are in no later"
        in faults(regions=merged)["regions.0.paints"]
    )
    merged[0]["paints"] = "core"
    assert (
        made_spec(**NESTED | {"regions": merged}).label_set.regions[0].paints
        == 2
    )


@pytest.mark.parametrize(
    ("regions", "where", "said"),
    [
        (
            [region("whole", "edema", "necrosis")],
            "regions.0.labels",
            "no label.*necrosis; it has",
        ),
        ([region("whole", "edema", "edema")], "regions.0.labels", "twice"),
        ([region("mean", "edema")], "regions.0.name", "'mean'"),
        (
            [region("core", "core", "edema")],
            "regions.0.name",
            "core is a label",
        ),
        (
            [region("whole", "edema", "core"), region("Whole", "core")],
            "regions.1.name",
            "two regions have the name",
        ),
        (
            [*NESTED["regions"], region("again", "enhancing", "core")],
            "regions.3",
            "same labels as inner",
        ),
        (NESTED["regions"][1:], "regions", "edema is in no region"),
        (
            [
                region("whole", "edema", "core", "enhancing", paints="liver"),
                *NESTED["regions"][1:],
            ],
            "regions.0.paints",
            "not a label of whole",
        ),
        # The smaller one first: the larger is painted over it.
        (
            [NESTED["regions"][1], NESTED["regions"][0], NESTED["regions"][2]],
            "regions.0",
            "inner lies in whole.*larger regions before smaller",
        ),
        # Two that cross, and nothing that stands for what they share.
        (
            [
                region("one", "edema", "core"),
                region("other", "core", "enhancing", paints="core"),
            ],
            "regions",
            "voxels of enhancing are in other, but other.*region of enhancing alone",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(
    regions: list[dict[str, Any]], where: str, said: str
) -> None:
    found = faults(regions=regions)
    assert re.search(said, found[where]), found


def test_crossing_regions_can_be_shown_where_one_stands_for_what_they_share() -> (
    None
):
    crossing = [
        region("one", "edema", "core"),
        region("other", "enhancing", "core"),
        region("core", "core"),
    ]
    spec = made_spec(**NESTED | {"regions": crossing})
    assert [one.paints for one in spec.label_set.regions] == [1, 3, 2]


@pytest.mark.parametrize(
    ("sections", "where", "said"),
    [
        ({"refinement": {}}, "refinement", "set it to null"),
        (
            {"inference": {"keep_largest": ["core"]}},
            "inference.keep_largest",
            "null or",
        ),
        (
            {"training": {"class_weights": {"edema": 2}}},
            "training.class_weights",
            "no region of this bundle is named edema",
        ),
        (
            {"training": {"class_weights": {"background": 2}}},
            "training.class_weights",
            "named background",
        ),
    ],
)
def test_what_regions_cannot_have_is_refused(
    sections: dict[str, Any], where: str, said: str
) -> None:
    assert said in faults(**sections)[where]


def test_weights_are_those_of_regions() -> None:
    spec = made_spec(**NESTED, training={"class_weights": {"enhancing": 4}})
    assert spec.class_weights == (0.5, 0.5, 2.0)
