"""``WorkForms``: what the forms of the server's pages change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from medseg.label_server.audit import REQUESTER
from medseg.label_server.pages.forms import read_field
from medseg.label_server.pages.site import HEADERS, Site, parse_number
from medseg.label_server.request_body import FORM_TYPE, read_media_type
from medseg.label_server.request_checks import RefusedError
from medseg.label_server.users import Role
from medseg.label_server.worklist import CaseRecord, CaseState, Reading

Fields = Mapping[str, str]

_VERDICTS = {
    state.value: state for state in (CaseState.REVIEWED, CaseState.REJECTED)
}


class WorkForms:
    """Changes what people ask for; each change is entered in the audit log.

    Args:
        site: The pages.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def list_routes(self) -> list[Route]:
        """Return the routes, for an application's router."""
        changes = {
            "/cases/{case}/assign": self._assign,
            "/cases/{case}/comment": self._comment,
            "/cases/{case}/judge": self._judge,
            "/cases/{case}/restore": self._restore,
            "/training/serve": self._serve,
        }
        return [
            Route(address, self._answer_with(change), methods=["POST"])
            for address, change in changes.items()
        ]

    def _answer_with(self, change: Callable[[Request, Fields], str]) -> Any:
        def answer_form(request: Request, body: bytes) -> Response:
            fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
            self._site.keys.check(REQUESTER.get().user, fields)
            # 303: reloading the page that follows does not send the form again.
            return RedirectResponse(change(request, fields), 303, HEADERS)

        async def answer(request: Request) -> Response:
            # Others are no forms of these pages, and may be too large for the memory.
            is_form = read_media_type(request.headers) == FORM_TYPE
            body = await request.body() if is_form else b""
            return await anyio.to_thread.run_sync(
                self._site.answer,
                lambda asked: answer_form(asked, body),
                request,
            )

        return answer

    def _assign(self, request: Request, fields: Fields) -> str:
        record = self._site.get_record(request)
        person = read_field(fields, "person")
        reading = (
            Reading.SECOND
            if read_field(fields, "reading") == "second"
            else Reading.FIRST
        )
        self._check_assignment(record, person, reading)
        worklist = self._site.datastore.worklist
        is_taking = bool(person) and REQUESTER.get().role < Role.REVIEWER
        # In one step: somebody else may press the button at the same moment.
        if is_taking and worklist.claim([record.name], person, reading) is None:
            raise RefusedError(409, "somebody else has just taken this case")
        worklist.assign(record.name, person, reading)
        self._site.audit(
            "case assigned",
            case=record.name,
            person=person,
            reading=int(reading),
        )
        if read_field(fields, "from") == "list":
            return "/?said=assigned"
        return _link_case(record, "assigned")

    def _check_assignment(
        self, record: CaseRecord, person: str, reading: Reading
    ) -> None:
        """Refuse to give a case to nobody known, or one of somebody else's without the role.

        Raises:
            RefusedError: Says why.
        """
        requester = REQUESTER.get()
        if person and self._site.people and person not in self._site.people:
            raise RefusedError(400, "nobody of this name may log in")
        if requester.role >= Role.REVIEWER:
            return
        is_own = {person, record.assignee} <= {requester.user, ""}
        if reading is Reading.SECOND or not is_own:
            raise RefusedError(
                403,
                "an annotator takes free cases and gives back their own; ask a reviewer",
            )

    def _comment(self, request: Request, fields: Fields) -> str:
        record = self._site.get_record(request)
        comment = read_field(fields, "comment")
        worklist = self._site.datastore.worklist
        worklist.set_comment(record.name, comment, REQUESTER.get().user)
        # What it says may name a patient, and the log does not.
        self._site.audit(
            "comment changed", case=record.name, length=len(comment)
        )
        return _link_case(record, "commented")

    def _judge(self, request: Request, fields: Fields) -> str:
        record = self._site.get_record(request)
        verdict = _VERDICTS.get(read_field(fields, "verdict"))
        if verdict is None:
            raise RefusedError(400, f"'verdict' is {' or '.join(_VERDICTS)}")
        obstacle = self._site.find_obstacle(record)
        if obstacle:
            raise RefusedError(403, obstacle)
        label = self._site.find_current_label(record)
        number = parse_number(read_field(fields, "judged"))
        if label is not None and label.number != number:
            raise RefusedError(
                409,
                "the label was replaced since this page was opened; look at the new one first",
            )
        worklist = self._site.datastore.worklist
        worklist.set_state(record.name, verdict, REQUESTER.get().user)
        self._site.audit("case judged", case=record.name, verdict=verdict.value)
        return _link_case(record, verdict.value)

    def _restore(self, request: Request, fields: Fields) -> str:
        record = self._site.get_record(request)
        number = parse_number(read_field(fields, "number"))
        if number is None:
            raise RefusedError(400, "'number' is that of a saved label")
        self._site.datastore.restore_label(record.name, number)
        return _link_case(record, "restored")

    def _serve(self, request: Request, fields: Fields) -> str:
        app = self._site.app
        number = parse_number(read_field(fields, "number"))
        if number is None:
            raise RefusedError(400, "'number' is that of a version")
        version = app.versions.promote(number)
        self._site.audit("version promoted", version=version.name)
        app.refresh_scores()
        return "/training?said=served"


def _link_case(record: CaseRecord, said: str) -> str:
    return f"/cases/{quote(record.name, safe='')}?said={said}"
