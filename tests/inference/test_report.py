"""The report needs nothing else, runs nothing foreign, and says what the ledger says."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from support.browsers import open_chromium
from support.reports import format_volumes, render

from medseg._support.files import write_atomically
from medseg.inference.batch_overview import survey
from medseg.inference.ledger_entry import Entry, QualityEntry
from medseg.inference.report import write_report
from medseg.inference.report_rows import get_preview_path
from medseg.labels import Label, LabelSet
from medseg.plots.thumbnails import draw_thumbnail
from medseg.testing import make_phantom

LABELS = LabelSet(
    [Label(1, "liver", 1, (230, 60, 60)), Label(2, "kidney", 2, (70, 170, 255))]
)
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'{{ 7*7 }}</td></table>"


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.scripts: list[str] = []
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = tag
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts.append(data)
        elif self.cells:
            self.cells[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def first_cells(self) -> list[str]:
        return [
            attrs["data-sort"]
            for tag, attrs in self.tags
            if attrs.get("class") == "name"
        ]


def entry(scan: str, state: str = "done", **facts) -> Entry:
    volumes = {"liver": 1500.25, "kidney": 300.5} if state == "done" else {}
    return Entry(scan=scan, state=state, **{"volumes_ml": volumes} | facts)


def page(out: Path, *entries: Entry, labels: LabelSet = LABELS) -> Page:
    return Page(render(out, entries, "liver 1.0.0", labels))


def test_failed_scans_come_first_then_names_in_order(tmp_path: Path) -> None:
    shown = page(
        tmp_path,
        entry("b"),
        entry("A"),
        entry("z", "failed"),
        entry("y", "error"),
    )
    assert shown.first_cells() == ["y", "z", "A", "b"]


def test_what_the_ledger_says_is_shown(tmp_path: Path) -> None:
    text = render(
        tmp_path,
        [
            entry("a", warnings=("thick slices",), shape=(4, 5, 6), spacing_mm=(1, 1, 2.5),
                  seconds={"read": 1.0, "segment": 2.5}, files={"a.nii.gz": "0"}),
            entry("b", "failed", error="truncated; copy it again"),
            entry("c", "error", error="KeyError"),
        ],
        "liver 1.0.0",
        LABELS,
    )  # fmt: skip
    for said in (
        "thick slices",
        "4×5×6",
        "1 × 1 × 2.5",
        "3.5 s",
        "1500.25",
        "300.50",
    ):
        assert said in text
    for said in (
        "a<wbr>.nii.gz",
        "truncated; copy it again",
        "Bug in medseg",
        "#e63c3c",
        "liver 1.0.0",
    ):
        assert said in text


def test_pictures_are_inside_the_page(tmp_path: Path) -> None:
    write_atomically(get_preview_path(tmp_path, "a"), b"pixels")
    write_atomically(get_preview_path(tmp_path, "b"), b"stale")
    shown = page(tmp_path, entry("a"), entry("b", "failed"), entry("c"))
    sources = [attrs["src"] for tag, attrs in shown.tags if tag == "img"]
    assert sources == [
        "data:image/webp;base64," + base64.b64encode(b"pixels").decode()
    ]


def test_a_damaged_picture_ends_no_report(tmp_path: Path) -> None:
    volume, labels = make_phantom(0, (24, 20, 16))
    whole = draw_thumbnail(volume, labels, LABELS)
    file = get_preview_path(tmp_path, "a")
    file.parent.mkdir()
    for end in (0, 11, 12, 20, 40, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:end])
        shown = page(tmp_path, entry("a"))
        assert [tag for tag, _ in shown.tags].count("img") == 1


def test_nothing_is_fetched_and_only_the_pages_own_script_may_run(
    tmp_path: Path,
) -> None:
    write_atomically(get_preview_path(tmp_path, "a"), b"pixels")
    shown = page(tmp_path, entry("a"))
    for tag, attrs in shown.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "srcset", "action", "data"):
            assert (attrs.get(name) or "data:").startswith("data:")
        if tag == "a":
            assert not urlsplit(attrs["href"]).scheme
            assert not urlsplit(attrs["href"]).netloc
    (script,) = shown.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [a["content"] for _, a in shown.tags if a.get("http-equiv")]
    assert "default-src 'none'" in policy
    assert re.findall(r"script-src ([^;]*)", policy) == [f"'sha256-{digest}'"]


def test_hostile_text_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    labels = LabelSet([Label(1, HOSTILE, 1, (1, 2, 3))])
    facts = {"volumes_ml": {HOSTILE: 1.0}, "warnings": (HOSTILE,)}
    one = entry("a", **facts, seconds={HOSTILE: 1.0})
    failed = entry("b", "failed", error=HOSTILE)
    shown = Page(render(tmp_path, [one, failed], HOSTILE, labels))
    assert [tag for tag, _ in shown.tags].count("script") == 1
    assert not [tag for tag, _ in shown.tags if tag == "img"]
    assert sum(HOSTILE in cell for cell in shown.cells) == 2
    assert all(
        not name.startswith("on") for _, attrs in shown.tags for name in attrs
    )
    assert len([tag for tag, _ in shown.tags if tag == "tr"]) == 3
    assert "7*7" in "".join(shown.cells)


def test_an_empty_batch_has_a_page(tmp_path: Path) -> None:
    write_report(tmp_path, survey([], LABELS), "liver")
    assert "0 scans" in (tmp_path / "report.html").read_text()


def test_the_same_ledger_gives_the_same_page(tmp_path: Path) -> None:
    entries = [entry("a"), entry("b", "failed", error="x")]
    first = render(tmp_path, entries, "liver", LABELS)
    assert render(tmp_path, reversed(entries), "liver", LABELS) == first


def test_volumes_are_sorted_and_failed_scans_left_out() -> None:
    table = format_volumes(
        [entry("b"), entry("A"), entry("c", "failed")], LABELS
    )
    assert table.splitlines() == [
        "scan,liver_ml,kidney_ml,expected_dice,lower_bound,review,liver_expected_dice,"
        "kidney_expected_dice,quality,reasons",
        "A,1500.2500,300.5000,,,,,,,",
        "b,1500.2500,300.5000,,,,,,,",
    ]


JUDGED = QualityEntry(
    expected_dice=0.91,
    lower_bound=0.83,
    labels={"liver": (0.95, 0.9)},
    is_calibrated=True,
    review=False,
)


def test_quality_stands_beside_the_volumes() -> None:
    nothing = QualityEntry(
        expected_dice=None, lower_bound=None, is_calibrated=True, review=True
    )
    table = format_volumes(
        [entry("a", quality=JUDGED), entry("b", quality=nothing)], LABELS
    )
    assert table.splitlines()[1:] == [
        "a,1500.2500,300.5000,0.9100,0.8300,0,0.9500,,0.91,",
        "b,1500.2500,300.5000,,,1,,,nothing found,",
    ]


def test_failed_scans_come_first_and_then_the_worst_results(
    tmp_path: Path,
) -> None:
    def judged(scan: str, dice: float | None) -> Entry:
        return entry(
            scan, quality=JUDGED.model_copy(update={"expected_dice": dice})
        )

    entries = [
        entry("old"),
        judged("fine", 0.9),
        judged("bad", 0.3),
        entry("gone", "failed"),
    ]
    shown = page(tmp_path, *entries, judged("nothing", None)).first_cells()
    assert shown == ["gone", "nothing", "bad", "fine", "old"]


def test_the_report_says_what_to_review(tmp_path: Path) -> None:
    flagged = JUDGED.model_copy(update={"expected_dice": 0.4, "review": True})
    text = render(
        tmp_path,
        [entry("a", quality=flagged), entry("b", quality=JUDGED)],
        "liver 1.0.0",
        LABELS,
    )
    assert text.count("<mark>review</mark>") == 1
    assert "<dt>to review</dt><dd>1</dd>" in text
    assert "at least 0.83" in text
    assert "not calibrated" not in text


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"is_calibrated": False, "lower_bound": None}, "not calibrated"),
        ({"is_made_up": True}, "made-up training data"),
    ],
)
def test_what_nobody_can_judge_has_words_for_a_number_and_nothing_green(
    tmp_path: Path, facts: dict, words: str
) -> None:
    raw = JUDGED.model_copy(update=facts)
    text = render(tmp_path, [entry("a", quality=raw)], "liver 1.0.0", LABELS)
    assert f'<span class="words">{words}</span>' in text
    assert "0.91" not in text.replace('data-sort="0.91"', "")
    assert 'class="bar' not in text
    assert "<meter" not in text
    assert "to review</dt>" not in text
    assert "<dt>of unknown quality</dt><dd>1</dd>" in text


def test_a_flag_comes_first_with_its_reason(tmp_path: Path) -> None:
    flagged = JUDGED.model_copy(
        update={"review": True, "reasons": ("liver has 2 ml, usually 1500 ml",)}
    )
    worse = JUDGED.model_copy(update={"expected_dice": 0.7})
    entries = [entry("worse", quality=worse), entry("odd", quality=flagged)]
    text = render(tmp_path, entries, "liver 1.0.0", LABELS)
    assert Page(text).first_cells() == ["odd", "worse"]
    assert "Review: liver has 2 ml, usually 1500 ml" in text
    assert text.count('class="bar review"') == 1
    assert text.count('class="bar good"') == 1


def test_label_files_are_linked_where_they_lie(tmp_path: Path) -> None:
    names = ["Ärzte_7.nii.gz", "b-1.seg.dcm", "gone.nii.gz"]
    for name in names[:2]:
        (tmp_path / name).write_bytes(b"labels")
    files = dict.fromkeys(names, "0")
    shown = page(tmp_path, entry("a", files=files))
    links = [attrs["href"] or "" for tag, attrs in shown.tags if tag == "a"]
    assert [unquote(link) for link in links] == names[:2]
    assert links[0] == "%C3%84rzte_7.nii.gz"
    assert all((tmp_path / unquote(link)).is_file() for link in links)


def test_many_labels_share_one_column(tmp_path: Path) -> None:
    labels = LabelSet(
        [Label(n, f"organ {n}", n, (n, 0, 0)) for n in range(1, 31)]
    )
    volumes = {f"organ {n}": float(n) for n in range(1, 31)}
    dice = {f"organ {n}": (n / 30, None) for n in range(2, 31)}
    quality = JUDGED.model_copy(update={"labels": dice})
    result = entry("a", volumes_ml=volumes, quality=quality)
    text = render(tmp_path, [result], "whole body", labels)
    assert text.count("<th ") == 7
    assert "<dt>organ 1</dt><dd>1.00</dd><dd></dd>" in text
    assert "<dt>organ 30</dt><dd>30.00</dd><dd>1.00</dd>" in text
    # No row is as high as there are labels.
    assert text.count("organ 30 1.00") == 0


def test_labels_of_another_bundle_have_their_own_columns() -> None:
    other = entry("old", volumes_ml={"spleen": 2.0})
    table = format_volumes([entry("new"), other], LABELS)
    assert [line.split(",")[:4] for line in table.splitlines()] == [
        ["scan", "liver_ml", "kidney_ml", "spleen_ml"],
        ["new", "1500.2500", "300.5000", ""],
        ["old", "", "", "2.0000"],
    ]


@pytest.mark.slow
def test_in_a_browser_the_page_fits_sorts_and_opens_pictures(
    tmp_path: Path,
) -> None:
    entries = []
    for name, ml in (("a", 10.0), ("b" * 90, 9.0), ("c_of.nii", 100.0)):
        volume, labels = make_phantom(0, shape=(24, 20, 16), spacing=9.0)
        picture = draw_thumbnail(volume, labels, LABELS)
        write_atomically(get_preview_path(tmp_path, name), picture)
        volumes = {"liver": ml}
        entries.append(entry(name, quality=JUDGED, volumes_ml=volumes))
    entries *= 99  # of 300 there would be several pages
    write_report(tmp_path, survey(entries, LABELS), "liver")
    with open_chromium(tmp_path) as browser:
        for width in (390, 1280, 1920):
            for dark in (False, True):
                browser.emulate(width, dark=dark)
                browser.open((tmp_path / "report.html").as_uri())
                fits = (
                    "const page = document.documentElement;"
                    "const frame = document.querySelector('.frame');"
                    "return [page.scrollWidth <= innerWidth,"
                    " frame.scrollWidth <= frame.clientWidth];"
                )
                assert browser.run(fits) == [True, True], width
        assert (
            browser.run(
                "document.querySelectorAll('thead button')[2].click();"
                "return [...document.querySelectorAll('tbody tr')]"
                ".map(row => row.cells[0].dataset.sort[0]).join('')"
            )
            == "b" * 99 + "a" * 99 + "c" * 99
        )
        is_open = "return document.querySelector('dialog').open"
        browser.run("document.querySelector('.open').click()")
        assert browser.run(is_open)
        assert (
            browser.run("return document.querySelector('dialog img').width")
            > 900
        )
        browser.press("Escape")
        assert not browser.run(is_open)
        assert browser.log() == []
