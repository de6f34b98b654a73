"""The work list as people of each role meet it, behind the gateway."""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from support.asgi import ask
from support.bundles import made_spec, trained_bundle
from support.label_servers import Answer
from support.scans import affine_of, write_scan

pytest.importorskip("monailabel", reason="make label installs MONAI Label")

from starlette.applications import Starlette
from starlette.requests import Request

from medseg import load_bundle
from medseg.label_server.audit import REQUESTER, AuditLog, Requester
from medseg.label_server.cases import FolderCases, find_folder_cases
from medseg.label_server.datastore import CaseDatastore
from medseg.label_server.gateway import AccessRules, Gateway
from medseg.label_server.labels import FINAL
from medseg.label_server.pages.routes import list_page_routes
from medseg.label_server.scores import Scores
from medseg.label_server.state import StateFolder
from medseg.label_server.users import Role, User, Users, hash_password
from medseg.label_server.versions import VersionInfo, Versions
from medseg.label_server.worklist import CaseState

SPEC = made_spec(preprocessing={"spacing_mm": [2, 2, 2]})
PASSWORD = "correct horse"
SECRET = hash_password(PASSWORD)
ROLES = {
    "ada": Role.ADMIN,
    "rita": Role.REVIEWER,
    "anna": Role.ANNOTATOR,
    "ben": Role.ANNOTATOR,
}
FORM = {"content-type": "application/x-www-form-urlencoded"}


@dataclass
class App:
    """What the pages need of MONAI Label's app, and what they asked it for."""

    state: StateFolder
    versions: Versions
    cases: CaseDatastore
    refreshed: list[str] = field(default_factory=list)

    def datastore(self) -> CaseDatastore:
        return self.cases

    def is_training(self) -> bool:
        return False

    def refresh_scores(self) -> None:
        self.refreshed.append(self.versions.find_served().name)


@dataclass
class Pages:
    """The pages, and the app behind them."""

    app: App
    gateway: Gateway

    def get(self, person: str, path: str) -> Answer:
        return ask(self.gateway, "GET", path, headers=log_in(person))

    def send(self, sender: str, path: str, **fields: str) -> Answer:
        """Send a form as a browser does: with the key that the page holds."""
        page = self.get(sender, "/cases/a").body.decode()
        key = re.search(r'name="form_key" value="([0-9a-f]+)"', page)
        assert key
        judged = re.search(r'name="judged" value="(\d+)"', page)
        if judged:
            fields = {"judged": judged[1], **fields}
        body = urlencode({"form_key": key[1], **fields}).encode()
        headers = {**log_in(sender), **FORM}
        return ask(self.gateway, "POST", path, body, headers)


