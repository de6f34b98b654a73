"""Every public name has an example in its docstring, and each one runs."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest

import medseg


def find_examples(name: str) -> list[doctest.DocTest]:
    """Return the examples of a public name, those of a class's own methods included."""
    public = getattr(medseg, name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    module = inspect.getmodule(public)
    return [
        test
        for test in finder.find(public, name, module=module)
        if test.examples
    ]


PARTS = {
    *("Agreement", "AgreementSpec", "BundleSpec", "CaseFingerprint"),
    *("CaseMeasures", "CaseScores", "ChannelStatistics", "CheckReport"),
    *("Difference", "Entry", "Fault", "Fingerprint", "Interval", "JudgedMask"),
    *(
        "Correction",
        "LabelMeasures",
        "LabelQuality",
        "LabelScores",
        "LabelStatistics",
        "LesionCounts",
    ),
    *(
        "Listener",
        "Padding",
        "Prediction",
        "QualityEntry",
        "Region",
        "ShownQuality",
    ),
    *("Statistic", "VolumeLike"),
}
"""Public because signatures name them; nobody makes one, so they need no example."""


@pytest.mark.parametrize("name", sorted({*medseg.__all__} - PARTS))
def test_the_example_of_each_public_name_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    examples = find_examples(name)
    assert examples, f"{name} has no example in its docstring"
    runner = doctest.DocTestRunner(
        optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    )
    for example in examples:
        report: list[str] = []
        runner.run(example, out=report.append)
        assert not runner.failures, "".join(report)
