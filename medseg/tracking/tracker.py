"""``MlflowTracker``: events → MLflow.

What a run leaves there: the resolved bundle as parameters, provenance as tags, every loss and
score, pictures, the light files of the run folder and the trained bundle as a model that MLflow
can load. Names of cases and files, and the text of warnings, stay here: they can name a patient,
and tracking servers are shared. Of an error, only what may be recorded (``RunFailed.message``)
is logged.

Tracking never stops or delays a training run. The first call that fails is reported once; from
then on the run goes on untracked.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from medseg.events import (
    Event,
    Notice,
    RunDone,
    RunFailed,
    RunStarted,
    ScheduleShortened,
    StepDone,
    ValidationDone,
)
from medseg.tracking.model import copy_public, log_model, register
from medseg.tracking.run import (
    ERROR_TAG,
    MlflowRun,
    flatten_scores,
    open_run,
    to_distinct_keys,
)
from medseg.tracking.store import (
    ANSWER_SECONDS,
    STORE_VARIABLE,
    UPLOAD_SECONDS,
    connect,
    get_or_create_experiment,
    make_sqlite_uri,
    quiet_mlflow,
    store_errors,
    summarise_error,
)

FILES = ("bundle.json", "metrics.json", "curves.png", "docs")
"""What of a run folder is logged besides the model."""

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class MlflowTracker:
    """A listener that writes what happens to MLflow.

    ``MLFLOW_TRACKING_URI`` says where; without it an SQLite file beside the runs is used. One
    tracker may follow several runs, one after the other.

    Args:
        default_store: The SQLite file used without ``MLFLOW_TRACKING_URI``.
        artifacts: Where that store keeps files; ``mlartifacts`` beside it unless given.
        model_code: The Python file with the MLflow model that loads the trained bundle; without
            it no model is logged.
        register_model: Register the model under the bundle's name.
        say: Called once with a sentence for the person at the terminal when a run cannot be
            tracked. It may quote the store's address.
        flush_seconds: Steps are collected at least this long before they are sent.
    """

    def __init__(
        self,
        default_store: Path,
        artifacts: Path | None = None,
        *,
        model_code: Path | None = None,
        register_model: bool = True,
        say: Callable[[str], None] = _log.warning,
        flush_seconds: float = 5.0,
    ) -> None:
        self._store = default_store.absolute()
        self._artifacts = (
            artifacts or self._store.parent / "mlartifacts"
        ).absolute()
        self._model_code = model_code
        self._register_model = register_model
        self._say = say
        self._flush_seconds = flush_seconds
        self._run: MlflowRun | None = None
        self._notices = 0

    def __call__(self, event: Event) -> None:
        """Write ``event`` to MLflow, or note that this run cannot be tracked."""
        if isinstance(event, Notice):
            self._notices += 1
        elif isinstance(event, RunStarted):
            former, self._run = self._run, None
            if former is not None:
                # Of a process that died; the one that goes on does not tell it again.
                self._attempt(former.flush)
            self._run = self._attempt(lambda: self._start(event))
        elif self._run is not None:
            run = self._run
            is_written = self._attempt(lambda: self._write(run, event))
            if not is_written:
                self._run = None

    def _attempt(self, act: Callable[[], _T]) -> _T | None:
        """Return what ``act`` returns, or ``None`` after saying why it could not."""
        try:
            return act()
        except store_errors() as error:
            self._say(
                f"This run is no longer tracked in MLflow: {summarise_error(error)}. The training "
                "run continues and its run folder is complete; check the server or "
                f"{STORE_VARIABLE}."
            )
            return None

    def _start(self, event: RunStarted) -> MlflowRun:
        with quiet_mlflow(ANSWER_SECONDS):
            chosen = os.environ.get(STORE_VARIABLE)
            if chosen:
                client, location = connect(chosen), None
            else:
                client, location = (
                    connect(make_sqlite_uri(self._store)),
                    self._artifacts.as_uri(),
                )
            experiment = get_or_create_experiment(
                client, event.experiment, location, event.description
            )
            return open_run(client, experiment, event, self._flush_seconds)

    def _write(self, run: MlflowRun, event: Event) -> bool:
        """Write one event; return true, which tells it from an attempt that failed."""
        match event:
            case StepDone():
                _add_step(run, event)
            case ValidationDone():
                _log_validation(run, event)
            case ScheduleShortened(steps):
                # The parameter keeps what was fitted at first: MLflow writes it once for all.
                run.set_tags({"medseg.shortened.training.steps": str(steps)})
            case RunDone():
                self._finish(run, event)
            case RunFailed():
                self._fail(run, event)
        return True

    def _finish(self, run: MlflowRun, event: RunDone) -> None:
        run.add_metrics(flatten_scores("final", event.scores), run.step)
        tags = self._closing_tags(run)
        tags["medseg.stopped_early"] = str(event.stopped_early).lower()
        # Closed first: a server that refuses large files or models still knows how it ended.
        run.end("FINISHED", tags)
        with quiet_mlflow(UPLOAD_SECONDS):
            for name in FILES:
                _upload(run, event.folder / name)
            if self._model_code is not None:
                self._log_model(run, event.folder, self._model_code)

    def _fail(self, run: MlflowRun, event: RunFailed) -> None:
        tags = self._closing_tags(run)
        if event.interrupted:
            run.end("KILLED", tags)
            return
        tags[ERROR_TAG] = event.message
        run.end("FAILED", tags)

    def _log_model(self, run: MlflowRun, bundle: Path, code: Path) -> None:
        model = log_model(
            run.client,
            bundle,
            code,
            name=run.name,
            experiment=run.experiment,
            run=run.id,
            step=run.step,
        )
        if self._register_model:
            register(run.client, model, name=run.name, run=run.id)

    def _closing_tags(self, run: MlflowRun) -> dict[str, str]:
        tags = {"medseg.warnings": str(self._notices)}
        self._notices = 0
        # A cross-validation's own run takes no step; its folds do.
        if run.step:
            tags["medseg.steps_done"] = str(run.step)
        return tags


def _add_step(run: MlflowRun, event: StepDone) -> None:
    metrics = {"loss": event.loss, "learning_rate": event.learning_rate}
    for key, value in to_distinct_keys(event.parts).items():
        metrics[f"loss/{key}"] = value
    run.add_metrics(metrics, event.step)
    run.flush_if_due()


def _log_validation(run: MlflowRun, event: ValidationDone) -> None:
    run.add_metrics(flatten_scores("val", event.scores), event.step)
    run.flush()
    with quiet_mlflow(ANSWER_SECONDS), tempfile.TemporaryDirectory() as folder:
        for number, picture in enumerate(event.pictures, start=1):
            # Numbered, because a picture's own name may be a case's.
            name = f"step-{event.step:06d}-{number:02d}{picture.suffix}"
            copy = Path(folder) / name
            shutil.copyfile(picture, copy)
            run.client.log_artifact(run.id, str(copy), "pictures")


def _upload(run: MlflowRun, path: Path) -> None:
    if path.is_dir():
        run.client.log_artifacts(run.id, str(path), path.name)
    elif path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            copy_public(path, copy)
            run.client.log_artifact(run.id, str(copy))
