"""MONAI gets optional packages when it uses them, and in versions that will do."""

from __future__ import annotations

import getpass
import os
import pickle
import sys
import threading
from pathlib import Path

import pytest
from monai.utils.module import OptionalImportError, min_version, optional_import

from medseg._support import optional_packages
from medseg._support.optional_packages import (
    _defer,
    _Deferred,
    _Finder,
    forgo_engines,
    hidden,
    named_user,
)

finder = _Finder()
deferred_import = _defer(optional_import, finder)


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small modules in the place of those that take long to import."""
    small = ("colorsys", "fractions", "numpy", "qwertz")
    monkeypatch.setattr(optional_packages, "_DEFERRED", small)
    monkeypatch.setattr(finder, "is_done", False)


@pytest.fixture
def unused(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an installed module that was not imported yet."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    return "colorsys"


@pytest.mark.parametrize("former", [None, ""])
def test_a_user_without_a_name_has_one_while_monai_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, former: str | None
) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    if former is not None:
        monkeypatch.setenv("LOGNAME", former)
    pwd = pytest.importorskip("pwd", reason="Windows asks its environment")

    def know_nobody(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", know_nobody)

    with named_user():
        assert getpass.getuser()

    assert os.environ.get("LOGNAME") == former
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()


def test_a_package_is_imported_when_it_is_used(unused: str) -> None:
    module, is_there = deferred_import(unused)
    function, _ = deferred_import(unused, name="rgb_to_hls")
    assert is_there
    assert unused not in sys.modules
    assert module.rgb_to_hls(1, 1, 1) == function(1, 1, 1) == (0, 1, 0)
    assert unused in sys.modules


def test_a_class_that_is_deferred_knows_its_instances() -> None:
    fraction, _ = deferred_import("fractions", name="Fraction")
    from fractions import Fraction

    assert isinstance(Fraction(1, 2), fraction)
    assert issubclass(bool, deferred_import("numpy", name="bool_")[0]) is False
    assert not isinstance(0.5, fraction)


@pytest.mark.parametrize(
    ("module", "version", "there"),
    [("numpy", "1.0", True), ("numpy", "99.0", False), ("qwertz", "", False)],
)
def test_what_is_absent_or_too_old_is_told_as_monai_tells_it(
    module: str, version: str, there: bool
) -> None:
    found, is_there = deferred_import(module, version, min_version)
    assert is_there == there == optional_import(module, version)[1]
    if not there:
        with pytest.raises(OptionalImportError, match=module):
            found.array()


def test_once_monai_is_imported_everybody_gets_what_they_import(
    unused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "is_done", True)
    module, is_there = deferred_import(unused)
    assert is_there
    assert module is sys.modules[unused]


def test_of_others_it_is_known_whether_they_can_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package.py").write_text("raise ImportError('no GPU')")
    monkeypatch.syspath_prepend(tmp_path)
    _, is_there = deferred_import("broken_package")
    assert not is_there


def test_what_stands_for_a_module_can_be_pickled(unused: str) -> None:
    pickled = pickle.dumps(_Deferred(unused, "rgb_to_hls"))
    copy = pickle.loads(pickled)  # noqa: S301 (of this test)
    assert copy(1, 1, 1) == (0, 1, 0)


def test_classes_can_be_derived_from_what_training_alone_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flag = threading.Event()
    monkeypatch.setattr(optional_packages, "_without_engines", flag)
    engine = ("ignite.engine", "0.4", min_version, "Engine")
    real, is_there = deferred_import(*engine, as_type="decorator")
    assert is_there
    assert isinstance(real, type)
    forgo_engines()
    engine, is_there = deferred_import(
        "ignite.engine", "0.4", min_version, "Engine", as_type="decorator"
    )
    assert not is_there
    assert issubclass(type("Trainer", (engine,), {}), engine)


def test_a_hidden_module_is_there_again_afterwards(unused: str) -> None:
    with hidden(unused), pytest.raises(ImportError):
        __import__(unused)
    assert __import__(unused).rgb_to_hls
    with hidden(unused):
        assert __import__(unused), "what is imported already stays"


def test_a_module_stays_hidden_until_the_last_thread_that_hides_it_is_done(
    unused: str,
) -> None:
    first, second = hidden(unused), hidden(unused)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with pytest.raises(ImportError):
        __import__(unused)
    second.__exit__(None, None, None)
    assert __import__(unused)
