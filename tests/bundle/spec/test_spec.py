"""The spec's own rules and derived values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.bundles import content, made_spec

from medseg.bundle.bundle import parse_spec
from medseg.bundle.spec import (
    AUGMENTATIONS,
    AugmentationSpec,
    MinMax,
    UNetSpec,
    Window,
    ZScore,
    refuse_syntax,
)
from medseg.errors import BundleError


def test_a_spec_never_changes() -> None:
    spec = made_spec()
    with pytest.raises(ValidationError):
        spec.name = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        spec.training.steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("channels", "dims", "expected"),
    [
        (32, 3, (32, 64, 128, 256, 320, 320)),
        (32, 2, (32, 64, 128, 256, 512, 512)),
        (400, 3, (400, 400, 400, 400, 400, 400)),
        ([1, 2, 3, 4, 5, 6], 3, (1, 2, 3, 4, 5, 6)),
    ],
)
def test_one_number_of_channels_doubles_up_to_a_limit(
    channels: Any, dims: Any, expected: Any
) -> None:
    channels = tuple(channels) if isinstance(channels, list) else channels
    network = UNetSpec(dims=dims, channels=channels, strides=(1, 2, 2, 2, 2, 2))
    assert network.level_channels == expected


def test_strides_and_kernels_per_axis() -> None:
    network = UNetSpec(
        strides=(1, (2, 2, 1), 2), kernel_sizes=((3, 3, 1), 3, 5), channels=8
    )
    assert network.level_strides == ((1, 1, 1), (2, 2, 1), (2, 2, 2))
    assert network.level_kernels == ((3, 3, 1), (3, 3, 3), (5, 5, 5))
    assert network.divisor == (4, 4, 2)


def test_a_window_says_what_its_ends_become() -> None:
    assert Window(low=-200, high=300).range == (-1, 1)
    assert Window(low=0, high=100, mean=20, std=10).range == (-2, 8)


def test_one_normalisation_serves_every_channel() -> None:
    channels = [{"name": "a"}, {"name": "b"}]
    one = made_spec(channels=channels, preprocessing={"intensity": "minmax"})
    assert one.intensities == (MinMax(), MinMax())
    each = made_spec(
        channels=channels, preprocessing={"intensity": ["minmax", "zscore"]}
    )
    assert each.intensities == (MinMax(), ZScore())


def test_labels_get_their_defaults_and_stand_in_order() -> None:
    spec = made_spec(
        labels=[
            {
                "index": 2,
                "name": "b",
                "value": 7,
                "colour": [1, 2, 3],
                "code": "SCT:10",
            },
            {"index": 1, "name": "a"},
        ]
    )
    first, second = spec.label_set
    assert (first.index, first.name, first.value, first.code) == (
        1,
        "a",
        1,
        None,
    )
    assert (second.value, second.colour, second.code) == (
        7,
        (1, 2, 3),
        "SCT:10",
    )
    assert spec.label_set.values == {0: 0, 1: 1, 7: 2}


@pytest.mark.parametrize(
    ("label", "fault"),
    [
        ({"value": 9}, "9 is the value of the label a"),
        (
            {"value": 1, "colour": [9, 9, 9]},
            "the grey of 9 is the colour of the label",
        ),
    ],
)
def test_what_is_ignored_is_no_label(label: dict[str, Any], fault: str) -> None:
    assert made_spec(data={"ignore": 9}).label_set.ignore_index == 3
    assert made_spec().label_set.ignore_index is None
    with pytest.raises(BundleError, match=f"data.ignore.*{fault}"):
        made_spec(
            labels=[{"index": 1, "name": "a", **label}], data={"ignore": 9}
        )


def test_class_weights_go_by_name_and_the_labels_have_a_mean_of_one() -> None:
    assert made_spec().class_weights is None
    spec = made_spec(training={"class_weights": {"kidney": 3}})
    assert spec.class_weights == pytest.approx((0.5, 0.5, 1.5))
    spec = made_spec(
        training={"class_weights": {"kidney": 3, "background": 0.2}}
    )
    assert spec.class_weights == pytest.approx((0.1, 0.5, 1.5))


@pytest.mark.parametrize(
    ("weights", "fault"),
    [
        ({"spleen": 2}, "no label of this bundle is named spleen"),
        ({"liver": 0}, "0.001"),
        ({}, "at least 1"),
        ("balanced", "medseg plan --class-weights balanced"),
    ],
)
def test_class_weights_that_cannot_be_are_told(
    weights: Any, fault: str
) -> None:
    with pytest.raises(BundleError, match=f"training.class_weights.*{fault}"):
        made_spec(training={"class_weights": weights})


def test_augmentations_have_names() -> None:
    assert made_spec().training.augmentation == AUGMENTATIONS["none"]
    some = made_spec(
        training={"augmentation": {"noise": 1}}
    ).training.augmentation
    assert some == AugmentationSpec(noise=1)
    none = AUGMENTATIONS["none"]
    chances = none.model_dump(
        exclude={"mirror_axes", "rotation_degrees", "scaling_range"}
    )
    assert none.mirror_axes == ()
    assert set(chances.values()) == {0}


@pytest.mark.parametrize(
    "value",
    [
        "$x", "  $x", "%x", "@x", "a@b", "a::b", "a#b", ["$x"], {"a": {"b": ["@x"]}}, {"_a": 1},
        {"a-b": 1}, {1: 2}, {"": 1}, float("nan"), [float("inf")], ("$x",),
    ],
)  # fmt: skip
def test_text_that_could_run_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        refuse_syntax(value)


@pytest.mark.parametrize(
    "value",
    [
        "INSTANCE",
        ["GROUP", {"num_groups": 8}],
        {"a1": [1, 2.5, None, True, "x_y"]},
        "5%",
        "a$b",
        3,
    ],
)
def test_plain_arguments_pass(value: Any) -> None:
    refuse_syntax(value)


@given(
    st.lists(st.integers(1, 5), min_size=3, max_size=5),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_a_patch_fits_its_strides_or_the_next_that_does_is_named(
    strides: list[int], times: int, more: int
) -> None:
    made = content()
    made["network"] = {
        "kind": "unet",
        "channels": 8,
        "strides": [1, *strides[1:]],
    }
    divisor = UNetSpec(channels=8, strides=(1, *strides[1:])).divisor[0]
    size = divisor * (times + 1) + more
    made["training"] = {"patch": [size] * 3}
    if size % divisor == 0:
        assert parse_spec(made).training.patch == (size,) * 3
        return
    with pytest.raises(BundleError, match="divisible") as caught:
        parse_spec(made)
    nearest = -(-size // divisor) * divisor
    assert f"[{nearest}, {nearest}, {nearest}] is" in str(caught.value)


def test_a_label_may_have_several_values_and_colours() -> None:
    labels = [
        {"index": 1, "name": "myelin", "value": [127, 128]},
        {"index": 2, "name": "axon", "colour": [[9, 0, 0], [8, 0, 0]]},
    ]
    spec = made_spec(
        labels=labels,
        data={
            "ignore": [255, [224, 224, 192]],
            "background": [[250, 250, 250]],
        },
    )

    myelin, axon = spec.label_set
    assert myelin.values == (127, 128)
    assert axon.colours == ((9, 0, 0), (8, 0, 0))
    assert spec.label_set.colours[250, 250, 250] == 0
    assert spec.label_set.colours[224, 224, 192] == 3


@pytest.mark.parametrize(
    ("label", "data", "fault"),
    [
        ({"value": [1, 2]}, {"background": [2]}, r"data\.background.*value"),
        (
            {"colour": [1, 2, 3]},
            {"ignore": [[1, 2, 3]]},
            r"data\.ignore.*\[1, 2, 3\] is the colour",
        ),
        ({"colour": [[4, 4, 4], [5, 5, 5]]}, {"ignore": 5}, "grey of 5"),
        ({"value": [3, 3]}, {}, "same value: 3"),
        ({"value": []}, {}, "labels"),
        ({"colour": [[1, 2]]}, {}, "colour"),
    ],
)
def test_a_value_or_colour_has_one_meaning(
    label: dict[str, Any], data: dict[str, Any], fault: str
) -> None:
    with pytest.raises(BundleError, match=fault):
        made_spec(labels=[{"index": 1, "name": "a", **label}], data=data)


@pytest.mark.parametrize(
    ("name", "is_taken"),
    [
        ("liver", True),
        ("/Users/a.b@example.org/Leber CT", True),
        ("肝 ü", True),
        ("x", True),
        ("x" * 501, False),
        ("", False),
        (" x", False),
        ("x ", False),
        ("a\nb", False),
        ("a\x1b[31mb", False),
    ],
)
def test_an_experiment_has_any_name_on_one_line(
    name: str, is_taken: bool
) -> None:
    asked = content(tracking={"experiment": name})
    if is_taken:
        assert parse_spec(asked).tracking.experiment == name
    else:
        with pytest.raises(BundleError, match=r"tracking\.experiment"):
            parse_spec(asked)
