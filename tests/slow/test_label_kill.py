"""``medseg label`` killed at any moment: no saved label is lost, the last good weights serve."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from support.bundles import made_spec, trained_bundle
from support.label_servers import (
    Server,
    encode_form,
    require_monai_label,
    run_server,
    slicer_client,
)

from medseg.bundle.hashes import hash_file
from medseg.io import read_labels
from medseg.testing import write_dataset

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(600)]

CASES = 4
KILLS = 2


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_monai_label()
    home = tmp_path_factory.mktemp("kill")
    spec = made_spec(
        preprocessing={"spacing_mm": [4, 4, 4]},
        training={"patch": [32, 32, 32], "batch_size": 4},
        quality={"corrupted_copies": 0},
    )
    trained_bundle(home / "bundle", spec)
    write_dataset(home / "data", CASES)
    return home


def put(server: Server, case: str, content: bytes) -> int:
    body, kind = encode_form({"params": "{}"}, {"label": ("a.nii.gz", content)})
    answer = server.ask(
        "PUT", f"/datastore/label?image={case}", body, {"content-type": kind}
    )
    return answer.code


def test_labels_survive_kills_during_uploads(
    home: Path, tmp_path: Path
) -> None:
    state, studies = tmp_path / "state", home / "data" / "imagesTr"
    labels = [
        (home / "data" / "labelsTr" / f"phantom_{n:03d}.nii.gz").read_bytes()
        for n in range(CASES)
    ]
    saved: set[str] = set()
    for attempt in range(KILLS):
        with run_server(home / "bundle", studies, state) as server:
            work = threading.Thread(
                target=_upload_on, args=(server, labels, saved)
            )
            work.start()
            time.sleep(1.5 + 0.7 * attempt)
            _begin_an_upload(server)
            server.kill()
            work.join()
        for case in saved:
            found = read_labels(state / "labels" / "final" / f"{case}.nii.gz")
            wanted = read_labels(home / "data" / "labelsTr" / f"{case}.nii.gz")
            assert np.array_equal(found.array, wanted.array)
    assert saved, "no upload was done before the kills"
    with run_server(home / "bundle", studies, state) as server:
        info = server.ask("GET", "/info/").json()
        assert info["datastore"]["completed"] >= len(saved)
        assert not list((state / "uploads").glob("tmp*"))
        assert not list((state / "labels" / "final").glob(".part-*"))
    audit = [
        json.loads(line)
        for line in (state / "audit.jsonl").read_text().splitlines()
        if line
    ]
    entered = {line.get("sha256") for line in audit}
    assert {
        hash_file(file)
        for file in (state / "labels" / "final").glob("*.nii.gz")
    } <= entered


def _upload_on(server: Server, labels: list[bytes], saved: set[str]) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        for number in range(1000):
            case = f"phantom_{number % CASES:03d}"
            if put(server, case, labels[number % CASES]) == 200:
                saved.add(case)


def _begin_an_upload(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    line = http.client.HTTPConnection(host, int(port), timeout=5)
    line.putrequest("PUT", "/datastore/label?image=phantom_000")
    line.putheader("content-type", "multipart/form-data; boundary=x")
    line.putheader("content-length", "900000")
    line.endheaders()
    line.send(b"--x\r\n")


@pytest.mark.nightly
def test_a_kill_during_a_training_run_leaves_the_served_version(
    home: Path, tmp_path: Path
) -> None:
    state, studies = tmp_path / "state", home / "data" / "imagesTr"
    with run_server(home / "bundle", studies, state) as server:
        client = slicer_client(server.url, tmp_path)
        for number in range(CASES):
            name = f"phantom_{number:03d}"
            file = home / "data" / "labelsTr" / f"{name}.nii.gz"
            client.save_label(name, str(file))
        before, _ = client.infer("made_up", "phantom_000", {})
        before = shutil.copy(before, tmp_path / "before.nii.gz")
        client.train_start("made_up", {"steps": 100_000})
        children = _wait_for_steps(state, server)
        server.kill()
    # Scoring runs at low priority: on a busy machine even its end takes a while.
    _, alive = psutil.wait_procs(children, timeout=90)
    assert not alive, "a training run outlived its server"
    with run_server(home / "bundle", studies, state) as server:
        client = slicer_client(server.url, tmp_path)
        assert client.info()["medseg"]["served"] == "0001"
        assert list(client.info()["medseg"]["versions"]) == ["0001"]
        assert client.info()["datastore"]["completed"] == CASES
        after, _ = client.infer("made_up", "phantom_000", {})
        assert np.array_equal(
            read_labels(Path(after)).array, read_labels(before).array
        )
        client.train_start("made_up", {"steps": 2})
        assert server.wait_for_training()["status"] == "DONE"
        assert "0003" in client.info()["medseg"]["versions"]
    assert (state / "versions" / "0002" / "run.json").is_file()


def _wait_for_steps(state: Path, server: Server) -> list[Any]:
    end = time.monotonic() + 240
    while time.monotonic() < end:
        file = state / "training.json"
        if file.is_file() and json.loads(file.read_text()).get("epoch", 0) >= 5:
            return psutil.Process(server.process.pid).children(recursive=True)
        time.sleep(0.2)
    raise AssertionError(
        f"no step was taken: {server.ask('GET', '/train/').body!r}"
    )
