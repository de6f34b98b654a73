"""BIDS data sets: images of every subject, and label maps among the derivatives.

Images are ``sub-01/[ses-1/]anat/sub-01_[ses-1_]…_T1w.nii.gz``; labels end in ``_dseg`` or ``_mask``
and lie under ``derivatives/PIPELINE/sub-01/…``, or beside the images; masks may be several, one
for each label (``bids_masks``). What has another suffix is another channel.
https://bids-specification.readthedocs.io says what names mean.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg._support.folders import list_files
from medseg._support.tables import read_table
from medseg.datasets.layouts.bids_masks import (
    MASK,
    belong_together,
    joined,
    missing,
    values_by_name,
)
from medseg.datasets.layouts.entries import CaseListing, ListedCase, Selection
from medseg.datasets.names import abbreviate, split_suffix
from medseg.errors import DatasetError, Fault

DESCRIPTION = "dataset_description.json"
"""What the folder of every BIDS data set holds."""

DERIVATIVES = "derivatives"

_LABELS = ("dseg", MASK)
"""Suffixes of label maps; the first that a session has counts."""
_NO_SCANS = frozenset(
    ("func", "dwi", "fmap", "perf", "eeg", "ieeg", "meg", "nirs", "beh", "motion", "mrs", "micr")
)
"""Folders of what is no volume, or several in one file."""
_NO_DATA = frozenset(("sourcedata", "code", "stimuli", "phenotype"))
_NO_CHANNELS = frozenset(("localizer", "scout", "defacemask", "probseg", "defmask"))
_SAME = ("ses", "run")
"""Entities in which a label and its images agree where both have them."""
_TELLING = ("acq", "ce", "trc", "rec", "inv", "flip", "part", "echo", "mod", "space", "desc")
"""Entities that tell images of one suffix apart."""
_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)")


@dataclass(frozen=True, slots=True)
class _Named:
    """A file whose name follows BIDS.

    Attributes:
        file: The file.
        entities: ``sub`` → ``01``, …; in the order of the name.
        suffix: ``T1w``, ``dseg``, …
    """

    file: Path
    entities: Mapping[str, str]
    suffix: str

    @property
    def subject(self) -> str:
        """``sub-01``."""
        return f"sub-{self.entities['sub']}"

    @property
    def case(self) -> str:
        """What a label is the label of: ``sub-01_ses-1_run-2``."""
        kept = ("sub", *_SAME)
        return "_".join(f"{key}-{value}" for key, value in self.entities.items() if key in kept)

    def belongs_to(self, label: _Named) -> bool:
        """Tell whether this image may be one that a label was drawn on."""
        return self.entities["sub"] == label.entities["sub"] and all(
            self.entities[key] == label.entities[key]
            for key in _SAME
            if key in self.entities and key in label.entities
        )

    @property
    def telling(self) -> str:
        """``ce-gad_T1w``: the suffix, and what tells it from others with the same one."""
        told = [f"{key}-{self.entities[key]}" for key in _TELLING if key in self.entities]
        return "_".join((*told, self.suffix))


def is_bids(root: Path) -> bool:
    """Tell whether a folder is a BIDS data set, or a pipeline's folder among its derivatives."""
    holds_subjects = any(entry.is_dir() for entry in root.glob("sub-*"))
    return holds_subjects and ((root / DESCRIPTION).is_file() or _is_pipeline(root))


