"""The cases to be labelled: scans in a folder, or series of a DICOMweb server (``dicomweb.py``)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np

from medseg._support.files import atomic_file, write_atomically
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Scan
from medseg.datasets.input_checks import check_kind, check_volume
from medseg.datasets.integrity import read_scan
from medseg.datasets.names import split_suffix
from medseg.datasets.redaction import discreet
from medseg.datasets.scans import find_scans
from medseg.errors import DatasetError, Fault, MedsegError, OutputError
from medseg.events import Listener, Notice, Progress, notify
from medseg.io import read_image
from medseg.label_server.state import State, is_plain
from medseg.volume import Volume

_WORKERS = 2  # each holds a scan in memory
TASK = "checking scans"


def is_url(studies: str) -> bool:
    """Tell whether the studies are on a DICOMweb server."""
    return studies.startswith(("http://", "https://"))


class Cases(Protocol):
    """Where the cases are."""

    def names(self) -> Sequence[str]:
        """Name every case, sorted."""

    def scan(self, name: str) -> Scan:
        """Return a case's files, fetched if need be.

        Raises:
            DatasetError: If there is no such case.
        """

    def image(self, name: str) -> Path:
        """Return one file that a viewer can open; its voxels are the scan's."""

    def facts(self, name: str) -> Mapping[str, Any]:
        """Say what else is known of a case, for viewers."""


class FolderCases:
    """The scans of a folder, and images that clients uploaded.

    The scans stay where they are. Which there are is noted in the state folder, so that the
    processes a server starts need not search again.

    Args:
        state: The state folder.
        spec: The bundle's spec.
    """

    def __init__(self, state: State, spec: BundleSpec) -> None:
        self._state, self._spec = state, spec
        self._noted = 0
        self._scans: dict[str, Scan] = {}

    def names(self) -> Sequence[str]:
        """Name every case, sorted."""
        return sorted(self._known())

    def scan(self, name: str) -> Scan:
        """Return a case's files."""
        found = self._known().get(name)
        if found is None:
            raise DatasetError(f"there is no case '{name[:100]}'")
        return found

    def image(self, name: str) -> Path:
        """Return the scan's own file where it is one that viewers open, else a NIfTI copy."""
        scan = self.scan(name)
        files = [file for part in scan.parts for file in part]
        if len(files) == 1 and split_suffix(files[0].name)[1] in (".nii", ".nii.gz", ".nrrd"):
            return files[0]
        return viewable(self._state, scan)

    def facts(self, name: str) -> Mapping[str, Any]:
        """Say what a viewer shows of a case."""
        return {"name": name}

    def add(self, name: str, file: Path) -> None:
        """Take an uploaded image up.

        Args:
            name: What it will be called.
            file: The image; it is moved.

        Raises:
            ScanError: If it cannot be read or is not what the bundle segments.
            MedsegError: If the name is taken or is no plain name.
        """
        if not is_plain(name) or name in self._known():
            raise MedsegError(f"'{name[:100]}' is taken, or is no name for a case; give another")
        scan = Scan(name, ((file,),))
        check_kind(scan, self._spec)
        check_volume(read_scan(scan, len(self._spec.channels)), self._spec)
        kept = self._state.images / f"{name}{split_suffix(file.name)[1]}"
        with atomic_file(kept) as temporary:
            shutil.copyfile(file, temporary)
        note(self._state, [*self._known().values(), Scan(name, ((kept,),))])

    def _known(self) -> dict[str, Scan]:
        try:
            changed = self._state.cases.stat().st_mtime_ns
            if changed != self._noted:
                self._scans = {scan.name: scan for scan in noted(self._state)}
                self._noted = changed
        except (OSError, ValueError, LookupError) as error:
            raise OutputError(
                f"{self._state.cases} cannot be read ({error}); start medseg label again"
            ) from error
        return self._scans


