"""MONAI Label's endpoints, made to run in threads and to tell medseg's errors; and two of ours."""

from __future__ import annotations

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

from medseg.errors import DatasetError, MedsegError, OutputError, ScanError
from medseg.label_server.audit import AuditLog
from medseg.label_server.dicomweb import DicomWebCases

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
_MAX_WAITING = 4
"""Segmentations that may wait in a thread each; more wait without one."""


def run_endpoints_in_threads() -> None:
    """Let every endpoint work in a thread: MONAI Label's own would stop the server meanwhile.

    Called once, before ``monailabel.app`` puts its routers together.
    """
    infer.run_inference = _add_dicom_seg(infer.run_inference)
    segmenting = anyio.CapacityLimiter(_MAX_WAITING)
    _move_to_threads(infer.router, segmenting)
    for module in _QUICK:
        _move_to_threads(module.router, None)


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
        work = functools.partial(_run_to_end, endpoint, arguments)
        return await anyio.to_thread.run_sync(work, limiter=limiter)

    return call


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
        file = _make_dicom_seg(image)
        background_tasks.add_task(remove_file, str(file))
        return FileResponse(
            file, media_type="application/dicom", filename=file.name
        )

    return run


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
