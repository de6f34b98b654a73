"""MONAI Label's endpoints, made to run in threads and to tell medseg's errors; and two of ours."""

from __future__ import annotations

import functools
import inspect
import os
import tempfile
from collections.abc import Callable, Coroutine
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
    proxy,
    scoring,
    session,
    train,
)
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import remove_file

from medseg.errors import DatasetError, MedsegError, OutputError, ScanError
from medseg.label_server.audit import Audit
from medseg.label_server.dicomweb import DicomWebCases

Endpoint = Callable[..., Coroutine[Any, Any, Any]]

_QUICK = (activelearning, datastore, info, model, proxy, scoring, session, train, batch_infer)
_MOST_WAITING = 4
"""Segmentations that may wait in a thread each; more wait without one."""


def free_the_loop() -> None:
    """Let every endpoint work in a thread: MONAI Label's own would stop the server meanwhile.

    Called once, before ``monailabel.app`` puts its routers together.
    """
    infer.run_inference = _with_dicom_seg(infer.run_inference)
    waiting = anyio.CapacityLimiter(_MOST_WAITING)
    _in_threads(infer.router, waiting)
    for part in _QUICK:
        _in_threads(part.router, None)


def _in_threads(router: APIRouter, limiter: anyio.CapacityLimiter | None) -> None:
    for route in [route for route in router.routes if isinstance(route, APIRoute)]:
        router.routes.remove(route)
        router.add_api_route(
            route.path.removeprefix(router.prefix),
            _in_thread(route.endpoint, limiter),
            methods=sorted(route.methods or ()),
            include_in_schema=route.include_in_schema,
            summary=route.summary,
        )


def _in_thread(endpoint: Endpoint, limiter: anyio.CapacityLimiter | None) -> Endpoint:
    @functools.wraps(endpoint)
    async def call(**arguments: Any) -> Any:
        for value in arguments.values():
            if isinstance(value, Request):
                await value.body()  # so that the endpoint finds it there
        work = functools.partial(_finished, endpoint, arguments)
        return await anyio.to_thread.run_sync(work, limiter=limiter)

    return call


def _finished(endpoint: Endpoint, arguments: dict[str, Any]) -> Any:
    """Run an endpoint that never waits for the loop, to its end; its errors become answers."""
    running = endpoint(**arguments)
    try:
        running.send(None)
    except StopIteration as done:
        return done.value
    except MedsegError as error:
        raise HTTPException(_code(error), str(error)) from error
    except MONAILabelException as error:
        raise HTTPException(400, error.msg) from error
    running.close()
    raise RuntimeError(f"{inspect.unwrap(endpoint).__name__} waits for the loop")


def _code(error: MedsegError) -> int:
    match error:
        case DatasetError():
            return 404
        case ScanError():
            return 422
        case OutputError():
            return 500
    return 400


def _with_dicom_seg(run_inference: Callable[..., Any]) -> Callable[..., Any]:
    """Answer ``output=dicom_seg`` with the SEG medseg writes; MONAI Label would need dcmqi."""

    @functools.wraps(run_inference)
    def run(
        background_tasks: BackgroundTasks, model: str, image: str, *rest: Any
    ) -> FileResponse | Any:
        if rest[-1] != infer.ResultType.dicom_seg:
            return run_inference(background_tasks, model, image, *rest)
        file = _dicom_seg(image)
        background_tasks.add_task(remove_file, str(file))
        return FileResponse(file, media_type="application/dicom", filename=file.name)

    return run


def _dicom_seg(image: str) -> Path:
    app = app_instance()
    store = app.datastore()
    if not isinstance(store.cases, DicomWebCases):
        raise HTTPException(400, "DICOM SEG is for series of a DICOM server; ask for 'image'")
    volume = store.read(image)
    labels = app.segment(volume).labels
    handle, name = tempfile.mkstemp(dir=app.state.uploads, suffix=".dcm")
    os.close(handle)
    store.cases.write_seg(Path(name), labels, volume, corrected=False)
    return Path(name)


def versions_router() -> APIRouter:
    """Return medseg's own endpoints: which versions there are, and serving another one."""
    router = APIRouter(prefix="/medseg", tags=["medseg"])

    def versions() -> Any:
        return app_instance().versions.summary()

    def promote(number: int) -> Any:
        app = app_instance()
        try:
            version = app.versions.promote(number)
        except MedsegError as error:
            raise HTTPException(404, str(error)) from error
        Audit(app.state.audit).write("version promoted", version=version.name)
        app.refresh_scores()
        return app.versions.summary()

    router.add_api_route("/versions", versions, methods=["GET"], summary="The versions")
    router.add_api_route("/promote/{number}", promote, methods=["POST"], summary="Serve a version")
    return router
