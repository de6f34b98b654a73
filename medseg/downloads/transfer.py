"""Fetch a file over HTTP. What has arrived is kept, and a transfer that broke off goes on.

A transfer goes on only where the server says that the file is still the same: it is asked for the
rest with ``If-Range`` and the validator of the first answer (a strong ``ETag``, or
``Last-Modified``), and sends all of it where the file has changed or where it knows no ranges
(RFC 9110, section 13).
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg._support.files import write_atomically
from medseg.errors import DownloadError, OutputError
from medseg.events import Listener, Notice, Progress, notify

if TYPE_CHECKING:
    import requests

TASK = "downloading (MB)"
"""The name under which progress is reported."""

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each further try, while nothing arrives; after the last one it is given up."""
_LONGEST_WAIT = 60.0
"""Longest wait that a server may ask for, in seconds."""
_PROGRESS_MADE = 1 << 20
"""With so many more bytes, the tries are counted anew."""

_CHUNK = 1 << 16
"""What is lost at most where a connection breaks off."""
_MB = 1_000_000
_CONNECTING, _SILENCE = 20.0, 60.0
"""Longest time for a connection, and between two pieces, in seconds."""

_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Answers that may be others in a moment."""
_REASONS = {
    401: "the server asks for a login",
    403: "the server does not allow it",
    404: "the server does not have it",
    407: "the proxy asks for a login",
    410: "the server does not have it any more",
}
_NUMBER = re.compile(r"[0-9]{1,15}")
"""A number that a server may state; Python refuses to read very long ones."""
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,15})-[0-9]{1,15}/([0-9]{1,15}|\*)")
_UNSATISFIED = re.compile(r"bytes \*/([0-9]{1,15})")


class _BrokenError(Exception):
    """A transfer that may succeed when it is tried again.

    Args:
        reason: Why it ended.
        wait: Seconds that the server asks to wait.
    """

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Transfer:
    """A file to fetch.

    Attributes:
        url: Where it lies.
        file: Where it goes; what an earlier transfer left there is gone on with.
        most_bytes: A larger file is refused.
        listeners: Told of progress and of new tries.
        waits: Seconds before each further try.
        silence: Longest time between two pieces, in seconds.
    """

    url: str
    file: Path
    most_bytes: int
    listeners: Sequence[Listener] = ()
    waits: Sequence[float] = WAITS
    silence: float = _SILENCE

    @property
    def _state_file(self) -> Path:
        return self.file.with_name(f"{self.file.name}.json")

    def fetch(self) -> bool:
        """Fetch the file; return whether it came in parts, which may not fit together.

        Raises:
            DownloadError: If the server does not have it, or too many tries failed.
            OutputError: If it cannot be written.
        """
        import requests

        most, tries = self._size(), 0
        in_parts = most > 0 and bool(self._read_validator())
        with requests.Session() as session:
            while True:
                try:
                    self._try(session)
                    return in_parts
                except _BrokenError as error:
                    size = self._size()
                    if size >= most + _PROGRESS_MADE:
                        tries = 0
                    most = max(most, size)
                    self._wait(error, tries)
                    tries += 1
                    in_parts = True

    def forget(self) -> None:
        """Remove what arrived."""
        self.file.unlink(missing_ok=True)
        self._state_file.unlink(missing_ok=True)

    def _size(self) -> int:
        # Nothing is added to what a link leads to: others may have put it there.
        if self.file.is_symlink() or not self.file.is_file():
            return 0
        return self.file.stat().st_size

    def _wait(self, error: _BrokenError, tries: int) -> None:
        """Wait before the next try.

        Raises:
            DownloadError: If there were enough.
        """
        have = f"{self._size() / _MB:.1f} MB"
        if tries >= len(self.waits):
            raise DownloadError(
                f"the transfer failed {tries + 1} times, at last because {error}; {have} have "
                "arrived and are kept: run the same command again to go on, set HTTPS_PROXY if "
                "this network needs a proxy, or name a mirror with --url"
            )
        seconds = max(self.waits[tries], min(error.wait, _LONGEST_WAIT))
        message = f"{error}; {have} have arrived, trying again in {seconds:g} s"
        notify(self.listeners, Notice(message))
        time.sleep(seconds)

    def _try(self, session: requests.Session) -> None:
        """Fetch what is missing, as far as the server sends it."""
        from requests import exceptions

        try:
            self._receive(session)
        except exceptions.SSLError as error:
            raise DownloadError(
                "the server's certificate cannot be verified; behind a proxy that opens "
                "encrypted connections, set REQUESTS_CA_BUNDLE to its certificate",
                detail=_get_host(self.url),
            ) from error
        except exceptions.ProxyError as error:
            raise _BrokenError("the proxy cannot be used") from error
        except exceptions.Timeout as error:
            raise _BrokenError("the server was silent for too long") from error
        except (
            exceptions.ConnectionError,
            exceptions.ChunkedEncodingError,
            exceptions.ContentDecodingError,
        ) as error:
            raise _BrokenError("the connection broke off") from error
        except (exceptions.RequestException, ValueError) as error:
            raise DownloadError(
                "this address cannot be used; it must be one such as https://host/file.tar",
                detail=_get_host(self.url),
            ) from error

    def _receive(self, session: requests.Session) -> None:
        done, validator = self._size(), self._read_validator()
        # Bytes on the way are those of the file: a length is of what is sent.
        headers = {"Accept-Encoding": "identity"}
        if done and validator:
            headers |= {"Range": f"bytes={done}-", "If-Range": validator}
        with session.get(
            self.url,
            headers=headers,
            stream=True,
            timeout=(_CONNECTING, self.silence),
        ) as response:
            if response.status_code == 416 and self._is_whole(response, done):
                return
            self._check_status(response)
            start = self._find_start(response, done)
            self._write(response, start)

    def _is_whole(self, response: requests.Response, done: int) -> bool:
        """Tell whether nothing is missing, where a server has no such range."""
        content_range = response.headers.get("Content-Range", "")
        match = _UNSATISFIED.fullmatch(content_range)
        if match and int(match[1]) == done:
            return True
        self.forget()
        raise _BrokenError("the file on the server is another one by now")

    def _check_status(self, response: requests.Response) -> None:
        status = response.status_code
        if status in (200, 206):
            return
        if status in _PASSING:
            wait = response.headers.get("Retry-After", "")
            seconds = float(wait) if _NUMBER.fullmatch(wait) else 0.0
            raise _BrokenError(f"the server answered {status}", seconds)
        reason = _REASONS.get(status, "the server refused it")
        raise DownloadError(
            f"{reason} (HTTP {status}); name a mirror with --url",
            detail=_get_host(self.url),
        )

    def _find_start(self, response: requests.Response, done: int) -> int:
        """Return the place in the file at which the answer begins."""
        if response.status_code == 200:
            return 0
        content_range = response.headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(content_range)
        if match and int(match[1]) == done:
            return done
        self.forget()
        raise _BrokenError("the server sent another part than was asked for")

    def _write(self, response: requests.Response, start: int) -> None:
        """Write what the server sends."""
        total = _find_total(response, start)
        self._check_kind(response, total)
        if start == 0:
            self.forget()
            state = {
                "source": _hash(self.url),
                "validator": _choose_validator(response),
            }
            write_atomically(self._state_file, json.dumps(state))
        done = shown = start
        for done in self._write_pieces(response, start):
            if done > self.most_bytes:
                self.forget()
                raise _make_size_error(self.url)
            if done - shown >= _MB:
                shown = done
                self._report(done, total)
        self._report(done, total)
        if total is not None and done < total:
            raise _BrokenError("the connection broke off")

    def _report(self, done: int, total: int | None) -> None:
        expected = max(total or self.most_bytes, done)
        event = Progress(TASK, done // _MB, -(-expected // _MB))
        notify(self.listeners, event)

    def _write_pieces(
        self, response: requests.Response, start: int
    ) -> Iterator[int]:
        """Write each piece; yield the size of the file after it."""
        done = start
        mode = "ab" if start else "wb"
        try:
            with self.file.open(mode) as stream:
                for piece in response.iter_content(_CHUNK):
                    stream.write(piece)
                    done += len(piece)
                    yield done
        except OSError as error:
            if _is_of_network(error):
                raise
            raise OutputError(
                "cannot write what arrives; check the folder's permissions and the free space",
                source=self.file.parent,
                detail=error.strerror,
            ) from error

    def _check_kind(
        self, response: requests.Response, total: int | None
    ) -> None:
        """Refuse what cannot be the file before it is written.

        Raises:
            DownloadError: If it is a web page, or too large.
        """
        kind = response.headers.get("Content-Type", "")
        if kind.startswith("text/html"):
            raise DownloadError(
                "the server answered with a web page instead of an archive; it may ask for a "
                "login, or stand behind a proxy that does",
                detail=_get_host(self.url),
            )
        if total is not None and total > self.most_bytes:
            raise _make_size_error(self.url)

    def _read_validator(self) -> str:
        """Return what identifies the version on the server that an earlier transfer began with."""
        try:
            state = json.loads(self._state_file.read_text(encoding="utf-8"))
            is_same = state["source"] == _hash(self.url)
            return str(state["validator"] or "") if is_same else ""
        except (OSError, ValueError, LookupError, TypeError):
            return ""  # what arrived is fetched again


def _find_total(response: requests.Response, start: int) -> int | None:
    """Return the size of the whole file, where the server states it."""
    headers = response.headers
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if response.status_code == 206 and match and match[2] != "*":
        return int(match[2])
    length = headers.get("Content-Length", "")
    if not _NUMBER.fullmatch(length) or _is_encoded(response):
        return None
    return start + int(length)


def _choose_validator(response: requests.Response) -> str | None:
    """Return what will tell whether the file is still the same, where the server says so."""
    headers: Any = response.headers
    tag = headers.get("ETag", "")
    if _is_encoded(response):
        return None
    if tag and not tag.startswith("W/"):
        return str(tag)
    modified = headers.get("Last-Modified")
    return str(modified) if modified else None


def _is_encoded(response: requests.Response) -> bool:
    coding = response.headers.get("Content-Encoding", "identity")
    return bool(coding.lower() != "identity")


def _is_of_network(error: OSError) -> bool:
    """Tell whether an error came with the answer: those of requests are OSErrors, too."""
    from requests import exceptions

    is_foreign = isinstance(error, exceptions.RequestException)
    return is_foreign or isinstance(error, ConnectionError | TimeoutError)


def _make_size_error(url: str) -> DownloadError:
    return DownloadError(
        "what the server sends is larger than the data set, so it is something else",
        detail=_get_host(url),
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _get_host(url: str) -> str:
    """Return a URL's host; its other parts may hold a password."""
    _, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    _, _, host = authority.rpartition("@")
    return host
