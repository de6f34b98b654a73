"""MONAI Label's endpoints, made to run in threads and to tell medseg's errors; and two of ours."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, HTTPException, Request
from fastapi.background import BackgroundTasks
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute
from monailabel.endpoints import (
    activelearning,
    batch_infer,
    datastore,
    infer,
    info,
    model,
    scoring,
    session,
    train,
)
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import remove_file
from monailabel.utils.sessions import SessionInfo

from medseg.errors import DatasetError, MedsegError, OutputError, ScanError
from medseg.label_server.audit import AuditLog
from medseg.label_server.dicomweb import DicomWebCases
from medseg.label_server.links import NAME_FOR_VIEWER
from medseg.label_server.quality_text import describe_quality

Endpoint = Callable[..., Coroutine[Any, Any, Any]]

_QUICK = (
    activelearning,
    datastore,
    info,
    model,
    scoring,
    session,
    train,
    batch_infer,
)
VIEWERS_NAME = "PatientID"
"""What viewers call a case by in what they are told of it, if it is there."""
_MAX_WAITING = 2
"""Segmentations that may be in a thread: one reads its case while another has the model. More wait
without one, where they can be dropped."""


def run_endpoints_in_threads() -> None:
    """Let every endpoint work in a thread: MONAI Label's own would stop the server meanwhile.

    Called once, before ``monailabel.app`` puts its routers together.
    """
    SessionInfo.to_json = _describe_session
    infer.run_inference = _add_dicom_seg(infer.run_inference)
    activelearning.sample = _add_link(_show_quality(activelearning.sample))
    segmenting = anyio.CapacityLimiter(_MAX_WAITING)
    _move_to_threads(infer.router, segmenting)
    for module in _QUICK:
        _move_to_threads(module.router, None)


def _describe_session(session: SessionInfo) -> dict[str, Any]:
    """Return what clients may know of a session; where its image lies is not for them."""
    about = dict(vars(session))
    about.pop("path", None)
    about["image"] = Path(about["image"]).name
    return about


def _move_to_threads(
    router: APIRouter, limiter: anyio.CapacityLimiter | None
) -> None:
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    for route in routes:
        router.routes.remove(route)
        router.add_api_route(
            route.path.removeprefix(router.prefix),
            _call_in_thread(route.endpoint, limiter),
            methods=sorted(route.methods or ()),
            include_in_schema=route.include_in_schema,
            summary=route.summary,
        )


def _call_in_thread(
    endpoint: Endpoint, limiter: anyio.CapacityLimiter | None
) -> Endpoint:
    @functools.wraps(endpoint)
    async def call(**arguments: Any) -> Any:
        for value in arguments.values():
            if isinstance(value, Request):
                await value.body()  # so that the endpoint finds it there
        work = _Work(endpoint, arguments)
        running = asyncio.ensure_future(
            anyio.to_thread.run_sync(work.run, limiter=limiter)
        )
        try:
            return await asyncio.shield(running)
        except HTTPException:
            work.remove_files()
            raise
        except asyncio.CancelledError:
            # The client has gone. What waits for a thread is dropped; a thread cannot be stopped.
            if not work.has_begun:
                running.cancel()
            running.add_done_callback(lambda _: work.remove_files())
            raise

    return call


class _Work:
    """A call of an endpoint, made in a thread.

    Args:
        endpoint: The endpoint.
        arguments: What it is called with.
    """

    def __init__(
        self, endpoint: Endpoint, arguments: Mapping[str, Any]
    ) -> None:
        self._endpoint = endpoint
        self._arguments = arguments
        self._answer: Any = None
        self.has_begun = False

    def run(self) -> Any:
        """Call the endpoint; return its answer."""
        self.has_begun = True
        self._answer = _run_to_end(self._endpoint, self._arguments)
        return self._answer

    def remove_files(self) -> None:
        """Remove what was uploaded, and what was made for a client that has gone.

        After an answer MONAI Label does it; without one, nobody would.
        """
        for value in self._arguments.values():
            if isinstance(value, BackgroundTasks):
                for task in value.tasks:
                    task.func(*task.args, **task.kwargs)
        if isinstance(self._answer, FileResponse):
            file = Path(self._answer.path)
            # Other answers are scans and labels, which stay.
            if file.parent == Path(tempfile.gettempdir()):
                file.unlink(missing_ok=True)


def _run_to_end(endpoint: Endpoint, arguments: Mapping[str, Any]) -> Any:
    """Run an endpoint that never waits for the loop, to its end; its errors become answers."""
    coroutine = endpoint(**arguments)
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    except MedsegError as error:
        raise HTTPException(_choose_status(error), error.message) from error
    except MONAILabelException as error:
        raise HTTPException(
            400,
            f"MONAI Label refuses this request ({error.error.value}); GET /info/ lists the models, "
            "trainers, strategies and scoring methods",
        ) from error
    coroutine.close()
    raise RuntimeError(
        f"{inspect.unwrap(endpoint).__name__} waits for the loop"
    )


def _choose_status(error: MedsegError) -> int:
    """Return the HTTP status of an error of medseg's."""
    match error:
        case DatasetError():
            return 404
        case ScanError():
            return 422
        case OutputError():
            return 500
    return 400