def bids(root: Path, wanted: Selection) -> CaseListing:
    """List the labelled sessions of a BIDS data set; every one is a case, grouped by subject.

    Args:
        root: The data set, or ``…/derivatives/PIPELINE`` in it to take that pipeline's labels.
        wanted: The channels to take, by name. Unless the data set has them all, it takes those
            that most labelled sessions have, by name. And the labels, by the names of masks where
            a session has several.

    Raises:
        DatasetError: If there is no label, or none of those wanted.
    """
    asked = tuple(channel.name for channel in wanted.channels)
    found = CaseListing(root, has_fields=True)
    images, labels = _files(root, found)
    if not labels:
        raise DatasetError(
            f"{root}: no label was found; files ending in _dseg or _mask are looked for, under "
            f"{DERIVATIVES}/ and beside the images"
        )
    sessions = {
        case: (chosen, _channels(chosen[0], images.get(chosen[0].subject, ())))
        for case, chosen in sorted(_by_case(labels).items())
    }
    found.channel_names = _usual([channels for _, channels in sessions.values()], asked)
    good = {}
    for case, (chosen, channels) in sessions.items():
        fault = _fault(chosen, channels, found.channel_names)
        if fault:
            found.faults.append(Fault(case, fault))
        else:
            good[case] = chosen, tuple(channels[name][0].file for name in found.channel_names)
    _add(found, good, wanted.labels, root)
    there = {name for _, channels in sessions.values() for name in channels}
    unused = sorted(there - {*found.channel_names})
    if unused and asked != found.channel_names:
        found.warnings.append(
            f"only some labelled sessions have {abbreviate(unused)}, which is not used; name it as "
            "a channel of the bundle to train on those that have it"
        )
    return found


def _add(
    found: CaseListing,
    sessions: Mapping[str, tuple[Sequence[_Named], tuple[Path, ...]]],
    wanted: Mapping[str, int],
    root: Path,
) -> None:
    """Make rows of sessions, whose label files and images are known, or say why one is none."""
    for labels, _ in sessions.values():
        if labels[0].suffix != MASK:
            _learn_names(found, labels[0], root)
    values = values_by_name([labels for labels, _ in sessions.values()], wanted, found)
    found.label_names |= {value: name for name, value in values.items()} | found.label_names
    together = []
    for case, (labels, images) in sessions.items():
        row = ListedCase(images, labels[0].file, case, {"patient": labels[0].subject})
        if labels[0].suffix == MASK and values:
            masks = joined(labels, values)
            if isinstance(masks, str):
                found.faults.append(Fault(case, masks))
                continue
            together.append(masks)
            row = replace(row, label=masks.paths[0], structures=masks)
        elif labels[0].suffix == MASK:
            _learn_names(found, labels[0], root)
        found.rows.append(row)
    found.warnings.extend(filter(None, [missing(together, values)]))


def _files(root: Path, found: CaseListing) -> tuple[dict[str, list[_Named]], list[_Named]]:
    """Return the images by subject, and the label maps."""
    whole = root.resolve().parent.parent if _is_pipeline(root) else root
    listing = list_files(whole, skip=_why_not)
    found.faults.extend(listing.left_out)
    images: dict[str, list[_Named]] = defaultdict(list)
    labels = []
    for file in listing.files:
        named = _named(file)
        if named is None:
            continue
        derived = file.relative_to(whole).parts[0] == DERIVATIVES
        if named.suffix in _LABELS:
            if whole is root or file.is_relative_to(root.resolve()):
                labels.append(named)
        elif not derived and named.suffix not in _NO_CHANNELS:
            images[named.subject].append(named)
    return images, labels


def _is_pipeline(root: Path) -> bool:
    return root.resolve().parent.name == DERIVATIVES


def _why_not(folder: Path) -> str | None:
    if folder.name in _NO_DATA:
        return "holds no scans by BIDS"
    return "holds no single volumes by BIDS" if folder.name in _NO_SCANS else None


def _named(file: Path) -> _Named | None:
    stem, ending = split_suffix(file.name)
    if not ending or not stem.startswith("sub-"):
        return None
    *pairs, suffix = stem.split("_")
    matches = [_ENTITY.fullmatch(pair) for pair in pairs]
    entities = {match[1]: match[2] for match in matches if match}
    whole = len(entities) == len(pairs) and "sub" in entities
    return _Named(file, entities, suffix) if whole else None


