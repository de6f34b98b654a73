"""Tables and the page of an evaluation."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.label_maps import TWO, phantom, save

from medseg.commands.evaluate import evaluate
from medseg.evaluation.results import COLUMNS
from medseg.inference.ledger_entry import Entry, QualityEntry


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Three cases: perfect, shifted, and with the tumour missed."""
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    for case, prediction in {
        "a": phantom(),
        "b": phantom(1),
        "c": phantom(tumour=False),
    }.items():
        save(predictions / f"{case}.nii.gz", prediction)
        save(references / f"{case}.nii.gz", phantom())
    return predictions, references


def test_results_are_written_whole_and_readable(folders, tmp_path):
    out = tmp_path / "new" / "out"
    evaluate(*folders, out, labels=TWO)
    assert sorted(path.name for path in out.iterdir()) == [
        "evaluation.csv",
        "evaluation.html",
        "summary.csv",
        "summary.json",
    ]
    rows = list(csv.DictReader((out / "evaluation.csv").open()))
    assert list(rows[0]) == ["case", "label", *COLUMNS]
    assert [(row["case"], row["label"]) for row in rows] == [
        (case, label) for case in "abc" for label in ("liver", "tumour")
    ]
    assert (rows[0]["dice"], rows[0]["hd95_mm"], rows[0]["missed"]) == (
        "1.0",
        "0.0",
        "False",
    )
    missed = rows[5]
    assert (missed["dice"], missed["missed"], missed["predicted_ml"]) == (
        "0.0",
        "True",
        "0.0",
    )
    assert float(missed["hd95_mm"]) == pytest.approx(math.hypot(16, 28, 30))
    summary = json.loads((out / "summary.json").read_text())
    assert summary["cases"] == 3
    assert summary["metrics"]["dice"]["tumour"]["mean"] == pytest.approx(2 / 3)
    assert summary["metrics"]["dice"]["tumour"]["worst_case"] == "c"
    assert summary["metrics"]["hd95"]["tumour"]["missed"] == 1
    table = list(csv.DictReader((out / "summary.csv").open()))
    assert (
        float(table[0]["mean"]) == summary["metrics"]["dice"]["liver"]["mean"]
    )


def test_two_methods_are_compared_and_lesions_counted(folders, tmp_path):
    predictions, references = folders
    worse = tmp_path / "worse"
    for case in "abc":
        save(worse / f"{case}.nii.gz", np.zeros_like(phantom()))
    out = tmp_path / "out"
    found = evaluate(
        predictions, references, out, labels=TWO, lesions=True, versus=worse
    )
    dice = next(
        d for d in found.differences if (d.metric, d.label) == ("dice", "liver")
    )
    assert (dice.n, dice.better, dice.worse) == (3, 3, 0)
    assert dice.mean == pytest.approx(found.scores["dice"]["liver"])
    summary = json.loads((out / "summary.json").read_text())
    assert summary["lesions"]["tumour"]["there"] == 3
    assert summary["lesions"]["tumour"]["found"] == 2
    low, high = (
        summary["metrics"]["dice"]["tumour"][end] for end in ("low", "high")
    )
    assert low <= 2 / 3 <= high
    assert len(list(csv.DictReader((out / "lesions.csv").open()))) == 6
    page = (out / "evaluation.html").read_text()
    assert all(
        title in page
        for title in ("Summary", "Compared with", "Lesions", "worst first")
    )


def test_lesions_of_label_maps_that_are_empty_are_none(tmp_path):
    save(tmp_path / "p" / "a.nii.gz", np.zeros_like(phantom()))
    save(tmp_path / "r" / "a.nii.gz", np.zeros_like(phantom()))
    evaluate(tmp_path / "p", tmp_path / "r", tmp_path / "out", lesions=True)
    table = (tmp_path / "out" / "lesions.csv").read_text()
    assert table == "case,label,there,found,predicted,false\n"


def test_the_page_has_cases_without_a_dice_last(tmp_path):
    empty = np.zeros_like(phantom())
    for case, prediction, reference in (
        ("good", phantom(), phantom()),
        ("nothing", empty, empty),
        ("poor", phantom(3), phantom()),
    ):
        save(tmp_path / "p" / f"{case}.nii.gz", prediction)
        save(tmp_path / "r" / f"{case}.nii.gz", reference)
    evaluate(tmp_path / "p", tmp_path / "r", tmp_path / "out", labels=TWO)
    page = (tmp_path / "out" / "evaluation.html").read_text()
    cases = page[page.index("Cases, the worst first") :]
    assert cases.index("poor") < cases.index("good") < cases.index("nothing")


def test_the_page_shows_names_as_text(folders, tmp_path):
    predictions, references = folders
    for folder in folders:
        (folder / "a.nii.gz").rename(
            folder / "a<img src=x onerror=alert(1)>.nii.gz"
        )
    evaluate(predictions, references, tmp_path / "out", labels=TWO)
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img" in page
    assert "script-src" not in page
    assert "default-src 'none'" in page


