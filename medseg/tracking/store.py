"""The connection to an MLflow store: short timeouts, no chatter, and the errors it can raise."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

STORE_VARIABLE = "MLFLOW_TRACKING_URI"
"""The environment variable by which people choose the store."""
ANSWER_SECONDS = 3
"""How long a server may take to answer; it is asked twice. The user's own setting wins."""
UPLOAD_SECONDS = 120
"""How long a server may take to store a file, once training is over."""

KIND_TAG = "mlflow.experimentKind"
MODEL_TRAINING = "custom_model_development"
"""What MLflow's page calls *Machine learning*, or *Model training*."""
MODEL_TRAINING_VIEW = "workflowType=machine_learning"
NOTE_TAG = "mlflow.note.content"

# Set only while MLflow works for us, and only where the user has not.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # it may ask for an hour
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",  # would take the requirements of the current folder
}
_TALKATIVE = ("mlflow", "alembic", "sqlalchemy", "urllib3")


@contextlib.contextmanager
def quiet_mlflow(seconds: int) -> Iterator[None]:
    """Let MLflow work without chatter and telemetry, and with short timeouts.

    Args:
        seconds: How long a server may take to answer one request.
    """
    _refuse_telemetry()
    import mlflow  # noqa: F401  (its import sets the levels of the loggers below)

    settings = {**_SETTINGS, "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds)}
    with _environment(settings), _silent_loggers(_TALKATIVE):
        yield


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while, except those that the user has set."""
    ours = {
        key: value for key, value in settings.items() if key not in os.environ
    }
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            os.environ.pop(key, None)


@contextlib.contextmanager
def _silent_loggers(names: Sequence[str]) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _refuse_telemetry() -> None:
    if "MLFLOW_DISABLE_TELEMETRY" in os.environ:
        return
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # Importing MONAI may have imported MLflow, which decided before we could say so.
    if "mlflow.telemetry" in sys.modules:
        sys.modules["mlflow.telemetry"].set_telemetry_client()


_FOREIGN_ERRORS = (
    ("mlflow.exceptions", "MlflowException"),
    ("requests.exceptions", "RequestException"),
    ("sqlalchemy.exc", "SQLAlchemyError"),
    ("alembic.util.exc", "CommandError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("boto3.exceptions", "Boto3Error"),
    ("azure.core.exceptions", "AzureError"),
    ("google.api_core.exceptions", "GoogleAPIError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("paramiko.ssh_exception", "SSHException"),
)


def store_errors() -> tuple[type[BaseException], ...]:
    """Return what a store, its database, the network or its file storage can raise."""
    # ImportError: a store's driver (PostgreSQL, S3) is not installed.
    errors: list[type[BaseException]] = [OSError, ImportError]
    for module, name in _FOREIGN_ERRORS:
        # What is not imported cannot have raised anything.
        if module in sys.modules:
            errors.append(getattr(sys.modules[module], name))
    return tuple(errors)


def summarise_error(error: BaseException) -> str:
    """Return the first line of an error's text, without passwords; for the terminal alone."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    without_password = re.sub(r"//[^/@\s]+@", "//…@", lines[0])
    return without_password[:300].rstrip(". ")


def connect(uri: str) -> Any:
    """Return a client of the store at ``uri``, and make its tables if it is a new database.

    MLflow's own global store and active run stay as they are.
    """
    from mlflow import MlflowClient
    from mlflow.store.db.db_types import DATABASE_ENGINES

    scheme = uri.partition(":")[0]
    engine = scheme.partition("+")[0]  # ``postgresql+psycopg2`` is PostgreSQL
    if engine not in DATABASE_ENGINES:
        return MlflowClient(tracking_uri=uri)
    with _lock_sqlite(uri), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _require_database(uri)
        return MlflowClient(tracking_uri=uri)


@contextlib.contextmanager
def _lock_sqlite(uri: str) -> Iterator[None]:
    """Keep other processes out of an SQLite file: two that make its tables at once both fail."""
    import sqlalchemy
    from filelock import FileLock

    url = sqlalchemy.make_url(uri)
    if url.get_backend_name() != "sqlite" or not url.database:
        yield
        return
    path = Path(url.database).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=60):
        yield


def _require_database(uri: str) -> None:
    """Fail at once on a database that is broken or away; MLflow would try for 100 seconds."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()


def make_sqlite_uri(path: Path) -> str:
    """Return the address of an SQLite file, whatever signs its path holds.

    As it stands, ``?`` would begin options and ``%20`` would be a space.
    """
    from sqlalchemy.engine import URL

    # With its driver: of ``sqlite:///…`` MLflow makes the folder as it is written, with each
    # ``%3F``.
    url = URL.create("sqlite+pysqlite", database=str(path))
    return url.render_as_string(hide_password=False)


def get_or_create_experiment(
    client: Any, name: str, artifacts: str | None, description: str = ""
) -> str:
    """Return the id of the experiment, which is created if needed.

    It is marked as one of trained models, and not of language models. Releases of MLflow whose
    page does not look at the mark find a link in the description that leads to the runs. What
    somebody wrote there already stays.

    Args:
        client: What ``connect`` returned.
        name: Its name.
        artifacts: URI under which a new experiment keeps files; the store's own unless given.
        description: What its page says of it, in Markdown.
    """
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        experiment = _create_experiment(client, name, artifacts)
    identity = str(experiment.experiment_id)
    runs = f"[Runs](#/experiments/{identity}/runs?{MODEL_TRAINING_VIEW})"
    tags = {
        KIND_TAG: MODEL_TRAINING,
        NOTE_TAG: f"{description}\n\n{runs}".strip(),
    }
    # Who may not change an experiment may still track in it.
    with contextlib.suppress(MlflowException):
        for key, value in tags.items():
            if key not in experiment.tags:
                client.set_experiment_tag(identity, key, value)
    return identity


def _create_experiment(client: Any, name: str, artifacts: str | None) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        client.create_experiment(name, artifact_location=artifacts)
    except MlflowException as error:
        # Another run started at the same moment.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return client.get_experiment_by_name(name)
