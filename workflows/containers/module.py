"""What the container does: segments scans in ``/in`` with the bundle in ``/model`` into ``/out``.

    docker run … medseg                       # /in, /model → /out, once
    docker run … medseg segment /model …      # any command of medseg

A scheduler of modules may say what is wanted in ``/in/task.json``, as mercure does, under
``process`` → ``settings``; what became of the scans stands in ``/out/result.json``. mercure names
its folders in ``MERCURE_IN_DIR`` and ``MERCURE_OUT_DIR``.

Exit code 0: every scan is segmented. 1: some are not, or lack a format. 2: the call is wrong. 75:
another container works in the same folder. 130: the container was stopped.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg._support.files import write_atomically
from medseg._support.platform.processes import handle_stop_signals
from medseg._support.tables import read_text
from medseg.cli import main as run_command
from medseg.errors import (
    BusyError,
    MedsegError,
    OutputError,
    recordable_text,
)

if TYPE_CHECKING:
    from medseg import Batch, Entry

TASK, RESULT = "task.json", "result.json"
MOST_NAMED = 10
"""Scans that a notification names."""

STOPPED, BUSY, WRONG, INCOMPLETE, WHOLE = 130, 75, 2, 1, 0

TEXTS = ("device", "backend", "precision", "speed", "split_4d")
LISTS = ("formats", "labels", "modalities")
SWITCHES = ("mirror", "error_maps", "resample_uneven", "report", "allow_empty")
SETTINGS = (*TEXTS, *LISTS, *SWITCHES, "threads")
"""Settings of a task, called as in ``medseg.segment``."""


def main(arguments: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run a command of medseg, or, without arguments, the module; return the exit code."""
    if arguments:
        sys.argv = ["medseg", *arguments]
        run_command()
        return WHOLE
    source = Path(variables.get("MERCURE_IN_DIR") or "/in")
    out = Path(variables.get("MERCURE_OUT_DIR") or "/out")
    model = Path(variables.get("MEDSEG_MODEL") or "/model")
    try:
        # The first process of a container is not ended by SIGTERM unless it asks for it: `docker
        # stop` would wait, and kill it.
        with handle_stop_signals():
            batch = segment(source, out, model)
            write_result(out, describe(batch))
    except KeyboardInterrupt:
        print("medseg: stopped; started again, it resumes", file=sys.stderr)
        state_failure(out, "stopped; started again, it resumes")
        return STOPPED
    except BusyError as error:
        # The result is the other's to write.
        print(f"medseg: {error}", file=sys.stderr)
        return BUSY
    except MedsegError as error:
        print(f"medseg: {error}", file=sys.stderr)
        state_failure(out, error.message)
        return WRONG
    except Exception as error:
        state_failure(out, f"a bug in medseg ({recordable_text(error)})")
        raise
    is_whole = not batch.failed and not batch.incomplete
    return WHOLE if is_whole else INCOMPLETE


def segment(source: Path, out: Path, model: Path) -> Batch:
    """Segment what a folder holds, as its task says.

    Raises:
        MedsegError: If the task cannot be understood, or as ``medseg.segment`` raises.
    """
    import medseg

    settings = read_settings(source)
    if (source / TASK).is_file():
        # What is sent back to an archive is DICOM.
        settings.setdefault("formats", ["dicom-seg"])
    batch = medseg.segment(model, source, out, **settings)
    for entry in batch.failed:
        what = batch.full_errors.get(entry.scan, entry.error)
        print(f"failed: {entry.scan}: {what}", file=sys.stderr)
    return batch


