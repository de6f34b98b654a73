"""Registries: medseg's own parts and those of packages, and what happens with broken packages."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from support.plugins import install_package

from medseg._support.registry import Plugin, Registry
from medseg.errors import MedsegError, MissingExtraError

GROUP = "medseg.test_losses"


def own_loss() -> str:
    return "own"


def check_callable(part: object) -> None:
    if not callable(part):
        raise TypeError("a loss is called")


def make_registry() -> Registry[Callable[[], str]]:
    return Registry(GROUP, "loss", {"dice": own_loss}, check_callable)


def install(site: Path, package: str, name: str, code: str) -> None:
    install_package(site, package, {GROUP: {name: f"{package}:loss"}}, code)


def test_own_parts_come_first_and_need_no_package():
    registry = make_registry()
    assert registry.names == ("dice",)
    assert registry.get("dice") is own_loss
    assert registry.plugins() == [
        Plugin(GROUP, "dice", "medseg", metadata.version("medseg"))
    ]


def test_part_of_an_installed_package_is_found_by_name(site):
    install(site, "focal_package", "focal", "def loss(): return 'focal'")
    install(
        site, "boundary_package", "boundary", "def loss(): return 'boundary'"
    )
    registry = make_registry()
    assert registry.names == ("dice", "boundary", "focal")
    assert registry.get("focal")() == "focal"
    assert registry.get("focal") is registry.get("focal")
    assert [part() for part in registry.all().values()] == [
        "own",
        "boundary",
        "focal",
    ]
    assert registry.plugins()[1:] == [
        Plugin(GROUP, "boundary", "boundary_package", "1.2"),
        Plugin(GROUP, "focal", "focal_package", "1.2"),
    ]


def test_unknown_name_says_which_there_are(site):
    install(site, "focal_package", "focal", "def loss(): return 'focal'")
    with pytest.raises(
        MedsegError, match="there is no loss 'tversky'; known are: dice, focal"
    ):
        make_registry().get("tversky")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (
            "raise RuntimeError('built for another torch')",
            "RuntimeError: built for another torch",
        ),
        ("import no_such_module", "ModuleNotFoundError"),
        ("def other(): ...", "AttributeError"),
        ("loss = 3", "TypeError: a loss is called"),
        ("def loss(:", "SyntaxError"),
    ],
)
def test_broken_package_harms_only_who_names_it(site, code, why):
    install(site, "broken_package", "broken", code)
    registry = make_registry()
    assert registry.get("dice") is own_loss
    assert registry.plugins()[1].problem == ""  # nothing was loaded
    for _ in range(2):
        with pytest.raises(
            MissingExtraError,
            match=r"'broken' of the package broken_package 1\.2",
        ):
            registry.get("broken")
    parts, problems = registry.usable()
    assert parts == {"dice": own_loss}
    assert [type(problem) for problem in problems] == [MissingExtraError]
    assert why in (problems[0].detail or "")
    assert why not in problems[0].message
    assert why in registry.plugins(load=True)[1].problem


def test_broken_package_is_loaded_once(site, tmp_path):
    log = tmp_path / "log"
    code = f"open({str(log)!r}, 'a').write('x')\nraise RuntimeError"
    install(site, "broken_package", "broken", code)
    registry = make_registry()
    for _ in range(3):
        registry.usable()
    assert log.read_text() == "x"


def test_name_of_two_packages_belongs_to_neither(site):
    for package in ("first_package", "second_package"):
        install(site, package, "focal", "def loss(): return 'focal'")
    registry = make_registry()
    clash = "loss 'focal' is provided by first_package and second_package; uninstall all but one"
    with pytest.raises(MedsegError, match=clash):
        registry.get("focal")
    assert registry.usable()[0] == {"dice": own_loss}
    listed = registry.plugins()[1:]
    assert {plugin.package for plugin in listed} == {
        "first_package",
        "second_package",
    }
    assert all(clash in plugin.problem for plugin in listed)


def test_package_cannot_take_a_name_of_medseg(site):
    install(site, "taking_package", "dice", "def loss(): return 'taken'")
    registry = make_registry()
    assert registry.get("dice") is own_loss
    assert registry.names == ("dice",)
    _, taken = registry.plugins()
    assert taken.package == "taking_package"
    assert (
        taken.problem
        == "ignored: 'dice' is the name of a loss of medseg itself"
    )


def test_listing_loads_nothing(site, tmp_path):
    log = tmp_path / "log"
    install(
        site,
        "focal_package",
        "focal",
        f"open({str(log)!r}, 'a')\ndef loss(): ...",
    )
    registry = make_registry()
    registry.plugins()
    assert registry.names == ("dice", "focal")
    assert not log.exists()
    registry.plugins(load=True)
    assert log.exists()


def test_package_installed_later_is_found_after_a_refresh(site):
    registry = make_registry()
    assert registry.names == ("dice",)
    install(site, "focal_package", "focal", "def loss(): return 'focal'")
    assert registry.names == ("dice",)
    registry.refresh()
    assert registry.get("focal")() == "focal"
