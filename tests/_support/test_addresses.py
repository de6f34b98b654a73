"""Addresses are told from paths, and shown without what opens the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg._support.addresses import hide_credentials, is_address
from medseg._support.object_store import look_at
from medseg._support.store_errors import StorageError


@pytest.mark.parametrize(
    "address",
    [
        "s3://key:secret@bucket/ct.nii.gz",
        "https://anna:secret@host/ct.nii.gz?signature=secret/a",
        "http://anna:secret@host/ct.nii.gz",
        "abfs://container:secret@account/ct.nii.gz",
        "gs://secret@bucket/ct.nii.gz",
        # As pathlib makes of it.
        "https:/anna:secret@host/ct.nii.gz",
    ],
)
def test_no_address_is_shown_with_what_opens_the_store(address: str) -> None:
    shown = hide_credentials(address)
    assert "secret" not in shown
    assert shown.endswith("/ct.nii.gz")


@pytest.mark.parametrize(
    "text", ["S3://bucket/out", "s3:/bucket/out", "file:///tmp/out"]
)
def test_a_misspelt_address_is_refused_rather_than_made_a_folder(
    text: str,
) -> None:
    assert is_address(text)
    with pytest.raises(StorageError, match="begin with s3://"):
        look_at(text)


def test_paths_are_no_addresses() -> None:
    paths = ["C:/scans", "c://scans", "scans/s3", "/data/s3:/x", "s3", "gs:x"]
    assert not [path for path in paths if is_address(path)]
    assert not is_address(Path("scans"))
