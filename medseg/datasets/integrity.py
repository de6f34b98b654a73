"""The integrity check: open every case before hours are spent on training with it.

Every fault of every case is found in one go. What is only odd is a warning: an intensity scale
of its own, an empty label, a case that is there twice.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from medseg._support.memory import explain_lack_of_memory
from medseg.bundle.spec import BundleSpec, ChannelSpec
from medseg.datasets.case_warnings import list_warnings
from medseg.datasets.case_workers import HERE, CaseWorkers
from medseg.datasets.cases import Case, CaseList, Scan
from medseg.datasets.channel_ways import fit_channels
from medseg.datasets.input_checks import admit
from medseg.datasets.label_encoding import Indices, encode_mask
from medseg.datasets.measures import CaseMeasures, measure_training_case
from medseg.datasets.outliers import describe_outliers, find_outliers
from medseg.errors import Fault, ScanError
from medseg.events import Listener, Progress, notify
from medseg.io import read_image, stack_channels, with_channels
from medseg.names import abbreviate
from medseg.volume import Array, Volume

TASK = "checking cases"
"""The chore's name in progress events."""


@dataclass(frozen=True, slots=True)
class IntegrityReport:
    """What the integrity check found.

    Attributes:
        good: Cases that can be trained on, in the order given.
        faults: What is wrong with the others, by case.
        warnings: What a person should know, though training can go on. They are shown and never
            recorded: they name cases.
        labels: Label indices that occur in the good cases, without background.
        measures: Of each good case, by its name.
    """

    good: tuple[Case, ...]
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    labels: frozenset[int] = frozenset()
    measures: Mapping[str, CaseMeasures] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _CheckedCase:
    """What one case turned out to be.

    Attributes:
        case: The case.
        fault: Why it cannot be used, if so.
        warnings: What is odd about it.
        labels: Label indices that occur in it, without background.
        image_hash: Of its voxels; the same for copies in other files.
        label_hash: The same of its labels; empty if there are none.
        measures: What it is compared with the others by; ``None`` if it cannot be used.
    """

    case: Case
    fault: Fault | None = None
    warnings: tuple[str, ...] = ()
    labels: frozenset[int] = frozenset()
    image_hash: str = ""
    label_hash: str = ""
    measures: CaseMeasures | None = None


CaseHandler = Callable[[Case, Volume, Indices, CaseMeasures], None]
"""Takes a good case while it is open: image ``(channels, i, j, k)``, indices ``(i, j, k)``.

The image's warnings are all that is odd about the case; the measures compare it with others."""


def check_cases(
    cases: CaseList | Sequence[Case],
    spec: BundleSpec,
    listeners: Iterable[Listener] = (),
    handle_case: CaseHandler | None = None,
    workers: CaseWorkers = HERE,
) -> IntegrityReport:
    """Open every case and check that it can be trained on with this bundle.

    Args:
        cases: The cases; the faults and warnings of a ``CaseList`` are carried on.
        spec: Its channels, labels and kind of input are what the cases must have.
        listeners: Told of progress, in the calling thread.
        handle_case: Called with each good case while it is open, in a worker thread, so that
            it need not be read again; a ``ScanError`` it raises is the case's fault.
        workers: Who opens the cases.

    Returns:
        The good cases, and every fault and warning.
    """
    listed = cases if isinstance(cases, CaseList) else CaseList(tuple(cases))
    of_kind, kind_faults = _select_kind(listed.cases, spec)
    good: list[_CheckedCase] = []
    faults = [*listed.faults, *kind_faults]
    warnings = list(listed.warnings)
    labels: set[int] = set()
    measures: dict[str, CaseMeasures] = {}
    check = partial(_check_case, spec=spec, handle_case=handle_case)
    for checked in _check_each(of_kind, check, tuple(listeners), workers):
        if checked.fault is not None:
            faults.append(checked.fault)
            continue
        good.append(checked)
        labels |= checked.labels
        if checked.measures is not None:
            measures[checked.case.name] = checked.measures
    oddities = {checked.case.name: checked.warnings for checked in good}
    warnings.extend(list_warnings(oddities, len(good)))
    warnings.extend(_warn_of_copies(good))
    return IntegrityReport(
        good=tuple(checked.case for checked in good),
        faults=tuple(faults),
        warnings=tuple(warnings),
        labels=frozenset(labels),
        measures=measures,
    )


def warn_of_outliers(
    measures: Mapping[str, CaseMeasures], spec: BundleSpec
) -> Iterator[str]:
    """Name the cases that lie apart from the others, each with what to look at.

    Args:
        measures: Of every case of the data set, by its name.
        spec: The bundle that the cases are for.
    """
    outliers = find_outliers(
        measures,
        [channel.modality for channel in spec.channels],
        {label.index: label.name for label in spec.label_set},
        pictures=spec.preprocessing.input == "picture",
    )
    return describe_outliers(outliers)


def open_case(case: Case, spec: BundleSpec) -> tuple[Volume, Indices]:
    """Read a case and check that image, label and bundle fit each other.

    Returns:
        The image, float32, shape ``(channels, i, j, k)``, with what the readers of image and
        label noticed; and the label indices on its grid, shape ``(i, j, k)``.

    Raises:
        ScanError: If a file cannot be read, the channels or the labels are not the bundle's,
            or no voxel of the image is annotated.
        GeometryError: If image and label do not lie on one grid.
    """
    image = read_scan(case.scan, len(spec.channels))
    label = case.read_label(image)
    labels = spec.label_set
    encoded = encode_mask(label, labels)
    indices = encoded.indices
    if (
        labels.ignore_index is not None
        and (indices == labels.ignore_index).all()
    ):
        codes = ", ".join(map(str, spec.data.ignored))
        raise ScanError(
            f"every voxel of the label has the value {codes}, which data.ignore leaves "
            "out, so there is nothing to learn from"
        )
    warnings = (*image.warnings, *encoded.warnings)
    return replace(image, warnings=warnings), indices