def log_in(person: str) -> dict[str, str]:
    text = base64.b64encode(f"{person}:{PASSWORD}".encode()).decode()
    return {"authorization": f"Basic {text}"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_bundle(tmp_path_factory.mktemp("pages") / "bundle", SPEC)


@pytest.fixture
def pages(tmp_path: Path, bundle: Path) -> Pages:
    state = StateFolder(tmp_path / "state")
    for number, name in enumerate(("a", "肝")):
        file = tmp_path / f"scans/{name}.nii.gz"
        write_scan(file, number, (20, 22, 18), affine_of((2, 2, 3)))
    find_folder_cases(tmp_path / "scans", state, SPEC)
    versions = Versions(state)
    versions.adopt(load_bundle(bundle))
    datastore = CaseDatastore(state, FolderCases(state, SPEC), SPEC)
    app = App(state, versions, datastore)
    users = {name: User(name, SECRET, role) for name, role in ROLES.items()}
    inner = Starlette(routes=list_page_routes(lambda: app, list(users)))
    rules = AccessRules(Users(users), frozenset(), 10_000_000)
    return Pages(app, Gateway(inner, state, rules))


def submit(pages: Pages, person: str, value: int) -> None:
    """Save a label of a case as if a viewer of this person had sent it."""
    volume = pages.app.cases.read_volume("a")
    labels = np.zeros(volume.shape, np.uint8)
    labels[4:9, 4:9, 4:9] = value
    token = REQUESTER.set(Requester(person, "", ROLES[person]))
    pages.app.cases.labels.save("a", FINAL, labels, volume, {})
    REQUESTER.reset(token)


def get_state(pages: Pages) -> CaseState:
    return pages.app.cases.worklist.get_record("a", "0001").state


def test_the_list_shows_quality_and_escapes_whatever_it_shows(
    pages: Pages,
) -> None:
    quality: dict[str, Any] = {
        "rank": 0.4,
        "shown": "0.40",
        "expected": 0.4,
        "lower": 0.1,
        "review": True,
        "reasons": ["<b>small</b>"],
        "warnings": ["<script>x</script>"],
    }
    Scores(pages.app.state, pages.app.versions.find_served()).add("a", quality)
    pages.send("anna", "/cases/a/comment", comment="<script>alert(1)</script>")
    listed = pages.get("anna", "/").body.decode()
    page = pages.get("anna", "/cases/a").body.decode()
    for text in ("0.40", "at least 0.10", "review", "1 warning", "肝"):
        assert text in listed
    assert html.escape("<b>small</b>") in page
    for text in (listed, page):
        assert "<script>" not in text
        assert html.escape("<script>alert(1)</script>") in text
        assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", text)
    assert pages.get("anna", "/cases/%E8%82%9D").code == 200


def test_only_a_page_of_this_server_changes_anything(pages: Pages) -> None:
    for fields in ({}, {"form_key": "0" * 64}):
        body = urlencode({"comment": "x", **fields}).encode()
        headers = {**log_in("anna"), **FORM}
        answer = ask(pages.gateway, "POST", "/cases/a/comment", body, headers)
        assert answer.code == 403
    record = pages.app.cases.worklist.get_record("a", "0001")
    assert record.comment == ""


def test_a_form_that_is_no_text_or_too_large_is_refused(pages: Pages) -> None:
    headers = {**log_in("anna"), **FORM}
    path = "/cases/a/comment"
    for body in (
        b"comment=%ff",
        b"\xff=1",
        b"a=1&" * 200,
        b"a=" + b"x" * 2_000_000,
    ):
        answer = ask(pages.gateway, "POST", path, body, headers)
        assert answer.code in (400, 403, 413), body[:20]
    assert pages.send("anna", path, comment="x" * 3000).code == 400


def test_annotators_take_free_cases_and_reviewers_give_them(
    pages: Pages,
) -> None:
    def get_assignee() -> str:
        return pages.app.cases.worklist.get_record("a", "0001").assignee

    assert pages.send("anna", "/cases/a/assign", person="anna").code == 303
    assert get_assignee() == "anna"
    assert pages.send("ben", "/cases/a/assign", person="ben").code == 403
    assert pages.send("anna", "/cases/a/assign", person="ben").code == 403
    assert pages.send("rita", "/cases/a/assign", person="nobody").code == 400
    assert pages.send("rita", "/cases/a/assign", person="ben").code == 303
    assert get_assignee() == "ben"


def test_somebody_else_with_the_role_judges_a_correction(
    pages: Pages,
) -> None:
    judge = "/cases/a/judge"
    assert pages.send("rita", judge, verdict="reviewed").code == 403
    submit(pages, "rita", 1)
    assert pages.send("anna", judge, verdict="reviewed").code == 403
    assert pages.send("rita", judge, verdict="reviewed").code == 403
    assert pages.send("ada", judge, verdict="new").code == 400
    assert get_state(pages) is CaseState.CORRECTED
    assert pages.send("ada", judge, verdict="rejected").code == 303
    assert get_state(pages) is CaseState.REJECTED
    assert pages.app.cases.list_labelled_scans() == []


def test_a_label_that_nobody_has_looked_at_is_not_judged(
    pages: Pages,
) -> None:
    submit(pages, "anna", 1)
    page = pages.get("ada", "/cases/a").body.decode()
    (seen,) = re.findall(r'name="judged" value="(\d+)"', page)
    submit(pages, "ben", 2)
    judge = "/cases/a/judge"
    for judged in (seen, "", "x"):
        verdict = {"verdict": "reviewed", "judged": judged}
        assert pages.send("ada", judge, **verdict).code == 409
    assert get_state(pages) is CaseState.CORRECTED
    assert pages.send("ada", judge, verdict="reviewed").code == 303


def test_an_earlier_label_is_restored(pages: Pages) -> None:
    submit(pages, "anna", 1)
    submit(pages, "ben", 2)
    page = pages.get("anna", "/cases/a").body.decode()
    (number,) = re.findall(r'name="number" value="(\d+)"', page)
    assert pages.send("anna", "/cases/a/restore", number=number).code == 303
    (first, _, last) = pages.app.cases.labels.history.list_records("a")
    assert first.sha256 == last.sha256
    assert pages.app.cases.pictures.find("a") is not None
    for wrong in ("0", "x", "99", "-1", "9" * 30):
        answer = pages.send("anna", "/cases/a/restore", number=wrong)
        assert answer.code in (400, 404)


def test_only_an_admin_promotes_and_rolls_back(
    pages: Pages, bundle: Path
) -> None:
    versions = pages.app.versions
    fresh = versions.next_version()
    trained_bundle(fresh.folder, SPEC)
    fresh.write_info(VersionInfo(parent=1, dice=0.5, parent_dice=0.4))
    assert pages.send("rita", "/training/serve", number="2").code == 403
    assert pages.send("ada", "/training/serve", number="2").code == 303
    page = pages.get("ada", "/training").body.decode()
    assert "Roll back to" in page
    assert pages.send("ada", "/training/serve", number="1").code == 303
    assert versions.find_served().number == 1
    assert pages.app.refreshed == ["0002", "0001"]
    assert pages.send("ada", "/training/serve", number="7").code == 400


def test_every_change_is_in_the_audit_log_without_what_people_wrote(
    pages: Pages,
) -> None:
    submit(pages, "anna", 1)
    pages.send("ben", "/cases/a/comment", comment="Mrs Miller")
    pages.send("ada", "/cases/a/judge", verdict="reviewed")
    lines = list(AuditLog(pages.app.state.audit_log).read_lines())
    done = [(line["who"], line["action"]) for line in lines]
    assert ("ben", "comment changed") in done
    assert ("ada", "case judged") in done
    assert "Miller" not in json.dumps(lines)


def test_a_form_of_another_kind_is_not_even_read(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Request, "body", None)
    headers = {
        **log_in("ada"),
        "content-type": "multipart/form-data; boundary=x",
    }
    part = b'--x\r\ncontent-disposition: form-data; name="person"\r\n\r\n'
    body = part + b"\xff\r\n--x--\r\n"
    answer = ask(pages.gateway, "POST", "/cases/a/assign", body, headers)
    assert answer.code == 403


def test_what_is_not_there_is_said_on_a_page(pages: Pages) -> None:
    for path in ("/cases/none", "/cases/a/picture", "/training/curves/1"):
        answer = pages.get("anna", path)
        assert answer.code == 404
        assert b'role="alert"' in answer.body
        assert str(pages.app.state.root).encode() not in answer.body
