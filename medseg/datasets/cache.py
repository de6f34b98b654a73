"""The cache: training cases, preprocessed once and kept on disk as arrays to map into memory.

A case's entry is a folder ``<key>/`` with ``image.npy`` (float16), ``label.npy`` (uint8 or
uint16), ``foreground.npz`` (where each label is) and ``entry.json``. The key depends on the
case's files and on the preprocessing, so a changed file or bundle makes a new entry and an old
one is never mistaken for it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from medseg._support.files import PART, refuse_special
from medseg._support.platform.files import rename
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Case
from medseg.datasets.measures import CaseMeasures
from medseg.errors import OutputError
from medseg.io.voxel_files import find_voxel_file
from medseg.preprocessing.case_input import Preprocessing
from medseg.preprocessing.departures import find_departures
from medseg.preprocessing.transforms import IMAGE, LABEL, preprocessing_steps
from medseg.volume import Array, Volume

ENTRY_VERSION = 4
"""Raised when what an entry holds changes, so that older ones are made anew."""

FOREGROUND_SAMPLES = 20_000
"""Most voxels remembered per label: enough for any patch to be centred anywhere on it."""

_ENTRY_FILE = "entry.json"
_IMAGE_FILE = "image.npy"
_LABEL_FILE = "label.npy"
_FOREGROUND_FILE = "foreground.npz"
_ANNOTATED = "annotated"
_KEY_DIGITS = 32
_ID_DIGITS = 10


@dataclass(frozen=True, slots=True)
class CachedCase:
    """One training case on the network's grid.

    Attributes:
        case_id: Ten hex digits of a hash of the image's content: names it without its name.
        label_id: Ten hex digits of a hash of the label's voxels, as they are kept here.
        image: ``(channels, x, y, z)`` float16, mapped from disk or on a device.
        label: ``(1, x, y, z)`` label indices, uint8 or int32.
        foreground: Label index → flat positions in ``(x, y, z)`` that have it, at most about
            ``FOREGROUND_SAMPLES``.
        spacing: Voxel size in mm along x, y, z.
        annotated: Flat positions of annotated voxels, background among them; ``None`` where all
            are annotated.
        warnings: What was odd about the case when it was read.
        measures: What it is compared with other cases by.
    """

    case_id: str
    label_id: str
    image: torch.Tensor
    label: torch.Tensor
    foreground: dict[int, npt.NDArray[np.int64]]
    spacing: tuple[float, float, float]
    annotated: npt.NDArray[np.int64] | None = None
    warnings: tuple[str, ...] = ()
    measures: CaseMeasures | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along x, y and z."""
        x, y, z = self.image.shape[1:]
        return x, y, z

    @property
    def nbytes(self) -> int:
        """Memory the two arrays take."""
        return self.image.nbytes + self.label.nbytes

    def to(self, device: torch.device) -> CachedCase:
        """Return the case with its arrays on ``device``."""
        return replace(
            self, image=self.image.to(device), label=self.label.to(device)
        )


def make_entry_key(case: Case, spec: BundleSpec) -> str:
    """Return the name of a case's entry: a hash of its files' identity and the preprocessing."""
    files = []
    for path in (*case.scan.files, *case.label_files):
        for file in _files_of(path):
            files.append(_identify(file))
    labels = []
    for label in spec.label_set:
        labels.append((label.index, label.value, label.colour))
    steps = preprocessing_steps(spec)
    recipe = (
        ENTRY_VERSION,
        files,
        json.dumps(steps, default=repr, sort_keys=True),
        len(spec.channels),
        spec.preprocessing.input,
    )
    content: list[object] = [recipe, labels]
    # What most cases do not have is left out, so that their keys stay what they were.
    if case.scan.volume:
        content.append(case.scan.volume)
    if case.label_source is not None:
        content.append(case.label_source.key)
    if spec.data.ignore is not None:
        content.append(("ignore", spec.data.ignore))
    if find_departures(spec):
        content.append(spec.preprocessing.model_dump_json())
    others = _list_other_codes(spec)
    if others:
        content.append(others)
    text = repr(tuple(content))
    digest = hashlib.sha256(text.encode())
    return digest.hexdigest()[:_KEY_DIGITS]


def _list_other_codes(spec: BundleSpec) -> list[object]:
    """Return what else decides how label files are read; nothing in most bundles."""
    codes: list[object] = []
    for label in spec.label_set:
        if label.other_values or label.other_colours:
            more = (label.index, label.other_values, label.other_colours)
            codes.append(more)
    if spec.data.background or spec.data.colour_coded:
        codes.append((spec.data.background, spec.data.colour_coded))
    return codes


def hash_content(case: Case) -> str:
    """Return ten hex digits of the SHA-256 of the case's image files' bytes."""
    return _hash_files(case.scan.files)


def hash_label_content(case: Case) -> str:
    """Return ten hex digits of the SHA-256 of the case's label files' bytes."""
    return _hash_files(case.label_files)


