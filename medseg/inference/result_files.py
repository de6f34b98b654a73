"""The files a batch leaves for each scan: which formats there are, and where none may go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg._support.folders import resolve_path
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Scan
from medseg.datasets.scans import LEDGER
from medseg.errors import DatasetError, MedsegError, OutputError, ScanError
from medseg.io import write_labels
from medseg.io.dicom.volume import Slices
from medseg.volume import Array, Volume


@dataclass(frozen=True, slots=True)
class ResultFormat:
    """One kind of result file.

    Attributes:
        name: What ``--format`` calls it.
        ending: What is put behind a scan's name.
        write: Writes label indices ``(i, j, k)`` on a scan's grid, whole or not at all.
        needs_dicom: Whether only DICOM scans can have it.
    """

    name: str
    ending: str
    write: Callable[[Path, Array, Volume, BundleSpec], None]
    needs_dicom: bool = False


def _write_label_map(path: Path, labels: Array, like: Volume, spec: BundleSpec) -> None:
    write_labels(path, labels, like)


def _write_dicom_seg(path: Path, labels: Array, like: Volume, spec: BundleSpec) -> None:
    from medseg.io.dicom.seg_writer import write_dicom_seg

    write_dicom_seg(path, labels, like, spec.label_set, algorithm=spec.name, version=spec.version)


def _write_rtstruct(path: Path, labels: Array, like: Volume, spec: BundleSpec) -> None:
    from medseg.io.dicom.rtstruct_writer import write_rtstruct

    write_rtstruct(path, labels, like, spec.label_set, algorithm=spec.name, version=spec.version)


# No ending is the end of another, so that two scans never share a file.
RESULT_FORMATS: Mapping[str, ResultFormat] = {
    kind.name: kind
    for kind in (
        ResultFormat("nifti", ".nii.gz", _write_label_map),
        ResultFormat("png", ".png", _write_label_map),
        ResultFormat("dicom-seg", ".seg.dcm", _write_dicom_seg, needs_dicom=True),
        ResultFormat("rtstruct", ".rtstruct.dcm", _write_rtstruct, needs_dicom=True),
    )
}
"""The formats that ``--format`` takes."""


ERROR_MAPS = "error_maps"
"""The folder of error maps among the results."""


def error_map_file(out: Path, scan: str, spec: BundleSpec) -> Path:
    """Return where the error map of a scan lies, or would: percent, on the scan's grid."""
    ending = ".png" if spec.preprocessing.input == "picture" else ".nii.gz"
    return out / ERROR_MAPS / f"{scan}{ending}"


SUMMARIES = ("volumes.csv", "report.html")
"""The files of a whole batch, beside its ledger."""


def choose_formats(names: Sequence[str], spec: BundleSpec) -> tuple[ResultFormat, ...]:
    """Return the formats asked for, or the usual one: PNG for pictures, else NIfTI.

    Raises:
        MedsegError: If there is no such format, or it cannot hold the bundle's scans.
    """
    pictures = spec.preprocessing.input == "picture"
    wanted = dict.fromkeys(names) or {"png" if pictures else "nifti": None}
    unknown = [name for name in wanted if name not in RESULT_FORMATS]
    if unknown:
        raise MedsegError(f"--format takes {', '.join(RESULT_FORMATS)}; got {', '.join(unknown)}")
    chosen = tuple(RESULT_FORMATS[name] for name in wanted)
    if pictures and any(kind.needs_dicom for kind in chosen):
        raise MedsegError(
            "the bundle segments pictures, which have no place in a DICOM study; "
            "choose --format png or nifti"
        )
    if not pictures and "png" in wanted:
        raise MedsegError("the bundle segments volumes, and a PNG holds one slice; choose nifti")
    return chosen


def refuse_format(volume: Volume, formats: Iterable[ResultFormat]) -> None:
    """Refuse a scan that cannot have one of the formats, before time is spent on it.

    Raises:
        ScanError: Says which.
    """
    for kind in formats:
        if kind.needs_dicom and not isinstance(volume.header, Slices):
            raise ScanError(
                f"is no DICOM series, so there are no slices for --format {kind.name} to refer "
                "to; choose nifti for it"
            )


def refuse_overwriting(
    root: Path, out: Path, scans: Sequence[Scan], formats: Sequence[ResultFormat]
) -> None:
    """Make sure that results replace nothing but results, and are never taken for scans.

    Args:
        root: Where the scans were looked for: a folder, a file or a table.
        out: The folder for results.
        scans: The scans found.
        formats: What will be written for each.

    Raises:
        OutputError: If ``out`` holds scans or other files that would be replaced.
        DatasetError: If ``root`` is a folder of results itself.
    """
    if (root / LEDGER).is_file() and resolve_path(root) != resolve_path(out):
        raise DatasetError(
            f"{root} holds results of medseg ({LEDGER}), not scans; give the folder of scans"
        )
    home, searched = resolve_path(out), resolve_path(root)
    inside = home.is_relative_to(searched)
    for folder in _folders_of(scans):
        below = inside and folder.is_relative_to(home)
        if home == searched or below or folder == home:
            raise OutputError(
                f"{out} holds scans that are to be segmented; results among them would be taken "
                f"for scans next time. Give a folder of its own, such as {out / 'results'}"
            )
    if not (out / LEDGER).exists():
        names = [f"{scan.name}{kind.ending}" for scan in scans for kind in formats]
        _refuse_existing(out, [*names, *SUMMARIES])


def _folders_of(scans: Iterable[Scan]) -> set[Path]:
    """Return the folders in which the scans' files truly lie."""
    files = {file for scan in scans for part in scan.parts for file in part}
    # Only what is a link can lie elsewhere than its folder.
    straight = {file.parent for file in files if not file.is_symlink()}
    links = {resolve_path(file).parent for file in files if file.is_symlink()}
    return {resolve_path(folder) for folder in straight} | links


def _refuse_existing(out: Path, names: Iterable[str]) -> None:
    for name in names:
        if (out / name).exists():
            raise OutputError(
                f"{out / name} is there already and is no result of medseg (there is no {LEDGER} "
                "beside it); give another folder, so that nothing is replaced"
            )
