"""What JSON does not know becomes null, at any depth."""

from __future__ import annotations

import json
import math

from medseg._support.json_values import nan_to_none


def test_what_is_no_number_is_null() -> None:
    value = {
        "a": [math.nan, 1.5, (math.inf, "x")],
        "b": {"c": -math.inf, "d": None},
        "e": 3,
    }
    plain = nan_to_none(value)
    assert plain == {
        "a": [None, 1.5, [None, "x"]],
        "b": {"c": None, "d": None},
        "e": 3,
    }
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
