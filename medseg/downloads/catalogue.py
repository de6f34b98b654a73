"""The open data sets that ``medseg download`` knows.

``catalogue.json`` beside this file holds the facts: where each lies, its size, its licence, and the
checksum of its archive. The checksums of the Decathlon are those that MONAI has. A file of the same
form, named by ``MEDSEG_CATALOGUE``, adds data sets of one's own, or other places of those.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from medseg.errors import DownloadError

OWN = "MEDSEG_CATALOGUE"
"""Environment variable: a catalogue of one's own."""

_FACTS = Path(__file__).with_name("catalogue.json")


@dataclass(frozen=True, slots=True)
class OpenDataset:
    """An open data set.

    Attributes:
        name: What ``medseg download`` calls it.
        about: What is labelled, in how many cases.
        collection: The collection it belongs to.
        home: Where people read about it.
        folder: What its folder is usually called.
        archive: What its archive is called.
        url: Where the archive lies.
        bytes: Size of the archive; for some data sets to three digits.
        md5: Checksum of the archive.
        licence: Of the data.
        citation: What those who use it cite.
    """

    name: str
    about: str
    collection: str
    home: str
    folder: str
    archive: str
    url: str
    bytes: int
    md5: str
    licence: str
    citation: str


def list_open_datasets() -> Mapping[str, OpenDataset]:
    """Return every known data set by its name, the smallest first.

    Raises:
        DownloadError: If the catalogue that ``MEDSEG_CATALOGUE`` names is none.

    Examples:
        >>> next(iter(list_open_datasets()))
        'hippocampus'
    """
    known = dict(_read_catalogue(_FACTS))
    own = os.environ.get(OWN)
    if own:
        known.update(_read_own(Path(own)))
    by_size = sorted(known.values(), key=lambda dataset: dataset.bytes)
    return {dataset.name: dataset for dataset in by_size}


def _read_own(file: Path) -> Mapping[str, OpenDataset]:
    try:
        return _read_catalogue(file)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        raise DownloadError(
            f"this file, which {OWN} names, is no catalogue of data sets; it has the form of "
            "medseg/downloads/catalogue.json",
            source=file,
            detail=f"{type(error).__name__}: {error}",
        ) from error


@cache
def _read_catalogue(file: Path) -> Mapping[str, OpenDataset]:
    facts = json.loads(file.read_text(encoding="utf-8"))
    collections = facts["collections"]
    datasets = {}
    for name, about in facts["datasets"].items():
        collection = collections[about["collection"]]
        datasets[name] = _make_dataset(name, about, collection)
    return datasets


def _make_dataset(
    name: str, about: Mapping[str, Any], collection: Mapping[str, str]
) -> OpenDataset:
    return OpenDataset(
        name=name,
        about=about["about"],
        collection=collection["title"],
        home=collection["home"],
        folder=about["folder"],
        archive=about["archive"],
        url=collection["source"] + about["archive"],
        bytes=int(about["bytes"]),
        md5=str(about["md5"]).lower(),
        licence=collection["licence"],
        citation=collection["citation"],
    )


def get_open_dataset(name: str) -> OpenDataset:
    """Return a data set by its name, or by what its folder is usually called.

    Raises:
        DownloadError: If there is none; the message names those there are.
    """
    known = list_open_datasets()
    plain = name.strip().lower().replace("-", "_")
    found = known.get(plain) or find_by_folder(name)
    if found is not None:
        return found
    similar = difflib.get_close_matches(plain, known, n=1)
    guess = f" Did you mean {similar[0]}?" if similar else ""
    raise DownloadError(
        f"there is no data set of this name.{guess} There are: {', '.join(known)}",
        source=name,
    )


def find_by_folder(folder: str) -> OpenDataset | None:
    """Return the data set whose folder is usually called so, if there is one."""
    for dataset in list_open_datasets().values():
        if dataset.folder.lower() == folder.lower():
            return dataset
    return None
