"""``medseg label`` as it runs: MONAI Label's real server and the client of 3D Slicer's plugin."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from support.bundles import content, write_json
from support.label_servers import (
    Answer,
    Server,
    encode_form,
    require_monai_label,
    run_server,
    slicer_client,
)
from support.processor_time import measure

from medseg import segment, train
from medseg.io import read_image, read_labels
from medseg.label_server.scores import Scores
from medseg.label_server.state import StateFolder
from medseg.label_server.versions import Versions
from medseg.metrics.metrics import score_case
from medseg.testing import write_dataset

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]

CASES = 8
TRAINING = {
    "steps": 12,
    "batch_size": 4,
    "optimizer": "adamw",
    "learning_rate": 0.01,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that has learned too little, and scans, two of them broken."""
    require_monai_label()
    home = tmp_path_factory.mktemp("label")
    data = write_dataset(home / "data", 4, seed=50)
    made = content(
        data={"folds": 2},
        quality={"corrupted_copies": 0},
        preprocessing={
            "spacing_mm": [4, 4, 4],
            "intensity": {"kind": "window", "low": -200, "high": 300},
        },
        training=TRAINING
        | {
            "patch": [32, 32, 32],
            "foreground_share": 0.9,
            "validate_every": 12,
        },
    )
    train(
        write_json(home / "made", made),
        data=data,
        out=home / "bundle",
        device="cpu",
    )
    scans = write_dataset(home / "reference", CASES)
    shutil.copytree(scans / "imagesTr", home / "studies" / "deep" / "er")
    whole = (scans / "imagesTr" / "phantom_000.nii.gz").read_bytes()
    (home / "studies" / "torn.nii.gz").write_bytes(whole[:2000])
    (home / "studies" / "empty.nii.gz").write_bytes(b"")
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Any:
    with run_server(
        home / "bundle", home / "studies", home / "state", "--max-upload", "3"
    ) as server:
        yield server


def reference_of(home: Path, case: str) -> Path:
    return (
        home
        / "reference"
        / "labelsTr"
        / f"{case.removeprefix('deep_er_')}.nii.gz"
    )


def dice(prediction: Any, reference: Any, spec: Any) -> float:
    scores = score_case(
        prediction,
        reference,
        spec.label_set,
        (4, 4, 4),
        case="x",
        voxel_ml=0.064,
    )
    return float(np.nanmean([label.dice for label in scores.labels.values()]))


def test_good_scans_are_listed_and_the_broken_ones_named_once(
    home: Path, server: Server
) -> None:
    assert server.ask("GET", "/info/").json()["datastore"]["total"] == CASES
    said = server.log.read_text()
    assert said.count("left out: torn:") == 1
    assert said.count("left out: empty:") == 1
    assert sorted(path.name for path in (home / "studies").iterdir()) == [
        "deep",
        "empty.nii.gz",
        "torn.nii.gz",
    ]


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_a_case_gets_the_label_map_that_medseg_segment_gives_it(
    home: Path, server: Server, tmp_path: Path, ending: str
) -> None:
    case = "deep_er_phantom_001"
    client = slicer_client(server.url, tmp_path)
    file, about = client.infer("made_up", case, {"result_extension": ending})
    scan = home / "studies" / "deep" / "er" / "phantom_001.nii.gz"
    segment(home / "bundle", scan, tmp_path / "out", device="cpu", report=False)
    ours = read_labels(tmp_path / "out" / "phantom_001.nii.gz")
    theirs = read_labels(Path(file))
    assert np.array_equal(ours.array, theirs.array)
    assert ours.on_same_grid(theirs, 1e-4)
    assert about["label_names"] == {"liver": 1, "kidney": 2}
    assert 0 <= about["quality"]["rank"] <= 1
    assert about["quality"]["shown"]
    assert about["version"] == "0001"


def test_an_uploaded_image_is_segmented_too(
    home: Path, server: Server, tmp_path: Path
) -> None:
    scan = home / "studies" / "deep" / "er" / "phantom_002.nii.gz"
    client = slicer_client(server.url, tmp_path)
    stored, _ = client.infer("made_up", "deep_er_phantom_002", {})
    uploaded, _ = client.infer("made_up", "", {}, file=str(scan))
    assert np.array_equal(
        read_labels(Path(stored)).array, read_labels(Path(uploaded)).array
    )
    session = client.create_session(str(scan))["session_id"]
    seen, _ = slicer_client(server.url, tmp_path).infer(
        "made_up", "", {}, session_id=session
    )
    assert np.array_equal(
        read_labels(Path(seen)).array, read_labels(Path(stored)).array
    )


