"""Pages that need no other file, and whose values are text."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from medseg._support.html import render_page


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
