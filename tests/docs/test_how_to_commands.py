"""Commands that pages and helps show exist, with every option that they are given."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from medseg.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
    ROOT / "docs" / "reference" / "cli.md",
    ROOT / "README.md",
]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
SHELL = re.compile(r"```(?:sh|bash)\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`(medseg [a-z]+[^`]*)`")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def iterate_calls(page: Path) -> Iterator[list[str]]:
    """Give the words behind ``medseg`` of every call that a page shows."""
    text = page.read_text("utf-8")
    lines = [*INLINE.findall(text)]
    for block in SHELL.findall(text):
        lines += block.replace("\\\n", " ").splitlines()
    for line in lines:
        _, found, call = line.partition("medseg ")
        is_call = found and not line.lstrip().startswith(("#", "pip"))
        if is_call:
            if call.count('"') % 2:  # it stands in quotes, for another program
                call = call.rstrip('"')
            words = shlex.split(call.replace("…", ""), comments=True)
            yield [word for word in words if word != "&"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_and_option_exists(page: Path) -> None:
    root: Any = typer.main.get_command(app)
    unknown = []
    for name, *words in iterate_calls(page):
        command = root.commands.get(name)
        if command is None:
            if name.isalpha() and name not in ("in", "is"):
                unknown.append(name)
            continue
        known = {"--help", "-h"}
        for parameter in command.params:
            known.update([*parameter.opts, *parameter.secondary_opts])
        for word in words:
            option, _, _ = word.partition("=")
            if option.startswith("-") and option not in known:
                unknown.append(f"{name} {option}")
    assert unknown == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_no_results_and_their_links_lead_somewhere(
    notebook: Path,
) -> None:
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            continue
        for link in LINK.findall(text):
            assert (notebook.parent / link).exists(), link


def test_calls_are_found_on_pages() -> None:
    assert sum(len(list(iterate_calls(page))) for page in PAGES) > 100
