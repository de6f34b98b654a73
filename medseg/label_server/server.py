"""``medseg label``: start MONAI Label's server on a trained bundle and the cases to be labelled."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg._support.platform.processes import handle_stop_signals
from medseg.bundle.bundle import Bundle, load_bundle
from medseg.errors import MedsegError, join_faults
from medseg.events import Listener, Notice, notify
from medseg.inference.backends.at_speed import check_speed
from medseg.label_server.audit import AuditLog
from medseg.label_server.cases import find_folder_cases, is_url
from medseg.label_server.environment import (
    Settings,
    check_installed,
    set_environment,
)
from medseg.label_server.logs import withhold_texts
from medseg.label_server.state import StateFolder
from medseg.label_server.store import Store
from medseg.label_server.users import (
    Role,
    Users,
    holds_plain_passwords,
    is_loopback,
    read_users,
)
from medseg.label_server.versions import Version, Versions

STATE_FOLDERS = Path("label")
"""Where state folders go unless the user says otherwise."""
MAX_UPLOAD_MB = 2000
GRACE_SECONDS = 3
"""How long requests, and then threads, may take to end when the server is stopped."""
INTERRUPTED = 130
"""The exit code of a program that was stopped."""


def serve(
    bundle: str | Path,
    studies: str,
    *,
    state: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    modalities: Sequence[str] = (),
    device: str = "auto",
    speed: str | None = None,
    users: str | Path | None = None,
    max_upload_mb: int = MAX_UPLOAD_MB,
    split_4d: str = "",
    store_proposals: bool = False,
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
        speed: ``exact``, ``balanced`` or ``fast``, as for ``medseg.segment``; as the served bundle
            says unless given.
        users: File with a ``name role: password`` per line, as ``medseg user`` writes it.
        max_upload_mb: Largest upload.
        split_4d: As for ``medseg.segment``; of scans in a folder.
        store_proposals: Whether each proposal is stored in the DICOMweb server as a DICOM SEG of
            its study, to be corrected in OHIF.
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
    if store_proposals and not is_url(studies):
        raise MedsegError(
            "--store-proposals stores in a DICOMweb server; the cases are files here, so leave it "
            "out"
        )
    trained = load_bundle(bundle)
    check_speed(speed, trained.spec)
    known_users = _load_users(users, host, listeners)
    folder = _open_state(state, trained)
    if not is_url(studies):
        studies = str(Path(studies).resolve())
        folder.require_apart_from(Path(studies))
    with _writing_private_files(), folder.lock():
        versions = Versions(folder)
        versions.adopt(trained)
        _open_store(folder, listeners)
        _find_cases(studies, folder, trained, modalities, listeners, split_4d)
        set_environment(
            Settings(
                studies,
                folder.root,
                device,
                tuple(modalities),
                port,
                store_proposals,
                speed or "",
            )
        )
        app = _build_application(
            studies, folder, known_users, host, max_upload_mb
        )
        address = f"http://{'127.0.0.1' if is_loopback(host) else host}:{port}"
        version = versions.find_served().name
        greeting = (
            f"serving {trained.spec.name}, version {version}, at {address} (the work list in a "
            "browser, and the address for 3D Slicer); press Ctrl-C to stop"
        )
        _run(app, host, port, lambda: notify(listeners, Notice(greeting)))


def _open_store(state: StateFolder, listeners: Sequence[Listener]) -> None:
    """Restore the store if it is damaged, say so, and keep a copy of it."""
    store = Store(state)
    restored = store.restore_if_damaged()
    if restored:
        notify(listeners, Notice(restored))
        AuditLog(state.audit_log).write("store restored", how=restored)
    store.copy()


def promote(
    bundle: str | Path, number: int, *, state: str | Path | None = None
) -> Version:
    """Serve a version of a state folder from now on; a running server notices at once.

    Raises:
        MedsegError: If there is no such version.
    """
    folder = _open_state(state, load_bundle(bundle))
    version = Versions(folder).promote(number)
    AuditLog(folder.audit_log).write("version promoted", version=version.name)
    return version


def _open_state(state: str | Path | None, bundle: Bundle) -> StateFolder:
    if state is None:
        state = STATE_FOLDERS / bundle.spec.name
    return StateFolder(Path(state))


def _load_users(
    file: str | Path | None, host: str, listeners: Sequence[Listener] = ()
) -> Users:
    if file is None and not is_loopback(host):
        raise MedsegError(
            f"with --host {host} others can reach the server, so people must log in: make a file "
            "of users with 'medseg user NAME --users FILE', and give it by --users FILE"
        )
    if file is None:
        return Users({})
    people = read_users(Path(file))
    if holds_plain_passwords(Path(file)):
        notify(
            listeners,
            Notice(
                "the file of users holds passwords in plain text; replace each by "
                "'medseg user NAME --users FILE', which writes a hash"
            ),
        )
    if not any(user.role is Role.ADMIN for user in people.values()):
        notify(
            listeners,
            Notice(
                "no user is admin, so nobody can train, promote a version or upload images; "
                "'medseg user NAME --role admin --users FILE' changes that"
            ),
        )
    return Users(people)


def _find_cases(
    studies: str,
    state: StateFolder,
    bundle: Bundle,
    modalities: Sequence[str],
    listeners: Sequence[Listener],
    split_4d: str = "",
) -> None:
    """Find out what there is to serve, before anybody asks; say what was left out."""
    if not is_url(studies):
        left_out = find_folder_cases(
            Path(studies), state, bundle.spec, listeners, split_4d
        )
        nameless = (replace(fault, detail="") for fault in left_out)
        for line in join_faults(nameless):
            notify(listeners, Notice(f"left out: {line}"))
        return
    from medseg.label_server.dicomweb import DicomWebCases

    cases = DicomWebCases(studies, state, bundle.spec, modalities)
    if not cases.list_names():
        notify(listeners, Notice("the DICOMweb server has no image series yet"))


def _build_application(
    studies: str,
    state: StateFolder,
    users: Users,
    host: str,
    max_upload_mb: int,
) -> Any:
    """Put MONAI Label's application together behind the gateway."""
    from medseg.label_server.shims import install_shims

    install_shims()
    state.uploads.mkdir(parents=True, exist_ok=True)
    # MONAI Label puts uploads there; cleared at start.
    tempfile.tempdir = str(state.uploads)
    # What MONAI Label prints meanwhile is true of it alone: that it answers pages of any site.
    with contextlib.redirect_stdout(io.StringIO()):
        from medseg.label_server.background import replace_background_tasks
        from medseg.label_server.endpoints import (
            make_versions_router,
            run_endpoints_in_threads,
        )

        replace_background_tasks()
        run_endpoints_in_threads()  # before the next line, which puts the endpoints together
        import monailabel
        import monailabel.app as application
        from monailabel.interfaces.utils.app import app_instance
    from starlette.routing import Mount

    from medseg.label_server.dicomweb_proxy import DicomWebProxy
    from medseg.label_server.gateway import AccessRules, Gateway
    from medseg.label_server.known_segmentations import KnownSegmentations
    from medseg.label_server.ohif import list_viewer_routes
    from medseg.label_server.pages.routes import list_page_routes

    app = application.app
    application.print = _print_nothing
    app.include_router(make_versions_router())
    # Before MONAI Label's own, which copies headers and so lets requests hide others.
    proxy = DicomWebProxy(
        studies if is_url(studies) else None,
        KnownSegmentations(state).note_author,
    )
    app.router.routes.insert(0, Mount("/proxy", app=proxy))
    # Before MONAI Label's own, whose front page loads programs from the Internet, as OHIF's does.
    viewer = Path(monailabel.__file__).parent / "endpoints/static/ohif"
    pages = list_page_routes(app_instance, users.list_names())
    app.router.routes[:0] = [*pages, *list_viewer_routes(viewer)]
    hosts = (
        set()
        if users.login_required
        else {"localhost", "127.0.0.1", "::1", host}
    )
    rules = AccessRules(users, frozenset(hosts), max_upload_mb * 1_000_000)
    return Gateway(app, state, rules)


