"""``medseg plugins`` lists what is registered, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cli import call
from support.plugins import install_package

from medseg.commands.plugins import REGISTRIES


@pytest.fixture(autouse=True)
def _refreshed(site: Path):
    """Registries look packages up again, before and after."""
    for registry in REGISTRIES:
        registry.refresh()
    yield
    for registry in REGISTRIES:
        registry.refresh()


def test_medsegs_own_parts_are_listed_with_their_group(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "plugins", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    own = {registry.group for registry in REGISTRIES if registry.names}
    assert {plugin["group"] for plugin in listed} == own
    assert "medseg.losses" in own
    assert {plugin["package"] for plugin in listed} == {"medseg"}
    assert call(monkeypatch, "plugins") == 0
    shown = capsys.readouterr().out
    for plugin in listed:
        assert plugin["name"] in shown


def test_a_broken_package_is_listed_with_its_problem_and_exit_code_1(
    site: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install_package(
        site, "torn", {"medseg.losses": {"torn": "torn:loss"}}, "import no_such"
    )
    assert call(monkeypatch, "plugins", "--json") == 1
    listed = json.loads(capsys.readouterr().out)
    (torn,) = [plugin for plugin in listed if plugin["name"] == "torn"]
    assert (torn["group"], torn["package"], torn["version"]) == (
        "medseg.losses",
        "torn",
        "1.2",
    )
    assert "no_such" in torn["problem"]
    assert call(monkeypatch, "plugins") == 1
    assert (
        "cannot be used: loss 'torn' of the package torn 1.2"
        in capsys.readouterr().out
    )
