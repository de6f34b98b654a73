"""Starting the server: who may reach it, what it serves, which version."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bundles import made_spec, trained_bundle

from medseg import DatasetError, MedsegError, load_bundle
from medseg.events import Event, Notice
from medseg.label_server import server
from medseg.label_server.audit import AuditLog
from medseg.label_server.state import StateFolder
from medseg.label_server.versions import Versions
from medseg.testing import write_dataset


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = made_spec(preprocessing={"spacing_mm": [4, 4, 4]})
    return trained_bundle(tmp_path_factory.mktemp("server") / "bundle", spec)


def test_other_machines_reach_a_server_only_with_passwords(
    tmp_path: Path,
) -> None:
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.org"):
        with pytest.raises(MedsegError, match="people must log in"):
            server._load_users(None, host)
    assert not server._load_users(None, "127.0.0.1").login_required
    users = tmp_path / "users"
    users.write_text("anna: correct horse\n")
    users.chmod(0o600)
    assert server._load_users(users, "0.0.0.0").login_required
    assert server._load_users(users, "127.0.0.1").login_required, (
        "asked for is asked for"
    )


def test_the_state_bears_the_bundles_name_unless_given(
    bundle: Path, tmp_path: Path
) -> None:
    trained = load_bundle(bundle)
    assert (
        server._open_state(None, trained).root
        == Path("label/made_up").absolute()
    )
    assert server._open_state(tmp_path / "x", trained).root == tmp_path / "x"


def test_scans_that_were_left_out_are_named_with_the_reason_alone(
    bundle: Path, tmp_path: Path
) -> None:
    studies = write_dataset(tmp_path / "data", 2) / "imagesTr"
    (studies / "torn.nii.gz").write_bytes(b"x")
    heard: list[Event] = []
    state = StateFolder(tmp_path / "state")
    server._find_cases(
        str(studies), state, load_bundle(bundle), (), [heard.append]
    )
    left_out = [event.message for event in heard if isinstance(event, Notice)]
    (message,) = [
        text for text in left_out if text.startswith("left out: torn: ")
    ]
    assert str(tmp_path) not in message


def test_promoting_from_the_command_line_is_audited(
    bundle: Path, tmp_path: Path
) -> None:
    state = StateFolder(tmp_path / "state")
    Versions(state).adopt(load_bundle(bundle))
    assert server.promote(bundle, 1, state=state.root).name == "0001"
    (line,) = AuditLog(state.audit_log).read_lines()
    assert (line["action"], line["version"]) == ("version promoted", "0001")
    with pytest.raises(MedsegError, match="no version 0002"):
        server.promote(bundle, 2, state=state.root)


def test_a_folder_without_scans_is_refused(
    bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError):
        server._find_cases(
            str(tmp_path / "empty"),
            StateFolder(tmp_path / "state"),
            load_bundle(bundle),
            (),
            [],
        )
