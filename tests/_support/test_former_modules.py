"""Modules go on being importable by the names they had in 0.1.0, as the same objects."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from medseg._support import former_modules
from medseg._support.former_modules import FORMER_MODULES, FormerModules


@pytest.fixture(autouse=True)
def _forget_former_names():
    yield
    for name in list(sys.modules):
        if name in FORMER_MODULES or name in {
            "medseg.engine",
            "medseg.tools",
            "medseg.words",
        }:
            del sys.modules[name]


@pytest.mark.parametrize(("former", "today"), FORMER_MODULES.items())
def test_former_name_is_todays_module(former: str, today: str) -> None:
    assert importlib.import_module(former) is importlib.import_module(today)
    assert importlib.import_module(today).__name__ == today


def test_error_caught_by_its_former_name_is_the_one_raised() -> None:
    former = importlib.import_module("medseg.words.errors")
    from medseg.errors import ScanError

    with pytest.raises(former.MedsegError):
        raise ScanError("x")


@pytest.mark.parametrize(
    "name",
    [
        "medseg.words.events",
        "medseg.toolbox",
        "medseg.tools.nothing",
        "medseg.engines",
    ],
)
def test_other_names_stay_unknown(name: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)


def test_installing_twice_adds_one_finder() -> None:
    former_modules.install()
    former_modules.install()
    assert (
        sum(isinstance(finder, FormerModules) for finder in sys.meta_path) == 1
    )


def test_importing_medseg_is_enough_and_loads_nothing() -> None:
    code = (
        "import sys, medseg; before = set(sys.modules)\n"
        "from medseg.words.errors import MedsegError\n"
        "assert MedsegError is medseg.MedsegError\n"
        "print(sorted(name for name in set(sys.modules) - before if 'torch' in name))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert answer.stdout.strip() == "[]", answer.stderr
