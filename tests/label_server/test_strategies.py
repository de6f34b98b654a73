"""Which case a viewer offers next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.bundles import made_spec, trained_bundle
from support.scans import affine_of, write_scan

pytest.importorskip("monailabel", reason="make label installs MONAI Label")

from medseg import load_bundle
from medseg.errors import OutputError
from medseg.label_server.audit import REQUESTER, Requester
from medseg.label_server.cases import FolderCases, find_folder_cases
from medseg.label_server.datastore import CaseDatastore
from medseg.label_server.model import ServedModel
from medseg.label_server.state import StateFolder
from medseg.label_server.strategies import make_strategies
from medseg.label_server.tasks import list_unscored, score_unlabelled
from medseg.label_server.users import Role
from medseg.label_server.versions import Versions

SPEC = made_spec(preprocessing={"spacing_mm": [2, 2, 2]})


@pytest.fixture
def datastore(tmp_path: Path) -> CaseDatastore:
    state = StateFolder(tmp_path / "state")
    bundle = trained_bundle(tmp_path / "bundle", SPEC)
    for number, name in enumerate("abc"):
        file = tmp_path / f"scans/{name}.nii.gz"
        write_scan(file, number, (20, 22, 18), affine_of((2, 2, 3)))
    find_folder_cases(tmp_path / "scans", state, SPEC)
    Versions(state).adopt(load_bundle(bundle))
    return CaseDatastore(state, FolderCases(state, SPEC), SPEC)


def offer(datastore: CaseDatastore, person: str, client: str = "") -> Any:
    first = make_strategies(datastore._state)["first"]
    token = REQUESTER.set(Requester(person, "", Role.ANNOTATOR))
    found = first({"client_id": client}, datastore)
    REQUESTER.reset(token)
    return found and found["id"]


def test_what_somebody_has_taken_comes_before_the_order(
    datastore: CaseDatastore,
) -> None:
    datastore.worklist.assign("b", "anna")
    assert offer(datastore, "anna") == "b"
    assert offer(datastore, "ben") == "a"
    assert offer(datastore, "cleo") == "c"
    assert offer(datastore, "dora") is None


def test_without_a_login_what_was_taken_in_the_list_is_the_viewers(
    datastore: CaseDatastore,
) -> None:
    datastore.worklist.assign("c", "local")
    assert offer(datastore, "local", "user@slicer") == "c"
    assert offer(datastore, "local", "user@slicer") == "c"
    # A person who logs in gets nothing of it.
    datastore.worklist.assign("b", "local")
    assert offer(datastore, "anna") == "a"


def test_a_case_whose_proposal_could_not_be_shown_is_scored_again(
    datastore: CaseDatastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = datastore._state
    versions = Versions(state)
    model = ServedModel(versions, "cpu")
    show = datastore.proposals.show

    def fail(case: str, *rest: Any) -> None:
        if case == "b":
            raise OutputError("the DICOMweb server is away")
        show(case, *rest)

    monkeypatch.setattr(datastore.proposals, "show", fail)
    scored = score_unlabelled(state, datastore, model)
    assert scored["b"] == {"error": "the DICOMweb server is away"}
    served = versions.find_served()
    assert list_unscored(state, datastore, served) == ["b"]
    monkeypatch.undo()
    score_unlabelled(state, datastore, model)
    assert list_unscored(state, datastore, served) == []
