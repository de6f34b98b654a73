"""What a DICOMweb server holds, read by the public client."""

from __future__ import annotations

from pathlib import Path


def fetch_segmentations(url: str, folder: Path) -> list[Path]:
    """Fetch every DICOM SEG of a server; return the files."""
    from dicomweb_client import DICOMwebClient

    client = DICOMwebClient(url)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for series in client.search_for_series(search_filters={"Modality": "SEG"}):
        study, uid = (
            series["0020000D"]["Value"][0],
            series["0020000E"]["Value"][0],
        )
        for ds in client.iter_series(study, uid):
            files.append(folder / f"{ds.SOPInstanceUID}.dcm")
            ds.save_as(files[-1], enforce_file_format=True)
    return files
