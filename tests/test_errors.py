"""The error family: faults, one tree, and travelling between processes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg import errors
from medseg.errors import (
    BundleError,
    DatasetError,
    Fault,
    GeometryError,
    MedsegError,
    OutputError,
    ScanError,
    recordable_text,
)

FAMILY = [
    kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type)
    and issubclass(kind, MedsegError)
    and not name.startswith("_")
]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = errors.__doc__ or ""
    assert all(kind.__name__ in drawn for kind in FAMILY)
    assert issubclass(GeometryError, errors.ScanError)


@pytest.mark.parametrize("kind", FAMILY)
def test_each_error_travels_between_processes(kind: type[MedsegError]) -> None:
    error = kind(
        "what came", source=Path("scans") / "a.nii", detail="bad magic"
    )
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301
        assert type(again) is kind
        assert (
            str(again)
            == str(error)
            == f"{Path('scans/a.nii')}: what came (bad magic)"
        )
        assert again.message == "what came"
        assert again.source == str(Path("scans/a.nii"))
        assert again.detail == "bad magic"


@pytest.mark.parametrize(
    ("source", "detail", "text"),
    [
        (None, None, "truncated"),
        ("a.nii", None, "a.nii: truncated"),
        (None, "3 of 4 bytes", "truncated (3 of 4 bytes)"),
        ("a.nii", "3 of 4 bytes", "a.nii: truncated (3 of 4 bytes)"),
        ("", "", "truncated"),
    ],
)
def test_a_person_reads_source_message_and_detail(
    source: str | None, detail: str | None, text: str
) -> None:
    error = MedsegError("truncated", source=source, detail=detail)
    assert str(error) == text
    assert error.args == ("truncated",)
    assert error.source == (source or None)


SECRETS = st.text(
    st.characters(categories=["L", "N"]), min_size=8, max_size=20
).map("§{}".format)


@pytest.mark.parametrize("kind", FAMILY)
@given(source=SECRETS, detail=SECRETS)
def test_what_is_recorded_of_an_error_holds_neither_source_nor_detail(
    kind: type[MedsegError], source: str, detail: str
) -> None:
    faults = (
        ([Fault(source, detail)],)
        if issubclass(kind, BundleError | DatasetError)
        else ()
    )
    error = kind(
        "cannot be read; copy it again", *faults, source=source, detail=detail
    )
    caused = OutputError("the batch stopped")
    caused.__cause__ = error
    for one in (error, pickle.loads(pickle.dumps(error)), caused):  # noqa: S301
        for recorded in (one.message, recordable_text(one)):
            assert source not in recorded
            assert detail not in recorded
    assert source in str(error)
    assert detail in str(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file", "mueller.nii"),
        ValueError("could not convert 'Müller'"),
        KeyError("PatientName"),
        RuntimeError("mueller.nii"),
        KeyboardInterrupt(),
    ],
)
def test_of_foreign_errors_the_class_alone_is_recorded(
    error: BaseException,
) -> None:
    assert recordable_text(error) == type(error).__name__
    assert (
        recordable_text(ScanError("3 axes", source="mueller.nii")) == "3 axes"
    )


@pytest.mark.parametrize("kind", [BundleError, DatasetError])
def test_faults_stand_below_the_headline(kind: type[BundleError]) -> None:
    error = kind("two faults:", [Fault("a.b", "wrong"), Fault("c", "worse")])
    assert str(error) == "two faults:\n  a.b: wrong\n  c: worse"
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert again.faults == error.faults
    assert again.message == "two faults:"


def test_a_fault_that_many_cases_have_is_said_once_and_hides_no_other() -> None:
    faults = [
        Fault(f"case_{n}", f"lies {n} mm apart", f"/in/case_{n}.nii")
        for n in range(7)
    ]
    empty = Fault("case_9", "the label map is empty")
    _, *lines = str(DatasetError("8 bad cases", [*faults, empty])).split("\n")
    assert lines == [
        "  7 cases (case_0, case_1, case_2, case_3, case_4 and 2 more): lies 0…6 mm apart "
        "(case_0: /in/case_0.nii)",
        "  case_9: the label map is empty",
    ]


def test_many_faults_of_one_case_are_not_taken_for_many_cases() -> None:
    def name_missing(cases: int) -> list[str]:
        faults = [
            Fault(f"case_{n}", "an image does not exist", f"{n}_{channel}.nii")
            for n in range(cases)
            for channel in ("t1", "t2", "flair", "t1c")
        ]
        return str(DatasetError("bad cases", faults)).split("\n")[1:]

    assert name_missing(1) == [
        f"  case_0: an image does not exist (0_{channel}.nii)"
        for channel in ("t1", "t2", "flair", "t1c")
    ]
    (line,) = name_missing(3)
    assert line.startswith("  3 cases (case_0, case_1, case_2): ")


def test_each_field_of_a_bundle_that_is_wrong_is_named() -> None:
    faults = [Fault(f"training.patch.{n}", "must be above 0") for n in range(3)]
    assert str(BundleError("wrong", faults)).count("must be above 0") == 3