def _upload(
    server: Server, tmp_path: Path, voxels: Any, spacing: float
) -> Answer:
    """Ask the server to segment voxels of a size."""
    file = tmp_path / "upload.nii.gz"
    nib.save(nib.Nifti1Image(voxels, np.diag([spacing] * 3 + [1.0])), file)
    body, kind = encode_form(
        {"params": "{}"}, {"file": (file.name, file.read_bytes())}
    )
    path = "/infer/made_up?image=&output=json"
    return server.ask("POST", path, body, {"content-type": kind})


def test_a_scan_that_cannot_be_is_refused_and_a_doubtful_one_told(
    server: Server, tmp_path: Path
) -> None:
    voxels = np.random.default_rng(0).normal(0.5, 0.1, (24, 24, 24))
    in_metres = _upload(server, tmp_path, voxels.astype(np.float32), 0.004)
    assert in_metres.code == 422
    assert b"check that its header gives lengths in mm" in in_metres.body
    constant = _upload(server, tmp_path, np.ones((24, 24, 24), np.uint8), 4)
    assert constant.code == 422
    assert b"every voxel has the value 1" in constant.body
    scaled = _upload(server, tmp_path, voxels.astype(np.float32), 4)
    assert scaled.code == 200
    about = scaled.json()
    for warnings in (about["warnings"], about["quality"]["warnings"]):
        (warning,) = warnings
        assert "the channel CT shows no air" in warning


@pytest.mark.nightly
def test_the_server_starts_and_answers_with_little_work(home: Path) -> None:
    studies, state = home / "studies", home / "new_state"
    with run_server(home / "bundle", studies, state) as server:
        # Ten on an idle machine of two cores; elsewhere PyTorch alone may take several.
        most_seconds = max(10, 10 * measure("import torch"))
        assert server.start_seconds < most_seconds
        before, calls = server.measure_work(), 10
        for _ in range(calls):
            assert server.ask("GET", "/info/").code == 200
        # What it does in the background counts as well.
        assert (server.measure_work() - before) / calls < 0.2


@pytest.mark.nightly
def test_the_server_answers_while_it_segments(
    home: Path, server: Server
) -> None:
    large = (
        np.random.default_rng(0).normal(0, 50, (256, 256, 128)).astype(np.int16)
    )
    name = home / "studies" / "large.nii.gz"
    image = nib.Nifti1Image(large, np.diag([1.2, 1.2, 2.5, 1.0]))
    upload = home / "large.nii.gz"
    nib.save(image, upload)
    assert not name.exists()
    with run_server(
        home / "bundle", home / "studies", home / "busy_state"
    ) as busy:
        client = slicer_client(busy.url, home)
        took: list[float] = []
        work = threading.Thread(
            target=lambda: took.append(
                _timed(lambda: client.infer("made_up", "", {}, file=upload))
            )
        )
        work.start()
        waits = []
        while work.is_alive():
            waits.append(_timed(lambda: busy.ask("GET", "/info/")))
            time.sleep(0.05)
        work.join()
    assert took[0] > 1, "too short to tell"
    assert len(waits) > 5
    assert float(np.median(waits)) < 0.2, waits
    assert sorted(waits)[int(0.9 * len(waits))] < 0.5, waits


def read_scores(home: Path, version: int) -> dict[str, Any]:
    state = StateFolder(home / "state")
    return Scores(state, Versions(state).get(version)).read()


def _timed(act: Any) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def test_the_worst_case_comes_first_and_to_one_person_only(
    server: Server, home: Path
) -> None:
    deadline = time.monotonic() + 120
    scores: dict[str, Any] = {}
    while len(scores) < CASES and time.monotonic() < deadline:
        scores = read_scores(home, 1)
        time.sleep(0.5)
    assert len(scores) == CASES
    worst = sorted(scores, key=lambda case: (scores[case]["rank"], case))
    asked = [_next(server, who) for who in ("anna", "ben", "anna")]
    assert asked == [worst[0], worst[1], worst[0]]


def _next(server: Server, who: str) -> Any:
    body = json.dumps({"client_id": who}).encode()
    headers = {"content-type": "application/json"}
    return server.ask(
        "POST", "/activelearning/worst_first", body, headers
    ).json()["id"]


