"""Shims stand in for packages that are not installed, and for nothing else."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest

from medseg.label_server import shims


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test have modules of its own."""
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


def install(monkeypatch: pytest.MonkeyPatch, **names: tuple[str, ...]) -> None:
    unused = {
        name.replace("__", "."): attributes
        for name, attributes in names.items()
    }
    monkeypatch.setattr(shims, "UNUSED", unused)
    shims.install_shims()


def test_an_absent_package_can_be_imported_but_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, absent_a=("thing",), absent_a__below=("other",))
    module = importlib.import_module("absent_a")
    below = importlib.import_module("absent_a.below")
    assert module.below is below
    for function, name in (
        (module.thing, "absent_a.thing"),
        (below.other, "absent_a.below.other"),
    ):
        with pytest.raises(
            NotImplementedError, match=f"{name} is not installed"
        ):
            function(1, key=2)


def test_an_installed_package_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    install(monkeypatch, colorsys=("rgb_to_hsv",))
    assert "colorsys" not in sys.modules
    assert importlib.import_module("colorsys").rgb_to_hsv(0, 0, 0) == (
        0.0,
        0.0,
        0,
    )


def test_installing_twice_keeps_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, absent_b=())
    first = sys.modules["absent_b"]
    shims.install_shims()
    assert sys.modules["absent_b"] is first
    assert isinstance(first, ModuleType)
