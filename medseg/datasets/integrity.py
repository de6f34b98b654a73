"""The data check: open every case before hours are spent on training with it.

Every fault of every case is found in one go. What is only odd is a warning: an intensity scale
of its own, an empty label, a case that is there twice.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Case, CaseList, Scan
from medseg.datasets.label_encoding import Indices, encode_labels
from medseg.datasets.names import abbreviate, is_picture
from medseg.errors import Fault, ScanError
from medseg.events import Listener, Progress, notify
from medseg.io import read_image, stack_channels, with_channels
from medseg.volume import Array, Volume

TASK = "checking cases"
"""The chore's name in progress events."""

_MOST_WORKERS = 4  # each holds a case in memory; more only wait for the disk


@dataclass(frozen=True, slots=True)
class IntegrityReport:
    """What the data check found.

    Attributes:
        good: Cases that can be trained on, in the order given.
        faults: What is wrong with the others, by case.
        warnings: What a person should know, though training can go on.
        labels: Label indices that occur in the good cases, without background.
    """

    good: tuple[Case, ...]
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    labels: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _Finding:
    """What one case turned out to be.

    Attributes:
        case: The case.
        fault: Why it cannot be used, if so.
        warnings: What is odd about it.
        labels: Label indices that occur in it, without background.
        image_hash: Of its voxels; the same for copies in other files.
        label_hash: The same of its labels; empty if there are none.
    """

    case: Case
    fault: str | None = None
    warnings: tuple[str, ...] = ()
    labels: frozenset[int] = frozenset()
    image_hash: str = ""
    label_hash: str = ""


Keep = Callable[[Case, Volume, Indices], None]
"""Takes a good case while it is open: image ``(channels, i, j, k)``, indices ``(i, j, k)``."""


def check_cases(
    cases: CaseList | Sequence[Case],
    spec: BundleSpec,
    listeners: Iterable[Listener] = (),
    keep: Keep | None = None,
) -> IntegrityReport:
    """Open every case and check that it can be trained on with this bundle.

    Args:
        cases: The cases; the faults and warnings of a ``CaseList`` are carried on.
        spec: Its channels, labels and kind of input are what the cases must have.
        listeners: Hear the progress, in the calling thread.
        keep: Called with each good case while it is open, in a worker thread, so that nobody
            has to read it again; a ``ScanError`` it raises is the case's fault.

    Returns:
        The good cases, and every fault and warning.
    """
    listed = cases if isinstance(cases, CaseList) else CaseList(tuple(cases))
    listeners = tuple(listeners)
    of_kind, mixed_up = _of_right_kind(listed.cases, spec)
    findings = []
    notify(listeners, Progress(TASK, 0, len(of_kind)))
    workers = min(_MOST_WORKERS, max(2, os.cpu_count() or 2))
    with ThreadPoolExecutor(workers, thread_name_prefix=TASK) as pool:
        for finding in pool.map(lambda case: _inspect(case, spec, keep), of_kind):
            findings.append(finding)
            notify(listeners, Progress(TASK, len(findings), len(of_kind)))
    faults = [Fault(found.case.name, found.fault) for found in findings if found.fault]
    warnings = [f"{found.case.name}: {text}" for found in findings for text in found.warnings]
    good = [found for found in findings if not found.fault]
    return IntegrityReport(
        tuple(found.case for found in good),
        (*listed.faults, *mixed_up, *faults),
        (*listed.warnings, *warnings, *_copies(good)),
        frozenset[int]().union(*(found.labels for found in good)),
    )


def open_case(case: Case, spec: BundleSpec) -> tuple[Volume, Indices]:
    """Read a case and check that image, label and bundle fit each other.

    Returns:
        The image, float32, shape ``(channels, i, j, k)``; and the label indices on its grid,
        shape ``(i, j, k)``.

    Raises:
        ScanError: If a file cannot be read, the channels or the labels are not the bundle's,
            the image shows nothing, or nobody annotated any of it.
        GeometryError: If image and label do not lie on one grid.
    """
    image = read_scan(case.scan, len(spec.channels))
    label = case.read_label(image)
    image.require_same_grid(label, "the image and its label map")
    if not any(_varies(channel) for channel in image.array):
        raise ScanError("every voxel of the image has the same value, so there is nothing to see")
    indices = encode_labels(label, spec.label_set)
    if spec.label_set.ignore_index is not None and (indices == spec.label_set.ignore_index).all():
        raise ScanError(
            f"every voxel of the label has the value {spec.data.ignore}, which data.ignore leaves "
            "out, so there is nothing to learn from"
        )
    return image, indices


