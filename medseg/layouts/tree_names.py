"""What the names of folders and files say: image or label, of which case, for training or a test.

Words such as ``images``, ``masks`` or ``_seg`` say what a file is (``medseg.names`` has them);
what is left of a path when they are taken out is what an image and its label share.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from medseg.names import (
    LEDGER,
    ROLE_WORDS,
    Role,
    has_image_suffix,
    split_role,
    split_suffix,
)

SEPARATORS = "_. -"

_SPLITS: Mapping[str, str] = {
    "train": r"tr|train|training",
    "val": r"va|val|valid|validation|dev",
    "test": r"ts|te|test|testing",
}
"""Part of a data set → the words for it."""

_MORE_WORDS: Mapping[Role, str] = {
    "image": r"imaging|inputs?|raw|orig|originals?|photos?|pictures?|jpegimages|leftimg8bit",
    "label": r"labelmaps?|targets?|rois?|segmentationclass|gtfine|gtcoarse|gts|groundtruths?",
    "prediction": r"segmentationobject|instances?|instanceids",
}
"""Words that say it where they stand alone; instances are no classes of voxels."""

_ROLES = {
    role: re.compile(f"{ROLE_WORDS[role]}|{_MORE_WORDS[role]}", re.IGNORECASE)
    for role in _MORE_WORDS
}
_PARTS = {
    part: re.compile(words, re.IGNORECASE) for part, words in _SPLITS.items()
}
_SUBSET = re.compile(
    r"(?P<word>images?|imgs?|labels?|masks?)(?P<part>tr|va|ts)", re.IGNORECASE
)
_TWO_WORDS = re.compile(
    r"(?i)(ground|label|seg|segmentation)[_\- ](truth|maps?|masks?)"
)
_GLUED = re.compile(
    r"(?P<base>.*[^\W\d_]{2})(?:masks?|seg|labels?)", re.IGNORECASE
)
"""``brainmask``: a mask, though no separator says so."""

_LABEL_IDS = re.compile(r"_labelids$", re.IGNORECASE)
"""How Cityscapes calls labels, beside other versions of them."""

_MOST_KEPT = 4096
"""Names whose reading is remembered: data sets repeat theirs."""

_NO_DATA_FOLDERS = frozenset(("__macosx", "preprocessed", "surveyed"))


@dataclass(frozen=True, slots=True)
class NamedFile:
    """An image file and what its path says.

    Attributes:
        file: The file.
        folders: The folders it lies in, below those that all files lie in.
        place: The same without the words that say what the file is, and with one word for each
            part of the data set. An image and its label share it.
        bare_place: The same without the whole name of a folder that says what the file is.
        stem: Its name without ending.
        key: The same without the words that say what the file is; may be empty. It pairs files.
        name: The name of its case, if the file is all that gives it one.
        role: Image or label; ``""`` where no name says it.
        role_folder: The folder that says it; ``""`` where the file's own name does, or none.
        lies_with_images: Whether a folder says that it holds images.
        part: ``train``, ``val`` or ``test``, where a folder says so.
    """

    file: Path
    folders: tuple[str, ...]
    place: tuple[str, ...]
    bare_place: tuple[str, ...]
    stem: str
    key: str
    name: str
    role: Role
    role_folder: str = ""
    lies_with_images: bool = False
    part: str = ""

    @property
    def kind(self) -> str:
        """What files of this role share, for people: ``masks/``, or ``…_seg``."""
        if self.role_folder:
            return f"{self.role_folder}/"
        if not self.key:
            return self.stem
        start, _, end = self.stem.partition(self.key)
        return f"{start}…{end}"

    @property
    def pattern(self) -> str:
        """A pattern that files of this role fit, as ``--labels`` takes it."""
        if self.role_folder:
            return f"**/{self.role_folder}/**"
        if not self.key:
            return f"{self.stem}.*"
        start, _, end = self.stem.partition(self.key)
        return f"{start}*{end}.*"


@dataclass(frozen=True, slots=True)
class _Words:
    """What the name of a folder says, and what is left of it."""

    rest: str
    role: Role = ""
    part: str = ""


@dataclass(frozen=True, slots=True)
class _Folders:
    """What the folders of a file say; fields as in ``NamedFile``."""

    place: tuple[str, ...]
    bare_place: tuple[str, ...]
    role: Role
    role_folder: str
    part: str


def name_files(
    root: Path,
    files: Iterable[Path],
) -> list[NamedFile]:
    """Read the names of the image files among some files.

    Args:
        root: The data folder.
        files: Files in it and below, sorted. Results of medseg are passed over.
    """
    images = _find_images(root, list(files))
    if not images:
        return []
    shared = os.path.commonpath([file.parent for file, _ in images])
    named = [name_file(file, stem, Path(shared)) for file, stem in images]
    named = _pass_over_versions(named)
    if not any(file.role == "label" and file.role_folder for file in named):
        return named
    # Where labels have folders of their own, an image may be called x_mask.
    return [_trust_folder(file) for file in named]


def _find_images(root: Path, files: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return the images among some files, each with its name without the ending."""
    results = {file.parent for file in files if file.name == LEDGER}
    images = []
    stems = _StemReader()
    for file in files:
        stem = stems.read(file.name)
        is_left = _is_left(file, root) or results.intersection(file.parents)
        if stem and not is_left:
            images.append((file, stem))
    return images


class _StemReader:
    """Splits endings off names, of which a data set has the same ones again and again."""

    def __init__(self) -> None:
        self._stems: dict[str, str] = {}

    def read(self, name: str) -> str:
        """Return an image's name without its ending; ``""`` where it is none."""
        if name not in self._stems:
            stem, _ = split_suffix(name)
            self._stems[name] = stem if has_image_suffix(name) else ""
        return self._stems[name]


