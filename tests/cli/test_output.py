"""Exit codes, errors and JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from support.cli import call

from medseg import cli
from medseg.cli.output import format_count, print_json


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [math.nan, (1.5, math.inf)], "b": 2, "c": True})
    assert json.loads(capsys.readouterr().out) == {
        "a": [None, [1.5, None]],
        "b": 2,
        "c": True,
    }


COMMANDS = {
    "check": ("medseg.commands.check.check", ["b"], "start over"),
    "evaluate": ("medseg.commands.evaluate.evaluate", ["p", "r"], "start over"),
    "export": (
        "medseg.commands.export.export",
        ["b", "o", "--to", "monai"],
        "Nothing was exp",
    ),
    "plan": ("medseg.commands.plan.plan_bundles", ["d"], "not inspected twice"),
    "review": ("medseg.commands.review.review", ["m", "s", "b"], "start over"),
    "segment": (
        "medseg.commands.segment.segment",
        ["b", "s", "o"],
        "same command again to resume",
    ),
    "train": (
        "medseg.commands.train.train",
        ["b"],
        "with --resume to continue",
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_interruption_is_exit_code_130_and_says_how_to_go_on(
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target, arguments, advice = COMMANDS[command]

    def press_ctrl_c(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(target, press_ctrl_c)
    assert call(monkeypatch, command, *arguments) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Interrupted. ")
    assert advice in line


def test_an_interruption_before_the_work_is_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def press_ctrl_c(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", press_ctrl_c)
    assert call(monkeypatch, "check", "b") == 130
    assert capsys.readouterr().err == "Interrupted.\n"


def test_counts_have_their_noun() -> None:
    assert [format_count(n, "case") for n in (0, 1, 2)] == [
        "0 cases",
        "1 case",
        "2 cases",
    ]
