"""The cases to be labelled: scans in a folder, or series of a DICOMweb server (``dicomweb.py``)."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np

from medseg._support.files import atomic_file, write_atomically
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Scan
from medseg.datasets.input_checks import check_kind, check_volume
from medseg.datasets.integrity import read_scan
from medseg.datasets.scans import find_scans
from medseg.errors import DatasetError, Fault, MedsegError, OutputError
from medseg.events import Listener, Notice, Progress, notify
from medseg.io import read_image
from medseg.io.voxels import limit_voxels
from medseg.label_server.state import StateFolder, is_plain_name
from medseg.names import fold_name, normalize_name, split_suffix
from medseg.volume import Array, Volume

TASK = "checking scans"

MOST_UPLOADED_VOXELS = 1 << 28
"""Of an image that a client sends: 512×512×1024, which is 1 GB in memory."""

_WORKERS = 2  # each holds a scan in memory
_VIEWER_SUFFIXES = (".nii", ".nii.gz", ".nrrd")
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError)
"""What reading a list of cases can raise that is not there, or that somebody else changed."""


def is_url(studies: str) -> bool:
    """Tell whether the studies are on a DICOMweb server.

    Examples:
        >>> is_url("http://127.0.0.1:8042/dicom-web"), is_url("scans")
        (True, False)
    """
    return studies.startswith(("http://", "https://"))


class Cases(Protocol):
    """Where the cases are."""

    def list_names(self) -> Sequence[str]:
        """Return the name of every case, sorted."""

    def get_scan(self, name: str) -> Scan:
        """Return a case's files, fetched if need be.

        Raises:
            DatasetError: If there is no such case.
        """

    def get_image_file(self, name: str) -> Path:
        """Return one file that a viewer can open; its voxels are the scan's."""

    def get_info(self, name: str) -> Mapping[str, Any]:
        """Return what else is known of a case, for viewers."""


class FolderCases:
    """The scans of a folder, and images that clients uploaded.

    The scans stay where they are. Their list is kept in the state folder, so that the processes
    that a server starts need not search again.

    Args:
        state: The state folder.
        spec: The bundle's spec.
    """

    def __init__(self, state: StateFolder, spec: BundleSpec) -> None:
        self._state = state
        self._spec = spec
        self._listed: tuple[int, ...] = ()
        self._scans: dict[str, Scan] = {}
        self._adding = threading.Lock()

    def list_names(self) -> Sequence[str]:
        """Return the name of every case, sorted."""
        return sorted(self._read())

    def get_scan(self, name: str) -> Scan:
        """Return a case's files."""
        scan = self._read().get(normalize_name(name))
        if scan is None:
            raise DatasetError("there is no such case", detail=name[:100])
        return scan

    def get_image_file(self, name: str) -> Path:
        """Return the scan's own file if viewers open such files, else a NIfTI copy."""
        scan = self.get_scan(name)
        first, *others = list_files(scan)
        _, suffix = split_suffix(first.name)
        if suffix in _VIEWER_SUFFIXES and not others:
            return first
        return make_nifti_copy(self._state, scan)

    def get_info(self, name: str) -> Mapping[str, Any]:
        """Return what a viewer shows of a case."""
        return {"name": name}

    def add_image(self, name: str, file: Path) -> None:
        """Make an uploaded image a case.

        Args:
            name: The new case's name.
            file: The image; it is copied.

        Raises:
            ScanError: If it cannot be read or is not what the bundle segments.
            MedsegError: If the name is taken or is not a plain name.
        """
        # One after another: each adds to the list that the one before has written.
        with self._adding:
            self._add_image(name, file)

    def _add_image(self, name: str, file: Path) -> None:
        scans = self._read()
        name = normalize_name(name)
        if not is_plain_name(name):
            raise MedsegError(
                "a case's name has letters and digits of any script, '.', '_' and '-' only; give "
                "another",
                detail=name[:100],
            )
        if fold_name(name) in {fold_name(taken) for taken in scans}:
            raise MedsegError(
                "there is a case of this name already; give another",
                detail=name,
            )
        with limit_voxels(MOST_UPLOADED_VOXELS):
            _check_scan(Scan(name, ((file,),)), self._spec)
        _, suffix = split_suffix(file.name)
        copy = self._state.images / f"{name}{suffix}"
        with atomic_file(copy) as temporary:
            shutil.copyfile(file, temporary)
        added = Scan(name, ((copy,),))
        write_case_list(self._state, [*scans.values(), added])

    def _read(self) -> dict[str, Scan]:
        """Return the scans by name; the list is read again when it has changed."""
        try:
            stat = self._state.cases.stat()
            # Two lists can be written within one tick of the file system's clock, but each is a
            # file of its own.
            listed = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if listed != self._listed:
                scans = read_case_list(self._state)
                self._scans = {scan.name: scan for scan in scans}
                self._listed = listed
        except _UNREADABLE as error:
            raise OutputError(
                "the list of cases cannot be read; start medseg label again",
                source=self._state.cases,
                detail=str(error),
            ) from error
        return self._scans


