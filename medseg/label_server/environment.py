"""What MONAI Label needs around it: its packages, and its settings as environment variables.

MONAI Label reads its settings when it is imported, and its training runs in processes of their own
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

DICOMWEB_USER = "MEDSEG_DICOMWEB_USER"
DICOMWEB_PASSWORD = "MEDSEG_DICOMWEB_PASSWORD"
"""Environment variables with the login of the DICOMweb server, if it asks for one."""

STORE_PROPOSALS = "store_proposals"
"""The setting that says whether proposals are stored in the DICOMweb server."""

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
        stores_proposals: Whether proposals are stored in the DICOMweb server.
        speed: ``exact``, ``balanced`` or ``fast``; empty for what the served bundle says.
    """

    studies: str
    state: Path
    device: str
    modalities: tuple[str, ...]
    port: int
    stores_proposals: bool = False
    speed: str = ""


def read_dicomweb_login() -> tuple[str, str] | None:
    """Return name and password for the DICOMweb server, or ``None`` if it asks for none."""
    user = os.environ.get(DICOMWEB_USER)
    if not user:
        return None
    return user, os.environ.get(DICOMWEB_PASSWORD, "")


def check_installed() -> None:
    """Make sure that MONAI Label and what it needs are installed.

    Raises:
        MissingExtraError: Says what is missing and which command installs it.
    """
    missing = [name for name in _list_required() if _find_version(name) is None]
    installed = _find_version("monailabel")
    if installed is None:
        missing.append(f"monailabel {MONAI_LABEL}")
    elif installed != MONAI_LABEL:
        missing.append(f"monailabel {MONAI_LABEL} ({installed} is installed)")
    if missing:
        raise MissingExtraError(
            f"medseg label needs {', '.join(missing)}. In medseg's source folder, install them "
            "with:\n  make label\nor in any environment with:\n"
            f"  python -m pip install -r {REQUIREMENTS}\n"
            f"  python -m pip install --no-deps monailabel=={MONAI_LABEL}"
        )


def _list_required() -> list[str]:
    """Return the names of the packages in ``requirements.txt``."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    required = [line for line in lines if line and not line.startswith("#")]
    return [re.split(r"[>=<\s]", line)[0] for line in required]


def _find_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def set_environment(settings: Settings) -> None:
    """Tell MONAI Label, and the processes it will start, how to run."""
    conf = {
        "state": str(settings.state),
        "device": settings.device,
        "speed": settings.speed,
        "modalities": ",".join(settings.modalities),
        STORE_PROPOSALS: "yes" if settings.stores_proposals else "",
    }
    os.environ |= {
        "MONAI_LABEL_APP_DIR": str(APP_FOLDER),
        "MONAI_LABEL_STUDIES": settings.studies,
        "MONAI_LABEL_APP_CONF": json.dumps(conf),
        "MONAI_LABEL_SERVER_PORT": str(settings.port),
        "MONAI_LABEL_SESSION_PATH": str(settings.state / "sessions"),
        # A training run refreshes the scores itself; MONAI Label would ask its own server, unnamed.
        "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
        "MONAI_LABEL_AUTH_ENABLE": "false",  # the gateway asks for passwords
    }
