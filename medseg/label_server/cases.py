"""The cases to be labelled: scans in a folder, or series of a DICOMweb server (``dicomweb.py``)."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np

from medseg._support.files import PART, atomic_file
from medseg._support.platform.files import sync
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Scan
from medseg.datasets.input_checks import check_kind, check_volume
from medseg.datasets.integrity import read_scan
from medseg.datasets.scans import find_scans
from medseg.errors import DatasetError, Fault, MedsegError, OutputError
from medseg.events import Listener, Notice, Progress, notify
from medseg.io import read_image
from medseg.io.voxels import limit_voxels
from medseg.label_server.scan_list import ScanList, make_stamp
from medseg.label_server.state import StateFolder, is_plain_name
from medseg.label_server.store import Store
from medseg.names import normalize_name, split_suffix
from medseg.volume import Array, Volume

TASK = "checking scans"

MOST_UPLOADED_VOXELS = 1 << 28
"""Of an image that a client sends: 512×512×1024, which is 1 GB in memory."""

_WORKERS = 2  # each holds a scan in memory
_VIEWER_SUFFIXES = (".nii", ".nii.gz", ".nrrd")
_COPY_SUFFIX = ".nii.gz"


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

    The scans stay where they are. Their list is kept in the store, so that the processes that a
    server starts need not search again.

    Args:
        state: The state folder.
        spec: The bundle's spec.
    """

    def __init__(self, state: StateFolder, spec: BundleSpec) -> None:
        self._state = state
        self._spec = spec
        self._list = ScanList(Store(state))
        self._checking = threading.Lock()

    def list_names(self) -> Sequence[str]:
        """Return the name of every case, sorted."""
        return self._list.list_names()

    def get_scan(self, name: str) -> Scan:
        """Return a case's files."""
        return self._list.get(name)

    def get_image_file(self, name: str) -> Path:
        """Return the scan's own file if viewers open such files, else a NIfTI copy."""
        scan = self.get_scan(name)
        if _find_viewer_suffix(scan):
            return scan.files[0]
        return make_nifti_copy(self._state, scan)

    def get_info(self, name: str) -> Mapping[str, Any]:
        """Return what a viewer shows of a case, and under which name it keeps its image."""
        scan = self.get_scan(name)
        suffix = _find_viewer_suffix(scan) or _COPY_SUFFIX
        return {"name": f"{scan.name}{suffix}"}

    def add_image(self, name: str, file: Path) -> None:
        """Make an uploaded image a case.

        Args:
            name: The new case's name.
            file: The image; it is copied.

        Raises:
            ScanError: If it cannot be read or is not what the bundle segments.
            MedsegError: If the name is taken or is not a plain name.
        """
        name = normalize_name(name)
        if not is_plain_name(name):
            raise MedsegError(
                "a case's name has letters and digits of any script, '.', '_' and '-' only; give "
                "another",
                detail=name[:100],
            )
        # One after another: each is in memory while it is read.
        with self._checking, limit_voxels(MOST_UPLOADED_VOXELS):
            _check_scan(Scan(name, ((file,),)), self._spec)
        _, suffix = split_suffix(file.name)
        copy = self._state.added / f"{name}{suffix}"
        part = _copy_beside(file, copy)
        try:
            self._list.add(Scan(name, ((copy,),)), part)
        finally:
            part.unlink(missing_ok=True)


def _find_viewer_suffix(scan: Scan) -> str:
    """Return the suffix of a scan's only file, if viewers open such files; empty if not."""
    first, *others = scan.files
    _, suffix = split_suffix(first.name)
    is_opened = suffix in _VIEWER_SUFFIXES and not others and not scan.volume
    return suffix if is_opened else ""


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
    scan_list = ScanList(Store(state))
    stamps = scan_list.read_stamps()
    scans = found.keep_former_names(stamps).scans
    unchecked = [
        scan for scan in scans if stamps.get(scan.name) != make_stamp(scan)
    ]
    rejected = _check_scans(unchecked, spec, listeners)
    good = [scan for scan in scans if scan.name not in rejected]
    good.extend(_find_added(scan_list.list_all(), good, state))
    left_out = [entry.result_fault for entry in found.left_out]
    faults = (*left_out, *rejected.values())
    if not good:
        raise DatasetError(
            "no scan can be segmented with this bundle; mend the scans, or give others",
            faults,
            source=studies,
        )
    scan_list.set_found(good)
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


def make_nifti_copy(state: StateFolder, scan: Scan, channel: int = 0) -> Path:
    """Return a NIfTI copy of one of a scan's channels, written if it is not there."""
    name = scan.name
    if channel:
        name = f"{name}_{channel:04d}"
    copy = state.images / f"{name}{_COPY_SUFFIX}"
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


def _copy_beside(file: Path, copy: Path) -> Path:
    """Copy a file beside where it will lie, under a temporary name."""
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=copy.parent, prefix=PART)
        os.close(handle)
        shutil.copyfile(file, name)
        sync(Path(name))
    except OSError as error:
        raise OutputError(
            "the image cannot be kept; free disk space or mend the state folder's permissions",
            source=copy,
            detail=error.strerror,
        ) from error
    return Path(name)


def _find_added(
    listed: Sequence[Scan], others: Sequence[Scan], state: StateFolder
) -> list[Scan]:
    """Return the cases that clients uploaded, without those whose name is taken.

    Args:
        listed: The cases as they were listed.
        others: Those that were found in the folder of scans.
        state: The state folder.
    """
    taken = {scan.name for scan in others}
    added = {}
    for file in sorted(state.added.glob("[!.]*")):
        name, _ = split_suffix(file.name)
        added[name] = Scan(name, ((file,),))
    for scan in listed:
        # Where earlier releases put them.
        is_added = all(file.parent == state.images for file in scan.files)
        if is_added and all(file.is_file() for file in scan.files):
            added[scan.name] = scan
    return [scan for name, scan in added.items() if name not in taken]
