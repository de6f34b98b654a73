"""A cross-validation decides which labels keep only their largest connected component."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import label as pieces_of
from support.bundles import content, run_stock, write_json

from medseg import Segmenter, train
from medseg.bundle.bundle import load_bundle
from medseg.bundle.spec import KeepLargestFinding
from medseg.events import CrossValidationDone, Event, HeldOutDecision
from medseg.testing import make_phantom, write_dataset

# Trains twice; what is decided, and how, tests/training/test_keep_largest.py holds without.
pytestmark = pytest.mark.slow

CASES, SHAPE = 10, (24, 20, 16)


class Trained:
    """Two folds of five cases each, trained briefly, so that stray pieces are left."""

    def __init__(self, home: Path) -> None:
        self.data = write_dataset(
            home / "data", CASES, shape=SHAPE, spacing=9.0
        )
        made = content(
            data={"folds": 2},
            preprocessing={
                "intensity": {"kind": "window", "low": -200, "high": 300}
            },
            training={"steps": 16, "validate_every": 16, "optimizer": "adamw"},
        )
        self.bundle = write_json(home, made)
        self.events: list[Event] = []
        self.out = train(
            self.bundle,
            data=self.data,
            out=home / "run",
            fold="all",
            device="cpu",
            listeners=[self.events.append],
        )
        self.folds = [self.out / "folds" / f"fold_{fold}" for fold in range(2)]

    def metrics(self, folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (folder / "metrics.json").read_text()
        )
        return found

    @property
    def finding(self) -> KeepLargestFinding:
        found = load_bundle(self.out).trained.keep_largest
        assert found is not None
        return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("largest"))


def dice(cases: list[dict[str, Any]], label: str) -> list[float]:
    return [case["labels"][label]["dice"] for case in cases]


def test_all_folds_decide_together_by_the_paired_dice(trained: Trained) -> None:
    ways = trained.metrics(trained.out)["undecided"]
    assert set(trained.finding.labels) == {"liver", "kidney"}
    assert trained.finding.kept  # or this training shows nothing
    for name, found in trained.finding.labels.items():
        before, after = (
            dice(ways[way]["cases"], name)
            for way in ("every_piece", "largest_piece")
        )
        assert len(before) == found.cases == CASES
        assert found.dice_before == pytest.approx(np.mean(before))
        assert found.dice_after == pytest.approx(np.mean(after))
        assert found.kept == (np.mean(after) > np.mean(before))


def test_the_bundles_scores_are_those_of_results_as_decided(
    trained: Trained,
) -> None:
    whole = trained.metrics(trained.out)
    for name, found in trained.finding.labels.items():
        wanted = found.dice_after if found.kept else found.dice_before
        assert whole["scores"]["dice"][name] == pytest.approx(wanted)
        assert np.mean(dice(whole["cases"], name)) == pytest.approx(wanted)
    for part in trained.folds:
        own = load_bundle(part).trained.keep_largest
        assert own is not None
        assert {one.cases for one in own.labels.values()} == {CASES // 2}


def test_users_get_what_was_decided(trained: Trained) -> None:
    volume, _ = make_phantom(0, SHAPE, 9.0)
    segmenter = Segmenter(trained.out, "cpu")
    kept = trained.finding.kept
    found, prediction = segmenter.segment(volume), segmenter.predict(volume)
    plain, largest = (prediction.finish(keep_largest=way) for way in ((), kept))
    assert np.array_equal(found.labels, largest.labels)
    assert found.quality == largest.quality
    assert (plain.labels != largest.labels).any()
    for label in found.label_set:
        if label.name in kept:
            assert (
                pieces_of(found.labels == label.index, np.ones((3, 3, 3)))[1]
                == 1
            )


def test_stock_monai_postprocesses_results_the_same(
    trained: Trained, tmp_path: Path
) -> None:
    scans = trained.data / "imagesTr"
    stock = tmp_path / "stock"
    run_stock(
        trained.out,
        "inference.json",
        dataset_dir=str(scans),
        output_dir=str(stock),
    )
    segmenter = Segmenter(trained.out, "cpu")
    for scan in sorted(scans.iterdir()):
        theirs = nib.load(
            stock / f"{scan.name.removesuffix('.nii.gz')}_seg.nii.gz"
        )
        assert np.array_equal(
            segmenter.segment(scan).labels, np.asarray(theirs.dataobj)
        )


def test_decisions_are_reported_with_their_figures(trained: Trained) -> None:
    card = (trained.out / "docs" / "README.md").read_text()
    told = [
        event for event in trained.events if isinstance(event, HeldOutDecision)
    ]
    assert len(told) == 3  # of each fold, and of all
    for name, found in trained.finding.labels.items():
        decision = "only the largest connected component is kept"
        if not found.kept:
            decision = "all connected components are kept"
        assert f"{name}: {decision} (Dice {found.dice_before:.4f}" in card
        assert any(
            line.startswith(f"{name}: {decision}")
            for line in told[-1].decisions
        )


def test_the_cross_validation_has_a_row_per_fold_and_label(
    trained: Trained,
) -> None:
    (event,) = [
        event
        for event in trained.events
        if isinstance(event, CrossValidationDone)
    ]
    heading, *rows = event.rows
    assert heading == [
        "fold",
        "held-out cases",
        "Dice liver",
        "Dice kidney",
        "Dice mean",
    ]
    assert [row[:2] for row in rows] == [["0", "5"], ["1", "5"], ["all", "10"]]
    whole = trained.metrics(trained.out)
    means = []
    for fold, row in enumerate(rows[:2]):
        liver = dice(whole["cases"][fold * 5 : fold * 5 + 5], "liver")
        assert row[2] == f"{np.mean(liver):.3f} ± {np.std(liver, ddof=1):.3f}"
        assert whole["folds"][fold]["dice"]["liver"]["mean"] == pytest.approx(
            np.mean(liver)
        )
        means.append(np.mean(liver))
    assert rows[2][2] == f"{np.mean(means):.3f} ± {np.std(means, ddof=1):.3f}"
    assert (
        f"| {' | '.join(rows[0])} |"
        in (trained.out / "docs" / "README.md").read_text()
    )


def test_a_bundle_that_names_its_labels_is_not_decided_on(
    trained: Trained, tmp_path: Path
) -> None:
    run = train(
        trained.bundle,
        data=trained.data,
        out=tmp_path / "run",
        device="cpu",
        overrides=['inference.keep_largest=["kidney"]', "training.steps=4"],
    )
    metrics = trained.metrics(run)
    assert load_bundle(run).trained.keep_largest is None
    assert "undecided" not in metrics
    assert (
        "Only the largest connected component of kidney is kept"
        in (run / "docs" / "README.md").read_text()
    )
    volume, _ = make_phantom(1, SHAPE, 9.0)
    found = Segmenter(run, "cpu").segment(volume)
    assert pieces_of(found.labels == 2, np.ones((3, 3, 3)))[1] <= 1