def _hash_files(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        for file in _files_of(path):
            refuse_special(file)
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:_ID_DIGITS]


def _identify(file: Path) -> tuple[str, int, int]:
    status = file.stat()
    return str(file.resolve()), status.st_size, status.st_mtime_ns


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return sorted({path, find_voxel_file(path)})


# --- write --------------------------------------------------------------------------------


def write_entry(
    folder: Path,
    case: Case,
    volume: Volume,
    label: Array,
    measures: CaseMeasures,
    preprocess: Preprocessing,
    ignored: int | None = None,
) -> None:
    """Preprocess one case and keep it in ``folder``, whole or not at all.

    Args:
        folder: The entry, named by ``make_entry_key``.
        case: The case; only its files' content is remembered.
        volume: Its image; its warnings are kept.
        label: Its label indices, ``(i, j, k)``, on the image's grid.
        measures: Of both.
        preprocess: The bundle's chain, with label.
        ignored: The index of unannotated voxels.

    Raises:
        ScanError: If the case cannot be preprocessed.
        OutputError: If the entry cannot be written.
    """
    data = preprocess(volume, label)
    image = data[IMAGE].numpy().astype(np.float16)
    label_type = np.uint8 if label.max() < 256 else np.int32
    indices = data[LABEL].numpy().round().astype(label_type)
    affine = np.asarray(data[IMAGE].affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=PART))
        np.save(part / _IMAGE_FILE, np.ascontiguousarray(image))
        np.save(part / _LABEL_FILE, np.ascontiguousarray(indices))
        positions = _sample_positions(indices[0], ignored)
        np.savez(part / _FOREGROUND_FILE, allow_pickle=False, **positions)
        label_digest = hashlib.sha256(indices.tobytes())
        entry = {
            "case_id": hash_content(case),
            "label_id": label_digest.hexdigest()[:_ID_DIGITS],
            "spacing": spacing.tolist(),
            "measures": measures.to_json(),
        }
        if volume.warnings:
            entry["warnings"] = list(volume.warnings)
        # Last, because it marks the entry as whole.
        content = json.dumps(entry)
        (part / _ENTRY_FILE).write_bytes(content.encode())
        _publish(part, folder)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError(
            f"a case cannot be written to the cache: {reason}",
            source=folder.parent,
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _publish(part: Path, folder: Path) -> None:
    try:
        rename(part, folder)
    except OSError:
        # Two runs may prepare one case at once: the first to finish wins, both are equal.
        if not is_entry(folder):
            raise


def _sample_positions(
    label: Array, ignored: int | None
) -> dict[str, npt.NDArray[np.int64]]:
    """Return flat positions of each label, and of annotated voxels where some are not."""
    flat = label.reshape(-1)
    nonzero = np.flatnonzero(flat)
    values = flat[nonzero]
    indices = np.unique(values)
    positions = {}
    for index in indices:
        if index != ignored:
            having = nonzero[values == index]
            positions[str(index)] = _thin(having)
    if ignored is not None and ignored in indices:
        annotated = np.flatnonzero(flat != ignored)
        positions[_ANNOTATED] = _thin(annotated)
    return positions


def _thin(positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    step = max(1, len(positions) // FOREGROUND_SAMPLES)
    return positions[::step]


# --- read ---------------------------------------------------------------------------------


def is_entry(folder: Path) -> bool:
    """Tell whether a case is kept there, whole."""
    return (folder / _ENTRY_FILE).is_file()


def read_entry(folder: Path) -> CachedCase:
    """Map a case's entry into memory; nothing is read before it is used.

    Raises:
        OutputError: If it is damaged.
    """
    try:
        entry = json.loads((folder / _ENTRY_FILE).read_text(encoding="utf-8"))
        with np.load(folder / _FOREGROUND_FILE) as archive:
            positions = {name: archive[name] for name in archive.files}
        annotated = positions.pop(_ANNOTATED, None)
        x, y, z = entry["spacing"]
        return CachedCase(
            case_id=entry["case_id"],
            label_id=entry["label_id"],
            image=_map_array(folder / _IMAGE_FILE),
            label=_map_array(folder / _LABEL_FILE),
            foreground={int(index): flat for index, flat in positions.items()},
            spacing=(x, y, z),
            annotated=annotated,
            warnings=tuple(entry.get("warnings", ())),
            measures=CaseMeasures.from_json(entry["measures"]),
        )
    except (
        OSError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        zipfile.BadZipFile,
    ) as error:
        raise OutputError(
            "a case in the cache is damaged; remove its folder, and it is made anew",
            source=folder,
            detail=f"{type(error).__name__}: {error}",
        ) from error


def _map_array(path: Path) -> torch.Tensor:
    # Copy-on-write: torch wants writable memory, and the file is never changed through it.
    return torch.from_numpy(np.load(path, mmap_mode="c"))
