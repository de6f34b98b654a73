"""HTML pages for people that need no other file: they open from disk and fetch nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
    # Jinja is only needed by the commands that write pages; the others start faster without it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, _SHARED_TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(values)
