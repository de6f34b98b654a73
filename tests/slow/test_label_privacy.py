"""What ``medseg label`` tells of scans whose folders and headers name people: nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import dicom
from support.bundles import made_spec, trained_bundle
from support.label_servers import (
    Answer,
    Server,
    encode_form,
    require_monai_label,
    run_server,
)

from medseg.testing import write_dataset

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(600)]

PLANTED = "MUELLER^ANNA"
CASE = "phantom_000"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_monai_label()
    home = tmp_path_factory.mktemp("privacy")
    trained_bundle(
        home / "bundle", made_spec(preprocessing={"spacing_mm": [4, 4, 4]})
    )
    write_dataset(home / "data", 2)
    studies = home / PLANTED / "studies"
    shutil.copytree(home / "data" / "imagesTr", studies)
    voxels = dicom.voxels((24, 24, 20))
    series = dicom.series(
        voxels, PatientName=PLANTED, SeriesDescription=PLANTED
    )
    dicom.save(studies / PLANTED, series, prefix=PLANTED)
    torn = dicom.series(voxels, "torn", PatientName=PLANTED, PixelSpacing=None)
    dicom.save(studies / f"{PLANTED}2", torn)
    (studies / f"{PLANTED}.txt").write_text(PLANTED)
    (studies / f"results of {PLANTED}").mkdir()
    (studies / f"results of {PLANTED}" / "ledger.jsonl").write_text("")
    return home


def ask_everything(home: Path, server: Server) -> list[Answer]:
    """Ask for what works and what fails, and return the answers."""
    image = home / PLANTED / "studies" / f"{CASE}.nii.gz"
    label = (home / "data" / "labelsTr" / f"{CASE}.nii.gz").read_bytes()
    asked: list[Answer] = []

    def ask(
        method: str, path: str, body: bytes = b"", **headers: str
    ) -> Answer:
        kinds = {key.replace("_", "-"): value for key, value in headers.items()}
        asked.append(server.ask(method, path, body or None, kinds))
        return asked[-1]

    def put_label(
        case: str, content: bytes, params: Any, name: str = "a.nii.gz"
    ) -> int:
        body, kind = encode_form(
            {"params": json.dumps(params)}, {"label": (name, content)}
        )
        return ask(
            "PUT", f"/datastore/label?image={case}", body, content_type=kind
        ).code

    def infer(case: str) -> int:
        body, kind = encode_form({"params": "{}"}, {})
        path = f"/infer/made_up?image={case}&output=json"
        return ask("POST", path, body, content_type=kind).code

    def train(**parameters: Any) -> str:
        body = json.dumps(parameters).encode()
        ask("POST", "/train/made_up", body, content_type="application/json")
        status = server.wait_for_training()
        asked.append(Answer(200, json.dumps(status).encode()))
        return str(status["status"])

    cases = list(ask("GET", "/datastore/?output=all").json()["objects"])
    assert len(cases) == 3, "two NIfTI files and one DICOM series"
    (series,) = [case for case in cases if "phantom" not in case]
    assert infer(series) == 200
    assert infer(CASE) == 200
    assert infer("nobody") == 404
    sample = ask(
        "POST", "/activelearning/first", b"{}", content_type="application/json"
    ).json()
    assert sample["id"] in cases
    assert "path" not in sample
    assert train() == "ERROR", "there are no labels yet"
    segments = {"label_info": [{"name": PLANTED, "idx": 1}]}
    assert put_label(CASE, label, segments) == 422
    assert put_label(CASE, label[:200], {}) == 422
    assert put_label(series, label, {}, f"/home/{PLANTED}.nii.gz") == 422
    assert put_label(CASE, label, {}) == 200
    assert put_label("phantom_001", label, {}) == 200
    assert train(steps="x") == "ERROR"
    assert len(ask("GET", "/datastore/?output=train").json()) == 2
    image.unlink()
    assert infer(CASE) in (422, 500)
    assert ask("GET", f"/datastore/image?image={CASE}").code == 404
    assert ask("GET", "/datastore/dataset").code == 500, (
        "a bug, or a disk that went away"
    )
    assert train(steps=2) == "ERROR"
    ask("POST", "/scoring/quality", b"{}", content_type="application/json")
    for path in (
        "/info/",
        "/train/",
        "/scoring/",
        "/batch/infer",
        "/openapi.json",
    ):
        ask("GET", path)
    assert (
        ask("POST", "/train/other", b"{}", content_type="application/json").code
        == 200
    )
    assert (
        ask(
            "POST",
            "/activelearning/other",
            b"",
            content_type="application/json",
        ).code
        == 400
    )
    return asked


def test_no_answer_log_or_record_names_a_patient(home: Path) -> None:
    state = home / "state"
    with run_server(
        home / "bundle", home / PLANTED / "studies", state
    ) as server:
        answers = ask_everything(home, server)
    bodies = [answer.body.decode("utf-8", "replace") for answer in answers]
    assert not [body for body in bodies if PLANTED in body or str(home) in body]
    log = server.log.read_text()
    assert PLANTED not in log
    assert "FileNotFoundError" in log, "what failed is told by its type"
    assert "datastore.py" in log, "and by its place in the code"
    audit = (state / "audit.jsonl").read_text()
    assert PLANTED not in audit
    assert audit.count("label saved") == 2
    assert np.all([PLANTED not in file.name for file in state.rglob("*")])
