"""What must be installed, and what MONAI Label is told."""

from __future__ import annotations

import importlib.metadata
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from medseg import MedsegError
from medseg.errors import MissingExtraError
from medseg.label_server import environment
from medseg.label_server.environment import (
    APP_FOLDER,
    MONAI_LABEL,
    Settings,
    check_installed,
    set_environment,
)


def pretend_installed(
    monkeypatch: pytest.MonkeyPatch, **versions: str | None
) -> None:
    """Pretend that everything is installed, in these versions or not at all."""

    def version(name: str) -> str:
        found = versions.get(name.replace("-", "_"), MONAI_LABEL)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_nothing_is_missing_where_all_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend_installed(monkeypatch)
    check_installed()


def test_what_is_missing_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend_installed(monkeypatch, monailabel=None, dicomweb_client=None)
    with pytest.raises(
        MissingExtraError, match="needs dicomweb-client, monailabel"
    ) as refused:
        check_installed()
    assert "make label" in refused.value.message
    assert f"--no-deps monailabel=={MONAI_LABEL}" in refused.value.message


def test_another_release_of_monai_label_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend_installed(monkeypatch, monailabel="0.9.0")
    with pytest.raises(
        MedsegError, match=r"monailabel 0\.8\.5 \(0\.9\.0 is installed\)"
    ):
        check_installed()


def test_every_requirement_has_a_name() -> None:
    names = environment._list_required()
    assert {"dicomweb-client", "python-multipart", "uvicorn"} <= set(names)
    assert all(name.replace("-", "").isalnum() for name in names)


def test_monai_label_is_told_by_its_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    settings = Settings("/scans", tmp_path, "cpu", ("CT", "MR"), 8123)
    set_environment(replace(settings, speed="exact"))
    assert os.environ["MONAI_LABEL_STUDIES"] == "/scans"
    assert os.environ["MONAI_LABEL_SERVER_PORT"] == "8123"
    assert os.environ["MONAI_LABEL_AUTH_ENABLE"] == "false"
    assert os.environ["MONAI_LABEL_AUTO_UPDATE_SCORING"] == "false"
    assert os.environ["MONAI_LABEL_SESSION_PATH"] == str(tmp_path / "sessions")
    conf = json.loads(os.environ["MONAI_LABEL_APP_CONF"])
    assert conf == {
        "state": str(tmp_path),
        "device": "cpu",
        "speed": "exact",
        "modalities": "CT,MR",
        "store_proposals": "",
    }
    assert (Path(os.environ["MONAI_LABEL_APP_DIR"]) / "main.py").is_file()
    assert os.environ["MONAI_LABEL_APP_DIR"] == str(APP_FOLDER)
