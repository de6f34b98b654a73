"""What stores answer: which errors may be over in a moment, and what people are told of the others.

No text of a foreign error is passed on: it may hold a signed address.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from medseg._support.addresses import hide_credentials, is_https
from medseg.errors import MedsegError

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each further try of what may succeed in a moment."""

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_ABSENT = (404, 410)
_FORBIDDEN = (401, 403)
_PASSING = (408, 409, 412, 416, 425, 429)
"""Refusals that may be over in a moment; all others of 400 to 499 come again."""

_MISTAKES = (
    "InvalidEndpointConfigurationError",
    "InvalidRegionError",
    "InvalidURL",
    "InvalidUrlClientError",
    "ParamValidationError",
    "ProfileNotFound",
)
"""What clients raise before they ask a store: the address or the settings are wrong."""

_MOST_TIMEOUTS = 2

_Result = TypeVar("_Result")


class StorageError(MedsegError):
    """An object cannot be read or written."""


class NoObjectError(StorageError):
    """There is no such object."""


class NoAnswerError(StorageError):
    """A store does not answer, or not with what was asked for."""


class DamagedError(Exception):
    """What arrived is not what was sent."""


def try_again(action: Callable[[], _Result], address: str) -> _Result:
    """Do something until it succeeds; what cannot succeed is not tried again.

    Raises:
        NoObjectError: If there is no such object.
        StorageError: If it does not succeed.
    """
    source = hide_credentials(address)
    timeouts = 0
    for wait in (*WAITS, None):
        try:
            return action()
        except StorageError:
            raise
        except Exception as error:
            if _is_of_disk(error):
                raise  # whoever writes the file says so
            if _is_absent(error, source):
                raise NoObjectError(
                    "there is no such object", source=source
                ) from None
            # Each takes minutes, unlike other errors.
            timeouts += _is_timeout(error)
            is_last = wait is None or timeouts > _MOST_TIMEOUTS
            if is_last or _is_final(error):
                raise _make_error(error, source) from None
        if wait is not None:
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _is_of_disk(error: Exception) -> bool:
    """Tell whether this machine's disk is full, of which no store speaks."""
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS


def _is_absent(error: Exception, source: str) -> bool:
    """Tell whether a store says that there is no object; fsspec says so of all that fails by HTTPS.

    Args:
        error: What a store raised.
        source: Of what.
    """
    is_missing = isinstance(error, FileNotFoundError)
    if not is_missing or not is_https(source):
        return is_missing
    return error.__cause__ is None or _find_status(error) in _ABSENT


def _find_status(error: Exception) -> int:
    """Return what a server answered; 0 where that is not known."""
    cause = error.__cause__ or error
    response = getattr(cause, "response", None)
    if isinstance(response, dict):  # Amazon's way
        facts = response.get("ResponseMetadata", {})
        status = facts.get("HTTPStatusCode", 0)
    else:
        named = ("status", "status_code", "code")
        # One after the other: to ask for a former name is a warning.
        found = (getattr(cause, name, None) for name in named)
        status = next(filter(None, found), 0)
    return status if isinstance(status, int) else 0


def _is_timeout(error: Exception) -> bool:
    name = type(error.__cause__ or error).__name__
    return isinstance(error, TimeoutError) or "Timeout" in name


def _is_forbidden(error: Exception) -> bool:
    if isinstance(error, PermissionError):
        return True
    if _find_status(error) in _FORBIDDEN:
        return True
    return type(error).__name__.endswith("CredentialsError")


def _is_final(error: Exception) -> bool:
    status = _find_status(error)
    is_refused = 400 <= status < 500 and status not in _PASSING
    is_mistake = type(error.__cause__ or error).__name__ in _MISTAKES
    return is_refused or is_mistake or _is_forbidden(error)


def _make_error(error: Exception, source: str) -> StorageError:
    status = _find_status(error)
    name = f"HTTP {status}" if status else type(error).__name__
    if isinstance(error, DamagedError):
        what = "arrives damaged, each time"
    elif _is_forbidden(error):
        what = "is not allowed to be read or written with these credentials"
    elif _is_final(error):
        what = f"cannot be read or written: address or settings are refused ({name})"
    else:
        what = (
            f"cannot be read or written ({name}), after several further tries"
        )
        return NoAnswerError(f"an object {what}", source=source)
    return StorageError(f"an object {what}", source=source)