def _add_dicom_seg(run_inference: Callable[..., Any]) -> Callable[..., Any]:
    """Answer ``output=dicom_seg`` with the SEG medseg writes; MONAI Label would need dcmqi."""

    @functools.wraps(run_inference)
    def run(
        background_tasks: BackgroundTasks, model: str, image: str, *rest: Any
    ) -> FileResponse | Any:
        if rest[-1] != infer.ResultType.dicom_seg:
            return run_inference(background_tasks, model, image, *rest)
        if model != app_instance().spec.name:
            raise HTTPException(
                400, "what clicks correct is no proposal; ask for 'image'"
            )
        file = _make_dicom_seg(image)
        background_tasks.add_task(remove_file, str(file))
        return FileResponse(
            file, media_type="application/dicom", filename=file.name
        )

    return run


def _add_link(choose: Callable[..., Any]) -> Callable[..., Any]:
    """Name the next case as the person who asks can fetch its image."""

    @functools.wraps(choose)
    def sample(*arguments: Any) -> Any:
        result = choose(*arguments)
        if result:
            result["id"] = NAME_FOR_VIEWER.get()(result["id"])
        return result

    return sample


def _show_quality(
    sample: Callable[..., dict[str, Any]],
) -> Callable[..., dict[str, Any]]:
    """Say how good the bundle's result of a case probably is where viewers name the case.

    They have no place of their own for it: 3D Slicer calls the scan in its views by this name, and
    OHIF shows it when it asks whether to open the case.
    """

    @functools.wraps(sample)
    def choose(*arguments: Any) -> dict[str, Any]:
        found = sample(*arguments)
        text = describe_quality(found.get("quality"))
        if text:
            name = found.get(VIEWERS_NAME) or found["id"]
            found[VIEWERS_NAME] = f"{name} · {text}"
        return found

    return choose


def _make_dicom_seg(image: str) -> Path:
    app = app_instance()
    cases = app.datastore().cases
    if not isinstance(cases, DicomWebCases):
        raise HTTPException(
            400, "DICOM SEG is for series of a DICOM server; ask for 'image'"
        )
    volume = app.datastore().read_volume(image)
    labels = app.segment(volume).labels
    handle, name = tempfile.mkstemp(dir=app.state.uploads, suffix=".dcm")
    os.close(handle)
    file = Path(name)
    cases.write_seg(file, labels, volume, corrected=False)
    return file


def make_versions_router() -> APIRouter:
    """Return medseg's own endpoints: which versions there are, and serving another one."""
    router = APIRouter(prefix="/medseg", tags=["medseg"])

    def list_versions() -> Any:
        return app_instance().versions.summarise()

    def promote(number: int) -> Any:
        app = app_instance()
        try:
            version = app.versions.promote(number)
        except MedsegError as error:
            raise HTTPException(404, error.message) from error
        AuditLog(app.state.audit_log).write(
            "version promoted", version=version.name
        )
        app.refresh_scores()
        return app.versions.summarise()

    router.add_api_route(
        "/versions", list_versions, methods=["GET"], summary="The versions"
    )
    router.add_api_route(
        "/promote/{number}",
        promote,
        methods=["POST"],
        summary="Serve a version",
    )
    return router