def read_scan(scan: Scan, channels: int, *, resample_uneven: bool = False) -> Volume:
    """Read a scan's parts as one volume with as many channels as the bundle has.

    Args:
        scan: The scan.
        channels: How many the bundle has.
        resample_uneven: Whether DICOM slices at uneven distances are resampled, not refused.

    Returns:
        float32, shape ``(channels, i, j, k)``.

    Raises:
        ScanError: If a part cannot be read, or the channels are too many or too few.
        GeometryError: If the parts do not lie on one grid, or have no certain place.
    """
    volumes = [
        read_image(part, volume=scan.volume, resample_uneven=resample_uneven) for part in scan.parts
    ]
    return with_channels(stack_channels(volumes), channels)


def _inspect(case: Case, spec: BundleSpec, keep: Keep | None) -> _Finding:
    try:
        image, labels = open_case(case, spec)
        if keep is not None:
            keep(case, image, labels)
    except ScanError as error:
        return _Finding(case, fault=str(error))
    except Exception as error:
        error.add_note(f"while checking the case {case.name}")
        raise
    present = _present(labels, spec.label_set.classes)
    return _Finding(
        case,
        warnings=tuple(_oddities(image, present, spec)),
        labels=present,
        image_hash=_content_hash(image.array),
        label_hash=_content_hash(labels[None]) if present else "",
    )


def _oddities(image: Volume, present: frozenset[int], spec: BundleSpec) -> Iterator[str]:
    yield from image.warnings
    for channel, voxels in zip(spec.channels, image.array, strict=True):
        if not _varies(voxels):
            yield f"every voxel of the channel {channel.name} has the same value"
    if not present:
        yield "its label is empty: only background"


def _of_right_kind(
    cases: Sequence[Case], spec: BundleSpec
) -> tuple[tuple[Case, ...], tuple[Fault, ...]]:
    """Set aside pictures for a bundle of volumes and the reverse; one fault says so."""
    wants_pictures = spec.preprocessing.input == "picture"
    wrong = [case for case in cases if _is_picture(case) != wants_pictures]
    if not wrong:
        return tuple(cases), ()
    kinds = ("volumes", "pictures") if wants_pictures else ("pictures", "volumes")
    other = "volume" if wants_pictures else "picture"
    fault = Fault(
        "preprocessing.input",
        f"{len(wrong)} of {len(cases)} cases are {kinds[0]} and the bundle is for {kinds[1]}: "
        f"{abbreviate(case.name for case in wrong)}. Set preprocessing.input to '{other}', or give "
        f"{kinds[1]}",
    )
    return tuple(case for case in cases if _is_picture(case) == wants_pictures), (fault,)


def _is_picture(case: Case) -> bool:
    return all(is_picture(file) for part in case.scan.parts for file in part)


def _varies(voxels: Array) -> bool:
    return bool(voxels.min() < voxels.max())


def _present(labels: Indices, channels: int) -> frozenset[int]:
    """Return the labels that occur: neither background nor what nobody annotated."""
    slabs = (labels[..., k] for k in range(labels.shape[2]))
    found = {index for slab in slabs for index in np.unique(slab).tolist()}
    return frozenset(index for index in found if 0 < index < channels)


def _content_hash(array: Array) -> str:
    """Hash voxels and shape, whatever order they have in memory."""
    digest = hashlib.blake2b(repr(array.shape).encode(), digest_size=16)
    for channel in array:
        for k in range(channel.shape[-1]):
            digest.update(np.ascontiguousarray(channel[..., k].T).data)
    return digest.hexdigest()


def _copies(findings: Sequence[_Finding]) -> Iterator[str]:
    """Name cases whose image or label is a copy of another's: they leak between folds."""
    for what in ("image", "label"):
        same: dict[str, list[str]] = defaultdict(list)
        for found in findings:
            digest = found.image_hash if what == "image" else found.label_hash
            if digest:
                same[digest].append(found.case.name)
        for names in same.values():
            if len(names) > 1:
                yield (
                    f"the {what}s of {abbreviate(names)} are identical, voxel for voxel; in "
                    "different folds they would be both learned and tested"
                )


def describe_absent_labels(present: Collection[int], spec: BundleSpec) -> Iterator[str]:
    """Warn of labels that no case holds, given the indices that occur."""
    absent = [label.name for label in spec.label_set if label.index not in present]
    if absent:
        yield f"no case holds the label {abbreviate(absent)}, so it cannot be learned"
