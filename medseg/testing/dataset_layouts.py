"""The contract of a dataset layout (``medseg.layouts.Layout``), as a suite to subclass.

A package that adds a layout tests it like this::

    from medseg.testing.dataset_layouts import DatasetLayoutContract

    class TestMyLayout(DatasetLayoutContract):
        layout = MY_LAYOUT

        def write_dataset(self, root, names):
            for name in names:
                ...
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from medseg.bundle.spec import BundleSpec, ChannelSpec, LabelSpec
from medseg.datasets.cases import CaseList, make_cases
from medseg.errors import DatasetError
from medseg.layouts import CaseListing, Layout, ListedCase, Selection

_SECRET = "SECRET"
"""Stands in the names of the folder and of all cases; nothing that is recorded may hold it."""

_NAMES = (f"{_SECRET}anna", f"{_SECRET}bert", f"{_SECRET}cleo")


class DatasetLayoutContract(ABC):
    """What every layout promises; subclass it as ``Test…`` in a test module.

    Attributes:
        layout: The layout under test.
        channels: The channels of the cases that ``write_dataset`` writes.
        labels: The labels of these cases.
        secrets: Texts that ``write_dataset`` puts into files and that no error may quote.
    """

    layout: ClassVar[Layout]
    channels: ClassVar[tuple[ChannelSpec, ...]] = (ChannelSpec(name="image"),)
    labels: ClassVar[tuple[str, ...]] = ("organ",)
    secrets: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def write_dataset(self, root: Path, names: Sequence[str]) -> None:
        """Write a data set with one usable case per name.

        Args:
            root: An empty folder.
            names: Letters only. They stand in the names of files and folders, and where a list
                names its cases.
        """

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """Return a data set of three cases in a folder that names a patient."""
        root = tmp_path / f"{_SECRET} folder"
        root.mkdir()
        self.write_dataset(root, _NAMES)
        return root

    @property
    def spec(self) -> BundleSpec:
        """A bundle for the cases that ``write_dataset`` writes."""
        labels = tuple(
            LabelSpec(index=index, name=name)
            for index, name in enumerate(self.labels, start=1)
        )
        return BundleSpec.model_validate(
            {
                "name": "contract",
                "channels": self.channels,
                "labels": labels,
                "training": {"patch": [16, 16, 16]},
            }
        )

    def test_its_own_data_set_is_recognised(self, root: Path) -> None:
        assert self.layout.recognizes(root)

    def test_other_folders_are_not_recognised(self, tmp_path: Path) -> None:
        folder = tmp_path / "other"
        folder.mkdir()
        assert not self.layout.recognizes(folder)
        (folder / "notes.txt").write_bytes(b"nothing to see")
        (folder / "code").mkdir()
        assert not self.layout.recognizes(folder)

    def test_every_case_is_listed_with_its_images_and_its_label(
        self, root: Path
    ) -> None:
        listing = self._list(root)
        assert listing.faults == []
        assert len(listing.cases) == len(_NAMES)
        for case in listing.cases:
            assert len(case.images) in (1, len(self.channels))
            assert case.label not in case.images
            assert all(file.exists() for file in (*case.images, case.label))

    def test_listed_cases_become_cases_with_names_of_their_own(
        self, root: Path
    ) -> None:
        found = self._make_cases(root)
        assert found.faults == ()
        assert len({case.name.casefold() for case in found.cases}) == len(
            _NAMES
        )

    def test_listing_twice_gives_the_same(self, root: Path) -> None:
        assert _describe(self._list(root), root) == _describe(
            self._list(root), root
        )

    def test_the_list_does_not_depend_on_where_the_data_lie(
        self, root: Path, tmp_path: Path
    ) -> None:
        before = _describe(self._list(root), root)
        moved = tmp_path / "elsewhere" / "deep"
        shutil.copytree(root, moved)
        shutil.rmtree(root)
        assert _describe(self._list(moved), moved) == before

    def test_nothing_is_written(self, root: Path) -> None:
        before = _list_contents(root)
        self.layout.recognizes(root)
        self._list(root)
        assert _list_contents(root) == before

    def test_a_case_without_its_images_stops_no_other_and_is_a_fault(
        self, root: Path
    ) -> None:
        _remove_images(self._list(root).cases[0])
        found = self._make_cases(root)
        assert len(found.cases) == len(_NAMES) - 1
        assert found.faults
        for fault in found.faults:
            self._assert_names_nobody(fault.what)

    def test_a_link_to_nowhere_stops_no_case(self, root: Path) -> None:
        folder = root / f"{_SECRET} links"
        folder.mkdir()
        try:
            (folder / "IM0001").symlink_to(folder / f"{_SECRET} gone")
        except OSError:
            pytest.skip("Windows lets only some users make links")
        found = self._make_cases(root)
        assert len(found.cases) == len(_NAMES)
        for fault in found.faults:
            self._assert_names_nobody(fault.what)

    def test_a_folder_without_a_data_set_is_an_error_that_names_nobody(
        self, tmp_path: Path
    ) -> None:
        folder = tmp_path / f"{_SECRET} empty"
        folder.mkdir()
        (folder / f"{_SECRET}.txt").write_bytes(_SECRET.encode())
        with pytest.raises(DatasetError) as caught:
            self._make_cases(folder)
        self._assert_names_nobody(caught.value.message)
        assert caught.value.source, (
            "the error does not say which folder or list it is about"
        )

    def _list(self, root: Path) -> CaseListing:
        labels = {label.name: label.index for label in self.spec.labels}
        return self.layout.list_cases(root, Selection(self.channels, labels))

    def _make_cases(self, root: Path) -> CaseList:
        return make_cases(self._list(root), self.spec)

    def _assert_names_nobody(self, text: str) -> None:
        for secret in (*self.secrets, _SECRET):
            assert secret not in text


def _remove_images(case: ListedCase) -> None:
    files = {file for channel in case.series for file in channel} | set(
        case.images
    )
    for file in files:
        file.unlink()


def _describe(listing: CaseListing, root: Path) -> list[tuple[object, ...]]:
    """Return what a listing says of its cases, with paths relative to the data set."""
    described: list[tuple[object, ...]] = []
    for case in listing.cases:
        files = [
            file.resolve().relative_to(root.resolve())
            for file in (*case.images, case.label)
        ]
        described.append((case.name, files, dict(case.fields), case.volume))
    faults = [
        (fault.where, fault.what) for fault in sorted(listing.faults, key=str)
    ]
    return [
        *described,
        (faults, listing.channel_names, listing.label_names, listing.ignore),
    ]


def _list_contents(root: Path) -> list[tuple[str, int, int]]:
    contents = []
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        contents.append(
            (
                path.relative_to(root).as_posix(),
                status.st_size,
                status.st_mtime_ns,
            )
        )
    return contents
