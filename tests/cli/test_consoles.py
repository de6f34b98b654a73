"""Consoles that lack signs, such as those of Windows in a code page."""

from __future__ import annotations

import io
import json
import sys

import pytest
from support.cli import call

from medseg.cli.consoles import make_plain, show_all_signs
from medseg.cli.output import print_error, print_json
from medseg.cli.terminal import Terminal
from medseg.events import Notice, Progress

TEXT = "Müller: Dice ≥ 0.9 → 肝 \udcff"
in_each_encoding = pytest.mark.parametrize(
    "encoding", ["cp1252", "ascii", "utf-8"]
)


def open_streams(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> tuple[io.BytesIO, io.BytesIO]:
    """Give standard output and standard error an encoding; return what they get."""
    both = io.BytesIO(), io.BytesIO()
    for name, said in zip(("stdout", "stderr"), both, strict=True):
        stream = io.TextIOWrapper(said, encoding=encoding, write_through=True)
        monkeypatch.setattr(sys, name, stream)
    return both


@in_each_encoding
def test_no_sign_ends_a_command(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    out, err = open_streams(monkeypatch, encoding)
    show_all_signs()
    with Terminal() as terminal:
        terminal(Progress("segmenting", 1, 2))
        terminal(Notice(TEXT))
    terminal.show_table([("Größe", TEXT), ("≤", "×")])
    terminal.say(TEXT)
    print_error(TEXT)
    assert out.getvalue().count(b"Dice") == 2
    assert err.getvalue().count(b"Dice") == 2


@in_each_encoding
def test_help_is_shown(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    out, _ = open_streams(monkeypatch, encoding)
    for command in ("segment", "plan", "train"):
        assert call(monkeypatch, command, "--help") == 0
    assert out.getvalue().count(b"Usage") == 3


@in_each_encoding
def test_json_holds_every_sign(
    monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    out, _ = open_streams(monkeypatch, encoding)
    print_json({"name": "Müller → 肝"})
    said = out.getvalue().decode(encoding)
    assert json.loads(said) == {"name": "Müller → 肝"}


def test_what_an_encoding_has_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, _ = open_streams(monkeypatch, "cp1252")
    show_all_signs()
    sys.stdout.write("Müller × 2 → 3")
    assert out.getvalue().decode("cp1252") == "Müller × 2 -> 3"


def test_plain_signs_stand_for_others() -> None:
    assert make_plain("Å ≤ ß 肝 \udcff") == "A <= ss ? ?"
