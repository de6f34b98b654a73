"""``bundle.json``: every fault at once, overrides, hostile files, and the schema."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundles import SMALL, content, made_spec, write_json

from medseg.bundle.bundle import load_bundle, parse_spec
from medseg.bundle.reading import MAX_BYTES
from medseg.bundle.spec import BundleSpec
from medseg.bundle.spec_files import (
    build_schema,
    flatten_spec,
    format_spec,
    list_differences,
    write_bundle,
)
from medseg.errors import BundleError, Fault


def faults_of(made: Any) -> dict[str, str]:
    """Return the faults of a content, by JSON path."""
    with pytest.raises(BundleError) as caught:
        parse_spec(made)
    assert caught.value.faults
    return {fault.where: fault.what for fault in caught.value.faults}


def test_a_small_bundle_has_no_fault_and_every_default_is_filled_in() -> None:
    spec = made_spec()
    assert spec.training.patch == (16, 16, 16)
    assert spec.inference.overlap == 0.5
    assert spec.label_set.names == ("liver", "kidney")
    assert spec.label_set.channels == 3


def test_every_fault_is_told_at_once_with_its_path_and_what_came() -> None:
    made = content(
        nmae="x",
        labels=[
            {"index": 1, "name": "liver", "colour": [1, 2]},
            {"index": 2, "valeu": 3},
        ],
        preprocessing={"intensity": [{"kind": "window", "low": 3, "high": 1}]},
        network={"strides": [1, 2, 0]},
        inference={"overlap": 1.5, "keep_largest": "liver"},
        tracking={"experiment": " two\nlines "},
    )
    made["training"] = {
        "patch": ["16", 16, 16],
        "steps": 0,
        "optimizer": "adam",
    }
    found = faults_of(made)
    assert set(found) == {
        "nmae",
        "labels.0.colour.2",
        "labels.1.name",
        "labels.1.valeu",
        "preprocessing.intensity.0",
        "network.strides.2",
        "training.patch.0",
        "training.steps",
        "training.optimizer",
        "inference.overlap",
        "inference.keep_largest",
        "tracking.experiment",
    }
    assert (
        found["training.optimizer"]
        == "should be 'sgd' or 'adamw', got \"adam\""
    )
    assert found["training.patch.0"] == 'should be a valid integer, got "16"'
    assert found["labels.1.name"] == "is missing"
    assert "not a known field" in found["labels.1.valeu"]
    assert found["inference.keep_largest"] == 'should be a list, got "liver"'


def test_the_message_holds_every_fault_on_its_own_line(tmp_path: Path) -> None:
    file = write_json(tmp_path, content(one=1, two=2))
    with pytest.raises(BundleError) as caught:
        load_bundle(file)
    first, *others = str(caught.value).splitlines()
    assert first == f"{file}: the bundle has 2 faults:"
    assert [line.split(":")[0].strip() for line in others] == ["one", "two"]


def test_a_field_named_like_a_kind_is_named_where_it_stands() -> None:
    made = content(
        window=1,
        network={"unet": 1},
        preprocessing={"intensity": [{"list": 1}]},
    )
    assert set(faults_of(made)) == {
        "window",
        "network.unet",
        "preprocessing.intensity.0",
    }


def test_contradictions_come_with_the_other_faults() -> None:
    made = content(
        training={"patch": [15, 16, 16]},
        inference={"keep_largest": ["spleen"]},
        data={"folds": 1},
        preprocessing={"intensity": ["zscore", "zscore"]},
    )
    found = faults_of(made)
    assert set(found) == {
        "data.folds",
        "training.patch",
        "inference.keep_largest",
        "preprocessing.intensity",
    }
    assert "[16, 16, 16] is" in found["training.patch"]
    assert "spleen" in found["inference.keep_largest"]


def test_a_contradiction_with_a_faulty_section_is_not_made_up() -> None:
    made = content(
        training={"patch": [15, 16, 16]}, network={"strides": [1, 2, "2"]}
    )
    assert set(faults_of(made)) == {"network.strides.2"}


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("training.patch", {"training": {"patch": [16, 16]}}),
        ("training.patch", {"training": {"patch": [4, 4, 4]}}),
        ("preprocessing.input", {"preprocessing": {"input": "picture"}}),
        (
            "preprocessing.spacing_mm",
            {
                "preprocessing": {"input": "picture", "spacing_mm": [1, 1, 1]},
                "network": {"dims": 2},
                "training": {"patch": [16, 16]},
            },
        ),
        ("network", {"network": {"channels": [4, 8, 16, 32]}}),
        ("network", {"network": {"strides": [2, 2, 2]}}),
        ("network", {"network": {"strides": [1, [2, 2], 2]}}),
        ("network", {"network": {"kernel_sizes": [3, 4, 3]}}),
        ("network", {"network": {"kernel_sizes": [3, 3, 3, 3]}}),
        ("network", {"network": {"norm": "group"}}),
        ("network", {"network": []}),
        ("network", {"network": None}),
        ("network.kind", {"network": {"kind": 3}}),
        ("network.kind", {"network": {"kind": "os.system"}}),
        ("labels", {"labels": [{"index": 2, "name": "a"}]}),
        ("labels", {"labels": [{"index": 1, "name": "a"}, {"index": 2, "name": "A"}]}),
        ("labels", {"labels": [{"index": 1, "name": "mean"}]}),
        ("labels", {"labels": [{"index": 1, "name": "a", "colour": [0, 0, 0]}]}),
        (
            "labels",
            {
                "labels": [
                    {"index": 1, "name": "a", "colour": [1, 2, 3]},
                    {"index": 2, "name": "b", "colour": [1, 2, 3]},
                ]
            },
        ),
        (
            "labels",
            {"labels": [{"index": 1, "name": "a", "value": 2}, {"index": 2, "name": "b"}]},
        ),
        ("labels", {"labels": {}}),
        ("labels.0", {"labels": [1]}),
        ("labels.0.name", {"labels": [{"index": 1, "name": "\x1b[2J"}]}),
        ("labels.0.name", {"labels": [{"index": 1, "name": "two\nlines"}]}),
        ("labels.0.code", {"labels": [{"index": 1, "name": "a", "code": "liver"}]}),
        ("labels.0.value", {"labels": [{"index": 1, "name": "a", "value": 10**30}]}),
        ("name", {"name": "../up"}),
        ("name", {"name": "a\n"}),
        ("version", {"version": "1.2"}),
        ("description", {"description": "\ud800"}),
        ("description", {"description": "x" * 4001}),
        ("data.group_pattern", {"data": {"group_pattern": "("}}),
        ("data.group_pattern", {"data": {"group_pattern": "no group"}}),
        ("data.group_pattern", {"data": {"group_pattern": "a{1,99999999999}(b)"}}),
        ("preprocessing.intensity", {"preprocessing": {"intensity": "foo"}}),
        ("preprocessing.intensity", {"preprocessing": {"intensity": None}}),
        ("preprocessing.intensity", {"preprocessing": {"intensity": []}}),
        (
            "preprocessing.intensity",
            {"preprocessing": {"intensity": {"kind": "zscore", "clip_percentiles": [0.9, 0.1]}}},
        ),
        ("preprocessing.crop_above", {"preprocessing": {"crop_above": "0"}}),
        ("preprocessing.spacing_mm.1", {"preprocessing": {"spacing_mm": [1, 0, 1]}}),
        ("training.augmentation", {"training": {"augmentation": "strong"}}),
        ("training.augmentation", {"training": {"augmentation": 3}}),
        (
            "training.augmentation",
            {"training": {"augmentation": {"scaling_range": [1.2, 0.8]}}},
        ),
        (
            "training.augmentation.mirror_axes.0",
            {"training": {"augmentation": {"mirror_axes": [3]}}},
        ),
        ("training", {"training": {"dice_weight": 0, "ce_weight": 0}}),
        ("training.steps", {"training": {"steps": True}}),
        ("training.steps", {"training": {"steps": "4"}}),
        ("training.seed", {"training": {"seed": 10**30}}),
        ("training.patch.0", {"training": {"patch": [10**30, 16, 16]}}),
        ("training.learning_rate", {"training": {"learning_rate": 1e999}}),
        ("network.residual", {"network": {"residual": "yes"}}),
        ("network.args", {"network": {"kind": "UNet", "args": {"norm": "$print()"}}}),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_where_it_stands(
    where: str, change: dict[str, Any]
) -> None:
    made = content(**change)
    if isinstance(change.get("network"), dict) and "kind" in change["network"]:
        made["network"] = change["network"]
    assert where in faults_of(made)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(
    section=st.sampled_from(sorted(BundleSpec.model_fields)),
    field=st.none()
    | st.sampled_from(
        ["patch", "kind", "strides", "intensity", "augmentation"]
    ),
    value=JSON,
)
def test_any_json_gives_a_spec_or_faults_and_never_a_crash(
    section: str, field: str | None, value: Any
) -> None:
    made = content()
    if field is None:
        made[section] = value
    elif isinstance(made.setdefault(section, {}), dict):
        made[section][field] = value
    try:
        spec = parse_spec(made)
    except BundleError:
        return
    assert not list_differences(parse_spec(json.loads(format_spec(spec))), spec)


# --- overrides ---


@pytest.mark.parametrize(
    ("override", "found", "value"),
    [
        ("training.steps=7", lambda s: s.training.steps, 7),
        (" training.steps =7", lambda s: s.training.steps, 7),
        ("training.patch=[8, 12, 16]", lambda s: s.training.patch, (8, 12, 16)),
        ("training.patch.1=20", lambda s: s.training.patch, (16, 20, 16)),
        ("labels.1.name=spleen", lambda s: s.label_set.names, ("liver", "spleen")),
        ("labels.1={\"index\": 2, \"name\": \"x\"}", lambda s: s.label_set.names, ("liver", "x")),
        ("description=a = b", lambda s: s.description, "a = b"),
        ("description=", lambda s: s.description, ""),
        ("training.ema=0.5", lambda s: s.training.ema, 0.5),
        ("training.gradient_clip=null", lambda s: s.training.gradient_clip, None),
        ("network.deep_supervision=false", lambda s: s.network.deep_supervision, False),
        ("preprocessing.spacing_mm=[1, null, 2]", lambda s: s.preprocessing.spacing_mm,
         (1, None, 2)),
        ("preprocessing.intensity=minmax", lambda s: s.intensities[0].kind, "minmax"),
        ('inference.keep_largest=["liver"]', lambda s: s.inference.keep_largest, ("liver",)),
    ],
)  # fmt: skip
def test_an_override_wins(
    override: str,
    found: Callable[[BundleSpec], Any],
    value: Any,
    tmp_path: Path,
) -> None:
    spec = load_bundle(write_json(tmp_path, content()), [override]).spec
    assert found(spec) == value


def test_overrides_are_applied_in_order(tmp_path: Path) -> None:
    file = write_json(tmp_path, content())
    both = load_bundle(file, ["training.steps=5", "training.steps=6"]).spec
    assert both.training.steps == 6


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.steps", "not an override"),
        ("=3", "not an override"),
        (".steps=3", "not an override"),
        ("training..steps=3", "not an override"),
        ("training.setps=3", "training.setps"),
        ("trainin.steps=3", "trainin"),
        ("training.patch.3=16", "0 to 2 are"),
        ("training.patch.-1=16", "0 to 2 are"),
        ("training.patch.²=16", "0 to 2 are"),
        ("training.patch.x=16", "0 to 2 are"),
        ("labels.7.name=x", "0 to 1 are"),
        ("name.first=3", "name is not a section"),
        ("training.steps.x=3", "steps is not a section"),
        ("training.learning_rate=NaN", 'got "NaN"'),
        ("training.learning_rate=-Infinity", "training.learning_rate"),
        ("training.steps=" + "1" * 5000, "training.steps"),
        ("description=" + "[" * 100_000, "description"),
        ("training.patch=[16,16", "training.patch"),
    ],
)
def test_a_wrong_override_says_what_is_allowed(
    override: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(BundleError) as caught:
        load_bundle(write_json(tmp_path, content()), [override])
    assert words in str(caught.value)


# --- files ---


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "is not valid JSON"),
        (b"{", "is not valid JSON"),
        (b"null", "holds nothing"),
        (b"[1]", "holds a list"),
        (b"true", "holds true or false"),
        (b'{"name": "a", "name": "b"}', "'name' stands twice"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "'b' stands twice"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": [-Infinity]}', "-Infinity is not a number"),
        (b'{"a": ' * 50_000, "nested too deep"),
        (b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}", "nested too deep"),
        (b'{"a": ' + b"1" * 5000 + b"}", "is not valid JSON"),
        (b"\xff\xfe{\x00}\x00", "cannot be read"),
        (b"\x80\x04\x95", "cannot be read"),
        (b" " * (MAX_BYTES + 1), "larger than 4 MB"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_a_file_that_is_no_bundle_is_refused_with_its_name(
    raw: bytes, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "bundle.json"
    file.write_bytes(raw)
    with pytest.raises(BundleError) as caught:
        load_bundle(tmp_path)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    raw = b"\xef\xbb\xbf" + json.dumps(content()).encode()
    (tmp_path / "bundle.json").write_bytes(raw)
    assert load_bundle(tmp_path).spec == made_spec()


def test_what_is_no_plain_file_is_refused_and_never_waited_for(
    tmp_path: Path,
) -> None:
    (tmp_path / "folder" / "bundle.json").mkdir(parents=True)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "bundle.json")
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "bundle.json").symlink_to("/dev/zero")
    (tmp_path / "circle").mkdir()
    (tmp_path / "circle" / "bundle.json").symlink_to(
        tmp_path / "circle" / "bundle.json"
    )
    (tmp_path / "nothing").mkdir()
    for name in (
        "folder",
        "pipe",
        "device",
        "circle",
        "nothing",
        "absent",
        "pipe/bundle.json",
    ):
        with pytest.raises(BundleError) as caught:
            load_bundle(tmp_path / name)
        assert str(tmp_path / name.split("/")[0]) in str(caught.value)


def test_a_bundle_is_found_by_folder_file_and_link(tmp_path: Path) -> None:
    file = write_json(tmp_path / "real", content())
    named = write_json(tmp_path / "real", content(name="other"), "other.json")
    (tmp_path / "link").symlink_to(file)
    assert (
        load_bundle(tmp_path / "real").folder == (tmp_path / "real").resolve()
    )
    assert load_bundle(str(named)).spec.name == "other"
    assert load_bundle(tmp_path / "link").spec.name == "made_up"


def test_paths_of_a_bundle_are_relative_to_it(tmp_path: Path) -> None:
    bundle = load_bundle(
        write_json(tmp_path / "a", content(data={"root": "../data"}))
    )
    assert bundle.data_root == (tmp_path / "data").resolve()
    assert not bundle.is_trained
    assert bundle.weights == bundle.folder / "models" / "model.pt"


# --- writing ---


def test_a_written_bundle_reads_the_same_and_names_its_schema(
    tmp_path: Path,
) -> None:
    spec = made_spec(
        training={"augmentation": {"noise": 1}}, description="Größe → µm"
    )
    write_bundle(spec, tmp_path / "bundle.json")
    written = json.loads((tmp_path / "bundle.json").read_text("utf-8"))
    assert written["$schema"] == "medseg-bundle-1.json"
    assert written["inference"]["overlap"] == 0.5
    again = load_bundle(tmp_path).spec
    assert not list_differences(again, spec)
    assert again.description == "Größe → µm"


def test_differences_name_each_changed_field() -> None:
    one = made_spec()
    other = made_spec(
        training={"steps": 9}, description="no difference in training"
    )
    assert list_differences(one, one) == []
    assert list_differences(one, other) == ["training.steps: 4 → 9"]
    assert "network.kind: unet → UNet" in list_differences(
        one, parse_spec({**SMALL, "network": {"kind": "UNet"}})
    )


def test_parameters_are_flat_text() -> None:
    flat = flatten_spec(made_spec())
    assert flat["training.patch"] == "[16, 16, 16]"
    assert flat["name"] == "made_up"
    assert all(isinstance(value, str) for value in flat.values())


def test_errors_and_faults_are_values_that_travel() -> None:
    import pickle

    error = BundleError("headline", [Fault("a.b", "wrong")])
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert str(again) == str(error) == "headline\n  a.b: wrong"
    assert again.faults == error.faults


# --- schema ---


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = build_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_takes_what_the_reader_takes(validator: Any) -> None:
    assert list(validator.iter_errors(content())) == []
    assert (
        list(validator.iter_errors(json.loads(format_spec(made_spec())))) == []
    )
    full = content(
        preprocessing={"spacing_mm": [1, None, 2], "intensity": ["zscore"]},
        training={"augmentation": {"noise": 0}},
        labels=[
            {
                "index": 1,
                "name": "a",
                "colour": [1, 2, 3],
                "code": "SCT:1",
                "value": 7,
            }
        ],
    )
    assert list(validator.iter_errors(full)) == []
    parse_spec(full)


@pytest.mark.parametrize(
    "change",
    [
        {"nmae": 1},
        {"training": {"patch": ["16", 16, 16]}},
        {"training": {"setps": 3}},
        {"training": {"steps": 0}},
        {"training": {"augmentation": "strong"}},
        {"preprocessing": {"intensity": "foo"}},
        {"preprocessing": {"intensity": {"kind": "window", "low": 1}}},
        {"labels": []},
        {"labels": [{"index": 1}]},
        {"labels": [{"index": 1, "name": "a\nb"}]},
        {"network": {"norm": "layer"}},
        {"name": "two words"},
        {"inference": {"overlap": 1}},
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(
    change: Any, validator: Any
) -> None:
    made = content(**change)
    assert list(validator.iter_errors(made))
    faults_of(made)
