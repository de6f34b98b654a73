"""OHIF as MONAI Label ships it, offline, with a configuration of medseg's.

The configuration (``viewer/app-config.js``) is where OHIF looks for it, and is code: it also mends
what OHIF 3.10 does wrong when a segmentation is stored, and shows what medseg knows of a study.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Route

CONFIGURATION = Path(__file__).parent / "viewer" / "app-config.js"

_HEADERS = {
    # Nothing from elsewhere; OHIF compiles WebAssembly and makes its styles as it runs.
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
        "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}
_ELSEWHERE = re.compile(
    rb"<link\b[^>]*\bhref=[\"']?https?://[^>]*>", re.IGNORECASE
)
"""Fonts that OHIF's page loads from Google; those of the system take their place."""


def make_viewer_address(info: Mapping[str, Any]) -> str:
    """Return the address that opens a case where OHIF has its brushes.

    Args:
        info: What the datastore shows viewers of the case.

    Returns:
        Empty where the case is no series of a DICOMweb server.
    """
    study = str(info.get("StudyInstanceUID") or "")
    if not study:
        return ""
    return f"/ohif/segmentation?StudyInstanceUIDs={quote(study, safe='.')}"


def list_viewer_routes(folder: Path) -> list[Route]:
    """Return the routes of OHIF, to be put before MONAI Label's own.

    Args:
        folder: Where its files are.
    """
    page = _ELSEWHERE.sub(b"", (folder / "index.html").read_bytes())

    def send_configuration(request: Request) -> Response:
        headers = {**_HEADERS, "cache-control": "no-cache"}
        return FileResponse(
            CONFIGURATION, media_type="text/javascript", headers=headers
        )

    def send(request: Request) -> Response:
        path = request.path_params.get("path", "")
        file = (folder / path).resolve()
        is_inside = folder.resolve() in file.parents
        if path and is_inside and file.is_file() and file.suffix != ".html":
            return FileResponse(file, headers=_HEADERS)
        # Every other address is one of the page's own.
        return HTMLResponse(page, headers=_HEADERS)

    def redirect(request: Request) -> Response:
        return RedirectResponse("/ohif/")

    return [
        Route("/ohif/app-config.js", send_configuration),
        Route("/ohif", send),
        Route("/ohif/{path:path}", send),
        # The same page again, as MONAI Label serves it: with fonts from elsewhere.
        Route("/static/ohif/{path:path}", redirect),
    ]
