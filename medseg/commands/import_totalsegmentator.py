"""``medseg import --totalsegmentator``: a task of TotalSegmentator becomes an assembly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from medseg._support.files import atomic_folder
from medseg.bundle.bundle import ASSEMBLY_FILE, load_bundle
from medseg.bundle.reading import parse_assembly
from medseg.bundle.spec import AssemblySpec
from medseg.bundle.spec_files import write_assembly
from medseg.commands.import_model import import_model
from medseg.commands.imported_bundle import Import, refuse_used_folder
from medseg.errors import MedsegError
from medseg.events import Listener, Notice, Progress, notify
from medseg.interop.totalsegmentator.tasks import Task, TaskPart, find_task
from medseg.interop.totalsegmentator.weights import find_weights

_SOFTWARE = "TotalSegmentator"
_PAPER = (
    "Wasserthal et al., TotalSegmentator, Radiology: Artificial Intelligence 2023, "
    "doi:10.1148/ryai.230024"
)
_PROGRESS = "importing networks"
_PATIENT_AXES = str.maketrans("ijk", "RAS")
"""TotalSegmentator turns scans first, so that stored axes point right, anterior, superior."""
_MOST_OFF = 0.02


@dataclass(frozen=True, slots=True)
class AssemblyImport:
    """A task that became an assembly.

    Attributes:
        folder: The assembly.
        spec: What its ``assembly.json`` says.
        licence: Of the weights.
        remarks: What a person should know.
    """

    folder: Path
    spec: AssemblySpec
    licence: str
    remarks: tuple[str, ...] = ()


def import_totalsegmentator(
    task: str,
    weights: str | Path,
    out: str | Path,
    *,
    licence: str = "",
    listeners: Sequence[Listener] = (),
) -> AssemblyImport:
    """Make an assembly of a task of TotalSegmentator. It is not needed, and nothing is run.

    Args:
        task: Its name, such as ``total``; ``total_fast`` and ``total_fastest`` are what
            TotalSegmentator calls ``--fast`` and ``--fastest``.
        weights: The folder with TotalSegmentator's weights.
        out: A new or empty folder: the assembly.
        licence: Of the weights; as TotalSegmentator states it unless given.
        listeners: Told of progress, and of what a person should know.

    Raises:
        MedsegError: If medseg knows no such task, or weights are missing.
        CheckpointError: If weights are damaged, forged, or of another network.
        OutputError: If ``out`` is not empty or cannot be written.
    """
    wanted = find_task(task)
    target = Path(out)
    refuse_used_folder(target)
    stages = list(_list_stages(wanted))
    sources = [*stages, *((wanted, part) for part in wanted.parts)]
    found = find_weights(Path(weights), [part for _, part in sources])
    stated = licence or wanted.licence
    remarks = list(_list_remarks(task, wanted))
    with atomic_folder(target) as folder:
        tables = {}
        for number, (of_task, part) in enumerate(sources):
            notify(listeners, Progress(_PROGRESS, number, len(sources)))
            imported = import_model(
                found[part.dataset],
                folder / _place(part),
                folds=of_task.folds,
                configuration=of_task.configuration,
                licence=licence or of_task.licence,
                adapt=partial(_adapt, of_task, part),
            )
            remarks += [f"{part.name}: {text}" for text in imported.remarks]
            remarks += _compare_spacing(of_task, part, imported)
            tables[part.name] = _name_labels(
                part, imported, found[part.dataset]
            )
        notify(listeners, Progress(_PROGRESS, len(sources), len(sources)))
        spec = _describe_assembly(task, wanted, tables, stated)
        write_assembly(spec, folder / ASSEMBLY_FILE)
        load_bundle(folder)
    for remark in remarks:
        notify(listeners, Notice(remark))
    return AssemblyImport(target, spec, stated, tuple(remarks))


def _list_stages(task: Task) -> Iterator[tuple[Task, TaskPart]]:
    """Yield the networks that only say where the task's own look."""
    if task.crop is None:
        return
    coarse = find_task(task.crop.task)
    yield from _list_stages(coarse)
    (part,) = coarse.parts
    yield coarse, part


def _place(part: TaskPart) -> str:
    return f"bundles/{part.name}"


