"""The versions of the served bundle, side by side; one is served, and none is ever overwritten.

``served`` names the version in use and is replaced in one step, so that a process killed at any
moment leaves a whole version served. Every process that serves looks there before each scan.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medseg._support.files import PART, write_atomically
from medseg._support.platform.files import rename
from medseg.bundle.bundle import Bundle, load_bundle
from medseg.bundle.hashes import hash_bundle
from medseg.errors import CheckpointError, MedsegError, OutputError
from medseg.label_server.state import StateFolder
from medseg.training.run_folder import RunFolder

INFO = "version.json"
_NOT_COPIED = shutil.ignore_patterns("checkpoints", "previews", f"{PART}*")


class VersionInfo(BaseModel):
    """What is known of a version besides its bundle."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        populate_by_name=True,
    )

    parent: int | None = None
    """The version it was trained from; none for the first."""
    origin: str = ""
    """Of the first version: hash of the bundle it is a copy of."""
    labels: int = 0
    """Corrected cases it was trained on."""
    held_out: int = Field(default=0, alias="held_back")
    """Corrected cases it was compared on; called ``held_back`` in the file."""
    dice: float | None = None
    """Its mean Dice on these."""
    parent_dice: float | None = None
    """Its parent's mean Dice on the same cases."""
    promoted: bool = False
    """Whether it was not worse than its parent, and so was served."""
    created: str = ""
    """When, UTC."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version.

    Attributes:
        number: Counts from 1.
        folder: A trained bundle.
    """

    number: int
    folder: Path

    @property
    def name(self) -> str:
        """Its number as its folder is called."""
        return f"{self.number:04d}"

    def is_complete(self) -> bool:
        """Tell whether its training ended; a killed training run leaves a version that is not."""
        return (
            RunFolder(self.folder).is_finished or (self.folder / INFO).is_file()
        )

    def read_info(self) -> VersionInfo:
        """Return what is known of it; the defaults if its training ended without a comparison.

        Raises:
            CheckpointError: If the file was damaged.
        """
        file = self.folder / INFO
        if not file.is_file():
            return VersionInfo()
        try:
            return VersionInfo.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise CheckpointError(
                f"{INFO} of version {self.name} is damaged; restore it or remove the version",
                source=file,
            ) from error

    def write_info(self, info: VersionInfo) -> None:
        """Write what is known of it."""
        write_atomically(
            self.folder / INFO,
            info.model_dump_json(indent=2, by_alias=True) + "\n",
        )

    def load_bundle(self) -> Bundle:
        """Load its bundle."""
        return load_bundle(self.folder)


class Versions:
    """The versions in a state folder.

    Args:
        state: The state folder.
    """

    def __init__(self, state: StateFolder) -> None:
        self._state = state

    def adopt(self, bundle: Bundle) -> None:
        """Make a copy of a trained bundle the first version, unless it is already.

        Raises:
            CheckpointError: If the bundle has no weights.
            OutputError: If the state began with another bundle, or cannot be written.
        """
        if not bundle.is_trained:
            raise CheckpointError(
                "the bundle has no weights to serve; train it first: medseg train BUNDLE",
                source=bundle.folder,
            )
        origin = hash_bundle(bundle)
        first = self.get(1)
        if not first.is_complete():
            self._copy(
                bundle, VersionInfo(origin=origin, promoted=True), first.folder
            )
        elif first.read_info().origin != origin:
            raise OutputError(
                "the state folder belongs to another bundle, and its labels and versions are "
                "kept apart from this one's; give another --state",
                source=self._state.root,
            )
        if not self._state.served.is_file():
            self._serve(first)

    def _copy(self, bundle: Bundle, info: VersionInfo, target: Path) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(
                dir=target.parent, prefix=PART
            ) as folder:
                copy = Path(folder) / target.name
                shutil.copytree(bundle.folder, copy, ignore=_NOT_COPIED)
                _make_private(copy)
                Version(1, copy).write_info(info)
                rename(copy, target)
        except OSError as error:
            raise OutputError(
                "the bundle cannot be copied into the state folder; free disk space or give "
                "another --state",
                source=target,
                detail=str(error),
            ) from error

    def get(self, number: int) -> Version:
        """Return the version of this number, whether it exists or not."""
        return Version(number, self._state.versions / f"{number:04d}")

    def list_complete(self) -> list[Version]:
        """Return every complete version, in order."""
        return [
            version for version in self._list_folders() if version.is_complete()
        ]

    def find_served(self) -> Version:
        """Return the version in use.

        Raises:
            CheckpointError: If the file that names it was damaged.
        """
        try:
            number = int(self._state.served.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                "the file 'served' must name a version, such as 0001; write one into it",
                source=self._state.served,
            ) from error
        version = self.get(number)
        if not version.is_complete():
            raise CheckpointError(
                f"the file 'served' names version {version.name}, which does not exist; write "
                "the number of another into it",
                source=self._state.served,
            )
        return version

    def next_version(self) -> Version:
        """Return a version that does not exist yet, for a training run to write."""
        numbers = [version.number for version in self._list_folders()]
        return self.get(max(numbers, default=0) + 1)

    def promote(self, number: int) -> Version:
        """Serve a version from now on.

        Raises:
            MedsegError: If there is no such version, or its training has not ended.
        """
        version = self.get(number)
        if not version.is_complete():
            existing = ", ".join(each.name for each in self.list_complete())
            raise MedsegError(
                f"there is no version {version.name} to promote, only {existing}"
            )
        version.load_bundle()  # a damaged bundle must not be served
        info = version.read_info()
        promoted = info.model_copy(update={"promoted": True})
        version.write_info(promoted)
        self._serve(version)
        return version

    def _serve(self, version: Version) -> None:
        write_atomically(self._state.served, f"{version.name}\n")

    def _list_folders(self) -> list[Version]:
        folders = self._state.versions.glob("[0-9]" * 4)
        return [Version(int(folder.name), folder) for folder in sorted(folders)]

    def summarise(self) -> Mapping[str, object]:
        """Return which versions there are, for people and machines."""
        infos = {}
        for version in self.list_complete():
            info = version.read_info()
            infos[version.name] = info.model_dump(
                exclude={"origin"}, by_alias=True
            )
        served = self.find_served()
        return {"served": served.name, "versions": infos}


def _make_private(folder: Path) -> None:
    """Take a copy from others: copying keeps the modes of what is copied."""
    folder.chmod(0o700)
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
