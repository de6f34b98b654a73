"""Versions stand side by side; one is served, and none is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.bundles import made_spec, trained_bundle

from medseg import CheckpointError, MedsegError, OutputError, load_bundle
from medseg.label_server.state import StateFolder
from medseg.label_server.versions import VersionInfo, Versions


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = trained_bundle(
        tmp_path_factory.mktemp("versions") / "bundle", made_spec()
    )
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "last.pt").write_bytes(b"x")
    return folder


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


@pytest.fixture
def versions(state: StateFolder, bundle: Path) -> Versions:
    """Versions whose first is a copy of the bundle."""
    versions = Versions(state)
    versions.adopt(load_bundle(bundle))
    return versions


def add_version(versions: Versions, bundle: Path) -> int:
    """Make a complete version from the bundle's files; return its number."""
    version = versions.next_version()
    trained_bundle(version.folder, made_spec())
    version.write_info(
        VersionInfo(parent=1, labels=3, held_out=1, dice=0.5, parent_dice=0.4)
    )
    return version.number


def test_the_first_version_is_a_copy_of_the_bundle(
    versions: Versions, bundle: Path
) -> None:
    first = versions.find_served()
    assert (first.number, first.name) == (1, "0001")
    assert first.is_complete()
    assert (first.folder / "models/model.pt").read_bytes() == (
        bundle / "models/model.pt"
    ).read_bytes()
    assert not (first.folder / "checkpoints").exists(), (
        "what is not served is not copied"
    )
    assert first.read_info().promoted
    assert first.load_bundle().spec == load_bundle(bundle).spec


def test_adopting_again_keeps_what_is_served(
    versions: Versions, bundle: Path
) -> None:
    versions.promote(add_version(versions, bundle))
    versions.adopt(load_bundle(bundle))
    assert versions.find_served().number == 2
    assert [version.number for version in versions.list_complete()] == [1, 2]


def test_a_state_belongs_to_one_bundle(
    versions: Versions, tmp_path: Path
) -> None:
    other = trained_bundle(tmp_path / "other", made_spec(), seed=1)
    with pytest.raises(
        OutputError, match="belongs to another bundle"
    ) as refused:
        versions.adopt(load_bundle(other))
    assert str(tmp_path) not in refused.value.message


def test_a_bundle_without_weights_is_not_served(
    state: StateFolder, tmp_path: Path
) -> None:
    from support.bundles import content, write_json

    with pytest.raises(CheckpointError, match="no weights"):
        Versions(state).adopt(
            load_bundle(write_json(tmp_path / "plain", content()))
        )
    assert not state.versions.exists()


def test_the_info_keeps_the_names_it_had_in_earlier_releases(
    versions: Versions, bundle: Path
) -> None:
    version = versions.get(add_version(versions, bundle))
    written = json.loads((version.folder / "version.json").read_text())
    assert list(written) == [
        "parent",
        "origin",
        "labels",
        "held_back",
        "dice",
        "parent_dice",
        "promoted",
        "created",
    ]
    assert written["held_back"] == 1
    assert version.read_info().held_out == 1


def test_promoting_serves_a_version_and_going_back_too(
    versions: Versions, bundle: Path
) -> None:
    number = add_version(versions, bundle)
    assert versions.find_served().number == 1
    assert not versions.get(number).read_info().promoted
    versions.promote(number)
    assert versions.find_served().number == number
    assert versions.get(number).read_info().promoted
    assert versions.get(number).read_info().labels == 3
    versions.promote(1)
    assert versions.find_served().number == 1


def test_an_unfinished_version_is_not_listed_promoted_or_overwritten(
    versions: Versions, bundle: Path
) -> None:
    unfinished = versions.next_version()
    unfinished.folder.mkdir()
    (unfinished.folder / "run.json").write_text("{}")
    assert [version.number for version in versions.list_complete()] == [1]
    with pytest.raises(
        MedsegError, match="no version 0002 to promote, only 0001"
    ):
        versions.promote(2)
    assert versions.next_version().number == 3
    assert add_version(versions, bundle) == 3


def test_a_version_with_a_damaged_bundle_is_not_promoted(
    versions: Versions, bundle: Path
) -> None:
    number = add_version(versions, bundle)
    (versions.get(number).folder / "bundle.json").write_text("{")
    with pytest.raises(MedsegError):
        versions.promote(number)
    assert versions.find_served().number == 1


@pytest.mark.parametrize("text", ["", "x", "0007"])
def test_a_damaged_note_of_what_is_served_is_told(
    versions: Versions, state: StateFolder, text: str
) -> None:
    state.served.write_text(text)
    with pytest.raises(CheckpointError, match="'served'") as refused:
        versions.find_served()
    assert str(state.root) not in refused.value.message


def test_a_damaged_info_is_told(versions: Versions) -> None:
    first = versions.find_served()
    (first.folder / "version.json").write_text('{"parent": "x"}')
    with pytest.raises(CheckpointError, match="of version 0001 is damaged"):
        first.read_info()


def test_the_summary_names_every_complete_version(
    versions: Versions, bundle: Path
) -> None:
    add_version(versions, bundle)
    summary = versions.summarise()
    assert summary["served"] == "0001"
    listed = summary["versions"]
    assert isinstance(listed, dict)
    assert list(listed) == ["0001", "0002"]
    assert listed["0002"] == {
        "parent": 1,
        "labels": 3,
        "held_back": 1,
        "dice": 0.5,
        "parent_dice": 0.4,
        "promoted": False,
        "created": "",
    }
