"""A DICOMweb server's series and segmentations, as far as no PACS is needed."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import pytest
from pydicom.dataset import Dataset
from support.bundles import made_spec

from medseg import DatasetError, MedsegError, OutputError
from medseg.label_server import dicomweb
from medseg.label_server.dicomweb import (
    Correction,
    DicomWebCases,
    choose_newest,
    is_listed,
    read_correction,
)
from medseg.label_server.dicomweb_connection import DicomWebConnection
from medseg.label_server.known_segmentations import KnownSegmentations
from medseg.label_server.state import StateFolder

PATIENT = "MUELLER^ANNA"


def item(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def seg(*algorithms: str, references: tuple[str, ...] = ("1.2",)) -> Dataset:
    """Return the header of a segmentation with a segment per algorithm."""
    return item(
        SOPInstanceUID="9.9",
        ContentDate="20260102",
        ContentTime="030405",
        ReferencedSeriesSequence=[
            item(SeriesInstanceUID=uid) for uid in references
        ],
        SegmentSequence=[
            item(SegmentAlgorithmType=kind) for kind in algorithms
        ],
    )


def test_all_series_with_images_are_listed_unless_modalities_are_asked_for() -> (
    None
):
    for modality in ("CT", "MR", "PT", "", "XX"):
        assert is_listed(modality, frozenset())
    for modality in ("SEG", "SR", "RTSTRUCT", "PR", "KO"):
        assert not is_listed(modality, frozenset())
    assert is_listed("CT", frozenset({"CT", "MR"}))
    assert not is_listed("PT", frozenset({"CT", "MR"}))


@pytest.mark.parametrize(
    "kinds", [("MANUAL",), ("SEMIAUTOMATIC",), ("MANUAL", "SEMIAUTOMATIC")]
)
def test_what_a_person_made_is_a_correction(kinds: tuple[str, ...]) -> None:
    found = read_correction(seg(*kinds), ["1.1", "1.2"], "study", "series")
    assert found == Correction(
        "1.2", "9.9", "study", "series", "20260102030405"
    )


@pytest.mark.parametrize("kinds", [("AUTOMATIC",), ("MANUAL", "AUTOMATIC"), ()])
def test_what_a_model_alone_made_is_none(kinds: tuple[str, ...]) -> None:
    assert read_correction(seg(*kinds), ["1.2"], "study", "series") is None


@pytest.mark.parametrize("references", [(), ("1.1",), ("1.2", "1.3")])
def test_a_segmentation_belongs_to_one_listed_series(
    references: tuple[str, ...],
) -> None:
    header = seg("MANUAL", references=references)
    assert read_correction(header, ["1.2", "1.3"], "study", "series") is None


def test_a_header_without_sequences_is_no_correction() -> None:
    assert read_correction(Dataset(), ["1.2"], "study", "series") is None


def correction(case: str, uid: str, created: str) -> Correction:
    return Correction(case, uid, "study", "series", created)


def test_the_newest_correction_of_each_case_counts() -> None:
    made = [
        correction("a", "1", "20260101"),
        correction("a", "3", "20260103"),
        correction("a", "2", "20260102"),
        correction("b", "4", "20250101"),
    ]
    for order in (made, made[::-1]):
        assert {found.uid for found in choose_newest(order, frozenset())} == {
            "3",
            "4",
        }
    assert {found.uid for found in choose_newest(made, frozenset({"3"}))} == {
        "2",
        "4",
    }
    assert choose_newest(made, frozenset("1234")) == []


def test_of_two_as_new_the_first_counts() -> None:
    made = [correction("a", "1", "20260101"), correction("a", "2", "20260101")]
    assert [found.uid for found in choose_newest(made, frozenset())] == ["1"]


def test_known_segmentations_are_remembered(tmp_path: Path) -> None:
    known = KnownSegmentations(StateFolder(tmp_path))
    assert known.read() == frozenset()
    for uid in ("1.2", "1.1", "1.2"):
        known.add(uid)
    assert KnownSegmentations(StateFolder(tmp_path)).read() == {"1.1", "1.2"}


def test_those_that_an_earlier_release_knows_are_taken_over(
    tmp_path: Path,
) -> None:
    (tmp_path / "segmentations.json").write_text('["1.3"]')
    assert KnownSegmentations(StateFolder(tmp_path)).read() == {"1.3"}


@pytest.mark.parametrize("text", ["", "{", "3", "[[1]]"])
def test_a_damaged_list_of_segmentations_is_told(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "segmentations.json").write_text(text)
    with pytest.raises(MedsegError, match="restore or remove it") as refused:
        KnownSegmentations(StateFolder(tmp_path)).read()
    assert str(tmp_path) not in refused.value.message


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers searches for series as DICOMweb does, or fails."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.seen.append((self.path, self.headers.get("authorization")))
        _, _, query = self.path.partition("?")
        offset = int(dict(parse_qsl(query)).get("offset", 0))
        page = server.series[offset : offset + server.page]
        body = json.dumps(page).encode()
        self.send_response(server.status)
        self.send_header("content-type", "application/dicom+json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def dicomweb_server(status: int = 200) -> Iterator[Any]:
    """Run a small DICOMweb server that holds a CT and a SEG; yield it."""
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    series = [
        item(
            SeriesInstanceUID=uid,
            StudyInstanceUID="5.5",
            Modality=modality,
            PatientID="ID-4711",
            PatientName=PATIENT,
        )
        for uid, modality in (("1.3", "CT"), ("1.2", "MR"), ("1.4", "SEG"))
    ]
    server.series = [each.to_json_dict() for each in series]
    server.status, server.seen, server.page = status, [], 100
    server.url = f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def cases_of(
    url: str, folder: Path, modalities: tuple[str, ...] = ()
) -> DicomWebCases:
    return DicomWebCases(url, StateFolder(folder), made_spec(), modalities)


def test_a_servers_series_are_cases(tmp_path: Path) -> None:
    with dicomweb_server() as server:
        cases = cases_of(server.url, tmp_path)
        assert cases.list_names() == ["1.2", "1.3"]
        assert cases_of(server.url + "/", tmp_path, ("CT",)).list_names() == [
            "1.3"
        ]
        info = cases.get_info("1.3")
        assert (info["name"], info["Modality"], info["StudyDate"]) == (
            "1.3.nii.gz",
            "CT",
            "",
        )
        assert "PatientName" not in info
        for name in ("1.4", "9.9", "../x", PATIENT):
            with pytest.raises(
                DatasetError, match="no such image series"
            ) as refused:
                cases.get_scan(name)
            assert name not in refused.value.message


def test_corrections_are_looked_for_beyond_a_servers_first_answer(
    tmp_path: Path,
) -> None:
    with dicomweb_server() as server:
        server.page = 2
        cases_of(server.url, tmp_path).find_corrections(frozenset())
        asked = [path for path, _ in server.seen]
    assert any("/series/1.4/metadata" in path for path in asked)


def test_the_list_of_series_is_kept_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(
        dicomweb, "time", SimpleNamespace(monotonic=lambda: now)
    )
    with dicomweb_server() as server:
        cases = cases_of(server.url, tmp_path)
        cases.list_names()
        before = len(server.seen)
        now += dicomweb.KEPT_SECONDS
        cases.list_names()
        assert len(server.seen) == before
        now += 0.1
        server.series = server.series[:1]
        assert cases.list_names() == ["1.3"]


def test_a_login_is_sent_if_the_environment_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dicomweb_server() as server:
        cases_of(server.url, tmp_path).list_names()
        monkeypatch.setenv("MEDSEG_DICOMWEB_USER", "anna")
        monkeypatch.setenv("MEDSEG_DICOMWEB_PASSWORD", "horse")
        cases_of(server.url, tmp_path).list_names()
    logins = [login for _, login in server.seen]
    half = len(logins) // 2
    assert logins == [None] * half + ["Basic YW5uYTpob3JzZQ=="] * half


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_server_that_refuses_is_told_by_its_status_alone(
    tmp_path: Path, status: int
) -> None:
    with dicomweb_server(status) as server:
        with pytest.raises(OutputError) as refused:
            cases_of(server.url, tmp_path).list_names()
        expected = (
            f"the DICOMweb server did not list its series: it answered {status}"
        )
        assert refused.value.message == expected
        assert refused.value.source == server.url


def test_a_server_that_does_not_run_is_told_without_its_address(
    tmp_path: Path,
) -> None:
    with dicomweb_server() as server:
        url = server.url
    cases = cases_of(url, tmp_path)
    cases._client.set_http_retry_params(retry=False)
    with pytest.raises(
        OutputError, match="check that it is running"
    ) as refused:
        cases.list_names()
    assert "127.0.0.1" not in refused.value.message
    assert "ConnectionError" in refused.value.message


def test_a_server_that_stays_silent_is_not_waited_for_without_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/dicom-web"
        connection = DicomWebConnection(url, read_seconds=0.2)
        with pytest.raises(OutputError, match="ReadTimeout"):
            connection.request(
                "list its series", connection.client.search_for_series
            )


def test_the_first_who_stored_an_instance_is_its_author(tmp_path: Path) -> None:
    known = KnownSegmentations(StateFolder(tmp_path))
    assert known.find_author("1.2") == ""
    known.note_author(["1.2", "1.3"], "anna")
    known.note_author(["1.2"], "ben")
    assert known.find_author("1.2") == "anna"
    # Nobody has taken it over yet.
    assert known.read() == frozenset()
