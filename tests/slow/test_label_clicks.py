"""Clicks reach a running server as 3D Slicer's client library and OHIF's panel send them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import made_spec, trained_bundle
from support.label_servers import (
    Server,
    encode_form,
    require_monai_label,
    run_server,
    slicer_client,
)
from support.scans import TURNED, affine_of, write_scan

from medseg import Segmenter
from medseg.io import read_image, read_labels

pytestmark = pytest.mark.slow

MODEL = "made_up_clicks"
CASE = "oblique"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interactive bundle of random weights, a label with a space in its name, and a scan."""
    require_monai_label()
    home = tmp_path_factory.mktemp("clicks")
    spec = made_spec(
        labels=[
            {"index": 1, "name": "left lung"},
            {"index": 2, "name": "heart"},
        ],
        channels=[{"name": "CT"}],
        preprocessing={"spacing_mm": [3, 3, 3]},
        training={"patch": [16, 16, 16], "clicks": {}},
    )
    trained_bundle(home / "bundle", spec)
    affine = affine_of((2.5, 3.5, 4.0), TURNED, flips=(0, 1))
    write_scan(home / "studies" / f"{CASE}.nii.gz", 0, (26, 21, 16), affine)
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Any:
    with run_server(
        home / "bundle", home / "studies", home / "state"
    ) as server:
        yield server


def test_slicer_drives_it_as_a_deepedit_model(
    home: Path, server: Server, tmp_path: Path
) -> None:
    client = slicer_client(server.url, tmp_path)
    info = client.info()
    assert info["models"][MODEL]["type"] == "deepedit"
    assert info["models"]["made_up"]["type"] == "segmentation"
    # Slicer sends points of what the app lists, and background must not shift the numbers.
    assert info["labels"] == ["left lung", "heart", "background"]
    clicks = {"left lung": [[20, 5, 8]], "heart": [], "background": []}
    asked = {**clicks, "label": "left lung", "result_extension": ".nrrd"}
    file, about = client.infer(MODEL, CASE, asked)
    answered = read_labels(Path(file))
    segmenter = Segmenter(home / "bundle", device="cpu")
    scan = read_image(home / "studies" / f"{CASE}.nii.gz")
    ours = segmenter.correct(
        scan, segmenter.segment(scan).labels, 1, inside=[(20, 5, 8)]
    )
    assert np.array_equal(answered.array[0], ours.labels)
    assert answered.on_same_grid(scan, 1e-4)
    assert answered.array[0, 20, 5, 8] == 1
    assert about["label_names"] == {"left lung": 1, "heart": 2, "background": 3}
    clicks["background"] = [[20, 5, 8]]
    file, _ = client.infer(MODEL, CASE, {**clicks, "label": "background"})
    assert read_labels(Path(file)).array[0, 20, 5, 8] != 1
    session = client.create_session(str(home / "studies" / f"{CASE}.nii.gz"))
    file, _ = slicer_client(server.url, tmp_path).infer(
        MODEL, "", asked, session_id=session["session_id"]
    )
    assert np.array_equal(read_labels(Path(file)).array, answered.array)


def ask(server: Server, params: Any, query: str = "output=image") -> Any:
    text = params if isinstance(params, str) else json.dumps(params)
    body, kind = encode_form({"params": text}, {})
    path = f"/infer/{MODEL}?image={CASE}&{query}"
    return server.ask("POST", path, body, {"content-type": kind})


def test_ohif_gets_the_labels_that_have_points_alone(
    server: Server, tmp_path: Path
) -> None:
    answer = ask(
        server,
        {
            "heart": [[10, 10, 8]],
            "background": [],
            "result_extension": ".nrrd",
            "result_dtype": "uint8",
        },
    )
    assert answer.code == 200
    file = tmp_path / "answer.nrrd"
    file.write_bytes(answer.body)
    labels = read_labels(file).array[0]
    assert labels[10, 10, 8] == 2
    assert set(np.unique(labels)) <= {0, 2}


HOSTILE: list[Any] = [
    {"heart": [[10, 10, 99]]},
    {"heart": [[10, 10, -1]]},
    '{"heart": [[10, 10, NaN]]}',
    '{"heart": [[10, 10, 1e999]]}',
    '{"heart": [[10, 10, 1' + "0" * 400 + "]]}",
    {"heart": [[1, 1, 1]] * 50_000},
    {"heart": "[[1, 1, 1]]"},
    {"heart": {"a": 1}},
    {"heart": [[[1, 1, 1]]]},
    {"heart": [["1", "1", "1"]]},
    {"liver": [[1, 1, 1]]},
    {"label": "liver"},
    {"label": "../heart", "heart": [[1, 1, 1]]},
    {"label": ["heart"]},
    {"foreground": [[1, 1, 1]]},
    "[" * 5000,
]


def test_hostile_clicks_get_one_clear_answer(server: Server) -> None:
    for params in HOSTILE:
        answer = ask(server, params)
        about = str(params)[:60]
        assert 400 <= answer.code < 500, about
        assert b"Traceback" not in answer.body, about
        assert len(answer.body) < 500, about
        assert answer.json(), about


def test_corrections_are_no_proposals(server: Server) -> None:
    answer = ask(server, {"heart": [[10, 10, 8]]}, "output=dicom_seg")
    assert answer.code == 400
