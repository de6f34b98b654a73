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

from pydantic import BaseModel, ConfigDict, ValidationError

from medseg._support.files import PART, write_atomically
from medseg.bundle.bundle import Bundle, load_bundle
from medseg.bundle.hashes import hash_bundle
from medseg.errors import CheckpointError, MedsegError, OutputError
from medseg.label_server.state import State
from medseg.training.run_folder import RunFolder

FACTS = "version.json"
_NOT_SERVED = shutil.ignore_patterns("checkpoints", "previews", f"{PART}*")


class Facts(BaseModel):
    """What is known of a version besides its bundle."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    parent: int | None = None
    """The version it was trained from; none for the first."""
    origin: str = ""
    """Of the first version: hash of the bundle it is a copy of."""
    labels: int = 0
    """Corrected cases it was trained on."""
    held_back: int = 0
    """Corrected cases it was compared on."""
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

    @property
    def is_whole(self) -> bool:
        """Whether its training ended; a killed training leaves a version that is not."""
        return RunFolder(self.folder).is_finished or (self.folder / FACTS).is_file()

    @property
    def facts(self) -> Facts:
        """What is known of it; the defaults where its training ended but was not compared."""
        file = self.folder / FACTS
        try:
            return Facts.model_validate_json(file.read_bytes()) if file.is_file() else Facts()
        except ValidationError as error:
            raise CheckpointError(f"{file} is damaged; restore it or remove the version") from error

    def note(self, facts: Facts) -> None:
        """Write what is known of it."""
        write_atomically(self.folder / FACTS, facts.model_dump_json(indent=2) + "\n")

    def bundle(self) -> Bundle:
        """Read its bundle."""
        return load_bundle(self.folder)


class Versions:
    """The versions in a state folder.

    Args:
        state: The state folder.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    def adopt(self, bundle: Bundle) -> None:
        """Make a copy of a trained bundle the first version, unless it is already.

        Raises:
            CheckpointError: If the bundle has no weights.
            OutputError: If the state began with another bundle, or cannot be written.
        """
        if not bundle.is_trained:
            raise CheckpointError(
                f"{bundle.folder} has no weights to serve; train it first: medseg train BUNDLE"
            )
        origin = hash_bundle(bundle)
        first = self.get(1)
        if not first.is_whole:
            self._copy(bundle, Facts(origin=origin, promoted=True), first.folder)
        elif first.facts.origin != origin:
            raise OutputError(
                f"{self._state.root} belongs to another bundle, and its labels and versions are "
                "kept apart from this one's; give another --state"
            )
        if not self._state.served.is_file():
            self._serve(first)

    def _copy(self, bundle: Bundle, facts: Facts, target: Path) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=PART) as folder:
                copy = Path(folder) / target.name
                shutil.copytree(bundle.folder, copy, ignore=_NOT_SERVED)
                Version(1, copy).note(facts)
                copy.rename(target)
        except OSError as error:
            raise OutputError(f"cannot write {target}: {error.strerror or error}") from error

    def get(self, number: int) -> Version:
        """Return the version of this number, whether it exists or not."""
        return Version(number, self._state.versions / f"{number:04d}")

    @property
    def all(self) -> list[Version]:
        """Every whole version, in order."""
        return [version for version in self._folders() if version.is_whole]

    @property
    def served(self) -> Version:
        """The version in use.

        Raises:
            CheckpointError: If the note of which it is was damaged.
        """
        try:
            version = self.get(int(self._state.served.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self._state.served} must name a version, such as 0001; write one into it"
            ) from error
        if not version.is_whole:
            raise CheckpointError(f"{self._state.served} names {version.name}, which is not there")
        return version

    def begin(self) -> Version:
        """Return a version that does not exist yet, for a training to write."""
        last = max((version.number for version in self._folders()), default=0)
        return self.get(last + 1)

    def promote(self, number: int) -> Version:
        """Serve a version from now on.

        Raises:
            MedsegError: If there is no such version, or its training has not ended.
        """
        version = self.get(number)
        if not version.is_whole:
            there = ", ".join(each.name for each in self.all)
            raise MedsegError(f"there is no version {version.name} to promote; there are {there}")
        version.bundle()
        version.note(version.facts.model_copy(update={"promoted": True}))
        self._serve(version)
        return version

    def _serve(self, version: Version) -> None:
        write_atomically(self._state.served, f"{version.name}\n")

    def _folders(self) -> list[Version]:
        found = self._state.versions.glob("[0-9]" * 4)
        return [Version(int(folder.name), folder) for folder in sorted(found)]

    def summary(self) -> Mapping[str, object]:
        """Say for people and machines which versions there are."""
        served = self.served
        return {
            "served": served.name,
            "versions": {
                version.name: version.facts.model_dump(exclude={"origin"}) for version in self.all
            },
        }
