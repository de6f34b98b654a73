"""Labelled cases to measure a bundle on, found and checked as those to train on are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.bundle.spec import BundleSpec, DataSpec
from medseg.datasets.cache import hash_content, hash_label_content
from medseg.datasets.cases import Case, CaseList, find_cases
from medseg.datasets.dataset import refuse_contradictions, report_faults
from medseg.datasets.integrity import check_cases, warn_of_outliers
from medseg.datasets.measures import CaseMeasures
from medseg.errors import DatasetError
from medseg.events import Listener, Notice, notify

_HASH_DIGITS = 16
_WHERE = (
    "format",
    "images",
    "labels",
    "columns",
    "split_4d",
    "splits",
    "group_by",
    "group_pattern",
)
"""Fields of ``data`` that say how one folder lists its cases, and how they are split."""


@dataclass(frozen=True, slots=True)
class LabelledCases:
    """Cases without a fault.

    Attributes:
        cases: Sorted by name.
        ids: Of each, the hash of its images' content.
        measures: Of each.
        spec: The bundle by which they are read.
        present: Indices of the labels that any of them holds.
        left_out: How many faults were found in others, which are left out.
    """

    cases: Sequence[Case]
    ids: Sequence[str]
    measures: Sequence[CaseMeasures]
    spec: BundleSpec
    present: frozenset[int]
    left_out: int = 0

    @property
    def fingerprint(self) -> str:
        """Hash of the content of all, images and labels, whatever their names."""
        parts = []
        for case, case_id in zip(self.cases, self.ids, strict=True):
            parts.append(f"{case_id} {hash_label_content(case)}")
        text = "\n".join(sorted(parts))
        return hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]

    def keep(self, positions: Sequence[int]) -> LabelledCases:
        """Return some of them."""
        measures = [self.measures[position] for position in positions]
        present: set[int] = set()
        for each in measures:
            present.update(each.present)
        return LabelledCases(
            [self.cases[position] for position in positions],
            [self.ids[position] for position in positions],
            measures,
            self.spec,
            frozenset(present),
            self.left_out,
        )


def open_labelled_cases(
    data: Path,
    spec: BundleSpec,
    *,
    skip_bad_cases: bool = False,
    trust_values: bool = False,
    listeners: Sequence[Listener] = (),
) -> LabelledCases:
    """Find the cases of a data set, and check each by the rules of ``train``.

    They are looked for as the bundle says of its own data, and where that finds none, in any
    layout that medseg knows.

    Args:
        data: The data folder, or its list of cases.
        spec: The bundle.
        skip_bad_cases: Go on without the cases that have a fault.
        trust_values: Whether the bundle counts, whatever the data set calls its values and
            channels.
        listeners: Told of progress, warnings and cases left out.

    Raises:
        DatasetError: If cases are bad, every one named, or there are none.
    """
    found, spec = _find_anywhere(data, spec, trust_values)
    refuse_contradictions(found, range(1, len(spec.labels) + 1))
    report = check_cases(found, spec, listeners)
    report_faults(report.faults, skip_bad_cases, listeners)
    refuse_contradictions(found, report.labels)
    apart = warn_of_outliers(report.measures, spec)
    for warning in (*report.warnings, *apart):
        notify(listeners, Notice(warning))
    cases = report.good
    return LabelledCases(
        cases,
        [hash_content(case) for case in cases],
        list(_list_measures(cases, report.measures)),
        spec,
        report.labels,
        left_out=len(report.faults),
    )


def _find_anywhere(
    data: Path, spec: BundleSpec, trust_values: bool
) -> tuple[CaseList, BundleSpec]:
    """Find the cases as the bundle's own lie, or as any others do."""
    defaults = DataSpec()
    usual = {field: getattr(defaults, field) for field in _WHERE}
    section = spec.data.model_copy(update=usual)
    anywhere = spec.model_copy(update={"data": section})
    if anywhere == spec:
        return find_cases(data, spec, trust_values=trust_values), spec
    try:
        return find_cases(data, spec, trust_values=trust_values), spec
    except DatasetError as own_error:
        try:
            found = find_cases(data, anywhere, trust_values=trust_values)
        except DatasetError:
            raise own_error from None
    return found, anywhere


def _list_measures(
    cases: Sequence[Case], measures: Mapping[str, CaseMeasures]
) -> Iterator[CaseMeasures]:
    for case in cases:
        yield measures[case.name]