def find_folder_cases(
    studies: Path,
    state: StateFolder,
    spec: BundleSpec,
    listeners: Sequence[Listener] = (),
    split_4d: str = "",
) -> tuple[Fault, ...]:
    """Find the scans of a folder, check that each can be segmented, and list the good ones.

    Args:
        studies: The folder.
        state: The state folder; unchanged scans that were checked before are not read again.
        spec: The bundle's spec.
        listeners: Told of progress, and whether something was passed over.
        split_4d: How to split a DICOM series whose headers do not tell its volumes apart.

    Returns:
        What was left out, and why.

    Raises:
        DatasetError: If no scan is good.
    """
    found = find_scans(
        studies,
        len(spec.channels),
        split_4d=split_4d,
        channel_specs=spec.channels,
    )
    if found.notes:
        # They may name folders, and what a server prints is often kept as its log.
        notify(
            listeners,
            Notice("files and folders that are not scans were passed over"),
        )
    stamps = _read_stamps(state)
    scans = found.keep_former_names(stamps).scans
    unchecked = [
        scan for scan in scans if stamps.get(scan.name) != _make_stamp(scan)
    ]
    rejected = _check_scans(unchecked, spec, listeners)
    good = [scan for scan in scans if scan.name not in rejected]
    uploaded = _find_uploaded(state, good)
    good.extend(uploaded)
    left_out = [entry.result_fault for entry in found.left_out]
    faults = (*left_out, *rejected.values())
    if not good:
        raise DatasetError(
            "no scan can be segmented with this bundle; mend the scans, or give others",
            faults,
            source=studies,
        )
    write_case_list(state, good)
    return faults


def _check_scans(
    scans: Sequence[Scan], spec: BundleSpec, listeners: Sequence[Listener]
) -> dict[str, Fault]:
    """Return scan's name → what is wrong with it, for those that cannot be segmented."""
    faults = {}
    total = len(scans)
    check = partial(_find_fault, spec)
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix=TASK) as pool:
        for done, fault in enumerate(pool.map(check, scans), start=1):
            notify(listeners, Progress(TASK, done, total))
            if fault is not None:
                faults[fault.where] = fault
    return faults


def _find_fault(spec: BundleSpec, scan: Scan) -> Fault | None:
    try:
        _check_scan(scan, spec)
    except MedsegError as error:
        return Fault.from_error(scan.name, error)
    return None


def _check_scan(scan: Scan, spec: BundleSpec) -> None:
    check_kind(scan, spec)
    check_volume(read_scan(scan, spec.channels), spec)


def write_case_list(state: StateFolder, scans: Sequence[Scan]) -> None:
    """Write the list of scans that can be labelled."""
    content = {}
    for scan in scans:
        entry = {
            "parts": [_write_paths(part) for part in scan.parts],
            "volume": scan.volume,
            "print": _make_stamp(scan),
        }
        if scan.warnings:
            entry["warnings"] = scan.warnings
        content[scan.name] = entry
    write_atomically(state.cases, json.dumps(content, indent=1) + "\n")


