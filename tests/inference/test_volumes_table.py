"""The table of volumes is the same as CSV and as Parquet."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from support.reports import format_volumes

from medseg.inference.batch_overview import survey
from medseg.inference.ledger_entry import Entry, QualityEntry
from medseg.inference.volumes_table import write_volumes_parquet
from medseg.labels import Label, LabelSet

LABELS = LabelSet([Label(1, "liver", 1, (230, 60, 60))])
JUDGED = QualityEntry(
    expected_dice=0.91,
    lower_bound=None,
    labels={"liver": (0.95, 0.9)},
    is_calibrated=True,
    review=True,
    reasons=("too small",),
)


def test_parquet_holds_the_numbers_of_the_csv_with_types(
    tmp_path: Path,
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    entries = [
        Entry(scan="b", state="done", volumes_ml={"liver": 1500.25}),
        Entry(
            scan="a",
            state="done",
            volumes_ml={"liver": 2.0, "spleen": 3.5},
            quality=JUDGED,
        ),
        Entry(scan="c", state="failed"),
    ]
    file = tmp_path / "volumes.parquet"
    write_volumes_parquet(file, survey(entries, LABELS))
    table = parquet.read_table(file)
    text = format_volumes(entries, LABELS)
    header, *lines = csv.reader(text.splitlines())
    assert table.column_names == header
    assert table.to_pylist()[0]["review"] is True
    for cells, row in zip(lines, table.to_pylist(), strict=True):
        for cell, value in zip(cells, row.values(), strict=True):
            shown = f"{value:.4f}" if isinstance(value, float) else value
            shown = int(shown) if isinstance(shown, bool) else shown
            assert cell == ("" if shown is None else str(shown))


def test_no_label_is_a_formula_to_a_spreadsheet() -> None:
    name = "=HYPERLINK(A1)"
    reasons = ("@SUM(A1) is small",)
    quality = JUDGED.model_copy(update={"reasons": reasons})
    entry = Entry(
        scan="a", state="done", volumes_ml={name: 1.0}, quality=quality
    )
    text = format_volumes([entry], LABELS)
    for cells in csv.reader(text.splitlines()):
        assert not [cell for cell in cells if cell.startswith(("=", "@"))]
    assert f"'{name}_ml" in text


def test_a_batch_without_results_has_a_table_without_rows(
    tmp_path: Path,
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "volumes.parquet"
    write_volumes_parquet(file, survey([], LABELS))
    assert parquet.read_table(file).num_rows == 0
