"""``Site``: what every page of the server needs, and how what is not possible is told."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from medseg._support.html import render_page
from medseg.errors import DatasetError, MedsegError, OutputError
from medseg.label_server.audit import LOCAL, REQUESTER, AuditLog
from medseg.label_server.datastore import CaseDatastore
from medseg.label_server.label_history import FINAL, LabelRecord
from medseg.label_server.pages.forms import FormKeys
from medseg.label_server.request_checks import RefusedError
from medseg.label_server.state import StateFolder
from medseg.label_server.users import Role
from medseg.label_server.versions import Versions
from medseg.label_server.worklist import CaseRecord, CaseState
from medseg.names import normalize_name

TEMPLATES = Path(__file__).with_name("templates")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "private, no-store",
}

_EXCHANGED_EVERY_SECONDS = 3.0
"""The work list asks the DICOMweb server for corrections no more often."""

_SAID = {
    "assigned": "The case was given.",
    "commented": "The comment was saved.",
    "reviewed": "The label was accepted.",
    "rejected": "The label was rejected; the case is to be corrected again.",
    "restored": "The earlier label is the current one again.",
    "served": "This version is served from now on.",
}
"""What a page says after a form was sent, by a word in its address."""


class ServedApp(Protocol):
    """What the pages need of MONAI Label's app."""

    state: StateFolder
    versions: Versions

    def datastore(self) -> CaseDatastore:
        """Return the cases and their labels."""

    def is_training(self) -> bool:
        """Tell whether a training run is under way."""

    def refresh_scores(self) -> None:
        """Rate the cases that the served version has not rated."""


class Site:
    """The pages of one server.

    Args:
        find_app: Returns MONAI Label's app, once it has started.
        people: The names of those who may log in; nobody has to where there are none.

    Attributes:
        people: The same.
        keys: The keys of forms.
    """

    def __init__(
        self, find_app: Callable[[], ServedApp], people: Sequence[str]
    ) -> None:
        self._find_app = find_app
        self.people = tuple(people)
        self.keys = FormKeys()
        self._exchanged = -math.inf
        self._exchanging = threading.Lock()

    @property
    def app(self) -> ServedApp:
        """MONAI Label's app."""
        return self._find_app()

    @property
    def datastore(self) -> CaseDatastore:
        """The cases and their labels."""
        return self.app.datastore()

    def answer(
        self, make: Callable[[Request], Response], request: Request
    ) -> Response:
        """Answer a request; what is not possible becomes a page that says why."""
        try:
            return make(request)
        except RefusedError as refused:
            return self._show_fault(refused.status, refused.reason)
        except MedsegError as error:
            return self._show_fault(_choose_status(error), error.message)

    def render(
        self, template: str, request: Request, page: str, **values: Any
    ) -> Response:
        """Return a page.

        Args:
            template: Its template.
            request: What is answered.
            page: Which one it is, among those that every page links to.
            values: What its template shows.
        """
        requester = REQUESTER.get()
        said = _SAID.get(request.query_params.get("said", ""), "")
        text = render_page(
            TEMPLATES / template,
            site={**self._describe(page), "said": said},
            form_key=self.keys.make(requester.user),
            may_review=requester.role >= Role.REVIEWER,
            **values,
        )
        return HTMLResponse(text, headers=HEADERS)

    def _show_fault(self, status: int, reason: str) -> Response:
        text = render_page(
            TEMPLATES / "fault.html.j2",
            site=self._describe("fault"),
            status=status,
            reason=reason,
        )
        return HTMLResponse(text, status, HEADERS)

    def _describe(self, page: str) -> dict[str, Any]:
        """Return what every page shows: the bundle, who is logged in, the other pages."""
        requester = REQUESTER.get()
        return {
            "bundle": self.datastore.name(),
            "version": self.app.versions.find_served().name,
            "person": requester.user,
            "role": requester.role.word,
            "login": bool(self.people),
            "has_viewer": self.datastore.has_dicom,
            "page": page,
            "said": "",
        }

    def take_over_corrections(self) -> str:
        """Take over what was corrected in OHIF since the last time.

        Returns:
            What went wrong, for people; empty if nothing did.
        """
        # One request does it; the others show what is known already.
        if not self._exchanging.acquire(blocking=False):
            return ""
        try:
            if time.monotonic() - self._exchanged < _EXCHANGED_EVERY_SECONDS:
                return ""
            self.datastore.exchange()
            self._exchanged = time.monotonic()
        except MedsegError as error:
            return error.message
        finally:
            self._exchanging.release()
        return ""

    def list_records(self) -> list[CaseRecord]:
        """Return what is known of every case."""
        served = self.app.versions.find_served().name
        names = self.datastore.list_images()
        records: list[CaseRecord] = self.datastore.worklist.list_records(
            names, served
        )
        return records

    def get_record(self, request: Request) -> CaseRecord:
        """Return what is known of the case that an address names.

        Raises:
            DatasetError: If there is no such case.
        """
        case = normalize_name(request.path_params["case"])
        if case not in self.datastore.list_images():
            raise DatasetError("there is no such case")
        served = self.app.versions.find_served().name
        record: CaseRecord = self.datastore.worklist.get_record(case, served)
        return record

    def find_obstacle(self, record: CaseRecord) -> str:
        """Return why this person cannot judge the label of a case; empty if they can."""
        requester = REQUESTER.get()
        if record.state in (CaseState.NEW, CaseState.PROPOSED):
            return "There is no correction to judge yet."
        if requester.role < Role.REVIEWER:
            return "A reviewer judges the correction."
        # Where nobody logs in, one person cannot be told from another.
        if requester.user == LOCAL.user:
            return ""
        label = self.find_current_label(record)
        if label is not None and label.author == requester.user:
            return "You have made this correction; somebody else judges it."
        return ""

    def find_current_label(self, record: CaseRecord) -> LabelRecord | None:
        """Return the correction of a case that counts; ``None`` if there is none."""
        history = self.datastore.labels.history
        for label in history.list_records(record.name, FINAL):
            if label.is_current:
                return label
        return None

    def audit(self, action: str, **facts: str | int) -> None:
        """Enter in the audit log what a person has changed."""
        AuditLog(self.app.state.audit_log).write(action, **facts)


def _choose_status(error: MedsegError) -> int:
    match error:
        case DatasetError():
            return 404
        case OutputError():
            return 500
    return 400


def parse_number(text: str | None) -> int | None:
    """Return a whole number above 0; ``None`` if the text is none."""
    if not text or not (text.isascii() and text.isdecimal()) or len(text) > 9:
        return None
    return int(text) or None
