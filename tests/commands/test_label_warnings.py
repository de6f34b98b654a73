"""What the reader of a label map noticed reaches the person, whatever the command."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.bundles import content, made_spec, write_json
from support.doubtful_labels import WARNING, write_doubtful_dataset

from medseg import check, plan, review
from medseg.datasets.dataset import open_dataset
from medseg.events import Event, Notice
from medseg.testing import write_example_bundle

EXPECTED = [f"phantom_000: {WARNING}"]


class Notices:
    """A listener that keeps what is said about labels."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, event: Event) -> None:
        """Keep it."""
        if isinstance(event, Notice) and "label:" in event.message:
            self.said.append(event.message)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_doubtful_dataset(tmp_path / "data")


def test_check_tells_it(data: Path, tmp_path: Path) -> None:
    report = check(write_json(tmp_path / "bundle", content()), data=data)
    assert not report.faults
    assert list(report.warnings) == EXPECTED


def test_training_tells_it_again_when_the_case_comes_from_the_cache(
    data: Path, tmp_path: Path
) -> None:
    spec = made_spec(data={"folds": 2})
    for _ in range(2):
        notices = Notices()
        open_dataset(data, spec, 0, tmp_path / "cache", listeners=[notices])
        assert notices.said == EXPECTED


def test_planning_tells_it_again_when_the_fingerprint_comes_from_the_cache(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("first.json", "second.json"):
        notices = Notices()
        plan(data, tmp_path / name, device="cpu", listeners=[notices])
        assert notices.said == EXPECTED


def test_review_tells_it(data: Path) -> None:
    notices = Notices()
    bundle = write_example_bundle(trained=True)
    masks, scans = data / "labelsTr", data / "imagesTr"
    review(masks, scans, bundle, device="cpu", listeners=[notices])
    assert notices.said == EXPECTED
