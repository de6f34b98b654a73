"""What differs by system is asked for in ``medseg._support.platform`` and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.windows import POSIX_FUNCTIONS, POSIX_MODULES, POSIX_SIGNALS

TESTS = Path(__file__).resolve().parents[2]
PACKAGE = TESTS.with_name("medseg")
PLATFORM = PACKAGE / "_support" / "platform"
ASKED_IN_ONE_PLACE = {
    "os": {
        *POSIX_FUNCTIONS,
        *("open", "fsync", "replace", "rename", "link", "name", "kill"),
    },
    "signal": {*POSIX_SIGNALS, "SIGTERM", "SIGBREAK"},
    "sys": {"platform"},
    "platform": {"system"},
}
"""Module → names that only the folder may use."""

OTHERS_OPEN = ("os", "Image", "tarfile", "member", "zipped")
"""Whose ``open`` reads bytes."""

REASONS = {
    ("io/dicom/decoder.py", "import resource"): "a script without medseg",
    ("io/dicom/decoder.py", "os.open"): "the null device has no line ends",
    ("testing/dataset_layouts.py", "Path.symlink_to"): "skips where it cannot",
}


def find_uses(text: str) -> Iterator[str]:
    """Yield what a module uses that differs by system."""
    for node in ast.walk(ast.parse(text)):
        yield from find_imports(node)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in ASKED_IN_ONE_PLACE.get(node.value.id, ()):
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Call):
            yield from find_calls(node)
        elif isinstance(node, ast.Constant) and is_place_of_linux(node.value):
            yield node.value


def is_place_of_linux(value: object) -> bool:
    return isinstance(value, str) and value.startswith(
        ("/proc", "/dev/", "/sys/", "/tmp")
    )


def find_imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
        for alias in node.names:
            if alias.name in ASKED_IN_ONE_PLACE.get(node.module or "", ()):
                yield f"{node.module}.{alias.name}"
    else:
        return
    yield from (f"import {name}" for name in names if name in POSIX_MODULES)


def find_calls(call: ast.Call) -> Iterator[str]:
    """Yield calls that do something else on another system."""
    given = {option.arg for option in call.keywords}
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    is_method = isinstance(call.func, ast.Attribute)
    names_path = name in ("rename", "replace", "symlink_to", "hardlink_to")
    if is_method and names_path and len(call.args) == 1 and not given:
        yield f"Path.{name}"
    if name == "str" and call.args and is_relative(call.args[0]):
        yield "str(relative path), not as_posix()"
    if name in ("read_text", "write_text") and is_method:
        if "encoding" not in given and len(call.args) < 1 + (name[0] == "w"):
            yield f"{name} without an encoding"
        if name == "write_text" and "newline" not in given:
            yield "write_text without newline, which Windows makes two bytes"
    if name in ("run", "Popen", "check_output") and "text" in given:
        yield "a process's text without an encoding"
    if name == "open" and "encoding" not in given and opens_text(call):
        yield "open without an encoding"


def opens_text(call: ast.Call) -> bool:
    """Tell whether ``open`` may open a file as text, as far as its arguments tell."""
    owner = getattr(call.func, "value", None)
    if isinstance(owner, ast.Name) and owner.id in OTHERS_OPEN:
        return False
    modes = [argument for argument in call.args if not is_path(argument)]
    return all(
        isinstance(mode, ast.Constant) and "b" not in str(mode.value)
        for mode in modes
    )


def is_path(node: ast.expr) -> bool:
    text = getattr(node, "value", "")
    return isinstance(text, str) and "/" in text


def is_relative(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "relative_to"
    )


def list_uses(folder: Path) -> set[tuple[str, str]]:
    """Return each module's uses that have no reason."""
    found = set()
    for file in folder.rglob("*.py"):
        if not file.is_relative_to(PLATFORM):
            place = file.relative_to(folder).as_posix()
            text = file.read_text(encoding="utf-8")
            found.update((place, use) for use in find_uses(text))
    return found


def test_no_module_uses_what_another_system_lacks_or_does_otherwise() -> None:
    uses = list_uses(PACKAGE)
    assert uses - set(REASONS) == set()
    assert set(REASONS) <= uses, "a reason without a use"


@pytest.mark.parametrize(
    ("code", "use"),
    [
        ("import fcntl", "import fcntl"),
        ("from resource import getrlimit", "import resource"),
        ("from os import pread", "os.pread"),
        ("os.sysconf('SC_AVPHYS_PAGES')", "os.sysconf"),
        ("signal.SIGKILL", "signal.SIGKILL"),
        ("part.rename(folder)", "Path.rename"),
        ("open('/proc/meminfo', 'rb')", "/proc/meminfo"),
        ("path.read_text()", "read_text without an encoding"),
        ("path.open()", "open without an encoding"),
        ("str(a.relative_to(b))", "str(relative path), not as_posix()"),
    ],
)
def test_a_use_is_found(code: str, use: str) -> None:
    assert list(find_uses(code)) == [use]


def test_what_all_systems_do_alike_is_no_use() -> None:
    code = "text.replace('a', 'b'); path.open('rb'); os.fstat(0); signal.SIGINT"
    assert not list(find_uses(code))


def find_uses_at_import(text: str) -> Iterator[str]:
    """Yield what a module uses, as soon as it is imported, that Windows lacks."""
    waiting: list[ast.AST] = [ast.parse(text)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += node.decorator_list
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            for name in POSIX_MODULES & {alias.name for alias in node.names}:
                yield f"import {name}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            lacking = {"os": POSIX_FUNCTIONS, "signal": POSIX_SIGNALS}
            if node.attr in lacking.get(node.value.id, ()):
                yield f"{node.value.id}.{node.attr}"


def test_tests_can_be_collected_on_windows() -> None:
    """What a test itself lacks there skips it; what its module lacks would end all tests."""
    for file in TESTS.rglob("*.py"):
        is_script = file.name.endswith("_zygote.py")
        text = file.read_text(encoding="utf-8")
        assert is_script or not list(find_uses_at_import(text)), file
