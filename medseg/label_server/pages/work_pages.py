"""``WorkPages``: the work list, a page for each case, and one for training runs and versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    Response,
)
from starlette.routing import Route

from medseg._support.html import render_page
from medseg.label_server.audit import REQUESTER
from medseg.label_server.label_exchange import FROM_DICOM, SOURCE
from medseg.label_server.label_history import FINAL, LabelRecord
from medseg.label_server.labels import SOP_INSTANCE_UID
from medseg.label_server.ohif import make_viewer_address
from medseg.label_server.pages.case_rows import (
    FILTERS,
    PAGE_SIZE,
    CaseRow,
    count_by_filter,
    format_moment,
    make_row,
    order_records,
    select_records,
)
from medseg.label_server.pages.site import (
    HEADERS,
    TEMPLATES,
    Site,
    parse_number,
)
from medseg.label_server.pages.training_view import (
    find_curves,
    list_version_rows,
    view_training,
)
from medseg.label_server.quality_text import describe_quality
from medseg.label_server.request_checks import RefusedError
from medseg.label_server.users import Role
from medseg.label_server.worklist import LONGEST_COMMENT, CaseRecord


class WorkPages:
    """Answers the addresses of the server's own pages.

    Args:
        site: What they share.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def list_routes(self) -> list[Route]:
        """Return the routes, for an application's router."""
        pages = {
            "/": self._show_list,
            "/cases/{case}": self._show_case,
            "/cases/{case}/picture": self._send_picture,
            "/training": self._show_training,
            "/training/progress": self._show_progress,
            "/training/curves/{number:int}": self._send_curves,
            "/medseg/studies/{study}": self._describe_study,
            "/medseg/pages.css": self._send_style,
            "/medseg/pages.js": self._send_script,
        }
        return [
            Route(address, self._answer_with(show), methods=["GET"])
            for address, show in pages.items()
        ]

    def _answer_with(self, show: Callable[[Request], Response]) -> Any:
        async def answer(request: Request) -> Response:
            return await anyio.to_thread.run_sync(
                self._site.answer, show, request
            )

        return answer

    def _show_list(self, request: Request) -> Response:
        asked = request.query_params
        chosen = asked.get("show", "all")
        chosen = chosen if chosen in FILTERS else "all"
        words = asked.get("find", "")[:200]
        fault = self._site.take_over_corrections()
        records = self._site.list_records()
        found = order_records(select_records(records, chosen, words))
        last_page = max(1, -(-len(found) // PAGE_SIZE))
        page = min(parse_number(asked.get("page")) or 1, last_page)
        shown = found[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
        counts = count_by_filter(records)
        filters = []
        for key, (title, _) in FILTERS.items():
            filters.append(
                {
                    "title": title,
                    "link": _make_link(key, words),
                    "count": counts[key],
                    "is_chosen": key == chosen,
                }
            )
        pages = []
        for number in range(1, last_page + 1):
            link = _make_link(chosen, words, number)
            entry = {"number": number, "link": link}
            pages.append({**entry, "is_chosen": number == page})
        return self._site.render(
            "list.html.j2",
            request,
            page="list",
            rows=[self._make_row(record) for record in shown],
            filters=filters,
            pages=pages,
            chosen=chosen,
            words=words,
            fault=fault,
        )

    def _show_case(self, request: Request) -> Response:
        record = self._site.get_record(request)
        labels = self._site.datastore.labels.history
        saved = labels.list_records(record.name, FINAL)
        obstacle = self._site.find_obstacle(record)
        return self._site.render(
            "case.html.j2",
            request,
            page="case",
            row=self._make_row(record),
            labels=[_describe_label(label) for label in saved],
            current=self._site.find_current_label(record),
            may_judge=not obstacle,
            why_not_judge=obstacle,
            people=self._site.people,
            longest_comment=LONGEST_COMMENT,
        )

    def _show_training(self, request: Request) -> Response:
        app = self._site.app
        return self._site.render(
            "training.html.j2",
            request,
            page="training",
            training=view_training(app.state, is_running=app.is_training()),
            versions=list_version_rows(app.versions),
            served=app.versions.find_served().number,
            may_serve=REQUESTER.get().role >= Role.ADMIN,
        )

    def _show_progress(self, request: Request) -> Response:
        app = self._site.app
        training = view_training(app.state, is_running=app.is_training())
        text = render_page(TEMPLATES / "progress.html.j2", training=training)
        headers = {**HEADERS, "x-training": training.status}
        return HTMLResponse(text, headers=headers)

    def _send_picture(self, request: Request) -> Response:
        record = self._site.get_record(request)
        file = self._site.datastore.pictures.find(record.name)
        if file is None:
            raise RefusedError(404, "no picture of this case was drawn yet")
        return FileResponse(file, media_type="image/webp", headers=HEADERS)

    def _send_curves(self, request: Request) -> Response:
        versions = self._site.app.versions
        version = versions.get(request.path_params["number"])
        file = find_curves(version)
        if file is None:
            raise RefusedError(404, "this version has no curves")
        return FileResponse(file, media_type="image/png", headers=HEADERS)

    def _send_style(self, request: Request) -> Response:
        return _send_file("pages.css", "text/css")

    def _send_script(self, request: Request) -> Response:
        return _send_file("pages.js", "text/javascript")

    def _describe_study(self, request: Request) -> Response:
        """Tell OHIF what is known of the cases of a study."""
        study = request.path_params["study"]
        datastore = self._site.datastore
        cases = []
        for record in self._site.list_records():
            info = datastore.get_image_info(record.name)
            if info.get("StudyInstanceUID") == study:
                cases.append(self._describe_case(record))
        return JSONResponse(cases, headers=HEADERS)

    def _describe_case(self, record: CaseRecord) -> dict[str, Any]:
        row = self._make_row(record)
        reasons = [f"Review: {reason}" for reason in row.reasons]
        label = self._site.datastore.labels.find(record.name, FINAL)
        served = self._site.app.versions.find_served().name
        proposal = self._site.datastore.proposals.find(record.name, served)
        uid = "" if proposal is None else proposal.uid
        if label is not None:
            uid = str(label.info.get(SOP_INSTANCE_UID, ""))
        return {
            "title": row.title,
            "state": record.state.value,
            "version": f"version {served}",
            "text": describe_quality(record.quality),
            "needs_review": row.needs_review,
            "notes": [*reasons, *row.warnings],
            "link": f"/cases/{quote(record.name, safe='')}",
            "segmentation": uid,
        }

    def _make_row(self, record: CaseRecord) -> CaseRow:
        datastore = self._site.datastore
        info = datastore.get_image_info(record.name)
        return make_row(
            record,
            info,
            has_picture=datastore.pictures.find(record.name) is not None,
            viewer=make_viewer_address(info),
        )


def _send_file(name: str, media_type: str) -> Response:
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    return Response(text, media_type=media_type, headers=HEADERS)


def _make_link(key: str, words: str, page: int = 1) -> str:
    parameters = {"show": key}
    if words:
        parameters["find"] = words
    if page > 1:
        parameters["page"] = str(page)
    return "/?" + urlencode(parameters)


def _describe_label(label: LabelRecord) -> dict[str, Any]:
    return {
        "number": label.number,
        "saved": format_moment(label.saved),
        "author": label.author,
        "is_current": label.is_current,
        "notes": "; ".join(_list_notes(label.info)),
    }


def _list_notes(info: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is to be known of a saved label."""
    if "restored" in info:
        yield "restored"
    if FROM_DICOM in (info.get(SOURCE), info.get("client_id")):
        yield "from the DICOM server"
    yield from map(str, info.get("warnings") or ())
