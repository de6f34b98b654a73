"""``--labels`` says what values and colours mean."""

from __future__ import annotations

import pytest

from medseg.errors import MedsegError
from medseg.planning.label_requests import parse_label_requests


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["liver=1"], {"liver": [1]}),
        (["1=liver"], {"liver": [1]}),
        (["1=liver,2=kidney"], {"liver": [1], "kidney": [2]}),
        (["liver=1,kidney=2"], {"liver": [1], "kidney": [2]}),
        (["liver=1; kidney = 2"], {"liver": [1], "kidney": [2]}),
        (["myelin=127,128", "axon=255"], {"myelin": [127, 128], "axon": [255]}),
        (["myelin=127,128 axon=255"], {"myelin": [127, 128], "axon": [255]}),
        (["1=left atrium,2=right atrium"], {"left atrium": [1], "right atrium": [2]}),
        (["1=lobe 1, 2=lobe 2"], {"lobe 1": [1], "lobe 2": [2]}),
        (["road=128,64,128"], {"road": [128, 64, 128]}),
        (
            ["road=128,64,128", "Road=128,0,192"],
            {"road": [128, 64, 128, 128, 0, 192]},
        ),
        (["background=0,0,0,sky=1,2,3"], {"background": [0, 0, 0], "sky": [1, 2, 3]}),
        (["3=a,4=a"], {"a": [3, 4]}),
        (["große Leber=1"], {"große Leber": [1]}),
    ],
)  # fmt: skip
def test_a_definition_has_a_name_and_numbers(
    texts: list[str], expected: dict[str, list[int]]
) -> None:
    requests = parse_label_requests(texts)
    assert {each.name: each.numbers for each in requests} == expected


@pytest.mark.parametrize(
    "text",
    ["liver", "1=2", "liver=kidney", "=1", "liver=", "liver=-1", "liver=1.5",
     "liver=1,kidney", "1,2=liver", "liver=1=2"],
)  # fmt: skip
def test_what_is_no_definition_is_refused(text: str) -> None:
    with pytest.raises(MedsegError, match=r"--labels takes.*liver=1"):
        parse_label_requests([text])
