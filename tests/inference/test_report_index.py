"""The report of very many scans is an overview with pages, and finds where to look."""

from __future__ import annotations

import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medseg._support.files import write_atomically
from medseg.inference.batch_overview import survey
from medseg.inference.ledger_entry import Entry, QualityEntry
from medseg.inference.report import write_report
from medseg.inference.report_index import _find_outliers, count_pages
from medseg.inference.report_rows import get_preview_path
from medseg.labels import Label, LabelSet

LABELS = LabelSet([Label(1, "liver", 1, (230, 60, 60))])
HOSTILE = "<script>alert(1)</script>"


def make_entries(count: int) -> list[Entry]:
    random = np.random.default_rng(0)
    entries = []
    for number in range(count):
        quality = QualityEntry(
            expected_dice=0.9, lower_bound=0.8, is_calibrated=True, review=False
        )
        volume = float(random.normal(1500, 100))
        entries.append(
            Entry(
                scan=f"scan_{number:03}",
                state="done",
                volumes_ml={"liver": volume},
                quality=quality,
            )
        )
    entries[7] = entries[7].model_copy(update={"volumes_ml": {"liver": 6000.0}})
    for number in (20, 21, 30):
        error = HOSTILE if number == 30 else "the file ends too early"
        entries[number] = Entry(
            scan=f"scan_{number:03}", state="failed", error=error
        )
    return entries


@pytest.fixture
def report(tmp_path: Path) -> Path:
    write_atomically(get_preview_path(tmp_path, "scan_007"), b"pixels")
    write_report(tmp_path, survey(make_entries(450), LABELS), "liver 1.0.0")
    return tmp_path / "report.html"


def read_page(report: Path, number: int) -> str:
    return (report.parent / "report" / f"000{number}.html").read_text()


def test_every_scan_is_on_one_of_its_pages_in_the_order_of_review(
    report: Path,
) -> None:
    pages = [read_page(report, number) for number in (1, 2, 3)]
    names = [re.findall(r'data-sort="(scan_\d+)"', page) for page in pages]
    assert [len(each) for each in names] == [200, 200, 50]
    assert len({name for each in names for name in each}) == 450
    assert set(names[0][:3]) == {"scan_020", "scan_021", "scan_030"}
    assert len(list((report.parent / "report").iterdir())) == count_pages(450)


def test_links_lead_to_pages_and_back_and_to_pictures(report: Path) -> None:
    for link in re.findall(r'href="(report/[^"]+)"', report.read_text()):
        assert (report.parent / link).is_file()
    assert 'href="../report.html"' in read_page(report, 2)
    assert 'href="0001.html"' in read_page(report, 2)
    assert 'href="0003.html"' in read_page(report, 2)
    assert "Next page" not in read_page(report, 3)
    sources = re.findall(r'<img src="([^"]+)"', read_page(report, 1))
    assert sources == ["../previews/scan_007.webp"]


def test_failures_are_counted_by_their_cause_and_unusual_volumes_named(
    report: Path,
) -> None:
    text = report.read_text()
    assert re.search(
        r'<td class="number">2</td><td>the file ends too early</td>', text
    )
    outliers = text[text.index("Unusual volumes") :]
    assert re.findall(r"scan_<wbr>(\d+)</a></td><td>liver", outliers) == ["007"]
    assert "6000.0" in outliers
    assert "447 scans" in text  # with a volume


def test_of_very_many_unusual_volumes_few_are_held() -> None:
    random = np.random.default_rng(0)
    scans = 2000
    volumes = {}
    for number in range(30):
        usual = random.normal(10, 0.1, scans)
        far = 1e4 * random.random(scans)
        volumes[f"l{number}"] = np.where(random.random(scans) < 0.6, usual, far)
    overview = replace(
        survey([], LABELS),
        names=list(volumes),
        volumes=volumes,
        results=np.arange(scans),
    )
    tracemalloc.start()
    found, count = _find_outliers(overview)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    distances = [abs(distance) for distance, *_ in found]
    assert distances == sorted(distances, reverse=True)
    assert (len(found), count > 20_000) == (30, True)
    assert peak < 1_000_000


def test_charts_of_many_labels_unfold(report: Path, tmp_path: Path) -> None:
    assert "<details>" not in report.read_text()
    volumes = {f"organ {number}": 1.0 for number in range(13)}
    many = [
        each.model_copy(update={"volumes_ml": volumes})
        for each in make_entries(300)
    ]
    write_report(tmp_path, survey(many, LABELS), "whole body")
    text = report.read_text()
    assert "<summary>Distributions of 13 labels</summary>" in text
    assert text.index("</details>") < text.index("0002.html")


def test_no_text_of_an_entry_becomes_part_of_a_page(report: Path) -> None:
    for text in (report.read_text(), read_page(report, 1)):
        assert HOSTILE not in text
        assert "&lt;script&gt;alert(1)" in text


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e308, 1e23])
def test_numbers_that_no_scan_has_end_no_report(
    number: float, tmp_path: Path
) -> None:
    entries = make_entries(300)
    impossible = {"liver": number}
    for place in (0, 1):
        entries[place] = entries[place].model_copy(
            update={"volumes_ml": impossible}
        )
    write_report(tmp_path, survey(entries, LABELS), "liver 1.0.0")
    assert "Unusual" in (tmp_path / "report.html").read_text()
    alike = [
        entries[0].model_copy(update={"scan": f"s{n}"}) for n in range(300)
    ]
    write_report(tmp_path, survey(alike, LABELS), "liver 1.0.0")


def test_the_overview_does_not_grow_with_the_scans(
    report: Path, tmp_path: Path
) -> None:
    assert report.stat().st_size < 40_000
    assert "data:image" not in report.read_text()


def test_a_batch_that_became_small_has_one_page_again(report: Path) -> None:
    write_report(
        report.parent, survey(make_entries(299), LABELS), "liver 1.0.0"
    )
    assert not (report.parent / "report").exists()
    assert report.read_text().count('data-sort="scan_') == 299


def test_what_else_lies_in_a_folder_of_this_name_stays(tmp_path: Path) -> None:
    own = tmp_path / "report/thesis.txt"
    own.parent.mkdir()
    own.write_text("mine")
    for count, pages in ((450, 3), (399, 2), (50, 0)):
        write_report(tmp_path, survey(make_entries(count), LABELS), "liver")
        assert own.read_text() == "mine"
        assert len(list(own.parent.glob("*.html"))) == pages
