"""Which layout a data set has."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.datasets import a_spec, touch

from medseg.datasets.cases import find_cases
from medseg.errors import DatasetError


def test_nothing_that_looks_like_a_data_set_says_what_was_looked_for(tmp_path: Path) -> None:
    touch(tmp_path / "pictures/a.png")

    with pytest.raises(DatasetError, match=r"dataset\.json, cases\.csv.*holds pictures"):
        find_cases(tmp_path, a_spec())
    with pytest.raises(DatasetError, match="no such folder"):
        find_cases(tmp_path / "typo", a_spec())
    with pytest.raises(DatasetError, match="list of cases is needed"):
        find_cases(tmp_path / "pictures/a.png", a_spec())


@pytest.mark.parametrize("layout", ["msd", "nnunet", "folders", "csv"])
def test_a_layout_that_is_asked_for_and_absent_is_an_error(tmp_path: Path, layout: str) -> None:
    with pytest.raises(DatasetError, match=str(tmp_path)):
        find_cases(tmp_path, a_spec(format=layout))
