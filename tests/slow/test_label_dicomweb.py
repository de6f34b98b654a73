"""``medseg label`` on a real Orthanc: series in, DICOM SEG out and back."""

from __future__ import annotations

import json
import socket
import urllib.request
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from support.bundles import made_spec, trained_bundle
from support.dicomweb_reads import fetch_segmentations
from support.label_servers import (
    Server,
    encode_form,
    require_monai_label,
    run_server,
    slicer_client,
)
from support.orthancs import phantom_series, run_orthanc, send, write_series

from medseg import Segmenter, load_bundle
from medseg.dicom_labels.seg_reader import read_dicom_seg
from medseg.dicom_labels.seg_writer import write_dicom_seg
from medseg.io import read_image, read_labels
from medseg.label_server.state import StateFolder

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(600)]

CT_SERIES = 2


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_monai_label()
    home = tmp_path_factory.mktemp("dicomweb")
    spec = made_spec(
        preprocessing={
            "spacing_mm": [4, 4, 4],
            "intensity": {"kind": "window", "low": -200, "high": 300},
        }
    )
    trained_bundle(home / "bundle", spec)
    return home


@pytest.fixture(scope="module")
def pacs(home: Path) -> Any:
    with run_orthanc(home / "orthanc") as url:
        for seed in range(CT_SERIES):
            folder = write_series(home / f"ct{seed}", phantom_series(seed)[0])
            send(url, list(folder.iterdir()))
        send(
            url,
            list(
                write_series(home / "mr", phantom_series(9, "MR")[0]).iterdir()
            ),
        )
        yield url


@pytest.fixture(scope="module")
def server(home: Path, pacs: str) -> Any:
    with run_server(
        home / "bundle", f"{pacs}/dicom-web", home / "state"
    ) as server:
        yield server


def uid_of(seed: int) -> str:
    return str(phantom_series(seed)[0][0].SeriesInstanceUID)


def test_series_are_listed_whatever_their_modality(
    home: Path, pacs: str, server: Server
) -> None:
    assert (
        server.ask("GET", "/info/").json()["datastore"]["total"]
        == CT_SERIES + 1
    )
    with run_server(
        home / "bundle",
        f"{pacs}/dicom-web",
        home / "ct_state",
        "--modality",
        "CT",
    ) as other:
        assert (
            other.ask("GET", "/info/").json()["datastore"]["total"] == CT_SERIES
        )


def test_the_next_sample_tells_viewers_its_study_and_quality(
    server: Server, tmp_path: Path
) -> None:
    client = slicer_client(server.url, tmp_path)
    client.infer("made_up", uid_of(0), {"result_extension": ".nrrd"})
    sample = client.next_sample("worst_first", {})  # one that is rated
    # OHIF opens the study; Slicer calls the scan by the patient ID that it is told.
    assert sample["StudyInstanceUID"]
    name, _, quality = sample["PatientID"].partition(" · ")
    assert name.startswith("PHANTOM-")
    assert quality == "not calibrated"


def test_a_series_gets_the_labels_that_segmenter_gives_its_files(
    home: Path, server: Server, tmp_path: Path
) -> None:
    client = slicer_client(server.url, tmp_path)
    file, _ = client.infer("made_up", uid_of(0), {"result_extension": ".nrrd"})
    volume = read_image(home / "ct0")
    found = Segmenter(home / "bundle", "cpu").segment(volume)
    assert found.labels.any()
    assert np.array_equal(read_labels(Path(file)).array[0], found.labels)
    body, kind = encode_form({"params": "{}"}, {})
    path = f"/infer/made_up?image={uid_of(0)}&output=dicom_seg"
    answer = server.ask("POST", path, body, {"content-type": kind})
    seg = tmp_path / "answer.dcm"
    seg.write_bytes(answer.body)
    assert np.array_equal(read_dicom_seg(seg, volume).array[0], found.labels)


