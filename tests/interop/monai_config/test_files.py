"""Config files are read as plain values, with bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.errors import MedsegError
from medseg.interop.monai_config.files import parse_yaml, read_config

YAML = """---
pixdim: [1.5, 1.5, 2.0]
keys: "@image_key"
network_def:
  _target_: UNet
  strides:
  - 2
  - [2, 2, 1]
"""


def test_yaml_and_json_say_the_same(tmp_path: Path) -> None:
    json_file, yaml_file = tmp_path / "a.json", tmp_path / "a.yaml"
    yaml_file.write_text(YAML)
    json_file.write_text(
        '{"pixdim": [1.5, 1.5, 2.0], "keys": "@image_key", "network_def": '
        '{"_target_": "UNet", "strides": [2, [2, 2, 1]]}}'
    )
    assert read_config(yaml_file) == read_config(json_file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: !!python/object/apply:os.system ['touch canary']", "tags"),
        ("a: !!python/name:os.system", "tags"),
        ("a: !secret 3", "tags"),
        ("a: &x [1, 2]\nb: *x", "aliases"),
        ("a: &x [*x]", "aliases"),
        ("a: 1\na: 2", "twice"),
        ("[1, 2]: 3", "neither text nor a number"),
        ("a: [1", "flow sequence"),
        ("a: \0", "special characters"),
    ],
)
def test_yaml_that_builds_objects_or_repeats_them_is_refused(
    text: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        parse_yaml(text)


def test_a_config_has_bounds(tmp_path: Path) -> None:
    file = tmp_path / "inference.json"
    for content in ("[" * 100_000, "[1]", '{"a": 1, "a": 2}', "{", "\xff"):
        file.write_text(content, encoding="latin1")
        with pytest.raises(MedsegError):
            read_config(file)
    file.write_bytes(b" " * (4 << 20) + b"{}")
    with pytest.raises(MedsegError, match="at most 4 MB"):
        read_config(file)
    deep = tmp_path / "deep.yaml"
    deep.write_text("[" * 20_000 + "]" * 20_000)
    with pytest.raises(MedsegError, match="nested too deeply"):
        read_config(deep)
    device = tmp_path / "device.json"
    device.symlink_to("/dev/zero")
    with pytest.raises(MedsegError, match="at most 4 MB"):
        read_config(device)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.yaml", "[1]", "must hold a YAML mapping, holds a list"),
        ("a.yml", "a: [1", "is not valid YAML"),
        ("a.json", "[1]", "must hold a JSON object {…}, holds a list"),
        ("a.json", "{", "is not valid JSON"),
    ],
)
def test_what_is_no_config_is_said_alike_in_both_languages(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(MedsegError) as raised:
        read_config(file)
    assert raised.value.message == said
