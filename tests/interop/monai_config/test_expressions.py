"""Expressions of MONAI's configs are understood by their text, and none is ever run."""

from __future__ import annotations

from typing import Any

import pytest

from medseg.interop.monai_config.expressions import (
    NumberType,
    UnknownError,
    compute,
    find_moved_network,
    parse_reference,
)

ENTRIES = {
    "bundle_root": ".",
    "name": "model.pt",
    "highres": True,
    "size": [96, 96, 96],
    "a::b": 3,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("@bundle_root + '/models/' + @name", "./models/model.pt"),
        ("os.path.join(@bundle_root, 'models', @name)", "./models/model.pt"),
        ("[1.5, 1.5] if @highres else [3.0, 3.0]", [1.5, 1.5]),
        ("[1] if not @highres else (-3.0, None)", [-3.0, None]),
        ("len(@size)", 3),
        ("@a#b", 3),
        ("@a::b", 3),
        ("torch.float32", NumberType("float32")),
        ("np.uint8", NumberType("uint8")),
    ],
)
def test_known_expressions_have_the_meaning_they_have_in_python(
    text: str, value: Any
) -> None:
    assert compute(text, ENTRIES.__getitem__) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch canary')",
        "os.system('touch canary')",
        "[x for x in (1, 2)]",
        "(lambda: 1)()",
        "@name.upper()",
        "@size[0]",
        "open('/etc/passwd').read()",
        "torch.load(@name)",
        "f'{@name}'",
        "'@name' + 'x'",
        "len(@name, @name)",
        "1 if 1 else 2",
        "10 ** 10 ** 10",
        "'a' * 1000000000",
        "torch.float32.__class__",
        "(" * 400 + ")" * 400,
        "1" * 2000,
        "x := 3",
        "\0",
    ],
)
def test_others_are_unknown(text: str) -> None:
    with pytest.raises(UnknownError):
        compute(text, ENTRIES.__getitem__)


def test_references_and_moved_networks_are_told_by_their_exact_form() -> None:
    assert parse_reference("@train#inferer") == "train::inferer"
    assert parse_reference("%network_def") == "network_def"
    assert parse_reference("@a + 1") is None
    assert find_moved_network("$@network_def.to(@device)") == "network_def"
    assert find_moved_network("$@network_def.to('cpu')") == "network_def"
    assert find_moved_network("$@network_def.to(@device).half()") is None
    assert find_moved_network("$@network_def.apply(@device)") is None
