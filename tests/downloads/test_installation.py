"""A data set is put into its folder whole or not at all."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.file_servers import FileServer, pack_folder, serve_file

from medseg.downloads.catalogue import OpenDataset, get_open_dataset
from medseg.downloads.installation import RECEIPT, Installation
from medseg.errors import DownloadError, OutputError
from medseg.events import Event, Notice

Install = Callable[..., bool]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    source = tmp_path / "source" / "Task04_Hippocampus"
    (source / "imagesTr").mkdir(parents=True)
    (source / "dataset.json").write_text("{}")
    (source / "imagesTr" / "a.nii.gz").write_bytes(bytes(200_000))
    with serve_file(pack_folder(source)) as server:
        yield server


@pytest.fixture
def dataset(server: FileServer) -> OpenDataset:
    """Hippocampus, as this server has it."""
    digest = hashlib.md5(server.content).hexdigest()
    return replace(
        get_open_dataset("hippocampus"),
        url=server.url + "x.tar",
        bytes=len(server.content),
        md5=digest,
    )


@pytest.fixture
def install(dataset: OpenDataset, tmp_path: Path) -> Install:
    def run(folder: str = "data/hippo", **fields: Any) -> bool:
        fields = {"dataset": dataset, "waits": (0.0,)} | fields
        return Installation(folder=tmp_path / folder, **fields).run()

    return run


def test_a_second_call_finds_all_there_and_asks_nobody(
    install: Install, server: FileServer, tmp_path: Path
) -> None:
    assert install()
    folder = tmp_path / "data/hippo"
    assert (folder / "imagesTr/a.nii.gz").stat().st_size == 200_000
    receipt = json.loads((folder / RECEIPT).read_text())
    assert receipt["licence"] == "CC BY-SA 4.0"
    asked = len(server.requests)
    (folder / "bundle.json").write_text("{}")  # what people add is theirs
    assert not install()
    assert len(server.requests) == asked
    assert [path.name for path in folder.parent.iterdir()] == ["hippo"]


def test_a_call_goes_on_after_one_that_failed(
    install: Install, server: FileServer, tmp_path: Path
) -> None:
    server.answers = [-65_536, 404]
    with pytest.raises(DownloadError):
        install()
    assert not (tmp_path / "data/hippo").exists()
    assert install()
    assert server.requests[-1][1] == "bytes=65536-"


def test_parts_that_do_not_fit_together_are_fetched_anew(
    install: Install, server: FileServer
) -> None:
    good = server.content
    server.content = good[:65_536][::-1] + good[65_536:]
    server.answers = [-65_536, 404]
    with pytest.raises(DownloadError):
        install()
    server.content = good  # another file, under the same validator
    events: list[Event] = []
    assert install(listeners=[events.append])
    notices = [str(event) for event in events if isinstance(event, Notice)]
    assert any("fetching it anew" in text for text in notices)


def test_what_is_not_the_data_set_is_not_unpacked(
    install: Install, server: FileServer, tmp_path: Path
) -> None:
    server.content = server.content[:-512] + bytes(511) + b"x"
    with pytest.raises(DownloadError, match=r"checksum.*nothing was unpacked"):
        install()
    assert not (tmp_path / "data/hippo").exists()
    assert not list((tmp_path / "data").rglob("archive*"))


def test_a_folder_of_somebody_is_left_alone(
    install: Install, server: FileServer, tmp_path: Path
) -> None:
    folder = tmp_path / "data/hippo"
    folder.mkdir(parents=True)
    (folder / "mine").write_text("mine")
    with pytest.raises(OutputError, match="not made by medseg download"):
        install()
    (folder / "mine").unlink()
    assert install()  # an empty folder is filled
    (folder / "imagesTr/a.nii.gz").unlink()
    with pytest.raises(OutputError, match="1 of the 2 files"):
        install()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError):
        install("file")
    with pytest.raises(OutputError):
        install("file/data")


def test_too_little_space_is_said_before_anything_is_fetched(
    install: Install, dataset: OpenDataset, server: FileServer
) -> None:
    with pytest.raises(OutputError, match=r"are needed.*are free.*-o"):
        install(dataset=replace(dataset, bytes=10**16))
    assert server.requests == []


def test_two_calls_at_once_fetch_once(
    install: Install, server: FileServer
) -> None:
    server.pause = 0.2
    done: list[bool] = []
    threads = [
        threading.Thread(target=lambda: done.append(install()))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [False, False, True]
    assert len(server.requests) == 1


def test_mirrors_and_archives_on_this_machine_serve_too(
    install: Install, server: FileServer, tmp_path: Path
) -> None:
    assert install("one", source=server.url + "mirror/")
    assert server.requests[-1][0] == "/mirror/Task04_Hippocampus.tar"
    assert install("two", source=server.url + "mirror/other.tar")
    assert server.requests[-1][0] == "/mirror/other.tar"
    archive = tmp_path / "Task04_Hippocampus.tar"
    archive.write_bytes(server.content)
    assert install("three", source=str(archive))
    assert install("four", source=str(tmp_path))
    assert archive.is_file()
    archive.write_bytes(b"other")
    with pytest.raises(DownloadError, match="checksum"):
        install("five", source=str(archive))
    assert archive.is_file()
    for source in ("absent.tar", "ftp://host/a.tar", "file:///etc/passwd"):
        with pytest.raises(DownloadError, match="neither"):
            install("six", source=source)


def test_a_link_stays_and_its_folder_holds_the_data_set(
    install: Install, tmp_path: Path
) -> None:
    disk = tmp_path / "disk" / "large"
    disk.mkdir(parents=True)
    (tmp_path / "link").symlink_to(disk)
    assert install("link")
    assert not install("link")
    assert (tmp_path / "link").is_symlink()
    assert (disk / "dataset.json").is_file()
    assert [path.name for path in disk.parent.iterdir()] == ["large"]


def test_the_folder_that_a_command_runs_in_is_not_replaced(
    install: Install,
    server: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(OutputError, match="name a new folder in it"):
        install("here/.")
    assert not server.requests
    assert not [*here.iterdir()]


def test_a_receipt_in_the_archive_is_not_believed(
    dataset: OpenDataset, install: Install, tmp_path: Path
) -> None:
    source = tmp_path / "forged"
    source.mkdir()
    (source / RECEIPT).write_text("{}")
    (source / "dataset.json").write_text("{}")
    archive = tmp_path / "archive.tar"
    archive.write_bytes(pack_folder(source))
    digest = hashlib.md5(archive.read_bytes()).hexdigest()
    forged = replace(dataset, md5=digest)
    assert install(dataset=forged, source=str(archive))
    assert not install(dataset=forged, source=str(archive))
