"""``medseg label``: start MONAI Label's server on a trained bundle and the cases to be labelled."""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.bundle.bundle import Bundle, load_bundle
from medseg.errors import MedsegError
from medseg.events import Listener, Notice, notify
from medseg.label_server.cases import find_folder_cases, is_url
from medseg.label_server.environment import Settings, check_installed, set_environment
from medseg.label_server.state import State
from medseg.label_server.users import Users, is_loopback, read_users
from medseg.label_server.versions import Version, Versions

STATES = Path("label")
"""Where state folders go unless the user says otherwise."""
LARGEST_UPLOAD_MB = 2000


def serve(
    bundle: str | Path,
    studies: str,
    *,
    state: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    modalities: Sequence[str] = (),
    device: str = "auto",
    users: str | Path | None = None,
    max_upload_mb: int = LARGEST_UPLOAD_MB,
    listeners: Sequence[Listener] = (),
) -> None:
    """Serve until stopped.

    Args:
        bundle: A trained bundle.
        studies: A folder of scans, which is never written to, or a DICOMweb server's URL.
        state: Where labels, versions and logs are kept; ``label/<bundle's name>`` unless given.
        host: The address to listen on; other than loopback only with ``users``.
        port: The port to listen on.
        modalities: Of a DICOMweb server, list only these; all unless given.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        users: File with a ``name: password`` a line.
        max_upload_mb: Largest upload.
        listeners: Told of progress, and once of every scan that was left out.

    Raises:
        MissingExtraError: If MONAI Label is not installed; says which command installs it.
        BundleError: If the bundle is wrong.
        CheckpointError: If it has no weights.
        DatasetError: If no scan can be segmented.
        OutputError: If the state cannot be used.
        MedsegError: If the server would be open to others without a password.
    """
    check_installed()
    trained = load_bundle(bundle)
    known = _users(users, host)
    folder = State(Path(state) if state is not None else STATES / trained.spec.name)
    if not is_url(studies):
        studies = str(Path(studies).resolve())
        folder.refuse_within(Path(studies))
    with folder.locked():
        versions = Versions(folder)
        versions.adopt(trained)
        _look(studies, folder, trained, modalities, listeners)
        shown = host if not is_loopback(host) else "127.0.0.1"
        address = f"http://{shown}:{port}"
        set_environment(Settings(studies, folder.root, device, tuple(modalities), port))
        app = _application(folder, known, host, max_upload_mb)
        notify(
            listeners,
            Notice(
                f"serving {trained.spec.name}, version {versions.served.name}, at "
                f"{address} (3D Slicer) and {address}/ohif/ (browser, with a "
                "DICOMweb server); Ctrl-C stops"
            ),
        )
        _run(app, host, port)


def promote(bundle: str | Path, number: int, *, state: str | Path | None = None) -> Version:
    """Serve a version of a state folder from now on; a running server notices at once.

    Raises:
        MedsegError: If there is no such version.
    """
    from medseg.label_server.audit import Audit

    name = load_bundle(bundle).spec.name
    folder = State(Path(state) if state is not None else STATES / name)
    version = Versions(folder).promote(number)
    Audit(folder.audit).write("version promoted", version=version.name)
    return version


def _users(file: str | Path | None, host: str) -> Users:
    if file is not None:
        return read_users(Path(file))
    if not is_loopback(host):
        raise MedsegError(
            f"at {host} others can reach the server, so people must log in: write a file with a "
            "'name: password' a line, chmod 600 it, and give it by --users FILE"
        )
    return Users({})


def _look(
    studies: str,
    state: State,
    bundle: Bundle,
    modalities: Sequence[str],
    listeners: Sequence[Listener],
) -> None:
    """Find out what there is to serve, before anybody asks; say what was left out."""
    if is_url(studies):
        from medseg.label_server.dicomweb import DicomWebCases

        if not DicomWebCases(studies, state, bundle.spec, modalities).names():
            notify(listeners, Notice(f"{studies} has no image series yet"))
        return
    for fault in find_folder_cases(Path(studies), state, bundle.spec, listeners):
        notify(listeners, Notice(f"left out: {fault}"))


def _application(state: State, users: Users, host: str, max_upload_mb: int) -> Any:
    """Put MONAI Label's application together behind the guard."""
    from medseg.label_server.shims import install_stand_ins

    install_stand_ins()
    state.uploads.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(state.uploads)  # MONAI Label puts uploads there; cleared at start
    with contextlib.redirect_stdout(sys.stderr):
        from medseg.label_server.endpoints import free_the_loop, versions_router

        free_the_loop()
        from monailabel.app import app
    from medseg.label_server.gateway import Guard, Rules

    app.include_router(versions_router())
    hosts = {"localhost", "127.0.0.1", "::1", host} if not users.are_asked else set()
    return Guard(app, state, Rules(users, frozenset(hosts), max_upload_mb * 1_000_000))


def _run(app: Any, host: str, port: int) -> None:
    import uvicorn

    logging.getLogger("monailabel").setLevel(logging.WARNING)
    try:
        uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False)
    except SystemExit as ended:
        raise MedsegError(
            f"the server could not listen at {host}:{port}; is the port in use? Give another --port"
        ) from ended
