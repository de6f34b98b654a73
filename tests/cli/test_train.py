"""``medseg train``: the options that the command line itself understands."""

from __future__ import annotations

import pytest

from medseg.cli.train import _parse_fold
from medseg.errors import MedsegError


def test_a_fold_is_a_number_all_or_none() -> None:
    assert [_parse_fold(text) for text in ("0", "3", "ALL", "none")] == [
        0,
        3,
        "all",
        None,
    ]
    for text in ("-1", "x", "", "1.5"):
        with pytest.raises(
            MedsegError,
            match="--fold takes a number such as 0, 'all' or 'none'",
        ):
            _parse_fold(text)
