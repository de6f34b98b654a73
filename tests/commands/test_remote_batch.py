"""Files of results on their way to an object store are those of their scans alone."""

from __future__ import annotations

from pathlib import Path

from medseg.commands.remote_batch import RemoteFolder
from medseg.inference.ledger_entry import Entry


def test_a_scan_has_no_part_in_the_files_of_another_whose_name_goes_on(
    tmp_path: Path,
) -> None:
    names = ["a.nii.gz", "a.png", "a.b.nii.gz", "a.b.png", "ab.nii.gz"]
    for folder in ("error_maps", "previews"):
        (tmp_path / folder).mkdir()
    for name in names:
        (tmp_path / "error_maps" / name).touch()
    for name in ("a.webp", "a.b.webp"):
        (tmp_path / "previews" / name).touch()
    results = RemoteFolder("s3://results/out", tmp_path)
    # What failed is not put into the store, and removed here.
    results.put_results([Entry(scan="a", state="failed", error="x")])
    left = {file.name for file in tmp_path.rglob("*") if file.is_file()}
    assert left == {"a.b.nii.gz", "a.b.png", "ab.nii.gz", "a.b.webp"}
