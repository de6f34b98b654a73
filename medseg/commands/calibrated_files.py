"""The files of a bundle while it is calibrated, and when it was."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medseg._support.files import atomic_folder, write_atomically
from medseg._support.json_values import nan_to_none
from medseg._support.platform.locks import (
    LockedError,
    lock_folder,
    remove_locked,
)
from medseg.bundle.bundle import BUNDLE_FILE, Bundle, with_trained
from medseg.bundle.hashes import hash_network
from medseg.bundle.spec_files import write_bundle, write_trained
from medseg.commands.bundle_argument import open_bundle
from medseg.commands.bundle_files import (
    copy_bundle,
    copy_exported,
    copy_files,
    read_scores,
    write_configs,
)
from medseg.errors import BusyError, OutputError
from medseg.inference.backends.exported import OPENVINO
from medseg.inference.backends.quantised import QUANTISED
from medseg.training.calibration import SPEED_MEMORY, CalibrationState
from medseg.training.journal import Journal
from medseg.training.markdown import replace_sections
from medseg.training.run_folder import RunFolder

_METRICS_KEY = "calibration"


@contextlib.contextmanager
def hold_journal(target: Path, in_place: bool) -> Iterator[Journal]:
    """Give the journal of the work on a folder, which nobody else works on; remove it at the end.

    Raises:
        BusyError: If another process does.
        OutputError: If it cannot be written.
    """
    folder = target / ".calibration"
    if not in_place:
        folder = target.with_name(f".{target.name}.calibration")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder)
    except (LockedError, FileNotFoundError) as error:
        # Gone is the folder of a call that has just ended.
        raise BusyError(
            "another process is calibrating this bundle; wait for it or stop it",
            source=target,
        ) from error
    except OSError as error:
        raise OutputError(
            "cannot be written to; check its permissions and the free space",
            source=target,
            detail=error.strerror,
        ) from error
    journal = Journal(folder / "journal.jsonl")
    is_done = False
    with lock:
        try:
            yield journal
            is_done = True
        finally:
            # What is noted stays for the call that goes on.
            noted = [journal.file, *folder.glob(f"{SPEED_MEMORY}*")]
            if is_done or not any(file.is_file() for file in noted):
                remove_locked(folder, lock)


def make_working_copy(bundle: Bundle, folder: Path) -> Bundle:
    """Copy a bundle for what steps write: it stays as it is until all is computed.

    The copy of a call that was interrupted is used further, with what was written into it.
    """
    copy = with_trained(Bundle(bundle.spec, folder), bundle.trained)
    if folder.is_dir():
        if copy.is_trained and hash_network(copy) == hash_network(bundle):
            return copy
        shutil.rmtree(folder)
    with atomic_folder(folder) as part:
        copy_bundle(bundle, part)
        copy_exported(bundle, part)
    return copy


def write_calibrated(
    loaded: Bundle,
    state: CalibrationState,
    metrics: Mapping[str, Any],
    target: Path,
    in_place: bool,
    exported: Path | None = None,
) -> None:
    """Write what was found into a copy of a bundle, which appears whole, or into the bundle.

    Args:
        loaded: The bundle.
        state: What was found.
        metrics: For its ``metrics.json``.
        target: The folder to write.
        in_place: Whether that is the bundle's own.
        exported: Networks that were exported from its weights meanwhile, in place of earlier ones.
    """
    if in_place:
        spec = state.bundle.spec
        if spec != open_bundle(target).spec:
            write_bundle(spec, target / BUNDLE_FILE)
        _replace_quantised(loaded, state.bundle, target)
        _write_findings(loaded, state, metrics, target)
        if exported is not None:
            with atomic_folder(target / OPENVINO) as folder:
                shutil.copytree(exported, folder, dirs_exist_ok=True)
        return
    with atomic_folder(target) as folder:
        copy_bundle(Bundle(state.bundle.spec, loaded.folder), folder)
        if exported is None:
            copy_exported(loaded, folder)
        else:
            shutil.copytree(exported, folder / OPENVINO)
        _replace_quantised(loaded, state.bundle, folder)
        _write_findings(loaded, state, metrics, folder)


def _replace_quantised(loaded: Bundle, found: Bundle, folder: Path) -> None:
    """Give a bundle's folder the networks in int8 of a new decision on the speed."""
    if found.trained.speed == loaded.trained.speed:
        return
    # Until the decision is written, last of all, it is computed as exact.
    undecided = loaded.trained.model_copy(update={"speed": None})
    write_trained(undecided, folder)
    shutil.rmtree(folder / QUANTISED, ignore_errors=True)
    copy_files(found.folder, folder, (QUANTISED.as_posix(),))


def _write_findings(
    loaded: Bundle,
    state: CalibrationState,
    metrics: Mapping[str, Any],
    folder: Path,
) -> None:
    """Write what was found into a bundle's folder; what decides comes last."""
    files = RunFolder(folder)
    content = _read_metrics(loaded)
    if "cases" not in content:  # of a training
        content["scores"] = metrics["scores"]
    content[_METRICS_KEY] = metrics
    text = json.dumps(nan_to_none(content), indent=2)
    card = ""
    if files.card.is_file():
        card = files.card.read_text(encoding="utf-8", errors="replace")
    sections = dict(state.sections)
    origin = state.bundle.trained.origin
    if origin is not None:
        sections["Results"] = "medseg measured them for its calibration, below."
    bundle = state.bundle
    write_atomically(files.metrics, text + "\n")
    write_configs(bundle, folder, read_scores(Bundle(bundle.spec, folder)))
    write_atomically(files.card, replace_sections(card, sections))
    write_trained(bundle.trained, folder)


def _read_metrics(bundle: Bundle) -> dict[str, Any]:
    """Return what a bundle's ``metrics.json`` holds; nothing where an import has none."""
    file = RunFolder(bundle.folder).metrics
    if not file.is_file():
        return {}
    read_scores(bundle)  # or it is damaged, and says so
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
