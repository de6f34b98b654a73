"""MLflow works quietly for a while and leaves the user's settings as they were."""

from __future__ import annotations

import logging
import os

import pytest

from medseg.tracking.store import quiet_mlflow, store_errors, summarise_error

TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"


def test_settings_hold_for_a_while_and_the_users_own_win(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(TIMEOUT, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "9")
    with quiet_mlflow(3):
        assert os.environ[TIMEOUT] == "3"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "9"
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert TIMEOUT not in os.environ
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "9"


def test_loggers_are_silent_for_a_while_also_behind_an_error() -> None:
    logger = logging.getLogger("alembic")
    logger.setLevel(logging.INFO)

    def fail() -> None:
        with quiet_mlflow(3):
            assert logger.level == logging.CRITICAL
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert logger.level == logging.INFO


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        (
            "http://user:secret@host/x is away.\nTraceback …",
            "http://…@host/x is away",
        ),
        ("", "ValueError"),
        ("y" * 400, "y" * 300),
    ],
)
def test_errors_are_summed_up_without_passwords(
    text: str, summary: str
) -> None:
    assert summarise_error(ValueError(text)) == summary


def test_errors_of_the_store_are_known_and_bugs_are_not() -> None:
    import mlflow.exceptions

    assert issubclass(mlflow.exceptions.MlflowException, store_errors())
    assert issubclass(ConnectionError, store_errors())
    assert not issubclass(KeyError, store_errors())
