"""The same scan has the same hash wherever it lies; whatever changes a result changes its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.datasets.cases import Scan
from medseg.errors import ScanError
from medseg.inference.hashes import hash_scan, make_result_key


def files(folder: Path, **contents: bytes) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def test_names_and_the_order_of_files_in_a_channel_do_not_matter(
    tmp_path: Path,
) -> None:
    first = files(tmp_path / "x", a=b"1", b=b"2")
    second = files(tmp_path / "y", z=b"2", c=b"1")
    assert hash_scan(Scan("x", (tuple(first),))) == hash_scan(
        Scan("y", (tuple(second),))
    )
    assert hash_scan(Scan("x", (tuple(first),))) == hash_scan(
        Scan("z", ((tmp_path / "x",),))
    )


def test_the_content_the_order_of_channels_and_the_volume_matter(
    tmp_path: Path,
) -> None:
    one, two = files(tmp_path / "x", a=b"1", b=b"2")
    hashes = {
        hash_scan(Scan("x", ((one,), (two,)))),
        hash_scan(Scan("x", ((two,), (one,)))),
        hash_scan(Scan("x", ((one, two),))),
        hash_scan(Scan("x", ((one, two),), "time 1")),
        hash_scan(Scan("x", ((one, two),), "time 2")),
    }
    assert len(hashes) == 5


def test_a_key_changes_with_scan_bundle_and_options_and_not_with_their_order() -> (
    None
):
    key = make_result_key("scan", "bundle", ["nifti", "mirror=True"])
    assert key == make_result_key("scan", "bundle", ["mirror=True", "nifti"])
    assert key != make_result_key("other", "bundle", ["nifti", "mirror=True"])
    assert key != make_result_key("scan", "other", ["nifti", "mirror=True"])
    assert key != make_result_key("scan", "bundle", ["nifti", "mirror=False"])


def test_a_file_that_is_gone_is_named_apart_from_the_message(
    tmp_path: Path,
) -> None:
    gone = tmp_path / "Qwertz.nii.gz"
    with pytest.raises(ScanError, match="cannot be read") as raised:
        hash_scan(Scan("x", ((gone,),)))
    assert raised.value.source == str(gone)
    assert "Qwertz" not in raised.value.message
