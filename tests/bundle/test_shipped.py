"""The bundles that come with medseg are called by their names, from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg import BundleError, load_bundle
from medseg.bundle.shipped import find_bundle_path, list_shipped_bundles


def test_every_shipped_bundle_is_loaded_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = list(list_shipped_bundles())
    assert names == sorted(names)
    assert {"phantom_ct", "hippocampus_mr", "cardiac_mr_2d"} <= set(names)
    for name in names:
        assert load_bundle(name).spec.name == name


def test_a_folder_of_the_users_comes_before_a_shipped_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phantom_ct").mkdir()
    assert find_bundle_path("phantom_ct") == Path("phantom_ct")
    with pytest.raises(BundleError):
        load_bundle("phantom_ct")


@pytest.mark.parametrize(
    "path", ["unknown", "./x/phantom_ct", "/phantom_ct", "phantom_ct.json"]
)
def test_other_paths_are_taken_as_they_are(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_bundle_path(path) == Path(path)