@pytest.mark.nightly
def test_a_round_of_correcting_makes_the_proposals_better(
    home: Path, server: Server, tmp_path: Path
) -> None:
    client = slicer_client(server.url, tmp_path)
    cases = [f"deep_er_phantom_{number:03d}" for number in range(CASES)]
    with pytest.raises(Exception, match="at least two submitted labels"):
        _fail_training(server, client)
    for case in cases[:6]:
        client.save_label(
            case, str(reference_of(home, case)), params={"label_info": SEGMENTS}
        )
    client.save_label(
        cases[0],
        str(reference_of(home, cases[0])),
        params={"label_info": SEGMENTS},
    )
    assert client.info()["datastore"]["completed"] == 6
    from medseg import load_bundle

    spec = load_bundle(home / "bundle").spec
    before = [_dice_now(client, home, case, spec) for case in cases[6:]]
    client.train_start("made_up", {"steps": 60})
    status = server.wait_for_training()
    assert status["status"] == "DONE", status
    info = client.info()
    versions = info["medseg"]
    assert versions["served"] == "0002", versions
    fresh = versions["versions"]["0002"]
    assert fresh["parent"] == 1
    assert fresh["dice"] > fresh["parent_dice"]
    assert info["train_stats"]["made_up"]["total_epochs"] == 60
    assert info["train_stats"]["made_up"]["best_metric"] > 0
    after = [_dice_now(client, home, case, spec) for case in cases[6:]]
    assert np.mean(after) > np.mean(before) + 0.05, (before, after)
    assert set(read_scores(home, 2)) == set(cases[6:])
    assert (home / "state/versions/0001/models/model.pt").read_bytes() == (
        home / "bundle/models/model.pt"
    ).read_bytes()
    _check_runs_name_their_parent(home)
    _check_going_back(server, client)


SEGMENTS = [{"name": "liver", "idx": 1}, {"name": "kidney", "idx": 2}]


def _fail_training(server: Server, client: Any) -> None:
    client.train_start("made_up", {})
    raise AssertionError(str(server.wait_for_training()["details"]))


def _dice_now(client: Any, home: Path, case: str, spec: Any) -> float:
    file, _ = client.infer("made_up", case, {})
    return dice(
        read_labels(Path(file)).array[0],
        read_labels(reference_of(home, case)).array[0],
        spec,
    )


def _check_runs_name_their_parent(home: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(
        f"sqlite:///{home / 'state' / 'versions' / 'mlflow.db'}"
    )
    found = client.search_runs(
        [each.experiment_id for each in client.search_experiments()]
    )
    assert len(found) == 1
    parent = json.loads((home / "bundle" / "run.json").read_text())["run_id"]
    assert found[0].data.params["from.run_id"] == parent


def _check_going_back(server: Server, client: Any) -> None:
    assert server.ask("POST", "/medseg/promote/1").json()["served"] == "0001"
    assert (
        client.infer("made_up", "deep_er_phantom_001", {})[1]["version"]
        == "0001"
    )
    assert server.ask("POST", "/medseg/promote/9").code == 404
    assert server.ask("POST", "/medseg/promote/2").json()["served"] == "0002"


def test_saved_labels_are_audited_and_replaced_ones_kept(
    home: Path, tmp_path: Path
) -> None:
    scan = home / "studies" / "deep" / "er" / "phantom_000.nii.gz"
    volume = read_image(scan)
    state = tmp_path / "state"
    with run_server(home / "bundle", home / "studies", state) as server:
        client = slicer_client(server.url, tmp_path)
        for painted in (3, 5):
            labels = np.zeros(volume.shape, np.uint8)
            labels[:painted] = 2
            file = tmp_path / f"painted{painted}.nii.gz"
            nib.save(nib.Nifti1Image(labels, np.array(volume.affine)), file)
            client.save_label(
                "deep_er_phantom_000",
                str(file),
                params={"label_info": [{"name": "Liver", "idx": 2}]},
            )
        bad = server.ask(
            "PUT",
            "/datastore/label?image=deep_er_phantom_000",
            *_labelled(file, "x"),
        )
    saved = read_labels(
        state / "labels" / "final" / "deep_er_phantom_000.nii.gz"
    )
    assert np.unique(saved.array).tolist() == [0, 1]
    assert bad.code == 422
    assert b"with values 2;" in bad.body
    lines = [
        json.loads(line)
        for line in (state / "audit.jsonl").read_text().splitlines()
    ]
    saves = [line for line in lines if line["action"] == "label saved"]
    assert [line["case"] for line in saves] == ["deep_er_phantom_000"] * 2
    assert all(
        line["client"] == "tester@slicer" and line["who"] == "local"
        for line in saves
    )
    kept = list((state / "replaced" / "final").iterdir())
    assert [file.name for file in kept] == [
        f"deep_er_phantom_000-{saves[0]['sha256'][:12]}.nii.gz"
    ]


def _labelled(file: Path, name: str) -> tuple[bytes, dict[str, str]]:
    params = json.dumps({"label_info": [{"name": name, "idx": 2}]})
    body, kind = encode_form(
        {"params": params}, {"label": (file.name, file.read_bytes())}
    )
    return body, {"content-type": kind}