def read_scan(
    scan: Scan,
    channels: int | Sequence[ChannelSpec],
    *,
    resample_uneven: bool = False,
) -> Volume:
    """Read a scan's parts as one volume with as many channels as the bundle has.

    Args:
        scan: The scan.
        channels: The bundle's, or how many it has.
        resample_uneven: Whether DICOM slices at uneven distances are resampled, not refused.

    Returns:
        float32, shape ``(channels, i, j, k)``.

    Raises:
        ScanError: If a part cannot be read, or the channels are too many or too few.
        GeometryError: If the parts do not lie on one grid, or have no certain place.
    """
    volumes = [
        read_image(part, volume=scan.volume, resample_uneven=resample_uneven)
        for part in scan.parts
    ]
    stacked = stack_channels(volumes)
    if isinstance(channels, int):
        volume = with_channels(stacked, channels)
    else:
        volume = fit_channels(stacked, channels)
    return replace(volume, warnings=(*scan.warnings, *volume.warnings))


def describe_absent_labels(
    present: Collection[int], spec: BundleSpec
) -> Iterator[str]:
    """Warn of labels that no case holds, given the indices that occur."""
    absent = [
        label.name for label in spec.label_set if label.index not in present
    ]
    if absent:
        yield f"no case holds the label {abbreviate(absent)}, so it cannot be learned"


# --- one case -----------------------------------------------------------------------------


def _check_each(
    cases: Sequence[Case],
    check: Callable[[Case], _CheckedCase],
    listeners: Sequence[Listener],
    workers: CaseWorkers,
) -> Iterator[_CheckedCase]:
    """Check the cases; yield them in their order."""
    notify(listeners, Progress(TASK, 0, len(cases)))
    results = workers.map(check, cases, TASK)
    for done, result in enumerate(results, start=1):
        notify(listeners, Progress(TASK, done, len(cases)))
        if isinstance(result, Fault):
            result = _CheckedCase(cases[done - 1], fault=result)
        yield result


def _check_case(
    case: Case, spec: BundleSpec, handle_case: CaseHandler | None
) -> _CheckedCase:
    try:
        with explain_lack_of_memory():
            return _inspect(case, spec, handle_case)
    except ScanError as error:
        return _CheckedCase(case, fault=Fault.from_error(case.name, error))
    except Exception as error:
        error.add_note(f"while checking the case {case.name}")
        raise


def _inspect(
    case: Case, spec: BundleSpec, handle_case: CaseHandler | None
) -> _CheckedCase:
    image, labels = open_case(case, spec)
    admitted = admit(image, spec)
    measures = _measure(image, labels, spec)
    present = measures.present
    warnings = admitted.warnings
    if not present:
        warnings += ("its label is empty: only background",)
    if handle_case is not None:
        admitted = replace(admitted, warnings=warnings)
        handle_case(case, admitted, labels, measures)
    return _CheckedCase(
        case,
        warnings=warnings,
        labels=present,
        image_hash=_hash_voxels(image.array),
        label_hash=_hash_voxels(labels[None]) if present else "",
        measures=measures,
    )


def _measure(image: Volume, labels: Indices, spec: BundleSpec) -> CaseMeasures:
    """Measure a case; unlabelled voxels are no label of it."""
    label_set = spec.label_set
    if label_set.ignore_index is not None:
        labels = np.where(labels == label_set.ignore_index, 0, labels)
    return measure_training_case(image, labels, len(label_set))


def _hash_voxels(array: Array) -> str:
    """Hash voxels and shape, whatever order they have in memory."""
    shape = repr(array.shape)
    digest = hashlib.blake2b(shape.encode(), digest_size=16)
    for channel in array:
        for k in range(channel.shape[-1]):
            slab = np.ascontiguousarray(channel[..., k].T)
            digest.update(slab.data)
    return digest.hexdigest()


# --- all cases ----------------------------------------------------------------------------


def _select_kind(
    cases: Sequence[Case], spec: BundleSpec
) -> tuple[list[Case], list[Fault]]:
    """Set aside pictures for a bundle of volumes and the reverse; one fault says so."""
    wants_pictures = spec.preprocessing.input == "picture"
    fitting: list[Case] = []
    wrong: list[Case] = []
    for case in cases:
        kind = fitting if case.scan.is_picture == wants_pictures else wrong
        kind.append(case)
    if not wrong:
        return fitting, []
    other = "volume" if wants_pictures else "picture"
    wanted = "pictures" if wants_pictures else "volumes"
    what = (
        f"{len(wrong)} of {len(cases)} cases are {other}s and the bundle is for {wanted}; set "
        f"preprocessing.input to '{other}', or give {wanted}"
    )
    names = abbreviate(case.name for case in wrong)
    return fitting, [Fault("preprocessing.input", what, names)]


def _warn_of_copies(cases: Iterable[_CheckedCase]) -> Iterator[str]:
    """Name cases whose image or label is a copy of another's: they leak between folds."""
    by_image: dict[str, list[str]] = defaultdict(list)
    by_label: dict[str, list[str]] = defaultdict(list)
    for checked in cases:
        name = checked.case.name
        by_image[checked.image_hash].append(name)
        # Where nothing is labelled, labels are the same without being copies.
        if checked.label_hash:
            by_label[checked.label_hash].append(name)
    for what, groups in (("images", by_image), ("labels", by_label)):
        for names in groups.values():
            if len(names) > 1:
                yield (
                    f"the {what} of {abbreviate(names)} are identical, voxel for voxel; in "
                    "different folds they would be both learned and tested"
                )