def find_folder_cases(
    studies: Path, state: State, spec: BundleSpec, listeners: Sequence[Listener] = ()
) -> tuple[Fault, ...]:
    """Find the scans of a folder, check that each can be segmented, and note the good ones.

    Args:
        studies: The folder.
        state: The state folder; unchanged scans that were checked before are not read again.
        spec: The bundle's spec.
        listeners: Told of progress, and of what was passed over.

    Returns:
        What was left out, and why.

    Raises:
        DatasetError: If no scan is good.
    """
    found = find_scans(studies, len(spec.channels))
    for remark in found.notes:
        notify(listeners, Notice(remark))
    checked = _checked_before(state)
    good: list[Scan] = []
    faults = [entry.fault for entry in found.left_out]
    fresh = [scan for scan in found.scans if checked.get(scan.name) != _print(scan)]
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix=TASK) as pool:
        wrong: dict[str, str] = {}
        for done, (scan, fault) in enumerate(
            zip(fresh, pool.map(lambda scan: _fault(scan, spec), fresh), strict=True), start=1
        ):
            notify(listeners, Progress(TASK, done, len(fresh)))
            if fault:
                wrong[scan.name] = fault
    for scan in found.scans:
        if scan.name in wrong:
            faults.append(Fault(scan.name, wrong[scan.name]))
        else:
            good.append(scan)
    names = {scan.name for scan in good}
    good += [scan for scan in _uploaded(state) if scan.name not in names]
    if not good:
        raise DatasetError(f"{studies}: no scan can be segmented with this bundle:", faults)
    note(state, good)
    return tuple(faults)


def note(state: State, scans: Sequence[Scan]) -> None:
    """Note which scans there are."""
    content = {
        scan.name: {
            "parts": [[str(file.absolute()) for file in part] for part in scan.parts],
            "volume": scan.volume,
            "print": _print(scan),
        }
        for scan in scans
    }
    write_atomically(state.cases, json.dumps(content, indent=1) + "\n")


def noted(state: State) -> Iterator[Scan]:
    """Yield the scans that were noted."""
    content = json.loads(state.cases.read_text(encoding="utf-8"))
    for name, entry in content.items():
        parts = tuple(tuple(Path(file) for file in part) for part in entry["parts"])
        yield Scan(name, parts, entry["volume"])


def viewable(state: State, scan: Scan, channel: int = 0) -> Path:
    """Return a NIfTI copy of one of a scan's parts, made if it is not there."""
    copy = state.images / f"{scan.name}{f'_{channel:04d}' * bool(channel)}.nii.gz"
    if not copy.is_file():
        write_image(copy, read_image(scan.parts[channel], volume=scan.volume))
    return copy


def write_image(path: Path, volume: Volume) -> None:
    """Write a volume's first channel as NIfTI, whole or not at all; 16 bits where they hold it."""
    voxels = volume.array[0]
    small = np.rint(voxels).astype(np.int16) if np.abs(voxels).max() < 2**15 else None
    exact = small is not None and np.array_equal(small, voxels)
    image = nib.Nifti1Image(small if exact else voxels, np.array(volume.affine))
    image.header.set_xyzt_units("mm")
    image.set_sform(np.array(volume.affine), code="scanner")
    with atomic_file(path) as temporary:
        nib.save(image, temporary)


def _fault(scan: Scan, spec: BundleSpec) -> str | None:
    try:
        check_kind(scan, spec)
        check_volume(read_scan(scan, len(spec.channels)), spec)
    except MedsegError as error:
        return discreet(str(error), scan)
    return None


def _print(scan: Scan) -> str:
    """Tell by sizes and times of files whether a scan is the one that was checked."""
    stats = [file.stat() for part in scan.parts for file in part]
    total = sum(found.st_size for found in stats)
    return f"{len(stats)} {total} {max(found.st_mtime_ns for found in stats)}"


def _checked_before(state: State) -> dict[str, str]:
    try:
        content = json.loads(state.cases.read_text(encoding="utf-8"))
        return {name: entry["print"] for name, entry in content.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}  # nothing noted yet, or torn from outside: every scan is read again


def _uploaded(state: State) -> list[Scan]:
    try:
        scans = list(noted(state))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
    return [
        scan
        for scan in scans
        if all(f.is_file() and f.parent == state.images for part in scan.parts for f in part)
    ]