def _is_left(file: Path, root: Path) -> bool:
    """Tell whether a folder says that a file is no part of the data."""
    folders = file.relative_to(root).parts[:-1]
    names = {folder.casefold() for folder in folders}
    return bool(names & _NO_DATA_FOLDERS)


def _pass_over_versions(files: list[NamedFile]) -> list[NamedFile]:
    """Keep of Cityscapes' labels those of classes: not their colours, nor single instances."""
    label_ids = {file.file for file in files if _LABEL_IDS.search(file.stem)}
    if not label_ids:
        return files
    kept = []
    for file in files:
        is_version = file.role == "label" and file.file not in label_ids
        kept.append(replace(file, role="prediction") if is_version else file)
    return kept


def _trust_folder(file: NamedFile) -> NamedFile:
    if file.lies_with_images and file.role == "label":
        return replace(
            file,
            role="image",
            key=file.stem,
            name=file.stem,
        )
    return file


def name_file(
    file: Path,
    stem: str,
    root: Path,
) -> NamedFile:
    """Read what the path of one file says.

    Args:
        file: The file.
        stem: Its name without ending.
        root: The folder below which its folders count.
    """
    folders = file.relative_to(root).parts[:-1]
    words = _read_folders(folders)
    key, own_role = split_stem(stem)
    role = words.role
    role_folder = words.role_folder
    # A label in a folder of images says so itself; in a folder of labels every file is one.
    if own_role and role != "label":
        role = own_role
        role_folder = ""
    return NamedFile(
        file=file,
        folders=folders,
        place=words.place,
        bare_place=words.bare_place,
        stem=stem,
        key=key,
        name=key if own_role else stem,
        role=role,
        role_folder=role_folder,
        lies_with_images=words.role == "image",
        part=words.part,
    )


@lru_cache(maxsize=_MOST_KEPT)
def _read_folders(folders: tuple[str, ...]) -> _Folders:
    """Read what folders say; the deepest one that says it counts."""
    place: list[str] = []
    bare: list[str] = []
    role: Role = ""
    role_folder = ""
    part = ""
    for folder in folders:
        words = _split_words(folder)
        if words.role:
            role = words.role
            role_folder = folder
        part = words.part or part
        kept = [text for text in (words.part, words.rest) if text]
        place += kept
        if not words.role:
            bare += kept
        elif words.part:
            bare.append(words.part)
    return _Folders(
        place=tuple(place),
        bare_place=tuple(bare),
        role=role,
        role_folder=role_folder,
        part=part,
    )


@lru_cache(maxsize=_MOST_KEPT)
def split_stem(stem: str) -> tuple[str, Role]:
    """Split the words that say what a file is off its name.

    Examples:
        >>> split_stem("segmentation")
        ('', 'label')
        >>> split_stem("volume-10"), split_stem("brainmask")
        (('10', 'image'), ('brain', 'label'))
    """
    role = _find_role(stem)
    if role:
        return "", role
    key, role = split_role(stem)
    glued = _GLUED.fullmatch(stem)
    if not role and glued:
        return glued["base"], "label"
    return key, role


def strip_place(
    text: str,
    place: Sequence[str],
) -> str:
    """Take the name of a case's folder off the beginning of a name.

    Examples:
        >>> strip_place("BraTS20_001_flair", ("HGG", "BraTS20_001"))
        'flair'
    """
    if place and begins_with(text, place[-1]):
        text = text[len(place[-1]) :]
    return text.strip(SEPARATORS)


def begins_with(text: str, name: str) -> bool:
    """Tell whether a text begins with a name: ``case10_t1`` not with ``case1``."""
    if not text.startswith(name):
        return False
    rest = text[len(name) :]
    return not (name[-1:].isdigit() and rest[:1].isdigit())


def mark_label(
    file: NamedFile,
    literal: str,
) -> NamedFile:
    """Return a file as a label that its name does not call one.

    Args:
        file: The file.
        literal: What in its name is not the name of its case; ``""`` where its folder says that
            it is a label.
    """
    if literal:
        key = file.stem.replace(
            literal,
            "",
            1,
        ).strip(SEPARATORS)
        return replace(
            file,
            role="label",
            key=key,
        )
    if file.role == "label" or not file.folders:
        return replace(file, role="label")
    place = file.place[:-1]
    return replace(
        file,
        role="label",
        role_folder=file.folders[-1],
        place=place,
        bare_place=place,
    )


def _split_words(folder: str) -> _Words:
    """Split the name of a folder into what it says and the rest."""
    joined = _TWO_WORDS.sub(r"\1\2", folder)
    rest = []
    role: Role = ""
    part = ""
    for token in re.split(rf"[{SEPARATORS}]+", joined):
        subset = _SUBSET.fullmatch(token)
        word = subset["word"] if subset else token
        word_role = _find_role(word)
        word_part = find_part(subset["part"] if subset else token)
        role = word_role or role
        part = word_part or part
        if not word_role and not word_part:
            rest.append(token)
    # A word such as "training" within another name says nothing by itself.
    if not role and rest:
        return _Words(folder)
    return _Words(
        "_".join(rest),
        role,
        part,
    )


def find_part(folder: str) -> str:
    """Return the part of a data set that a folder is called after: ``train``, ``val``, ``test``."""
    for part, words in _PARTS.items():
        if words.fullmatch(folder):
            return part
    return ""


def _find_role(word: str) -> Role:
    for role, words in _ROLES.items():
        if words.fullmatch(word):
            return role
    return ""
