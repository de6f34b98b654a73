"""What MONAI Label needs around it: its packages, and its settings as environment variables.

MONAI Label reads its settings when it is imported, and its trainings run in processes of their own
that inherit them. So they are set before the first import.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import MissingExtraError

MONAI_LABEL = "0.8.5"
"""The release that medseg's part is written for and tested with."""

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
APP_FOLDER = HERE / "folder"
"""What MONAI Label calls an app: a folder with a ``main.py``."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server and the processes it starts must agree on.

    Attributes:
        studies: A folder of scans, or the URL of a DICOMweb server.
        state: Where labels, versions and logs are kept.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        modalities: Only series of these are listed from a DICOMweb server; all unless given.
        port: Its port.
    """

    studies: str
    state: Path
    device: str
    modalities: tuple[str, ...]
    port: int


def check_installed() -> None:
    """Make sure that MONAI Label and what it needs are there.

    Raises:
        MissingExtraError: Says what is missing and which command installs it.
    """
    absent = [name for name in _required() if not _is_installed(name)]
    found = _version("monailabel")
    if found != MONAI_LABEL:
        absent.append(f"monailabel {MONAI_LABEL}" + (f" (found {found})" if found else ""))
    if absent:
        raise MissingExtraError(
            f"medseg label needs {', '.join(absent)}. In medseg's source folder, install them "
            "with:\n  make label\nor in any environment with:\n"
            f"  python -m pip install -r {REQUIREMENTS}\n"
            f"  python -m pip install --no-deps monailabel=={MONAI_LABEL}"
        )


def _required() -> list[str]:
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return [re.split(r"[>=<\s]", line)[0] for line in lines if line and line[0] not in "#"]


def _is_installed(name: str) -> bool:
    return _version(name) is not None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def set_environment(settings: Settings) -> None:
    """Tell MONAI Label, and the processes it will start, how to run."""
    conf = {
        "state": str(settings.state),
        "device": settings.device,
        "modalities": ",".join(settings.modalities),
    }
    os.environ |= {
        "MONAI_LABEL_APP_DIR": str(APP_FOLDER),
        "MONAI_LABEL_STUDIES": settings.studies,
        "MONAI_LABEL_APP_CONF": json.dumps(conf),
        "MONAI_LABEL_SERVER_PORT": str(settings.port),
        "MONAI_LABEL_SESSION_PATH": str(settings.state / "sessions"),
        # MONAI_LABEL_CORS_ORIGINS stays unset: MONAI Label's own processes die while they log it.
        # The guard refuses pages of other sites before they come that far.
        # A training refreshes the scores itself; MONAI Label would ask its own server, unnamed.
        "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
        "MONAI_LABEL_AUTH_ENABLE": "false",  # the guard asks for passwords
        # What its own start script sets and its background processes insist on.
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