def test_a_saved_label_is_a_seg_in_the_pacs_with_the_same_voxels(
    home: Path, pacs: str, server: Server, tmp_path: Path
) -> None:
    client = slicer_client(server.url, tmp_path)
    volume = read_image(home / "ct1")
    labels = phantom_series(1)[1]
    assert not np.array_equal(labels, labels[:, :, ::-1])
    flipped = np.array(volume.affine) @ np.diag([1.0, 1.0, -1.0, 1.0])
    flipped[:3, 3] = volume.affine[:3] @ [0, 0, labels.shape[2] - 1, 1]
    for name, array, affine in (
        ("straight", labels, np.array(volume.affine)),
        (
            "flipped",
            labels[:, :, ::-1],
            flipped,
        ),  # as viewers that turn the z axis around save
    ):
        file = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(array, affine), file)
        client.save_label(uid_of(1), str(file))
        stored = fetch_segmentations(f"{pacs}/dicom-web", tmp_path / name)
        assert len(stored) == 1, "the same label is the same object"
        assert np.array_equal(
            read_dicom_seg(stored[0], volume).array[0], labels
        )
    other = labels.copy()
    other[:, :, :4] = 2
    file = tmp_path / "other.nii.gz"
    nib.save(nib.Nifti1Image(other, np.array(volume.affine)), file)
    client.save_label(uid_of(1), str(file))
    assert len(fetch_segmentations(f"{pacs}/dicom-web", tmp_path / "both")) == 2
    assert client.info()["datastore"]["completed"] == 1


def test_a_correction_made_elsewhere_is_read_back_once(
    home: Path, server: Server, tmp_path: Path
) -> None:
    client = slicer_client(server.url, tmp_path)
    volume, labels = read_image(home / "ct0"), phantom_series(0)[1]
    spec = Segmenter(home / "bundle", "cpu").spec
    for corrected in (False, True):
        file = tmp_path / f"seg{corrected}.dcm"
        write_dicom_seg(
            file,
            labels,
            volume,
            spec.label_set,
            version="1",
            corrected=corrected,
            algorithm="x",
        )
        assert _stow(server, file) == 200
        client.next_sample("first", {})
        completed = client.info()["datastore"]["completed"]
        assert completed == (2 if corrected else 1), (
            "what a model alone made is no label"
        )
    client.next_sample("first", {})
    kept = home / "state" / "labels" / "final" / f"{uid_of(0)}.nii.gz"
    assert np.array_equal(read_labels(kept).array[0], labels)
    audit = [
        json.loads(line)
        for line in (home / "state/audit.jsonl").read_text().splitlines()
    ]
    back = [line for line in audit if line.get("client") == "DICOM SEG"]
    assert [line["case"] for line in back] == [uid_of(0)]


def _stow(server: Server, file: Path) -> int:
    body = (
        b"--b\r\nContent-Type: application/dicom\r\n\r\n"
        + file.read_bytes()
        + b"\r\n--b--\r\n"
    )
    kind = 'multipart/related; type="application/dicom"; boundary=b'
    headers = {"content-type": kind, "accept": "application/dicom+json"}
    return server.ask("POST", "/proxy/dicom/wado/studies", body, headers).code


def test_the_proxy_reaches_dicomweb_only(pacs: str, server: Server) -> None:
    assert (
        len(server.ask("GET", "/proxy/dicom/qido/studies?limit=100").json())
        == CT_SERIES + 1
    )
    for path in (
        "../system",
        "..%2fsystem",
        "%2e%2e/system",
        "system",
        "studies/../../system",
    ):
        assert server.ask("GET", f"/proxy/dicom/{path}").code in (400, 403)
        assert server.ask("GET", f"/proxy/dicom/wado/{path}").code in (400, 403)


