"""OHIF as it is served: offline, and within its folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.asgi import ask

pytest.importorskip("starlette", reason="make label installs it")

from starlette.applications import Starlette

from medseg.label_server.ohif import list_viewer_routes, make_viewer_address

PAGE = (
    '<head><link rel="preconnect" href="https://fonts.gstatic.com" crossorigin/>'
    '<link href="https://fonts.googleapis.com/css?family=Inter&display=swap" rel="stylesheet">'
    '<link rel="icon" href="/ohif/a.ico"/></head>'
)


@pytest.fixture
def viewer(tmp_path: Path) -> Starlette:
    folder = tmp_path / "ohif"
    folder.mkdir()
    (folder / "index.html").write_text(PAGE)
    (folder / "a.js").write_text("a")
    (tmp_path / "secret").write_text("secret")
    return Starlette(routes=list_viewer_routes(folder))


def test_its_page_loads_nothing_from_elsewhere(viewer: Starlette) -> None:
    for path in ("/ohif/", "/ohif/segmentation?StudyInstanceUIDs=1.2"):
        page = ask(viewer, "GET", path).body.decode()
        assert "https://" not in page
        assert "/ohif/a.ico" in page


def test_files_outside_its_folder_are_not_served(viewer: Starlette) -> None:
    assert ask(viewer, "GET", "/ohif/a.js").body == b"a"
    for path in ("../secret", "%2e%2e/secret", "/secret", ".."):
        answer = ask(viewer, "GET", f"/ohif/{path}")
        assert b"secret" not in answer.body


def test_the_configuration_is_medsegs(viewer: Starlette) -> None:
    text = ask(viewer, "GET", "/ohif/app-config.js").body.decode()
    assert "@medseg/label" in text


def test_only_series_of_a_dicom_server_open_in_it() -> None:
    assert make_viewer_address({"name": "a"}) == ""
    address = make_viewer_address({"StudyInstanceUID": "1.2&x"})
    assert address == "/ohif/segmentation?StudyInstanceUIDs=1.2%26x"
