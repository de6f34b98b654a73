"""Pages that need no other file, and whose values are text."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from jinja2 import UndefinedError

from medseg._support.file_look_up import FileLookUp
from medseg._support.html import break_name, make_link, render_page

HOSTILE = [
    "javascript:alert(1).nii.gz",
    "//evil.example/a.png",
    '"><script>alert(1)</script>.nii.gz',
    "Ärzte 100% #7?.nii.gz",
    "脑_001.nii.gz",
    "' onmouseover='alert(1)",
]


def write_template(folder: Path, body: str) -> Path:
    template = folder / "example.html.j2"
    template.write_text(
        '{% extends "page.html.j2" %}{% block body %}' + body + "{% endblock %}"
    )
    return template


def test_a_page_may_load_nothing_and_its_values_are_text(
    tmp_path: Path,
) -> None:
    page = render_page(
        write_template(tmp_path, "<p>{{ name }}</p>"), name="<script>alert(1)"
    )
    assert "<p>&lt;script&gt;alert(1)</p>" in page
    assert "default-src 'none'" in page
    assert "script-src" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_value_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="name"):
        render_page(write_template(tmp_path, "{{ name }}"))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hippocampus_003.nii.gz", ["hippocampus_", "003", ".nii.gz"]),
        ("a.rtstruct.dcm", ["a", ".rtstruct.dcm"]),
        ("x" * 40, ["x" * 14, "x" * 14, "x" * 12]),
        ("", []),
    ],
)
def test_a_name_is_cut_behind_its_joints_and_never_in_its_ending(
    name: str, parts: list[str]
) -> None:
    assert break_name(name) == parts


@pytest.mark.parametrize("name", HOSTILE)
def test_no_sign_is_lost_and_no_part_is_long(name: str) -> None:
    assert "".join(break_name(name)) == name
    assert all(len(part) <= 20 for part in break_name(name))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_link_leads_to_the_file_whatever_it_is_called(
    tmp_path: Path, name: str
) -> None:
    if "/" in name:
        assert make_link(tmp_path, name, files=FileLookUp()) == ""
        return
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / name).write_bytes(b"")
    link = make_link(tmp_path, "sub", name, files=FileLookUp())
    address = urlsplit(link)
    assert (address.scheme, address.netloc, address.query) == ("", "", "")
    assert unquote(address.path) == f"sub/{name}"
    assert link.isascii()
    assert not set(link) & set("<>\"' ")
