"""The routes of the server's own pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.routing import Route

from medseg.label_server.pages.site import ServedApp, Site
from medseg.label_server.pages.work_forms import WorkForms
from medseg.label_server.pages.work_pages import WorkPages


def list_page_routes(
    find_app: Callable[[], ServedApp], people: Sequence[str]
) -> list[Route]:
    """Return the routes of the server's own pages.

    Args:
        find_app: Returns MONAI Label's app, once it has started.
        people: The names of those who may log in; nobody has to where there are none.
    """
    site = Site(find_app, people)
    return [*WorkPages(site).list_routes(), *WorkForms(site).list_routes()]
