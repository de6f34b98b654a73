"""Which layout a data set has."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.datasets import a_spec, an_item, an_msd_list, touch
from support.plugins import install_package

from medseg.bundle.spec.data import SHIPPED_LAYOUTS
from medseg.datasets.cases import find_cases
from medseg.errors import DatasetError, MissingExtraError
from medseg.layouts import LAYOUTS, list_cases
from medseg.layouts.registry import AUTO

FLAT = """
from medseg.layouts import CaseListing, ListedCase

class FlatLayout:
    def recognizes(self, root):
        return (root / "flat.txt").is_file()

    def list_cases(self, root, selection):
        listing = CaseListing(root, has_fields=False)
        for image in sorted(root.glob("*_image.nii")):
            label = image.with_name(image.name.replace("_image", "_label"))
            listing.cases.append(ListedCase((image,), label))
        return listing

LAYOUT = FlatLayout()
NO_LAYOUT = object()
"""


@pytest.fixture
def add_layout(site):
    """Install packages that add layouts, and forget them behind the test."""

    def install(
        name: str = "flat",
        target: str = "LAYOUT",
        package: str = "flat_package",
    ) -> None:
        points = {"medseg.dataset_layouts": {name: f"{package}:{target}"}}
        install_package(site, package, points, FLAT)
        LAYOUTS.refresh()

    yield install
    LAYOUTS.refresh()


@pytest.fixture(autouse=True)
def _forget_packages(monkeypatch):
    yield
    monkeypatch.undo()
    LAYOUTS.refresh()


def a_flat_set(root: Path) -> Path:
    touch(root / "flat.txt", root / "a_image.nii", root / "a_label.nii")
    return root


def test_the_bundle_and_the_registry_know_the_same_layouts() -> None:
    assert {AUTO, *LAYOUTS.names} == set(SHIPPED_LAYOUTS)


def test_a_layout_of_a_package_is_taken_by_name_and_recognised(
    tmp_path: Path, add_layout
) -> None:
    root = a_flat_set(tmp_path / "data")
    with pytest.raises(
        DatasetError, match=r"there are: auto, msd, .*dicom\. Choose one"
    ):
        find_cases(root, a_spec(format="flat"))
    add_layout()
    for layout in ("flat", AUTO):
        (case,) = find_cases(root, a_spec(format=layout)).cases
        assert case.label.name == "a_label.nii"


def test_a_layout_that_medseg_ships_goes_before_one_of_a_package(
    tmp_path: Path, add_layout
) -> None:
    add_layout()
    root = a_flat_set(tmp_path / "data")
    an_msd_list(root, [an_item("b")])
    assert [case.name for case in find_cases(root, a_spec()).cases] == ["b"]


def test_a_broken_package_harms_only_whoever_names_it(
    tmp_path: Path, add_layout
) -> None:
    add_layout()
    add_layout("broken", "NO_LAYOUT", "broken_package")
    root = a_flat_set(tmp_path / "data")
    found = find_cases(root, a_spec())
    assert len(found.cases) == 1
    assert any(
        "'broken' of the package broken_package" in warning
        for warning in found.warnings
    )
    with pytest.raises(MissingExtraError, match="needs the method recognizes"):
        find_cases(root, a_spec(format="broken"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="broken_package"):
        find_cases(tmp_path / "empty", a_spec())


@pytest.mark.parametrize("layout", ["auto", "msd", "folders", "dicom"])
def test_a_list_says_itself_how_it_is_read(tmp_path: Path, layout: str) -> None:
    root = an_msd_list(tmp_path, [an_item("b")])
    listing = list_cases(root / "dataset.json", layout)
    assert [case.label.name for case in listing.cases] == ["b.nii.gz"]


def test_nothing_that_looks_like_a_data_set_says_what_was_looked_for(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "pictures/a.png")

    with pytest.raises(
        DatasetError, match=r"(?s)dataset\.json, cases\.csv.*holds\n  pictures/"
    ):
        find_cases(tmp_path, a_spec())
    with pytest.raises(DatasetError, match="no such folder"):
        find_cases(tmp_path / "typo", a_spec())
    with pytest.raises(DatasetError, match="list of cases is needed"):
        find_cases(tmp_path / "pictures/a.png", a_spec())


@pytest.mark.parametrize("layout", ["msd", "nnunet", "folders", "csv"])
def test_a_layout_that_is_asked_for_and_absent_is_an_error(
    tmp_path: Path, layout: str
) -> None:
    with pytest.raises(DatasetError, match=str(tmp_path)):
        find_cases(tmp_path, a_spec(format=layout))