def _write_paths(files: Sequence[Path]) -> list[str]:
    return [str(file.absolute()) for file in files]


def read_case_list(state: StateFolder) -> Iterator[Scan]:
    """Yield the scans of the list."""
    content = json.loads(state.cases.read_text(encoding="utf-8"))
    for name, entry in content.items():
        parts = tuple(_read_paths(part) for part in entry["parts"])
        warnings = tuple(entry.get("warnings", ()))
        yield Scan(name, parts, entry["volume"], warnings)


def _read_paths(files: Sequence[str]) -> tuple[Path, ...]:
    return tuple(Path(file) for file in files)


def list_files(scan: Scan) -> list[Path]:
    """Return all files of a scan, channel by channel."""
    files: list[Path] = []
    for part in scan.parts:
        files.extend(part)
    return files


def make_nifti_copy(state: StateFolder, scan: Scan, channel: int = 0) -> Path:
    """Return a NIfTI copy of one of a scan's channels, written if it is not there."""
    name = scan.name
    if channel:
        name = f"{name}_{channel:04d}"
    copy = state.images / f"{name}.nii.gz"
    if not copy.is_file():
        volume = read_image(scan.parts[channel], volume=scan.volume)
        if volume.padding:
            marked = volume.with_array(volume.padding.mark(volume.array))
            write_first_channel(get_training_copy(copy), marked)
        # Last, because then neither is made again.
        write_first_channel(copy, volume)
    return copy


def get_training_copy(copy: Path) -> Path:
    """Return where a copy lies in which padding is NaN, which viewers would stumble over.

    NIfTI has no other way to say what is padding, and without it fine-tuning would normalise the
    copy otherwise than the series is normalised when it is segmented.
    """
    return copy.parent / "training" / copy.name


def write_first_channel(path: Path, volume: Volume) -> None:
    """Write a volume's first channel as NIfTI, whole or not at all."""
    voxels = _shrink_voxels(volume.array[0])
    affine = np.array(volume.affine)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    with atomic_file(path) as temporary:
        nib.save(image, temporary)


def _shrink_voxels(voxels: Array) -> Array:
    """Return the voxels as 16-bit integers if these hold them exactly, else as they are."""
    # Not `max > …`, which would be false for NaN.
    if not np.abs(voxels).max() <= np.iinfo(np.int16).max:
        return voxels
    small = np.rint(voxels).astype(np.int16)
    if not np.array_equal(small, voxels):
        return voxels
    return small


def _make_stamp(scan: Scan) -> str:
    """Return sizes and times of files, which tell whether a scan is the one that was checked."""
    stats = [file.stat() for file in list_files(scan)]
    total = sum(stat.st_size for stat in stats)
    newest = max(stat.st_mtime_ns for stat in stats)
    return f"{len(stats)} {total} {newest}"


def _read_stamps(state: StateFolder) -> dict[str, str]:
    try:
        content = json.loads(state.cases.read_text(encoding="utf-8"))
        return {name: entry["print"] for name, entry in content.items()}
    except _UNREADABLE:
        return {}  # nothing listed yet, or torn from outside: every scan is read again


def _find_uploaded(state: StateFolder, others: Sequence[Scan]) -> list[Scan]:
    """Return the listed cases that clients uploaded, without those whose name is taken."""
    try:
        listed = list(read_case_list(state))
    except _UNREADABLE:
        return []
    taken = {scan.name for scan in others}
    uploaded = []
    for scan in listed:
        if scan.name not in taken and _is_uploaded(scan, state):
            uploaded.append(scan)
    return uploaded


def _is_uploaded(scan: Scan, state: StateFolder) -> bool:
    files = list_files(scan)
    return all(file.parent == state.images and file.is_file() for file in files)
