"""Extracts the fingerprint of a data set. What was measured is cached on disk.

Each case is opened once, and its fingerprint is kept under a hash of its files' content: planning
the same data again costs no more than reading them. The cache holds neither names nor voxels.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from medseg._support.files import write_atomically
from medseg.datasets.case_warnings import list_warnings
from medseg.datasets.case_workers import HERE, CaseWorkers
from medseg.datasets.cases import Case, CaseList, Scan
from medseg.datasets.measures import CaseMeasures
from medseg.errors import Fault, ScanError
from medseg.events import Listener, Progress, notify
from medseg.inference.hashes import hash_scan
from medseg.labels import LabelSet
from medseg.planning.case_inspection import inspect_case
from medseg.planning.fingerprint import (
    CaseFingerprint,
    ChannelStatistics,
    Fingerprint,
    LabelStatistics,
)

TASK = "inspecting cases"
"""The name under which progress is reported."""

_CACHE_VERSION = 5


def extract_fingerprint(
    case_list: CaseList,
    cache: Path,
    listeners: Iterable[Listener] = (),
    ignore: int | None = None,
    labels: LabelSet | None = None,
    workers: CaseWorkers = HERE,
) -> Fingerprint:
    """Inspect every case once.

    Args:
        case_list: The cases; their faults are passed on.
        cache: The folder in which fingerprints of cases are kept.
        listeners: Told of progress, in the calling thread.
        ignore: The value of unlabelled voxels (the ignore label), which is not a label.
        labels: How label files show labels, where not each value is one.
        workers: Who inspects the cases.

    Returns:
        The fingerprint, and the faults of the cases that cannot be used: among them those with
        another number of channels than most.

    Raises:
        OutputError: If the cache cannot be written.
    """
    listeners = tuple(listeners)
    total = len(case_list.cases)
    usable: dict[str, CaseFingerprint] = {}
    faults = list(case_list.faults)
    notify(listeners, Progress(TASK, 0, total))
    inspect = partial(
        _load_or_inspect, cache=cache.absolute(), ignore=ignore, labels=labels
    )
    results = workers.map(inspect, case_list.cases, TASK)
    for done, result in enumerate(results, start=1):
        if isinstance(result, Fault):
            faults.append(result)
        else:
            usable[case_list.cases[done - 1].name] = result
        notify(listeners, Progress(TASK, done, total))
    faults.extend(_remove_unusual_cases(usable))
    oddities = {name: case.warnings for name, case in usable.items()}
    warnings = list_warnings(oddities, len(usable))
    return Fingerprint(
        tuple(usable.values()), tuple(faults), tuple(warnings), tuple(usable)
    )


def _remove_unusual_cases(cases: dict[str, CaseFingerprint]) -> list[Fault]:
    """Remove cases with another number of channels than most; return why, for each."""
    channels = {name: len(case.channels) for name, case in cases.items()}
    counts = Counter(channels.values())
    usual, _ = max(counts.items(), key=lambda item: item[1], default=(0, 0))
    faults = []
    for name, count in channels.items():
        if count != usual:
            what = f"has {count} channels, while most cases have {usual}"
            faults.append(Fault(name, what))
            del cases[name]
    return faults


def _load_or_inspect(
    case: Case, cache: Path, ignore: int | None, labels: LabelSet | None
) -> CaseFingerprint | Fault:
    """Return a case's fingerprint, from the cache if it is there, or why it cannot be used."""
    try:
        file = _get_cache_file(case, cache, ignore, labels)
        fingerprint = _read_cached(file)
        if fingerprint is None:
            fingerprint = inspect_case(case, ignore, labels)
            write_atomically(file, json.dumps(_make_content(fingerprint)))
        return fingerprint
    except ScanError as error:
        return Fault.from_error(case.name, error)
    except Exception as error:
        error.add_note(f"while inspecting the case {case.name}")
        raise


def _get_cache_file(
    case: Case, cache: Path, ignore: int | None, labels: LabelSet | None
) -> Path:
    """Return where a case's fingerprint is kept: under a hash of all that it depends on."""
    # What decides how the files are read, besides themselves: which volume of a file with
    # several, and which structures of DICOM objects or masks are labels.
    reading = case.scan.volume
    if case.label_source:
        reading += case.label_source.key
    label_files = [(file,) for file in case.label_files]
    files = (*case.scan.parts, *label_files)
    if labels is not None:
        reading += repr((labels.values, labels.colours, labels.colour_coded))
    digest = hash_scan(Scan(case.name, files, reading))
    if ignore is None:
        return cache / f"{digest}.json"
    return cache / f"{digest}-without-{ignore}.json"


def _make_content(fingerprint: CaseFingerprint) -> dict[str, Any]:
    """Return what the cache keeps of a case."""
    content = asdict(replace(fingerprint, measures=None))
    content["version"] = _CACHE_VERSION
    if fingerprint.measures is not None:
        content["measures"] = fingerprint.measures.to_json()
    return content


def _read_cached(file: Path) -> CaseFingerprint | None:
    """Return a cached fingerprint; ``None`` if there is none, or it is damaged or outdated."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.pop("version") != _CACHE_VERSION:
            return None
        return CaseFingerprint(
            shape=tuple(content["shape"]),
            spacing=tuple(content["spacing"]),
            channels=tuple(
                _parse_channel(channel) for channel in content["channels"]
            ),
            labels=tuple(
                LabelStatistics(**label) for label in content["labels"]
            ),
            nonzero_share=content["nonzero_share"],
            warnings=tuple(content["warnings"]),
            measures=CaseMeasures.from_json(content["measures"]),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # the case is inspected again, and the file replaced


def _parse_channel(content: Mapping[str, Any]) -> ChannelStatistics:
    return ChannelStatistics(
        **{**content, "foreground": tuple(content["foreground"])}
    )
