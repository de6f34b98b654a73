"""Transfers from a server that is as bad as servers are."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.file_servers import FileServer, serve_file

from medseg.downloads.transfer import Transfer
from medseg.errors import DownloadError
from medseg.events import Event, Notice, Progress

CONTENT = random.Random(0).randbytes(600_000)
AT_ONCE = (0.0,) * 3


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve_file(CONTENT) as server:
        yield server


def make(server: FileServer, folder: Path, **fields: Any) -> Transfer:
    fields = {"most_bytes": 10**6, "waits": AT_ONCE} | fields
    return Transfer(server.url + "a.tar", folder / "a", **fields)


def test_a_file_arrives_with_progress(
    server: FileServer, tmp_path: Path
) -> None:
    events: list[Event] = []
    make(server, tmp_path, listeners=[events.append]).fetch()
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert all(isinstance(event, Progress) for event in events)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_is_taken_up_again(
    ranges: bool, server: FileServer, tmp_path: Path
) -> None:
    server.knows_ranges = ranges
    server.answers = [-196_608, -65_536]
    events: list[Event] = []
    make(server, tmp_path, listeners=[events.append]).fetch()
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert [asked for _, asked in server.requests][1] == "bytes=196608-"
    assert any(isinstance(event, Notice) for event in events)


def test_a_later_call_goes_on_where_the_former_ended(
    server: FileServer, tmp_path: Path
) -> None:
    server.answers = [-327_680, 404]
    with pytest.raises(DownloadError):
        make(server, tmp_path).fetch()
    assert make(server, tmp_path).fetch()
    assert server.requests[-1] == ("/a.tar", "bytes=327680-")
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_fetched_anew(
    server: FileServer, tmp_path: Path
) -> None:
    server.answers = [-327_680, 404]
    with pytest.raises(DownloadError):
        make(server, tmp_path).fetch()
    server.content, server.tag = CONTENT[::-1], '"two"'
    make(server, tmp_path).fetch()
    assert (tmp_path / "a").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_without_a_strong_validator_nothing_is_put_together(
    tag: str, server: FileServer, tmp_path: Path
) -> None:
    server.tag = tag
    server.answers = [-327_680]
    make(server, tmp_path).fetch()
    assert [asked for _, asked in server.requests] == ["", ""]
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_what_another_address_sent_is_not_gone_on_with(
    server: FileServer, tmp_path: Path
) -> None:
    server.answers = [-327_680, 404]
    with pytest.raises(DownloadError):
        make(server, tmp_path).fetch()
    other = Transfer(server.url + "b.tar", tmp_path / "a", 10**6)
    other.fetch()
    assert server.requests[-1] == ("/b.tar", "")


def test_nothing_is_missing_where_all_has_arrived(
    server: FileServer, tmp_path: Path
) -> None:
    make(server, tmp_path).fetch()
    make(server, tmp_path).fetch()
    assert server.requests[-1] == ("/a.tar", "bytes=600000-")
    assert (tmp_path / "a").read_bytes() == CONTENT
    # And where more is there than the server has, it is another file.
    server.content = CONTENT[:1000]
    make(server, tmp_path).fetch()
    assert (tmp_path / "a").read_bytes() == CONTENT[:1000]


def test_a_length_that_is_wrong_is_no_success(
    server: FileServer, tmp_path: Path
) -> None:
    server.extra_length = 5
    with pytest.raises(
        DownloadError, match=r"4 times.*0\.6 MB.*again to go on"
    ):
        make(server, tmp_path).fetch()


def test_a_server_that_states_no_length_is_read_to_its_end(
    server: FileServer, tmp_path: Path
) -> None:
    server.states_length = False
    make(server, tmp_path).fetch()
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("status", [500, 503, 429])
def test_answers_that_pass_are_asked_again(
    status: int, server: FileServer, tmp_path: Path
) -> None:
    server.answers = [status, status]
    make(server, tmp_path).fetch()
    assert (tmp_path / "a").read_bytes() == CONTENT
    server.answers = [status] * 9
    (tmp_path / "other").mkdir()
    with pytest.raises(DownloadError, match=f"answered {status}"):
        make(server, tmp_path / "other").fetch()
    assert len(server.answers) == 5


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, "does not have it"),
        (401, "login"),
        (403, "not allow"),
        (418, "refused"),
    ],
)
def test_answers_that_stay_are_not_asked_again(
    status: int, reason: str, server: FileServer, tmp_path: Path
) -> None:
    server.answers = [status]
    with pytest.raises(DownloadError, match=reason):
        make(server, tmp_path).fetch()
    assert len(server.requests) == 1


def test_a_redirection_is_followed(server: FileServer, tmp_path: Path) -> None:
    server.answers = [302]
    make(server, tmp_path).fetch()
    assert server.requests[-1] == ("/elsewhere/file", "")
    server.answers = [302] * 40
    with pytest.raises(DownloadError, match="address cannot be used"):
        make(server, tmp_path).fetch()


def test_a_silent_server_is_asked_again(
    server: FileServer, tmp_path: Path
) -> None:
    server.pause = 0.4
    server.answers = [0]
    with pytest.raises(DownloadError, match=r"broke off|silent"):
        make(server, tmp_path, silence=0.05, waits=()).fetch()
    server.pause = 0.0
    make(server, tmp_path).fetch()
    assert server.requests[-1] == ("/a.tar", "bytes=262144-")


def test_what_cannot_be_the_file_is_refused_before_it_is_written(
    server: FileServer, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError, match="larger than the data set"):
        make(server, tmp_path, most_bytes=500_000).fetch()
    server.states_length = False
    with pytest.raises(DownloadError, match="larger than the data set"):
        make(server, tmp_path, most_bytes=500_000).fetch()
    assert not (tmp_path / "a").exists()
    server.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(DownloadError, match="web page"):
        make(server, tmp_path).fetch()
    assert not (tmp_path / "a").exists()


def test_nobody_there_is_said_with_what_to_do(tmp_path: Path) -> None:
    with serve_file(b"") as gone:
        url = gone.url.replace("//", "//hans:secret@")
    with pytest.raises(DownloadError, match=r"HTTPS_PROXY.*--url") as caught:
        Transfer(url, tmp_path / "a", 10, waits=(0.0,)).fetch()
    assert "secret" not in str(caught.value)
    for address in ("http://", "nonsense"):
        with pytest.raises(DownloadError, match="address cannot be used"):
            Transfer(address, tmp_path / "a", 10, waits=(0.0,)).fetch()


def test_neither_passwords_nor_addresses_are_kept(
    server: FileServer, tmp_path: Path
) -> None:
    url = server.url.replace("//", "//hans:secret@") + "a.tar?token=secret"
    Transfer(url, tmp_path / "a", 10**6).fetch()
    state = (tmp_path / "a.json").read_text()
    assert json.loads(state)["validator"] == '"one"'
    assert "secret" not in state


def test_a_proxy_is_taken_from_the_environment(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    Transfer("http://data.invalid/a.tar", tmp_path / "a", 10**6).fetch()
    assert server.requests == [("http://data.invalid/a.tar", "")]


def test_nothing_is_written_through_a_link(
    server: FileServer, tmp_path: Path
) -> None:
    make(server, tmp_path).fetch()  # leaves the state that goes with it
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to(tmp_path / "theirs")
    make(server, tmp_path).fetch()
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("length", ["9" * 5000, "\u00b2"], ids=["long", "odd"])
def test_a_length_that_is_no_number_is_not_believed(
    length: str, server: FileServer, tmp_path: Path
) -> None:
    server.states_length = False
    server.headers = {"Content-Length": length}
    make(server, tmp_path).fetch()
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_an_end_that_is_no_number_is_another_file(
    server: FileServer, tmp_path: Path
) -> None:
    server.answers = [-131_072]
    server.headers = {"Content-Range": f"bytes 131072-599999/{'9' * 5000}"}
    with pytest.raises(DownloadError, match="another part than was asked for"):
        make(server, tmp_path, waits=(0.0,)).fetch()