def test_what_is_nowhere_is_left_empty(tmp_path):
    save(tmp_path / "p" / "a.nii.gz", phantom(tumour=False))
    save(tmp_path / "r" / "a.nii.gz", phantom(tumour=False))
    evaluate(tmp_path / "p", tmp_path / "r", tmp_path / "out", labels=TWO)
    rows = list(csv.DictReader((tmp_path / "out" / "evaluation.csv").open()))
    assert (rows[1]["label"], rows[1]["dice"], rows[1]["hd95_mm"]) == (
        "tumour",
        "",
        "",
    )

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    text = (tmp_path / "out" / "summary.json").read_text()
    summary = json.loads(text, parse_constant=refuse)
    assert summary["metrics"]["dice"]["tumour"]["n"] == 0
    assert summary["metrics"]["dice"]["mean"]["mean"] == 1


def test_what_may_name_a_patient_is_in_no_file(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    predictions, references = folders
    planted = predictions / "b.nii.gz"
    planted.write_bytes(planted.read_bytes()[:100])
    (predictions / "d_mueller_hans.nii.gz").write_bytes(planted.read_bytes())
    (predictions / "d_mueller_hans_2.nii.gz").write_bytes(planted.read_bytes())
    save(references / "d.nii.gz", phantom())
    found = evaluate(predictions, references, tmp_path / "out", labels=TWO)
    assert [fault.where for fault in found.faults] == ["d", "b"]
    # For the person at the terminal.
    assert "d_mueller_hans" in str(found.faults[0])
    assert str(planted) in str(found.faults[1])
    page = (tmp_path / "out" / "evaluation.html").read_text()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "mueller" not in page
    assert "mueller" not in json.dumps(summary["faults"])
    for file in (tmp_path / "out").iterdir():
        assert str(tmp_path) not in file.read_text()


def test_the_page_shows_plots_worst_cases_and_what_n_is(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    evaluate(*folders, tmp_path / "out", labels=TWO)
    page = (tmp_path / "out" / "evaluation.html").read_text()
    for said in (
        "HD95, mm",
        "NSD at 1 mm",
        "Volume error, ml",
        "mean <wbr>over <wbr>labels",
        "n is the number of cases",
        "No case was left out.",
        "Bland–Altman",
        "Worst cases",
    ):
        assert said in page
    assert "hd95" not in page
    # Of three cases one is perfect, and has no picture among the worst.
    assert page.count("<img ") == page.count("data:image/webp;base64,") == 2
    assert page.count('class="box"') == 6
    for link in re.findall(r'href="([^"]*)"', page):
        assert (tmp_path / "out" / link).is_file()


def test_the_scan_lies_below_the_outlines_where_the_data_set_has_it(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    predictions, references = folders
    data = tmp_path / "data"
    shutil.copytree(references, data / "labelsTr")
    evaluate(predictions, data / "labelsTr", tmp_path / "without", labels=TWO)
    for name in "abc":
        save(data / "imagesTr" / f"{name}_0000.nii.gz", 50 * phantom(2))
    evaluate(predictions, data / "labelsTr", tmp_path / "with", labels=TWO)
    bare, full = (
        (tmp_path / folder / "evaluation.html").read_text()
        for folder in ("without", "with")
    )
    assert "outlines stand alone" in bare
    assert "outlines stand alone" not in full
    pattern = r"base64,([^\"]*)"
    assert re.findall(pattern, bare) != re.findall(pattern, full)


def test_what_was_flagged_when_it_was_segmented_is_told_with_the_scores(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    quality = QualityEntry(
        expected_dice=0.9,
        lower_bound=0.8,
        is_calibrated=True,
        review=True,
        reasons=("liver has 2 ml",),
    )
    entry = Entry(
        scan="b", state="done", files={"b.nii.gz": "0"}, quality=quality
    )
    ledger = folders[0] / "ledger.jsonl"
    ledger.write_text(entry.model_dump_json() + "\n")
    found = evaluate(*folders, tmp_path / "out", labels=TWO)
    assert found.flags == {"b": ("liver has 2 ml",)}
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert "liver has 2 ml" in page
    assert page.count("<td>review</td>") == 2


def test_the_page_calls_labels_what_the_data_set_calls_them(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    predictions, references = folders
    listing = {"labels": {"0": "background", "1": "liver", "2": "tumour"}}
    (references / "dataset.json").write_text(json.dumps(listing))
    evaluate(predictions, references, tmp_path / "out", lesions=True)
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert "tumour" in page
    assert "label 2" not in page.replace("<wbr>", "")
    # Programs find what they found before.
    table = (tmp_path / "out" / "evaluation.csv").read_text()
    assert "label 2" in table
