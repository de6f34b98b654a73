"""The result files of each scan: the formats, and the folders that they may be written to.

Another package adds a format by an entry point, whose name is what ``--format`` takes::

    [project.entry-points."medseg.result_formats"]
    mesh = "my_package.mesh:MESH"

The entry point is a ``ResultFormat``. ``medseg.testing.result_formats`` has a suite of tests that
every format should pass.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg._support.registry import Registry
from medseg.bundle.spec import BundleSpec
from medseg.errors import MedsegError, OutputError, ScanError
from medseg.io import write_labels
from medseg.io.dicom.volume import Slices
from medseg.io.registry import find_label_format, list_label_suffixes
from medseg.volume import Array, Volume

ERROR_MAPS = "error_maps"
"""The folder of error maps among the results."""

SUMMARIES = ("volumes.csv", "report.html")
"""The files of a whole batch, beside its ledger."""

_ENDING = re.compile(r"(\.[A-Za-z0-9_-]+)+")


@dataclass(frozen=True, slots=True)
class ResultFormat:
    """One kind of result file.

    Attributes:
        ending: What is put behind a scan's name, such as ``.nii.gz``. No ending is the end of
            another, so that two scans never share a file.
        write: Takes a path, label indices ``(i, j, k)``, the scan that they are of, and the
            bundle. Writes the file whole or not at all (``medseg.testing.result_formats`` says how
            this is tested), puts no name of a file, a folder or a patient into it unless the
            format is meant to go back into the patient's record, and raises ``OutputError``
            where it cannot. Runs in a thread of its own.
        needs_dicom: Whether only DICOM scans can have it.
        check_source: Takes a scan before it is segmented, and raises ``MedsegError`` where no file
            can be made of it whatever its labels: it lacks something that ``write`` repeats of
            it. So that no time is lost, and a scan's other formats are written all the same.
    """

    ending: str
    write: Callable[[Path, Array, Volume, BundleSpec], None]
    needs_dicom: bool = False
    check_source: Callable[[Volume], None] | None = None


def _write_label_map(
    path: Path, labels: Array, like: Volume, spec: BundleSpec
) -> None:
    write_labels(path, labels, like)


def _write_dicom_seg(
    path: Path, labels: Array, like: Volume, spec: BundleSpec
) -> None:
    # highdicom takes long to import, and few batches need it.
    from medseg.dicom_labels.seg_writer import write_dicom_seg

    write_dicom_seg(
        path,
        labels,
        like,
        spec.label_set,
        algorithm=spec.name,
        version=spec.version,
        origin=spec.origin or "",
    )


def _check_seg_source(volume: Volume) -> None:
    from medseg.dicom_labels.seg_writer import check_seg_source

    check_seg_source(volume)


def _write_rtstruct(
    path: Path, labels: Array, like: Volume, spec: BundleSpec
) -> None:
    from medseg.dicom_labels.rtstruct_writer import write_rtstruct

    write_rtstruct(
        path,
        labels,
        like,
        spec.label_set,
        algorithm=spec.name,
        version=spec.version,
    )


def _check_dicom_source(volume: Volume) -> None:
    from medseg.dicom_labels.references import check_source

    check_source(volume)


def check_result_format(kind: ResultFormat) -> None:
    """Make sure that an entry point names a result format.

    Raises:
        TypeError: If it does not.
        ValueError: If its ending is not the end of a plain file name.
    """
    if not isinstance(kind, ResultFormat):
        raise TypeError(f"a ResultFormat is needed, got {type(kind).__name__}")
    if not _ENDING.fullmatch(kind.ending):
        raise ValueError(f"'{kind.ending}' is not an ending such as .nii.gz")


RESULT_FORMATS: Registry[ResultFormat] = Registry(
    "medseg.result_formats",
    "result format",
    {
        "nifti": ResultFormat(".nii.gz", _write_label_map),
        "nrrd": ResultFormat(".nrrd", _write_label_map),
        "mha": ResultFormat(".mha", _write_label_map),
        "png": ResultFormat(".png", _write_label_map),
        "dicom-seg": ResultFormat(
            ".seg.dcm",
            _write_dicom_seg,
            needs_dicom=True,
            check_source=_check_seg_source,
        ),
        "rtstruct": ResultFormat(
            ".rtstruct.dcm",
            _write_rtstruct,
            needs_dicom=True,
            check_source=_check_dicom_source,
        ),
    },
    check=check_result_format,
)
"""The formats that ``--format`` takes."""


def choose_formats(
    names: Sequence[str], spec: BundleSpec
) -> dict[str, ResultFormat]:
    """Return the formats asked for by name, or the usual one: PNG for pictures, else NIfTI.

    Raises:
        MedsegError: If there is no such format, it cannot hold the bundle's scans, or two would
            write to one file.
        MissingExtraError: If a format of another package cannot be used.
    """
    is_for_pictures = spec.preprocessing.input == "picture"
    if not names:
        names = ["png" if is_for_pictures else "nifti"]
    chosen = {name: _get_format(name) for name in names}
    needs_dicom = [name for name, kind in chosen.items() if kind.needs_dicom]
    if is_for_pictures and needs_dicom:
        raise MedsegError(
            "the bundle segments pictures, which do not belong to a DICOM study; "
            "choose --format png or nifti"
        )
    if not is_for_pictures and "png" in chosen:
        raise MedsegError(
            "the bundle segments volumes, and a PNG holds one slice; choose nifti"
        )
    _refuse_shared_endings(chosen)
    return chosen


def _get_format(name: str) -> ResultFormat:
    if name not in RESULT_FORMATS.names:
        known = ", ".join(RESULT_FORMATS.names)
        raise MedsegError(f"there is no --format {name}; choose from {known}")
    return RESULT_FORMATS.get(name)


def _refuse_shared_endings(formats: Mapping[str, ResultFormat]) -> None:
    for one, other in itertools.permutations(formats, 2):
        if formats[one].ending.endswith(formats[other].ending):
            raise MedsegError(
                f"--format {one} and {other} would write to files of the same name; choose one of "
                "them"
            )


def write_result(
    path: Path,
    labels: Array,
    like: Volume,
    spec: BundleSpec | None,
    name: str | None = None,
) -> None:
    """Write one result, whole or not at all.

    Args:
        path: The file.
        labels: Label indices ``(i, j, k)``.
        like: The scan's grid and header.
        spec: The bundle; without it, label maps alone can be written.
        name: The format; that of the path's ending unless given.

    Raises:
        OutputError: If there is no such format, it cannot hold the labels of this scan, or the
            file cannot be written.
    """
    kind = _find_result_format(path, name)
    if kind is None:
        _refuse_unknown_ending(path)
        write_labels(path, labels, like)
        return
    if spec is None:
        raise OutputError(
            "this segmentation does not say which bundle made it, which this format names; give "
            "spec=bundle.spec, or write .nii.gz"
        )
    try:
        _check_format(like, name or kind.ending, kind)
    except ScanError as error:
        raise OutputError(
            error.message, source=path, detail=error.detail
        ) from error
    kind.write(path, labels, like, spec)


def _refuse_unknown_ending(path: Path) -> None:
    """Refuse an ending of no format, with all that may be written.

    Raises:
        OutputError: If it is of none.
    """
    if find_label_format(path) is not None:
        return
    formats, _ = RESULT_FORMATS.usable()
    endings = list(list_label_suffixes())
    endings.extend(kind.ending for kind in formats.values())
    listed = ", ".join(dict.fromkeys(endings))
    raise OutputError(
        f"label maps are written as {listed}; the ending given is none of these",
        source=path,
    )


def _find_result_format(path: Path, name: str | None) -> ResultFormat | None:
    """Return the format asked for by name or ending; ``None`` for a plain label map."""
    kind = _find_by_ending(path) if name is None else _find_by_name(path, name)
    if kind is None or kind.write is _write_label_map:
        return None
    return kind


def _find_by_ending(path: Path) -> ResultFormat | None:
    formats, _ = RESULT_FORMATS.usable()
    name = path.name.lower()
    for kind in formats.values():
        if name.endswith(kind.ending.lower()):
            return kind
    if name.endswith(".dcm"):
        raise OutputError(
            "a .dcm file may be a segmentation or a structure set; call it .seg.dcm or "
            ".rtstruct.dcm, or give format='dicom-seg' or 'rtstruct'",
            source=path,
        )
    return None


def _find_by_name(path: Path, name: str) -> ResultFormat:
    if name not in RESULT_FORMATS.names:
        known = ", ".join(RESULT_FORMATS.names)
        raise OutputError(
            f"there is no result format {name}; choose from {known}"
        )
    kind = RESULT_FORMATS.get(name)
    is_label_map = kind.write is _write_label_map
    if is_label_map and not path.name.lower().endswith(kind.ending):
        raise OutputError(
            f"{name} is written to files that end in {kind.ending}", source=path
        )
    return kind


def find_missing_formats(
    volume: Volume, formats: Mapping[str, ResultFormat]
) -> dict[str, str]:
    """Find out which formats a scan cannot have, before time is spent on it.

    Returns:
        Format → why.

    Raises:
        ScanError: If it can have none of them.
    """
    missing: dict[str, str] = {}
    for name, kind in formats.items():
        try:
            _check_format(volume, name, kind)
        except MedsegError as error:
            missing[name] = error.message
            refusal = error
    if missing and len(missing) == len(formats):
        raise ScanError(
            refusal.message, source=refusal.source, detail=refusal.detail
        ) from refusal
    return missing


def _check_format(volume: Volume, name: str, kind: ResultFormat) -> None:
    if kind.needs_dicom and not isinstance(volume.header, Slices):
        raise ScanError(
            f"the scan is not a DICOM series, so there are no slices for --format {name} to "
            "refer to; choose nifti for it"
        )
    if kind.check_source is not None:
        kind.check_source(volume)


def get_error_map_path(out: Path, scan: str, spec: BundleSpec) -> Path:
    """Return where the error map of a scan lies, or would: percent, on the scan's grid."""
    of_pictures, of_volumes = list_error_map_paths(out, scan)
    is_picture = spec.preprocessing.input == "picture"
    return of_pictures if is_picture else of_volumes


def list_error_map_paths(out: Path, scan: str) -> tuple[Path, Path]:
    """Return where the error map of a scan can lie: a picture's, and a volume's."""
    folder = out / ERROR_MAPS
    return folder / f"{scan}.png", folder / f"{scan}.nii.gz"