def write_result(out: Path, content: Mapping[str, Any]) -> None:
    """Write what became of all, whole, in the place of what an earlier call has left there.

    Raises:
        OutputError: If it cannot be written.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_atomically(out / RESULT, f"{text}\n")


def state_failure(out: Path, what: str) -> None:
    """Write why there is no result, so that nobody takes an earlier one for it."""
    text = f"medseg: {what}"
    notification = {"text": text, "requested": True}
    content = {
        "error": what,
        "scans": [],
        "__mercure_notification": notification,
    }
    try:
        write_result(out, content)
    except OutputError as error:
        print(f"medseg: {error}", file=sys.stderr)


def read_settings(source: Path) -> dict[str, Any]:
    """Return the settings of a folder's task, called as arguments of ``medseg.segment``.

    Raises:
        MedsegError: If it has other settings, or they are of another kind.
    """
    file = source / TASK
    if not os.path.lexists(file):
        return {}
    try:
        content = json.loads(read_text(file))
        process = content.get("process") or {}
        if isinstance(process, list):
            (process,) = process
        settings = process.get("settings") or {}
        given = {str(name): value for name, value in settings.items()}
    except (
        *(MedsegError, ValueError, TypeError),
        *(AttributeError, RecursionError),
    ) as error:
        why = error.message if isinstance(error, MedsegError) else None
        raise MedsegError(
            "the task cannot be understood; its settings are expected in process → settings",
            source=file,
            detail=why,
        ) from error
    unknown = sorted(given.keys() - set(SETTINGS))
    if unknown:
        raise MedsegError(
            f"the task has settings that are not known; known are {', '.join(SETTINGS)}",
            source=file,
            detail=f"not known are {', '.join(unknown)}",
        )
    return {name: check(name, value) for name, value in given.items()}


def check(name: str, value: Any) -> Any:
    """Return a setting in the form of its argument.

    Raises:
        MedsegError: If it is of another kind.
    """
    if name in LISTS:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, list) and all(isinstance(x, str) for x in value):
            return value
        kind = "a text or a list of texts"
    elif name in SWITCHES:
        if isinstance(value, bool):
            return value
        kind = "true or false"
    elif name == "threads":
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        kind = "a whole number"
    else:
        if isinstance(value, str):
            return value
        kind = "a text"
    raise MedsegError(f"the setting {name} of the task is {kind}")


def describe(batch: Batch) -> dict[str, Any]:
    """Return what a scheduler is told: each scan, and a text for people if they must look."""
    flagged = {entry.scan for entry in (*batch.failed, *batch.to_review)}
    return {
        "scans": [describe_scan(entry) for entry in batch.results],
        # mercure sends it to people where a rule says so.
        "__mercure_notification": {
            "text": write_notification(batch),
            "requested": bool(flagged),
        },
    }


def describe_scan(entry: Entry) -> dict[str, Any]:
    """Return what became of a scan; no path, and no patient's name."""
    facts: dict[str, Any] = {
        "scan": entry.scan,
        "state": entry.state,
        "bundle": entry.bundle,
        "medseg": entry.medseg,
        "files": list(entry.files),
        "volumes_ml": entry.volumes_ml,
        "warnings": list(entry.remarks),
    }
    if entry.quality is not None:
        # As in the report: where nothing was learned about it, words and no number.
        shown = entry.quality.to_quality().shown
        facts["expected_dice"] = shown.expected
        facts["quality"] = shown.text
        facts["review"] = entry.quality.review
        facts["reasons"] = list(shown.reasons)
    if entry.error or entry.reason:
        facts["error"] = entry.error or entry.reason
    return facts


def write_notification(batch: Batch) -> str:
    """Return a few lines for people."""
    done = sum(entry.is_good for entry in batch.results)
    lines = [f"medseg: {done} of {len(batch.results)} scans segmented"]
    for entry in batch.failed[:MOST_NAMED]:
        lines.append(f"failed: {entry.scan}: {entry.error}")
    for entry in batch.to_review[:MOST_NAMED]:
        reasons = "; ".join(entry.review_reasons)
        lines.append(f"to review: {entry.scan}: {reasons}")
    if batch.unjudged:
        lines.append(f"note: {batch.unjudged}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
