"""A request holds all clicks; the label map follows them, and what is taken back is undone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.bundles import made_spec

from medseg.errors import ScanError
from medseg.inference.correction import Correction
from medseg.label_server.clicks import (
    MOST_IN_REQUEST,
    ClickHistories,
    ClickHistory,
    ClickRequest,
    GivenClick,
    read_clicks,
)
from medseg.volume import Volume

SPEC = made_spec(training={"patch": [8, 8, 8], "clicks": {"sigma": 1.0}})
LABELS = SPEC.label_set
SCAN = Volume(
    np.random.default_rng(0).normal(0, 9, (1, 20, 12, 10)).astype(np.float32),
    np.diag([-1.0, 1, 1, 1]),
)


def ask(**parameters: Any) -> ClickRequest:
    return read_clicks(parameters, LABELS, SCAN.grid)


def clicks_of(request: ClickRequest) -> list[tuple[int, tuple[float, ...]]]:
    return [(click.label, click.point) for click in request.clicks]


def test_slicer_sends_points_for_each_label_and_for_background() -> None:
    # MONAILabel.py 0.8.5, onClickDeepgrow, of a model with labels; the segment worked on is named.
    request = ask(
        client_id="user-xyz",
        liver=[[3, 4, 5], [6, 4, 5]],
        kidney=[],
        background=[[9, 9, 9]],
        label="background",
    )
    assert clicks_of(request) == [
        (1, (3, 4, 5)),
        (1, (6, 4, 5)),
        (0, (9, 9, 9)),
    ]
    assert request.edited is None
    assert request.named == {1, 2}
    assert ask(liver=[], kidney=[], label="kidney").edited == 2


def test_ohif_sends_the_labels_that_were_clicked_on_alone() -> None:
    # PointPrompts.tsx, onRunInference, for a model of type deepedit.
    request = ask(background=[], kidney=[[3, 4, 5]])
    assert clicks_of(request) == [(2, (3, 4, 5))]
    assert request.named == {2}


def test_the_form_of_deepgrow_is_understood_too() -> None:
    request = ask(
        label="kidney", foreground=[[3, 4, 5]], background=[[1, 1, 1]]
    )
    assert clicks_of(request) == [(2, (3, 4, 5)), (0, (1, 1, 1))]
    assert request.edited == 2
    with pytest.raises(ScanError, match="needs 'label'"):
        ask(foreground=[[3, 4, 5]])


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"spleen": [[1, 1, 1]]}, "it has liver, kidney, and 'background'"),
        ({"label": "spleen", "liver": []}, "'label' must be one of"),
        ({"label": ["liver"]}, "'label' must be one of"),
        ({"label": {"liver": 1}}, "'label' must be one of"),
        ({"liver": {"0": [1, 1, 1]}}, "'liver' must be a list"),
        ({"liver": "[[1,1,1]]"}, "'liver' must be a list"),
        ({"liver": 7}, "'liver' must be a list"),
        ({"liver": [[1, 1]]}, "2 numbers were sent"),
        ({"liver": [[1, 1, float("nan")]]}, "finite numbers"),
        ({"background": [[1, 1, 99]]}, "'background': the voxel"),
        ({"liver": [[1, 1, 1]] * 501}, "501 were sent"),
        (
            {"liver": [[1, 1, 1]] * MOST_IN_REQUEST, "kidney": [[2, 2, 2]]},
            "101 clicks were sent",
        ),
    ],
)
def test_what_is_no_request_for_clicks_is_refused(
    parameters: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ScanError, match=reason):
        ask(**parameters)


class Followed:
    """A history whose network finds a label where it was clicked on, and counts its windows."""

    def __init__(self) -> None:
        self.windows = 0
        correction = Correction(SCAN, SPEC, self.compute, torch.device("cpu"))
        automatic = np.zeros(SCAN.shape, np.uint8)
        automatic[12:16, 4:8, 4:8] = 2
        self.automatic = automatic
        self.history = ClickHistory(correction, automatic)

    def compute(self, windows: torch.Tensor) -> torch.Tensor:
        self.windows += 1
        inside, outside, mask = windows[0, -3:]
        scores = torch.zeros(1, 3, *mask.shape)
        scores[0, 1:] = inside + 0.9 * mask - outside - 0.5
        return scores

    def __call__(self, **parameters: Any) -> Any:
        return self.history.follow(ask(**parameters))


def test_one_more_click_costs_one_window() -> None:
    follow = Followed()
    first = follow(liver=[[3, 4, 5]])
    assert follow.windows == 1
    assert first[3, 4, 5] == 1
    second = follow(liver=[[3, 4, 5], [3, 6, 5]])
    assert follow.windows == 2
    assert second[3, 6, 5] == 1
    assert np.array_equal(second[12:], follow.automatic[12:])
    again = follow(liver=[[3, 4, 5], [3, 6, 5]])
    assert follow.windows == 2
    assert np.array_equal(again, second)


def test_a_click_that_is_taken_back_is_undone_and_so_is_what_followed() -> None:
    follow = Followed()
    follow(liver=[[3, 4, 5]])
    alone = follow(liver=[[3, 4, 5]])
    follow(liver=[[3, 4, 5], [6, 4, 5], [3, 8, 5]])
    assert np.array_equal(follow(liver=[[3, 4, 5]]), alone)
    assert follow.windows == 3
    assert np.array_equal(follow(liver=[]), follow.automatic)
    both = follow(liver=[[3, 4, 5], [6, 4, 5]])
    fresh = Followed()(liver=[[3, 4, 5], [6, 4, 5]])
    assert np.array_equal(both, fresh)


def test_background_takes_from_the_label_that_lies_there() -> None:
    follow = Followed()
    corrected = follow(background=[[13, 5, 5]])
    assert corrected[13, 5, 5] == 0
    assert (corrected == 2).sum() < (follow.automatic == 2).sum()
    assert follow.windows == 1
    # Where nothing lies there is nothing to take, unless a label is being worked on.
    follow(background=[[13, 5, 5], [2, 2, 2]])
    assert follow.windows == 1
    follow(background=[[13, 5, 5], [2, 2, 2], [3, 2, 2]], label="liver")
    assert follow.windows == 2


def test_of_two_clicks_on_one_voxel_the_later_counts() -> None:
    follow = Followed()
    follow(liver=[[3, 4, 5]])
    corrected = follow(liver=[[3, 4, 5]], kidney=[[3, 4, 5]])
    assert corrected[3, 4, 5] == 2


def test_the_scans_used_longest_ago_are_forgotten() -> None:
    histories = ClickHistories(most=2)
    begun: list[str] = []

    def get(key: str) -> Any:
        def begin() -> Any:
            begun.append(key)
            return GivenClick(0, (0, 0, 0))

        return histories.get((key,), begin)

    for key in ("a", "b", "a", "c", "a", "b"):
        get(key)
    assert begun == ["a", "b", "c", "b"]
