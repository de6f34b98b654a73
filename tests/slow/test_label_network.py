"""People on other machines, who log in: 3D Slicer's own calls, from an address of a network."""

from __future__ import annotations

import base64
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import numpy as np
import pytest
from support.bundles import made_spec, trained_bundle
from support.label_servers import require_monai_label, run_server
from support.namespaces import Namespace, open_namespace
from support.orthancs import phantom_series, run_orthanc, send, write_series
from support.slicer_calls import Slicer

from medseg.io import read_image, read_labels
from medseg.label_server.users import Role, write_user
from medseg.testing import write_dataset

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(600)]

PASSWORD = "correct horse"
KNOWN = {
    "authorization": "Basic "
    + base64.b64encode(f"anna:{PASSWORD}".encode()).decode()
}
LABELS = ["liver", "kidney"]


@pytest.fixture(scope="module")
def network() -> Iterator[Namespace]:
    with open_namespace() as namespace:
        yield namespace


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_monai_label()
    home = tmp_path_factory.mktemp("network")
    spec = made_spec(
        preprocessing={
            "spacing_mm": [4, 4, 4],
            "intensity": {"kind": "window", "low": -200, "high": 300},
        }
    )
    trained_bundle(home / "bundle", spec)
    write_dataset(home / "data", 2)
    write_user(home / "users.txt", "anna", PASSWORD, Role.ANNOTATOR)
    write_user(home / "users.txt", "ben", PASSWORD, Role.REVIEWER)
    return home


@pytest.fixture(scope="module", params=["folder", "dicomweb"])
def server(
    home: Path, network: Namespace, request: pytest.FixtureRequest
) -> Any:
    options = ["--host", "0.0.0.0", "--users", str(home / "users.txt")]
    state = home / f"state_{request.param}"
    if request.param == "folder":
        studies = home / "data" / "imagesTr"
        with run_server(
            home / "bundle",
            studies,
            state,
            *options,
            headers=KNOWN,
            namespace=network,
        ) as server:
            yield server
        return
    with run_orthanc(home / "orthanc", network) as pacs:
        for seed in range(2):
            folder = write_series(home / f"ct{seed}", phantom_series(seed)[0])
            send(pacs, list(folder.iterdir()))
        with run_server(
            home / "bundle",
            f"{pacs}/dicom-web",
            state,
            *options,
            headers=KNOWN,
            namespace=network,
        ) as server:
            yield server


def fetch(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_slicer_on_another_machine_works_as_on_this_one(
    server: Any, home: Path, tmp_path: Path
) -> None:
    anna = Slicer(server.url, tmp_path / "anna", "anna", PASSWORD)
    anna.folder.mkdir()
    stale = anna.folder / "cache" / "phantom_000.nii.gz"
    stale.parent.mkdir()
    stale.write_bytes(b"of another server")
    sample, file = anna.press_next_sample("first")
    assert file.name.endswith(".nii.gz")
    scan = read_image(find_scan(home, sample))
    image = read_image(file)
    assert np.array_equal(image.array, scan.array)
    assert np.allclose(image.affine, scan.affine)
    result, about = anna.press_run(sample)
    assert list(about["label_names"]) == LABELS
    assert anna.press_submit(sample, Path(result), LABELS)
    # Nobody is offered what others have, nor what is done.
    second, _ = anna.press_next_sample("first")
    ben = Slicer(server.url, tmp_path / "ben", "ben", PASSWORD)
    ben.folder.mkdir()
    assert ben.press_next_sample("first") == ({}, None)
    assert second["id"].partition("&")[0] != sample["id"].partition("&")[0]
    read_again, _ = ben.press_next_sample("second_reading")
    case = sample["id"].partition("&")[0]
    assert read_again["id"].partition("&")[0] == case
    label = ben.connect().download_label(read_again["id"], "final")
    assert np.array_equal(
        read_labels(Path(label)).array, read_labels(Path(result)).array
    )
    session_result, _ = anna.upload_session(file)
    assert np.array_equal(
        read_labels(Path(session_result)).array,
        read_labels(Path(result)).array,
    )
    check_links(server, anna, second, case)


def find_scan(home: Path, sample: Any) -> Path:
    if "SeriesInstanceUID" not in sample:
        name = sample["name"]
        return home / "data" / "imagesTr" / name
    folders = [home / f"ct{seed}" for seed in range(2)]
    uids = [
        str(phantom_series(seed)[0][0].SeriesInstanceUID) for seed in range(2)
    ]
    return folders[uids.index(sample["SeriesInstanceUID"])]


def check_links(server: Any, slicer: Slicer, sample: Any, other: str) -> None:
    """See that a link opens its own file alone, and nothing after the logout."""
    case, _, token = sample["id"].partition("&token=")
    images = f"{server.url}/datastore/image?image="
    assert fetch(f"{images}{case}&token={token}") == 200
    assert fetch(f"{images}{quote_plus(sample['id'])}") == 200
    assert fetch(f"{images}{case}") == 401
    assert fetch(f"{images}{other}&token={token}") == 401
    assert fetch(f"{server.url}/info/?token={token}") == 401
    assert fetch(f"{images}{case}&token={token[:-1]}0") in (200, 401)
    request = urllib.request.Request(
        f"{server.url}/auth/logout",
        method="POST",
        headers={"authorization": f"Bearer {slicer.token['access_token']}"},
    )
    urllib.request.urlopen(request, timeout=60).close()
    assert fetch(f"{images}{case}&token={token}") == 401
    state = server.log.with_suffix("")
    told = (state / "audit.jsonl").read_text() + server.log.read_text()
    assert token not in told
    assert "198.18." in told  # the address of another machine