def _print_nothing(*texts: object) -> None:
    """Take the place of MONAI Label's prints: that its app begins, and that it ends."""


def _run(app: Any, host: str, port: int, greet: Callable[[], None]) -> None:
    import uvicorn

    from medseg.label_server.background import stop_tasks
    from medseg.label_server.connections import (
        GreetingServer,
        list_server_options,
    )

    withhold_texts()
    logging.getLogger("monailabel").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        **list_server_options(),
    )
    # uvicorn ends in an orderly way and then passes the signal on, to be handled here: as Ctrl-C,
    # so that what this server started ends with it.
    server = GreetingServer(config, greet)
    with handle_stop_signals(), contextlib.suppress(KeyboardInterrupt):
        try:
            with contextlib.suppress(SystemExit):
                server.run()
            if not server.started:
                raise MedsegError(
                    f"the server could not listen at {host}:{port}; if the port is in use, give "
                    "another --port"
                )
        finally:
            stop_tasks()
            _end_threads()


@contextlib.contextmanager
def _writing_private_files() -> Iterator[None]:
    """Let what is written be its owner's alone: labels and scans are patients' data."""
    former = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(former)


def _end_threads() -> None:
    """Wait a moment for the threads of this process; then end it, whatever they compute.

    Everything that is kept appears whole or not at all, so nothing is lost. The process ends here,
    while it still holds the state folder's lock.
    """
    deadline = time.monotonic() + GRACE_SECONDS
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                sys.stderr.flush()
                os._exit(INTERRUPTED)
