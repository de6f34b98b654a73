"""What ``medseg label`` refuses, each tried against the running server."""

from __future__ import annotations

import base64
import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nibabel as nib
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

from medseg import MedsegError
from medseg.label_server.server import serve
from medseg.testing import write_dataset

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(600)]

CASE = "phantom_000"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_monai_label()
    home = tmp_path_factory.mktemp("safety")
    trained_bundle(
        home / "bundle", made_spec(preprocessing={"spacing_mm": [4, 4, 4]})
    )
    write_dataset(home / "data", 2)
    (home / "secret.nii.gz").write_bytes(
        (home / "data/imagesTr/phantom_001.nii.gz").read_bytes()
    )
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Any:
    studies = home / "data" / "imagesTr"
    with run_server(
        home / "bundle", studies, home / "state", "--max-upload", "1"
    ) as server:
        yield server


@pytest.fixture(scope="module")
def label(home: Path) -> bytes:
    return (home / "data" / "labelsTr" / f"{CASE}.nii.gz").read_bytes()


def files_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "uploads" not in path.parts}


def put_label(
    server: Server,
    content: bytes,
    *,
    query: str = f"image={CASE}",
    params: str = "{}",
    file: str = "a.nii.gz",
) -> int:
    body, kind = encode_form({"params": params}, {"label": (file, content)})
    path = f"/datastore/label?{query}"
    return server.ask("PUT", path, body, {"content-type": kind}).code


TRAVERSALS = [
    "../../evil",
    "/tmp/evil",
    "..%2F..%2Fevil",
    "a/../../evil",
    "..\\evil",
    "%2e%2e/evil",
]


@pytest.mark.parametrize("where", TRAVERSALS)
@pytest.mark.parametrize("parameter", ["image", "tag"])
def test_a_label_is_written_nowhere_else(
    home: Path, server: Server, label: bytes, parameter: str, where: str
) -> None:
    before = files_of(home)
    others = f"image={CASE}&" if parameter == "tag" else ""
    assert (
        put_label(server, label, query=f"{others}{parameter}={quote(where)}")
        == 400
    )
    assert files_of(home) == before
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize(
    "file", ["../../evil.py", "evil.py", "a\\b.nii.gz", "x/../../y.nii.gz"]
)
def test_file_names_lead_nowhere(
    home: Path, server: Server, label: bytes, file: str
) -> None:
    before = files_of(home)
    assert put_label(server, label, file=file) == 400
    assert files_of(home) == before


def test_the_path_that_slicer_sends_as_a_name_is_taken(
    server: Server, label: bytes
) -> None:
    assert (
        put_label(server, label, file="/home/someone/Slicer-x1/label.1.nii.gz")
        == 200
    )


@pytest.mark.parametrize(
    "params",
    [
        {"image": "/etc/passwd"},
        {"image": "../secret"},
        {"label_tag": "../../x"},
        {"session": {"image": "/etc/passwd"}},
        {"made_up": {"image": "/etc/passwd"}},
        {"bundle_path": "/tmp"},
        {"result_extension": "/../../x.py"},
    ],
)
def test_form_parameters_lead_nowhere(
    server: Server, params: dict[str, Any]
) -> None:
    body, kind = encode_form({"params": json.dumps(params)}, {})
    answer = server.ask(
        "POST", f"/infer/made_up?image={CASE}", body, {"content-type": kind}
    )
    assert answer.code == 400, answer


def test_a_file_of_the_server_is_no_case(home: Path, server: Server) -> None:
    for image in (str(home / "secret.nii.gz"), "secret.nii.gz", "bundle"):
        body, kind = encode_form({"params": "{}"}, {})
        path = f"/infer/made_up?image={quote(image)}"
        assert server.ask("POST", path, body, {"content-type": kind}).code in (
            400,
            404,
        )
        assert server.ask(
            "GET", f"/datastore/image?image={quote(image)}"
        ).code in (400, 404)


@pytest.mark.parametrize("text", ["[1]", "{", '{"a":' * 2000, '"text"'])
def test_parameters_are_json_objects(server: Server, text: str) -> None:
    body, kind = encode_form({"params": text}, {})
    answer = server.ask(
        "POST", f"/infer/made_up?image={CASE}", body, {"content-type": kind}
    )
    assert answer.code == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/model/made_up"),
        ("DELETE", "/model/made_up"),
        ("DELETE", f"/datastore/image?id={CASE}"),
        ("DELETE", f"/datastore/label?id={CASE}&tag=final"),
        ("POST", "/reload"),
        ("GET", "/logs/"),
        ("GET", "/logs/gpu"),
        ("POST", "/infer/wsi/made_up"),
        ("GET", "/proxy/dicom/system"),
        ("GET", "/proxy/dicom/qido/../system"),
        ("GET", "/proxy/dicom/wado/instances/../../../system"),
        ("GET", "/proxy/dicom/%2e%2e/system"),
        ("POST", "/proxy/dicom/tools/execute-script"),
        ("GET", "/ohif/..%2f..%2fconfig.py"),
        ("GET", "/static/%2e%2e/%2e%2e/config.py"),
    ],
)
def test_what_is_closed(
    server: Server, home: Path, method: str, path: str
) -> None:
    weights = home / "state" / "versions" / "0001" / "models" / "model.pt"
    before = weights.read_bytes()
    body, kind = encode_form({}, {"file": ("model.nii.gz", b"evil")})
    sent = (
        (body, {"content-type": kind})
        if method in ("PUT", "POST")
        else (None, None)
    )
    assert server.ask(method, path, *sent).code in (400, 403)
    assert weights.read_bytes() == before


