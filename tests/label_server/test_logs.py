"""No output of the server holds what a path, a header or another library's error says."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg import MedsegError
from medseg.errors import Fault, recordable_text
from medseg.label_server import logs
from medseg.label_server.logs import (
    LogFormatter,
    describe_traceback,
)

PLANTED = "MUELLER^ANNA"
FOLDER = f"/studies/{PLANTED}/ct.nii.gz"


def family(
    kind: type[MedsegError] = MedsegError,
) -> Iterator[type[MedsegError]]:
    """Yield every class of errors medseg raises."""
    yield kind
    for below in kind.__subclasses__():
        yield from family(below)


FAMILY = sorted(set(family()), key=lambda kind: kind.__name__)
FOREIGN: list[Callable[[], Exception]] = [
    lambda: ValueError(f"PatientName is {PLANTED}"),
    lambda: FileNotFoundError(2, "No such file", FOLDER),
    lambda: KeyError(PLANTED),
    lambda: UnicodeDecodeError("utf-8", PLANTED.encode(), 0, 1, PLANTED),
    lambda: ExceptionGroup(PLANTED, [ValueError(PLANTED), KeyError(PLANTED)]),
    lambda: type("Odd", (Exception,), {"__str__": lambda self: PLANTED})(),
]


def make_error(kind: type[MedsegError], name: str) -> MedsegError:
    """Return an error that says a name in every place where one may stand."""
    arguments = ("the voxels end early",)
    if "faults" in kind.__init__.__code__.co_varnames:
        faults = [Fault(name, f"{name} is bad", name)]
        return kind(*arguments, faults, source=name, detail=name)  # type: ignore[call-arg]
    return kind(*arguments, source=name, detail=name)


def raise_chained(error: Exception, cause: Exception) -> Exception:
    """Return an error as it is after another one caused it."""
    try:
        try:
            raise cause
        except Exception as caught:
            raise error from caught
    except Exception as chained:  # noqa: BLE001 (any kind was raised here)
        return chained


def log_records(error: Exception) -> Iterator[logging.LogRecord]:
    """Yield records as medseg, the web server and other libraries write them."""
    information = (type(error), error, error.__traceback__)
    for name, text, arguments in (
        ("uvicorn.error", "Exception in ASGI application\n", ()),
        ("medseg.label_server", "segmenting failed", ()),
        ("monailabel.endpoints", f"Image: {PLANTED}", ()),
        ("asyncio", "%s", (PLANTED,)),
        ("medsegx", PLANTED, ()),
    ):
        yield logging.LogRecord(
            name, logging.ERROR, FOLDER, 7, text, arguments, information
        )


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("cause", FOREIGN)
def test_no_error_of_medseg_tells_its_source(
    kind: type[MedsegError],
    cause: Callable[[], Exception],
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = raise_chained(make_error(kind, PLANTED), cause())
    assert PLANTED in str(error), "the terminal may say it"
    told = [recordable_text(error), *describe_traceback(error)]
    told += [LogFormatter().format(record) for record in log_records(error)]
    logs._show_exception(type(error), error, error.__traceback__)
    told += capsys.readouterr()
    assert not [text for text in told if PLANTED in text]
    assert told[0] == "the voxels end early"
    assert (
        describe_traceback(error)[-1]
        == f"{kind.__name__}: the voxels end early"
    )


@pytest.mark.parametrize("make", FOREIGN)
def test_of_another_librarys_error_only_the_type_is_told(
    make: Callable[[], Exception],
) -> None:
    error = raise_chained(make(), make())
    name = type(error).__name__
    told = [recordable_text(error), *describe_traceback(error)]
    told += [LogFormatter().format(record) for record in log_records(error)]
    assert not [text for text in told if PLANTED in text]
    assert told[0] == name
    assert describe_traceback(error)[-1] == name


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), min_size=8))
def test_whatever_a_source_is_called_it_is_not_told(name: str) -> None:
    planted = f"<{name}>"
    for kind in FAMILY:
        error = raise_chained(make_error(kind, planted), ValueError(planted))
        assert not [
            line for line in describe_traceback(error) if planted in line
        ]


def test_a_traceback_says_where_in_the_code_each_error_came_from() -> None:
    error = raise_chained(
        MedsegError("the voxels end early"), ValueError(PLANTED)
    )
    lines = describe_traceback(error)
    frames = [line for line in lines if line.startswith("  ")]
    assert len(frames) == 2
    assert all(
        __file__ in frame and "in raise_chained" in frame for frame in frames
    )
    assert [line for line in lines if not line.startswith("  ")] == [
        "ValueError",
        "MedsegError: the voxels end early",
    ]


def test_an_error_raised_from_itself_is_told_once() -> None:
    error = ValueError(PLANTED)
    error.__cause__ = error
    assert describe_traceback(error) == ["ValueError"]


def test_messages_of_medseg_and_the_web_server_are_kept() -> None:
    for name in ("medseg", "medseg.label_server.server", "uvicorn.error"):
        record = logging.LogRecord(
            name, logging.WARNING, __file__, 1, "port %d", (8000,), None
        )
        assert LogFormatter().format(record) == f"WARNING: {name}: port 8000"


PROCESS = """
import logging, sys, threading, warnings
from medseg.errors import ScanError
from medseg.label_server.logs import withhold_texts

PLANTED = sys.argv[1]
early = logging.getLogger("library.with.a.handler")
early.addHandler(logging.StreamHandler())
early.propagate = False
withhold_texts()
late = logging.getLogger("another.one")
late.addHandler(logging.StreamHandler())
late.propagate = False
early.error(PLANTED)
late.error(PLANTED)
logging.getLogger("pydicom").warning("PatientName %s", PLANTED)
logging.getLogger("monailabel").info(PLANTED)
logging.getLogger("medseg").error("cannot %d", PLANTED)
warnings.warn(f"Invalid value {PLANTED}", UserWarning)

def fail():
    raise LookupError(PLANTED)

def end():
    sys.exit(PLANTED)

for target in (fail, end):
    thread = threading.Thread(target=target, name=PLANTED)
    thread.start()
    thread.join()
try:
    fail()
except LookupError as error:
    raise ScanError("the voxels end early", source=PLANTED) from error
"""


def test_a_whole_process_withholds_texts() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, PLANTED],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert PLANTED not in done.stdout + done.stderr
    lines = [
        line for line in done.stderr.splitlines() if not line.startswith("  ")
    ]
    assert lines == [
        "ERROR: library.with.a.handler: message withheld (<string>:14)",
        "ERROR: another.one: message withheld (<string>:15)",
        "WARNING: pydicom: message withheld (<string>:16)",
        "UserWarning at <string>:19",
        "LookupError",
        "LookupError",
        "ScanError: the voxels end early",
    ]
