"""``DicomWebConnection``: calls a DICOMweb server with its login, and never waits without end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from requests.adapters import HTTPAdapter

from medseg.errors import OutputError
from medseg.label_server.environment import (
    DICOMWEB_PASSWORD,
    DICOMWEB_USER,
    read_dicomweb_login,
)

CONNECT_SECONDS = 10.0
READ_SECONDS = 120.0
"""How long the DICOMweb server may be silent: a search over a large archive takes its time."""

_T = TypeVar("_T")


class DicomWebConnection:
    """A DICOMweb server, as this server calls it.

    Args:
        url: Its DICOMweb root.
        read_seconds: How long it may be silent.

    Attributes:
        client: What calls it.
    """

    def __init__(self, url: str, read_seconds: float = READ_SECONDS) -> None:
        login = read_dicomweb_login()
        session = requests.Session()
        if login is not None:
            session = create_session_from_user_pass(*login)
        limit = _TimeLimit(read_seconds)
        for scheme in ("http://", "https://"):
            session.mount(scheme, limit)
        self.client = DICOMwebClient(url.rstrip("/"), session=session)
        self._url = url

    def request(self, action: str, call: Callable[[], _T]) -> _T:
        """Call the server, and name what it did not do if that fails.

        Args:
            action: What it shall do, as in "the server did not list its series".
            call: Calls it.

        Raises:
            OutputError: If it refuses, is not there, or is silent for too long.
        """
        try:
            return call()
        except requests.HTTPError as error:
            status = (
                "an error"
                if error.response is None
                else error.response.status_code
            )
            raise OutputError(
                f"the DICOMweb server did not {action}: it answered {status}",
                source=self._url,
            ) from error
        except requests.RequestException as error:
            raise OutputError(
                f"the DICOMweb server did not {action}: {type(error).__name__}; check that it is "
                f"running and that its address is that of DICOMweb. If it asks for a login, set "
                f"{DICOMWEB_USER} and {DICOMWEB_PASSWORD}",
                source=self._url,
            ) from error


class _TimeLimit(HTTPAdapter):  # type: ignore[misc]
    """Gives every request a limit: dicomweb-client sets none, and would wait for ever."""

    def __init__(self, read_seconds: float) -> None:
        super().__init__()
        self._limit = (CONNECT_SECONDS, read_seconds)

    def send(
        self, request: requests.PreparedRequest, **options: Any
    ) -> requests.Response:
        """Send a request."""
        options["timeout"] = options.get("timeout") or self._limit
        return super().send(request, **options)