def test_uploads_are_bounded(server: Server, home: Path) -> None:
    assert put_label(server, b"\0" * 1_100_000) == 413
    host, port = server.url.removeprefix("http://").split(":")
    line = http.client.HTTPConnection(host, int(port), timeout=30)
    line.putrequest("PUT", f"/datastore/label?image={CASE}")
    line.putheader("content-type", "multipart/form-data; boundary=x")
    line.putheader("transfer-encoding", "chunked")  # says no length
    line.endheaders()
    for _ in range(30):
        line.send(b"10000\r\n" + b"\0" * 0x10000 + b"\r\n")
    line.send(b"0\r\n\r\n")
    assert line.getresponse().status == 413
    line.close()
    assert (
        sum(
            path.stat().st_size
            for path in (home / "state" / "uploads").iterdir()
        )
        < 1e6
    )


def test_archives_are_not_unpacked(server: Server, label: bytes) -> None:
    body, kind = encode_form({}, {"files": ("a.nii.gz", label)})
    headers = {"content-type": kind}
    assert (
        server.ask("PUT", "/session/?uncompress=true", body, headers).code
        == 400
    )


def test_other_sites_and_names_are_refused(server: Server) -> None:
    assert (
        server.ask(
            "GET", "/info/", headers={"Origin": "https://evil.example"}
        ).code
        == 403
    )
    assert (
        server.ask("GET", "/info/", headers={"Host": "evil.example"}).code
        == 403
    )
    assert (
        server.ask("GET", "/info/", headers={"Origin": server.url}).code == 200
    )


def test_labels_of_nonsense_change_nothing(
    home: Path, server: Server, label: bytes
) -> None:
    kept = home / "state" / "labels" / "final" / f"{CASE}.nii.gz"
    assert put_label(server, label) == 200
    before = kept.read_bytes()
    for content in (b"", b"nonsense", label[:500]):
        assert put_label(server, content) == 422
    shifted = home / "shifted.nii.gz"
    found = nib.load(home / "data" / "labelsTr" / f"{CASE}.nii.gz")
    moved = np.array(found.affine)
    moved[0, 3] += 1.5
    nib.save(nib.Nifti1Image(np.asarray(found.dataobj), moved), shifted)
    assert put_label(server, shifted.read_bytes()) == 422
    assert put_label(server, label, query="image=nobody") == 404
    assert kept.read_bytes() == before


def test_no_original_was_touched(home: Path, server: Server) -> None:
    assert {path.name for path in (home / "data" / "imagesTr").iterdir()} == {
        "phantom_000.nii.gz",
        "phantom_001.nii.gz",
    }


def test_another_address_needs_passwords(home: Path, tmp_path: Path) -> None:
    scans = str(home / "data" / "imagesTr")
    with pytest.raises(MedsegError, match="people must log in"):
        serve(home / "bundle", scans, state=tmp_path / "state", host="0.0.0.0")
    users = tmp_path / "users"
    users.write_text("anna: long enough\n")
    users.chmod(0o644)
    with pytest.raises(MedsegError, match="others can read"):
        serve(
            home / "bundle",
            scans,
            state=tmp_path / "state",
            host="0.0.0.0",
            users=users,
        )


def test_people_log_in_and_the_audit_log_names_them(
    home: Path, label: bytes, tmp_path: Path
) -> None:
    users = tmp_path / "users"
    users.write_text("# who\nanna: correct horse\n")
    users.chmod(0o600)
    basic = base64.b64encode(b"anna:correct horse").decode()
    options = ("--host", "0.0.0.0", "--users", str(users))
    known = {"authorization": f"Basic {basic}"}
    state = tmp_path / "state"
    with run_server(
        home / "bundle",
        home / "data" / "imagesTr",
        state,
        *options,
        headers=known,
    ) as server:
        assert server.ask("GET", "/info/").code == 401
        wrong = base64.b64encode(b"anna:wrong horse").decode()
        for header in ("Bearer x", f"Basic {wrong}", "Basic !!", "Negotiate x"):
            assert (
                server.ask(
                    "GET", "/info/", headers={"authorization": header}
                ).code
                == 401
            )
        client = slicer_client(server.url, tmp_path)
        assert client.auth_enabled()
        with pytest.raises(Exception, match="Status: 401") as refused:
            _log_in(client, "wrong horse")
        assert "correct" not in str(refused.value)
        client.update_auth(client.auth_token("anna", "correct horse"))
        assert client.auth_valid_token()
        file = tmp_path / "label.nii.gz"
        file.write_bytes(label)
        client.save_label(CASE, str(file))
    lines = [
        json.loads(line)
        for line in (state / "audit.jsonl").read_text().splitlines()
    ]
    *refused_logins, saved = lines
    assert [
        (line["action"], line["name"], line["failures"])
        for line in refused_logins
    ] == [
        ("login refused", "", 1),  # the token
        ("login refused", "anna", 1),
        ("login refused", "", 1),  # no name and password at all
        ("login refused", "anna", 2),
    ]
    assert saved["action"] == "label saved"
    assert (saved["who"], saved["case"], saved["tag"]) == (
        "anna",
        CASE,
        "final",
    )
    assert len(saved["sha256"]) == 64
    assert saved["address"] == "127.0.0.1"
    assert saved["when"].endswith("+00:00")
    said = (state / "audit.jsonl").read_text() + server.log.read_text()
    assert "correct horse" not in said


def _log_in(client: Any, password: str) -> None:
    try:
        client.auth_token("anna", password)
    except Exception as error:
        raise AssertionError(error.msg) from error
