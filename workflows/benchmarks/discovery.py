"""Search a folder of DICOM files for its series: files per CPU second.

    python workflows/benchmarks/discovery.py WORK --files 10000 -n 5

Makes small CT slices (no pixels to speak of, headers as scanners write them: private elements,
nested sequences) in nested folders without endings, 100 to a series. The contestants take turns:
medseg's whole search (headers, grouping, geometry of every stack), pydicom reading every header up
to the pixels, pydicom reading only what medseg asks for, and gdcm.Scanner, which is compiled,
collecting the same elements. The files are in the disk's cache: what is counted is the processor.

    python workflows/benchmarks/discovery.py WORK --memory 10000 1000000

tells what a search holds in memory instead, at each number of files: a folder of NIfTI files, one
of the two channels of half as many cases, a folder of DICOM slices, the same for a bundle of two
channels, a list of the NIfTI files, and the same of which a shard does its hundredth.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import gdcm
import numpy as np
import pydicom
from pydicom import uid as uids
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

from medseg.bundle.spec import ChannelSpec
from medseg.datasets.scans import find_scans
from medseg.inference.shards import parse_shard
from medseg.io import find_series
from medseg.io.dicom.headers import HEADER_KEYWORDS
from medseg.testing import write_dataset

PER_SERIES = 100
PER_FOLDER = 1000
MOST_LINKS = 50_000
"""Names of one file: file systems limit them."""

SHARD = "1/100"
KINDS = (
    "NIfTI folder",
    "NIfTI folder of two channels",
    "DICOM folder",
    "DICOM folder of two channels",
    "list",
    f"list, shard {SHARD}",
)
CHANNELS = [
    ChannelSpec(name="T1", modality="MR"),
    ChannelSpec(name="FLAIR", modality="MR"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("-n", "--repeats", type=int, default=5)
    parser.add_argument("--memory", type=int, nargs="+", metavar="FILES")
    parser.add_argument("--only", choices=KINDS, nargs="+", default=KINDS)
    parser.add_argument("--search", help="internal")
    given = parser.parse_args()
    if given.search:
        search_here(given.search, given.work)
        return
    if given.memory:
        compare_memory(given.work, given.memory, given.only)
        return
    root = given.work / f"files-{given.files}"
    if not root.is_dir():
        write_files(root, given.files)
    contestants: dict[str, Callable[[Path], int]] = {
        "medseg, find_series": with_medseg,
        "medseg, find_scans (with the walk of folders and names)": with_scans,
        "gdcm.Scanner, the same elements, no geometry": with_gdcm,
        "pydicom, the same elements (specific_tags), not looked at": with_tags,
        "pydicom, whole header, not looked at": with_pydicom,
    }
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(given.repeats + 1):
        for name, search in contestants.items():
            began = time.process_time()
            assert search(root) == given.files // PER_SERIES
            if turn:  # the first one fills the disk's cache
                rates[name].append(given.files / (time.process_time() - began))
    names = ", ".join(
        f"{name} {version(name)}"
        for name in ("medseg", "pydicom", "python-gdcm")
    )
    print(
        f"{time.strftime('%Y-%m-%d')}; {names}; Python {platform.python_version()}"
    )
    print(
        f"{given.files} files, n = {given.repeats}: median (lowest to highest)\n"
    )
    print("| | files per CPU second | whole header = 1 |\n| --- | --- | --- |")
    slowest = statistics.median(rates["pydicom, whole header, not looked at"])
    for name, found in rates.items():
        median = statistics.median(found)
        spread = f"{median:.0f} ({min(found):.0f}–{max(found):.0f})"
        print(f"| {name} | {spread} | {median / slowest:.1f}× |")


def compare_memory(
    work: Path, counts: Sequence[int], kinds: Sequence[str]
) -> None:
    """Print what a search takes, each in a process of its own."""
    print(
        "| | files | scans | MB | CPU seconds |\n| --- | --- | --- | --- | --- |"
    )
    for kind in kinds:
        for count in counts:
            root = make_input(kind, work, count)
            command = [sys.executable, __file__, str(root), "--search", kind]
            done = subprocess.run(
                command, check=True, capture_output=True, text=True
            )
            print(f"| {kind} | {count} | {done.stdout.strip()} |", flush=True)


def make_input(kind: str, work: Path, count: int) -> Path:
    """Return a folder or a list of so many files; it is made unless it is there."""
    if kind.startswith("DICOM"):
        folder = work / f"files-{count}"
        if not folder.is_dir():
            write_files(folder, count)
        return folder
    name = name_channel if "channels" in kind else name_file
    folder = work / f"{name.__name__}-{count}"
    if not folder.is_dir():
        write_nifti_files(folder, count, name)
    if kind.startswith("NIfTI"):
        return folder
    table = work / f"nifti-{count}.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["scan"])
        rows.writerows([[name_file(folder, n)] for n in range(count)])
    return table


def name_file(folder: Path, number: int) -> str:
    """Return the path of a made-up file, a thousand to a folder."""
    return f"{folder}/part_{number // PER_FOLDER}/scan_{number}.nii.gz"


def name_channel(folder: Path, number: int) -> str:
    """Return the path of a made-up file of a channel, a thousand to a folder."""
    channel = CHANNELS[number % 2].name
    return f"{folder}/part_{number // PER_FOLDER}/scan_{number // 2}_{channel}.nii.gz"


def write_nifti_files(
    folder: Path, count: int, name: Callable[[Path, int], str]
) -> None:
    """Write small scans: names of a few files, since nobody looks into them here."""
    data = write_dataset(folder.with_suffix(".made"), 1, shape=(8, 8, 8))
    (made,) = (data / "imagesTr").iterdir()
    content = made.read_bytes()
    for number in range(count):
        file = Path(name(folder, number))
        if number % PER_FOLDER == 0:
            file.parent.mkdir(parents=True)
        if number % MOST_LINKS == 0:
            first = file
            first.write_bytes(content)
        else:
            os.link(first, file)


def search_here(kind: str, root: Path) -> None:
    """Print how many scans a search finds, how much memory it took, and how long."""
    rule = parse_shard(SHARD).holds if "shard" in kind else None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    specs = CHANNELS if "channels" in kind else CHANNELS[:1]
    found = find_scans(
        root,
        len(specs),
        channel_specs=specs,
        is_wanted=rule,
        allow_empty=True,
    )
    seconds = time.process_time() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = (after - before) / 1024  # Linux counts in KB
    count = len(found.scans) + len(found.left_out)
    print(f"{count} | {taken:.0f} | {seconds:.1f}")


def write_files(root: Path, count: int) -> None:
    for number in range(count // PER_SERIES):
        folder = (
            root
            / f"patient{number // 8:03d}"
            / f"study{number // 2 % 4}"
            / f"s{number % 2}"
        )
        folder.mkdir(parents=True)
        for k in range(PER_SERIES):
            slice_of(number, k).save_as(folder / f"{k * 37 % PER_SERIES:05d}")


def slice_of(number: int, k: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uids.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = uids.CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{number}.{k}"
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = (
        uids.CTImageStorage,
        meta.MediaStorageSOPInstanceUID,
    )
    ds.StudyInstanceUID, ds.SeriesInstanceUID = (
        f"1.2.3.{number // 2}",
        f"1.2.3.4.{number}",
    )
    ds.FrameOfReferenceUID = f"1.2.3.5.{number}"
    ds.ImageType, ds.Modality = ["ORIGINAL", "PRIMARY", "AXIAL"], "CT"
    ds.SpecificCharacterSet = "ISO_IR 100"
    for keyword in (
        "StudyDate",
        "SeriesDate",
        "AcquisitionDate",
        "ContentDate",
    ):
        setattr(ds, keyword, "20240101")
    for keyword in (
        "StudyTime",
        "SeriesTime",
        "AcquisitionTime",
        "ContentTime",
    ):
        setattr(ds, keyword, "101500.25")
    for keyword in (
        "Manufacturer",
        "InstitutionName",
        "StationName",
        "SeriesDescription",
    ):
        setattr(ds, keyword, "made up")
    ds.PatientName, ds.PatientID, ds.PatientSex = "Made^Up", "0", "O"
    ds.ReferencedImageSequence = [reference(n) for n in range(3)]
    ds.ProcedureCodeSequence = [Dataset()]
    for keyword in (
        "KVP",
        "DataCollectionDiameter",
        "ReconstructionDiameter",
        "SliceThickness",
    ):
        setattr(ds, keyword, "120")
    ds.SliceThickness, ds.ConvolutionKernel, ds.PatientPosition = (
        "1.25",
        "STANDARD",
        "HFS",
    )
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = 4, 1, k + 1
    ds.ImagePositionPatient = [-178.6, -164.25, round(31.5 + 1.25 * k, 4)]
    ds.ImageOrientationPatient, ds.PixelSpacing = (
        [1, 0, 0, 0, 1, 0],
        ["0.703125", "0.703125"],
    )
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows = ds.Columns = 16
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = (
        16,
        12,
        11,
        0,
    )
    ds.WindowCenter, ds.WindowWidth, ds.RescaleIntercept, ds.RescaleSlope = (
        40,
        400,
        -1024,
        1,
    )
    for group in (0x0009, 0x0019, 0x0021, 0x0043):
        ds.add_new(group << 16 | 0x10, "LO", "MADE UP")
        for element in range(12):
            ds.add_new(group << 16 | 0x1000 + element, "DS", "1.5")
    ds.PixelData = np.zeros((16, 16), np.uint16).tobytes()
    return ds


def reference(number: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = (
        uids.CTImageStorage,
        f"1.2.{number}",
    )
    return item


def with_medseg(root: Path) -> int:
    return len(find_series(root)[0])


def with_scans(root: Path) -> int:
    return len(find_scans(root, 1).scans)


def with_gdcm(root: Path) -> int:
    scanner = gdcm.Scanner()
    for keyword in HEADER_KEYWORDS:
        tag = tag_for_keyword(keyword) or 0
        scanner.AddTag(gdcm.Tag(tag >> 16, tag & 0xFFFF))
    if not scanner.Scan(
        [str(file) for file in root.rglob("*") if file.is_file()]
    ):
        raise SystemExit("gdcm cannot read the folder")
    return len(scanner.GetValues(gdcm.Tag(0x0020, 0x000E)))


def with_tags(root: Path) -> int:
    return _with_pydicom(root, list(HEADER_KEYWORDS))


def with_pydicom(root: Path) -> int:
    return _with_pydicom(root, None)


def _with_pydicom(root: Path, tags: list[str] | None) -> int:
    files = (file for file in root.rglob("*") if file.is_file())
    read = (
        pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
        for file in files
    )
    return len({ds.SeriesInstanceUID for ds in read})


if __name__ == "__main__":
    main()
