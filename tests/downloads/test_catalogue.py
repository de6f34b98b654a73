"""What ``medseg download`` knows of open data sets."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from medseg.downloads.catalogue import (
    find_by_folder,
    get_open_dataset,
    list_open_datasets,
)
from medseg.errors import DownloadError


def test_the_decathlon_is_where_monai_says_with_its_checksums() -> None:
    # Read, not imported: monai.apps loads all of MONAI.
    origin = importlib.util.find_spec("monai").origin  # type: ignore[union-attr]
    source = Path(origin or "").with_name("apps") / "datasets.py"
    stated = source.read_text(encoding="utf-8")
    decathlon = [
        dataset
        for dataset in list_open_datasets().values()
        if dataset.folder.startswith("Task")
    ]
    assert len(decathlon) == 10
    for dataset in decathlon:
        assert f'"{dataset.folder}": "{dataset.url}"' in stated
        assert f'"{dataset.folder}": "{dataset.md5}"' in stated


def test_each_data_set_says_what_its_users_need() -> None:
    for dataset in list_open_datasets().values():
        assert dataset.licence.startswith("CC BY")
        assert dataset.citation
        assert dataset.url.startswith("https://")
        assert len(dataset.md5) == 32


@pytest.mark.parametrize(
    "name", ["hepatic_vessel", "Hepatic-Vessel", "Task08_HepaticVessel"]
)
def test_a_data_set_is_found_by_what_people_call_it(name: str) -> None:
    assert get_open_dataset(name).folder == "Task08_HepaticVessel"


def test_other_names_are_answered_with_those_there_are() -> None:
    with pytest.raises(DownloadError, match=r"Did you mean spleen\?.*colon"):
        get_open_dataset("splen")
    assert find_by_folder("mine") is None


def test_a_catalogue_of_ones_own_adds_data_sets_and_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ours.json"
    monkeypatch.setenv("MEDSEG_CATALOGUE", str(file))
    with pytest.raises(DownloadError, match="no catalogue of data sets"):
        list_open_datasets()
    file.write_text('{"collections": {}, "datasets": {"ours": {}}}')
    with pytest.raises(DownloadError, match="no catalogue of data sets"):
        list_open_datasets()
    facts = {
        "title": "Ours",
        "home": "",
        "source": "http://intranet/",
        "licence": "internal",
        "citation": "",
    }
    ours = {
        "collection": "ours",
        "folder": "Ours",
        "archive": "ours.zip",
        "about": "what we have",
        "bytes": 1000,
        "md5": "0" * 32,
    }
    content = {"collections": {"ours": facts}, "datasets": {"ours": ours}}
    file.write_text(json.dumps(content))
    listed = list_open_datasets()
    assert listed["ours"].url == "http://intranet/ours.zip"
    assert "hippocampus" in listed
