"""Learning curves: every training run can be drawn, however odd its numbers."""

from __future__ import annotations

import math
import threading

import matplotlib.pyplot
import numpy as np
import pytest
from support.pictures import NASTY_NAMES, find_colour, read_pixels

from medseg.errors import OutputError
from medseg.plots.canvas import LINES
from medseg.plots.curves import TrainingCurves, _thin_out, draw_curves

TOTAL = (0x00, 0x72, 0xB2)
"""The colour of the total loss, smoothed."""

pytestmark = pytest.mark.filterwarnings("error")


def history(steps: int = 400, **changes) -> TrainingCurves:
    rng = np.random.default_rng(0)
    losses = [
        (n, float(math.exp(-n / 100) + 0.2 + rng.normal(0, 0.02)))
        for n in range(1, steps)
    ]
    validations = [
        (
            n,
            {
                "dice": {
                    "liver": 1 - 50 / n,
                    "tumour": 0.9 - 50 / n,
                    "mean": 0.95 - 50 / n,
                }
            },
        )
        for n in range(100, steps, 50)
    ]
    rates = [(n, 0.01 * (1 - n / steps)) for n in range(1, steps)]
    given = {
        "losses": losses,
        "parts": {"dice": losses, "ce": losses},
        "learning_rates": rates,
        "validations": validations,
    }
    return TrainingCurves("liver_ct", **(given | changes))


def test_curves_mark_the_best_validation(tmp_path):
    draw_curves(tmp_path / "a.png", history())
    star = find_colour(tmp_path / "a.png", (0xE6, 0x9F, 0x00))
    width = read_pixels(tmp_path / "a.png").shape[1]
    assert star[:, 1].max() > width * 0.7
    peak = [
        (n, {"dice": {"mean": 0.9 if n == 3 else 0.5}}) for n in range(1, 20)
    ]
    draw_curves(
        tmp_path / "b.png",
        TrainingCurves("early", [(1, 1.0)], validations=peak),
    )
    star = find_colour(tmp_path / "b.png", (0xE6, 0x9F, 0x00))
    assert star[:, 1].min() < width * 0.3


@pytest.mark.parametrize(
    "changes",
    [
        {"losses": [], "parts": {}, "learning_rates": [], "validations": []},
        {
            "losses": [(1, 0.7)],
            "parts": {"dice": [(1, 0.7)]},
            "learning_rates": [(1, 0.0)],
        },
        {"losses": [(1, math.nan), (2, math.inf), (3, 0.5)]},
        {"losses": [(1, -0.5), (2, 0.0), (3, 1.0)]},
        {
            "losses": [(1, 0.5), (2, 0.5)],
            "parts": {"dice": [(1, 0.0), (2, 0.0)]},
        },
        {"losses": [(1, 1e-12), (2, 1e12)]},
        {"parts": {"dice": []}},
        {"validations": [(100, {"dice": {"liver": 0.2, "mean": 0.2}})]},
        {
            "validations": [
                (100, {"dice": {"liver": math.nan, "mean": math.nan}})
            ]
        },
        {"validations": [(100, {}), (200, {"dice": {"mean": 0.0}})]},
        {
            "validations": [
                (100, {"dice": {"mean": 1.0}}),
                (200, {"dice": {"mean": math.nan}}),
            ]
        },
        {
            "validations": [
                (
                    1,
                    {
                        "dice": {f"l{n}": n / 60 for n in range(60)}
                        | {"mean": 0.5}
                    },
                )
            ]
        },
        {"parts": {f"part {n}": [(1, 1.0), (2, 0.5)] for n in range(12)}},
    ],
)
def test_odd_histories_are_drawn(tmp_path, changes):
    draw_curves(tmp_path / "a.png", history(**changes))
    assert read_pixels(tmp_path / "a.png").std() > 5


def test_a_long_training_run_is_drawn_with_as_many_points_as_can_be_seen(
    tmp_path,
):
    steps = 300_000
    losses = np.random.default_rng(0).uniform(0.1, 1, steps)
    losses[150_000:] += 5
    curve = list(enumerate(losses.tolist(), start=1))
    drawn_steps, drawn = _thin_out(curve)
    assert len(drawn_steps) == len(drawn) == 1500
    assert drawn_steps[0] == 100.5  # the mean of steps 1 to 200
    assert drawn_steps[-1] == 299_900.5
    assert drawn.mean() == pytest.approx(losses.mean())
    assert drawn[:750].max() < 1 < 5 < drawn[750:].min()
    draw_curves(
        tmp_path / "a.png",
        TrainingCurves("long", curve, {"dice": curve}, curve),
    )
    picture = read_pixels(tmp_path / "a.png")
    # The jump is in the middle: the total's line is low on the left, high on the right.
    blue = np.argwhere((picture[:430] == TOTAL).all(-1))
    middle = picture.shape[1] / 2
    left, right = blue[blue[:, 1] < middle - 60], blue[blue[:, 1] > middle + 60]
    assert len(left) > 50
    assert len(right) > 50
    assert left[:, 0].mean() > right[:, 0].mean() + 100


def test_what_is_not_finite_is_left_out_of_a_curve():
    steps, values = _thin_out(
        [(1, math.nan), (2, 0.5), (3, math.inf), (4, 0.25)]
    )
    assert steps.tolist() == [2, 4]
    assert values.tolist() == [0.5, 0.25]
    assert [part.tolist() for part in _thin_out([])] == [[], []]


def test_labels_beyond_the_colours_are_grey(tmp_path):
    few = {f"l{n}": 0.5 for n in range(len(LINES))} | {"mean": 0.5}
    many = {f"l{n}": 0.1 * n for n in range(len(LINES) + 1)} | {"mean": 0.5}
    for scores, colours in ((few, True), (many, False)):
        validations = [(step, {"dice": scores}) for step in (100, 200)]
        draw_curves(
            tmp_path / "a.png",
            history(parts={}, losses=[], validations=validations),
        )
        assert (
            len(find_colour(tmp_path / "a.png", (0xD5, 0x5E, 0x00))) > 0
        ) == colours


def test_equal_input_gives_equal_bytes_and_threads_do_not_disturb_each_other(
    tmp_path,
):
    threads = [
        threading.Thread(
            target=draw_curves, args=(tmp_path / f"{n}.png", history())
        )
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(tmp_path / f"{n}.png").read_bytes() for n in range(3)}) == 1
    assert matplotlib.pyplot.get_fignums() == []


def test_names_of_any_kind_are_drawn_as_text(tmp_path):
    scores = {"dice": dict.fromkeys(NASTY_NAMES[:4], 0.5) | {"mean": 0.5}}
    parts = {NASTY_NAMES[2]: [(1, 1.0)]}
    curves = TrainingCurves(
        NASTY_NAMES[0], [(1, 1.0)], parts, [], [(1, scores)]
    )
    draw_curves(tmp_path / "a.png", curves)
    assert read_pixels(tmp_path / "a.png").std() > 5


def test_nothing_is_left_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        draw_curves(tmp_path / "file" / "a.png", history())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
