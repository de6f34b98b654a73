"""HTML pages for people that need no other file: they open from disk and fetch nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

from medseg._support.file_look_up import FileLookUp

_LONGEST_WORD = 18
_CUT = "\0"
_BREAK = "<wbr>"
_ENDING = re.compile(r"(\.[A-Za-z]{2,9}){1,2}$")

_SHARED_TEMPLATES = Path(__file__).with_name("templates")


def render_page(template: Path, **values: Any) -> str:
    """Render a page from its template.

    Templates extend ``page.html.j2``, which has the colours, the table's frame and a policy that
    forbids the page to load or run anything from elsewhere.

    Args:
        template: The Jinja template.
        values: What the template shows; a name that it uses and that is not here is an error.

    Returns:
        The page. Every value is escaped, since a case can be called anything.
    """
    environment = _make_environment(template.parent)
    return environment.get_template(template.name).render(values)


@lru_cache
def _make_environment(folder: Path) -> Environment:
    """Return what renders the templates of a folder; each is compiled once."""
    # Jinja is only needed by the commands that write pages; the others start faster without it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([folder, _SHARED_TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _make_breakable
    return environment


def _make_breakable(name: str) -> Markup:
    """Return a name as HTML that may be broken where ``break_name`` cuts it."""
    from markupsafe import Markup, escape

    # Escaped in one piece, which is much quicker; no name holds this sign.
    text = str(escape(_CUT.join(break_name(name))))
    return Markup(text.replace(_CUT, _BREAK))


def break_name(name: str) -> list[str]:
    """Cut the name of a file or a label where a reader would break it into lines.

    Behind what joins words, never within an ending such as ``.nii.gz``, and words without joints
    only where they are long.

    Examples:
        >>> break_name("hippocampus_003.nii.gz")
        ['hippocampus_', '003', '.nii.gz']
    """
    ending = _ENDING.search(name)
    stem = name[: ending.start()] if ending else name
    parts: list[str] = []
    for word in re.findall(r"[^\W_]+[\W_]*|[\W_]+", stem):
        parts.extend(_cut_word(word))
    if ending:
        parts.append(ending.group())
    return parts


def _cut_word(word: str) -> Iterator[str]:
    count = -(-len(word) // _LONGEST_WORD)
    size = -(-len(word) // count)
    for start in range(0, len(word), size):
        yield word[start : start + size]


def make_link(folder: Path, *names: str, files: FileLookUp) -> str:
    """Return the address of a file below the folder of a page; empty if there is no such file.

    Args:
        folder: Where the page lies.
        names: Of folders below it, and last of the file; they can hold any sign.
        files: Knows which files are there.
    """
    if not files.finds(folder.joinpath(*names)):
        return ""
    return "/".join(quote(name, safe="") for name in names)
