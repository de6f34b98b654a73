"""The served version segments; another one takes over as soon as it is served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.bundles import made_spec, trained_bundle

from medseg import MedsegError, ScanError, Segmenter, Volume, load_bundle
from medseg.label_server.model import ServedModel
from medseg.label_server.state import StateFolder
from medseg.label_server.versions import VersionInfo, Versions
from medseg.testing import make_phantom

SPEC = made_spec(preprocessing={"spacing_mm": [4, 4, 4]})


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    """Two versions with different weights, the first one served."""
    versions = Versions(StateFolder(tmp_path / "state"))
    versions.adopt(load_bundle(trained_bundle(tmp_path / "bundle", SPEC)))
    second = versions.next_version()
    trained_bundle(second.folder, SPEC, seed=3)
    second.write_info(VersionInfo(parent=1))
    return versions


def test_each_scan_is_segmented_by_the_version_served_now(
    versions: Versions,
) -> None:
    volume, _ = make_phantom(0)
    model = ServedModel(versions, "cpu")
    for number in (1, 2, 1):
        versions.promote(number)
        result = model.segment(volume)
        assert result.version.number == number
        expected = Segmenter(versions.get(number).folder, "cpu").segment(volume)
        assert np.array_equal(result.segmentation.labels, expected.labels)


def test_a_version_is_loaded_once(
    versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ServedModel(versions, "cpu")
    first = model._load()
    assert model._load()[1] is first[1]


def test_what_a_person_should_know_comes_with_the_result(
    versions: Versions,
) -> None:
    volume, _ = make_phantom(0)
    warned = Volume(
        volume.array, volume.affine, warnings=("two slices were missing",)
    )
    result = ServedModel(versions, "cpu").segment(warned)
    assert "two slices were missing" in result.segmentation.warnings


def test_a_volume_that_is_none_is_refused(versions: Versions) -> None:
    flat = Volume(
        np.zeros((1, 20, 20, 20), np.float32), np.diag([4.0, 4.0, 4.0, 1.0])
    )
    with pytest.raises(ScanError):
        ServedModel(versions, "cpu").segment(flat)


def test_the_server_computes_at_the_speed_that_it_was_started_with(
    versions: Versions,
) -> None:
    def speed_of(model: ServedModel) -> str:
        segmenter = model._load()[1]
        return segmenter.choices.get("speed", "as decided")

    assert speed_of(ServedModel(versions, "cpu")) == "as decided"
    assert speed_of(ServedModel(versions, "cpu", "exact")) == "exact"
    with pytest.raises(MedsegError, match="speed takes exact, balanced"):
        ServedModel(versions, "cpu", "faster")._load()