def _by_case(labels: Iterable[_Named]) -> dict[str, list[_Named]]:
    """Return the label maps of each case: its segmentations, or where it has none its masks."""
    cases: dict[str, list[_Named]] = defaultdict(list)
    for label in labels:
        cases[label.case].append(label)
    best = {}
    for case, its in cases.items():
        first = min(its, key=lambda label: _LABELS.index(label.suffix)).suffix
        best[case] = [label for label in its if label.suffix == first]
    return best


def _channels(label: _Named, images: Iterable[_Named]) -> dict[str, list[_Named]]:
    """Return the images of a label by channel: by suffix where that is enough to tell them."""
    its = [image for image in images if image.belongs_to(label)]
    often = Counter(image.suffix for image in its)
    channels: dict[str, list[_Named]] = defaultdict(list)
    for image in its:
        channels[image.suffix if often[image.suffix] == 1 else image.telling].append(image)
    return dict(channels)


def _usual(sessions: Sequence[Mapping[str, object]], wanted: Sequence[str]) -> tuple[str, ...]:
    shown = [channels for channels in sessions if channels]
    often = Counter(name for channels in shown for name in channels)
    if wanted and all(name in often for name in wanted):
        return tuple(wanted)
    return tuple(sorted(name for name, count in often.items() if 2 * count > len(shown)))


def _fault(
    labels: Sequence[_Named], channels: Mapping[str, Sequence[_Named]], names: Sequence[str]
) -> str | None:
    if len(labels) > 1 and not belong_together(labels):
        files = abbreviate(label.file.name for label in labels)
        return (
            f"has several label files ({files}); give the folder of one pipeline as the data, "
            f"such as {DERIVATIVES}/manual, or keep one. Masks in one folder whose names differ in "
            "label- alone are one label map"
        )
    if not channels:
        return f"the label {labels[0].file.name} has no image"
    missing = [name for name in names if name not in channels]
    if missing or not names:
        absent = abbreviate(missing) or "image like the others"
        return f"has no {absent}; it has {abbreviate(channels)}"
    several = [name for name in names if len(channels[name]) > 1]
    if several:
        files = abbreviate(image.file.name for image in channels[several[0]])
        return f"several images may be its {several[0]} ({files}); keep one, or name its run"
    return None


def _learn_names(found: CaseListing, label: _Named, root: Path) -> None:
    """Take the names of a label's values from the nearest ``dseg.tsv``, or of a mask's only one."""
    if label.suffix == MASK:
        said = {1: label.entities.get("label", label.entities.get("desc", "mask"))}
    else:
        table = next(_tables(label, root), None)
        said = _read_names(table) if table else {}
    for value, name in said.items():
        known = found.label_names.setdefault(value, name)
        if known != name:
            warning = f"the value {value} is called '{known}' and '{name}'; '{known}' is used"
            if warning not in found.warnings:
                found.warnings.append(warning)


def _tables(label: _Named, root: Path) -> Iterator[Path]:
    """Give the tables that speak of a label map, the nearest first: BIDS' inheritance."""
    top = root.resolve()
    for folder in label.file.parents:
        for table in sorted(folder.glob("*dseg.tsv"), key=lambda path: -len(path.name)):
            *pairs, _ = table.name.removesuffix(".tsv").split("_")
            own = [match for pair in pairs if (match := _ENTITY.fullmatch(pair))]
            if all(label.entities.get(match[1]) == match[2] for match in own):
                yield table
        if folder.resolve() == top:
            return


def _read_names(table: Path) -> dict[int, str]:
    content = read_table(table)
    if not {"index", "name"} <= set(content.columns):
        raise DatasetError(
            f"{table}: the columns index and name are needed; it has {', '.join(content.columns)}"
        )
    names = {}
    for line, cells in content.rows:
        if not cells["index"].isdigit():
            raise DatasetError(f"{table}: line {line}: index must be a whole number from 0")
        if int(cells["index"]) > 0 and cells["name"]:
            names[int(cells["index"])] = cells["name"]
    return names
