"""The error family: faults, one tree, and travelling between processes."""

from __future__ import annotations

import pickle

import pytest

from medseg import errors
from medseg.errors import BundleError, DatasetError, Fault, GeometryError, MedsegError

FAMILY = [
    kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, MedsegError) and not name.startswith("_")
]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = errors.__doc__ or ""
    assert all(kind.__name__ in drawn for kind in FAMILY)
    assert issubclass(GeometryError, errors.ScanError)


@pytest.mark.parametrize("kind", FAMILY)
def test_each_error_travels_between_processes(kind: type[MedsegError]) -> None:
    error = kind("what came")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(again) is kind
    assert str(again) == str(error)


@pytest.mark.parametrize("kind", [BundleError, DatasetError])
def test_faults_stand_below_the_headline(kind: type[BundleError]) -> None:
    error = kind("two faults:", [Fault("a.b", "wrong"), Fault("c", "worse")])
    assert str(error) == "two faults:\n  a.b: wrong\n  c: worse"
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert again.faults == error.faults
    assert again.message == "two faults:"