def test_a_query_reaches_the_pacs(server: Server) -> None:
    def count(query: str) -> int:
        path = f"/proxy/dicom/qido/studies?{query}"
        answer = server.ask("GET", path)
        # Without a hit, the standard allows an answer without a body.
        return len(answer.json()) if answer.body else 0

    assert count("PatientID=NOBODY") == 0
    assert count("PatientID=PHANTOM-1") == 1
    assert count("limit=1") == 1


def smuggling_attempts(patient: str) -> dict[str, bytes]:
    """Requests that hide a second one, which deletes a patient, by each way known."""
    hidden = (
        f"DELETE /patients/{patient} HTTP/1.1\r\nHost: pacs\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(hidden), hidden)
    closed = b"0\r\n\r\n" + hidden
    whole = b"%x\r\n%s\r\n0\r\n\r\n" % (len(closed), closed)
    length = b"Content-Length: %d\r\n"
    te = b"Transfer-Encoding: chunked\r\n"
    return {
        "decoded body that ends a chunked one": te + b"\r\n" + whole,
        "CL.TE": length % len(closed) + te + b"\r\n" + closed,
        "TE.CL": te + length % 4 + b"\r\n" + chunked,
        "TE.TE": te + b"Transfer-Encoding: x\r\n\r\n" + closed,
        "TE with a space": b"Transfer-Encoding : chunked\r\n\r\n" + closed,
        "TE in a folded line": (
            length % len(closed)
            + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n"
        )
        + closed,
        "two lengths": length % 0 + length % len(closed) + b"\r\n" + closed,
        "a signed length": b"Content-Length: +0\r\n\r\n" + closed,
        "a length in a list": b"Content-Length: 0, 0\r\n\r\n" + closed,
        "a request behind the request": length % 0 + b"\r\n" + hidden,
    }


@pytest.mark.parametrize("attempt", smuggling_attempts(""))
def test_no_request_hides_another_from_the_gateway(
    pacs: str, server: Server, attempt: str
) -> None:
    with urllib.request.urlopen(f"{pacs}/patients") as answer:
        patients = json.load(answer)
    port = int(server.url.rpartition(":")[2])
    kind = b'multipart/related; type="application/dicom"; boundary=b'
    head = (
        b"POST /proxy/dicom/studies HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
        b"Content-Type: %s\r\n" % (port, kind)
    )
    rest = smuggling_attempts(patients[0])[attempt]
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(head + rest)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    for _ in range(3):  # a hidden request would be answered with the next ones
        assert server.ask("GET", "/proxy/dicom/studies?limit=1").code == 200
    with urllib.request.urlopen(f"{pacs}/patients") as answer:
        assert json.load(answer) == patients


def test_a_proposal_is_stored_once_and_is_no_correction(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicomweb_client import DICOMwebClient

    from medseg.label_server.dicomweb import DicomWebCases

    slices, labels = phantom_series(7)
    folder = write_series(tmp_path / "ct", slices)
    volume, spec = read_image(folder), load_bundle(home / "bundle").spec
    with run_orthanc(tmp_path / "pacs") as own:
        send(own, list(folder.iterdir()))
        address = f"{own}/dicom-web"
        stored = []
        for name in ("one", "two"):  # the second has never seen the first
            state = StateFolder(tmp_path / name)
            state.root.mkdir()
            cases = DicomWebCases(address, state, spec)
            stored.append(cases.store_proposal(labels, volume, "Proposal: x"))
            monkeypatch.delattr(
                DICOMwebClient, "store_instances", raising=False
            )
        (file,) = fetch_segmentations(address, tmp_path / "seg")
        assert cases.find_corrections(frozenset()) == []
        # Series that are known to hold proposals are not even asked for.
        monkeypatch.delattr(DICOMwebClient, "retrieve_series_metadata")
        series = frozenset({stored[0].series})
        assert cases.find_corrections(frozenset(), series) == []
    assert stored[0] == stored[1]
    assert np.array_equal(read_dicom_seg(file, volume).array[0], labels)