def _adapt(task: Task, part: TaskPart, content: dict[str, Any]) -> None:
    """Make a bundle do what TotalSegmentator does otherwise than nnU-Net.

    It turns scans before nnU-Net reads them and, where the task has a voxel size, resamples them,
    so that nnU-Net normalises the result, and brings labels, not scores, back: each from the
    nearest voxel, once the largest pieces are chosen. It flips no windows.
    """
    prep, inference = content["preprocessing"], content["inference"]
    prep["axes"] = prep["axes"].translate(_PATIENT_AXES)
    if task.spacing_mm is not None:
        prep["normalise"] = "after_resampling"
        inference["resample"] = "labels"
        inference["keep_largest_on"] = "input"
    inference["overlap"] = task.overlap
    inference["mirror"] = False
    if len(content["channels"]) == 1:
        content["channels"] = (
            {"name": task.modality, "modality": task.modality},
        )
    inference["keep_largest"] = tuple(
        label["name"]
        for label, name in zip(content["labels"], part.labels, strict=False)
        if name in part.keep_largest
    )


def _name_labels(
    part: TaskPart, imported: Import, weights: Path
) -> dict[str, str]:
    """Return the model's names of labels → the task's, by their values in label maps.

    Args:
        part: The network.
        imported: What became of it.
        weights: Where it was.

    Raises:
        MedsegError: If the model is not the one that the table knows.
    """
    own = {label.file_values[0]: label.name for label in imported.spec.labels}
    expected = dict(enumerate(part.labels, start=1))
    missing = sorted(set(expected) - set(own))
    # Auxiliary labels may follow; a name in another's place is another model.
    moved = [
        value
        for value, name in own.items()
        if name in part.labels and expected.get(value) != name
    ]
    if missing or moved:
        raise MedsegError(
            f"the weights of data set {part.dataset} have other labels than medseg's table of "
            f"TotalSegmentator's tasks: {len(own)} instead of {len(expected)}, or in another "
            "order; they are of another version",
            source=weights,
        )
    return {own[value]: name for value, name in expected.items() if name}


def _compare_spacing(
    task: Task, part: TaskPart, imported: Import
) -> Iterator[str]:
    """Say so if a network was planned for another voxel size than its task's."""
    planned = imported.spec.preprocessing.spacing_mm
    if task.spacing_mm is None or planned is None:
        return
    wanted = sorted(task.spacing_mm)
    sizes = sorted(mm for mm in planned if mm is not None)
    pairs = list(zip(sizes, wanted, strict=False))
    if any(abs(mm - other) > _MOST_OFF * other for mm, other in pairs):
        shown = " × ".join(f"{mm:g}" for mm in sizes)
        yield (
            f"{part.name} sees voxels of {shown} mm, as its plans say; TotalSegmentator resamples "
            "scans to another size before, medseg does not"
        )


def _list_remarks(name: str, task: Task) -> Iterator[str]:
    if task.needs_licence_number:
        yield (
            f"the weights of {name} need a licence number from TotalSegmentator's makers, which is "
            "free for non-commercial use alone; see that you may use them"
        )
    elif task.licence != "Apache-2.0":
        yield f"the licence of the weights of {name} is {task.licence}"
    if task.left_out != "nothing":
        yield f"not done, other than by TotalSegmentator: {task.left_out}"


def _describe_assembly(
    name: str, task: Task, tables: dict[str, dict[str, str]], licence: str
) -> AssemblySpec:
    """Return the assembly of a task whose bundles are there.

    Args:
        name: Of the task.
        task: The task.
        tables: Network → its names of labels → the task's.
        licence: Of the weights.
    """
    names = [label for part in task.parts for label in part.labels if label]
    content: dict[str, Any] = {
        "name": name,
        "description": f"{_SOFTWARE}'s task {name}: {len(names)} structures in {task.modality}",
        "authors": f"The makers of {_SOFTWARE}",
        "licence": licence,
        "origin": f"{_SOFTWARE} {name}",
        "references": [_PAPER],
        "labels": [
            {"index": index, "name": label}
            for index, label in enumerate(names, start=1)
        ],
        "stages": list(_describe_stages(task)),
        "parts": [],
    }
    for part in task.parts:
        described = _describe_step(task, part)
        content["parts"].append({**described, "labels": tables[part.name]})
    return parse_assembly(content)


def _describe_stages(task: Task) -> Iterator[dict[str, Any]]:
    for of_task, part in _list_stages(task):
        yield _describe_step(of_task, part)


def _describe_step(task: Task, part: TaskPart) -> dict[str, Any]:
    step: dict[str, Any] = {"name": part.name, "bundle": _place(part)}
    if task.crop is not None:
        (source,) = find_task(task.crop.task).parts
        step["crop"] = {
            "source": source.name,
            "labels": list(task.crop.labels),
            "margin_mm": task.crop.margin_mm,
        }
    return step
