"""BIDS data sets: images of every subject, and label maps among the derivatives.

Images are ``sub-01/[ses-1/]anat/sub-01_[ses-1_]…_T1w.nii.gz``; labels end in ``_dseg`` or ``_mask``
and lie under ``derivatives/PIPELINE/sub-01/…``, or beside the images; masks may be several, one
for each label (``bids_masks``). What has another suffix is another channel.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg._support.folders import list_files
from medseg.errors import DatasetError, Fault, ScanError
from medseg.layouts.bids_masks import (
    choose_mask_values,
    describe_missing,
    form_one_label_map,
    join_masks,
)
from medseg.layouts.bids_names import (
    DSEG,
    MASK,
    BidsFile,
    parse_bids_file,
)
from medseg.layouts.bids_tables import add_label_names
from medseg.layouts.channel_names import find_channels
from medseg.layouts.contract import CaseListing, ListedCase, Selection
from medseg.layouts.mask_files import MaskFiles
from medseg.names import abbreviate

DESCRIPTION = "dataset_description.json"
"""What the folder of every BIDS data set holds."""

DERIVATIVES = "derivatives"

_LABEL_SUFFIXES = (DSEG, MASK)
"""Suffixes of label maps; the first that a session has counts."""
_NO_VOLUME_FOLDERS = frozenset(
    (
        "func",
        "dwi",
        "fmap",
        "perf",
        "eeg",
        "ieeg",
        "meg",
        "nirs",
        "beh",
        "motion",
        "mrs",
        "micr",
    )
)
"""Folders of what is no volume, or several in one file."""
_NO_SCAN_FOLDERS = frozenset(("sourcedata", "code", "stimuli", "phenotype"))
_NO_CHANNELS = frozenset(
    ("localizer", "scout", "defacemask", "probseg", "defmask")
)

_Channels = Mapping[str, Sequence[BidsFile]]
_ImagesOfSubjects = Mapping[str, Sequence[BidsFile]]


@dataclass(frozen=True, slots=True)
class _Session:
    """A session that has labels.

    Attributes:
        name: ``sub-01_ses-1``.
        labels: Its label files.
        channels: The images that may be each channel.
    """

    name: str
    labels: Sequence[BidsFile]
    channels: _Channels

    @property
    def subject(self) -> str:
        """``sub-01``."""
        return self.labels[0].subject

    @property
    def has_masks(self) -> bool:
        """Whether its labels are masks."""
        return self.labels[0].is_mask


class BidsLayout:
    """Labelled sessions; every one is a case, grouped by subject."""

    def recognizes(self, root: Path) -> bool:
        """Tell whether it is a BIDS data set, or a pipeline's folder among its derivatives."""
        if not root.is_dir():
            return False
        if not (root / DESCRIPTION).is_file() and not _is_pipeline(root):
            return False
        subjects = root.glob("sub-*")
        return any(subject.is_dir() for subject in subjects)

    def list_cases(self, root: Path, selection: Selection) -> CaseListing:
        """List the labelled sessions.

        Args:
            root: The data set, or ``…/derivatives/PIPELINE`` in it to take that pipeline's labels.
            selection: The channels to take, by name. Unless the data set has them all, it takes
                those that most labelled sessions have, by name. And the labels, by the names of
                masks where a session has several.

        Raises:
            DatasetError: If there is no label, or none of those wanted.
        """
        listing = CaseListing(root, has_fields=True)
        sessions = _find_sessions(root, listing)
        asked = tuple(channel.name for channel in selection.channels)
        names = _choose_channels(sessions, asked)
        listing.channel_names = names
        complete = []
        for session in sessions:
            fault = _find_fault(session, names)
            if fault is None:
                complete.append(session)
            else:
                listing.faults.append(fault)
        _add_cases(complete, selection.labels, listing)
        _warn_of_unused_channels(sessions, asked, listing)
        return listing


# --- files --------------------------------------------------------------------------------


def _find_sessions(root: Path, listing: CaseListing) -> list[_Session]:
    """Find the labelled sessions and their images.

    Raises:
        DatasetError: If nothing is labelled.
    """
    images, labels = _find_files(root, listing)
    if not labels:
        raise DatasetError(
            "no label was found; files ending in _dseg or _mask are looked for, under "
            f"{DERIVATIVES}/ and beside the images",
            source=root,
        )
    sessions = []
    for name, files in sorted(_group_labels(labels).items()):
        subject_images = images.get(files[0].subject, ())
        channels = group_by_channel(files[0], subject_images)
        sessions.append(_Session(name, files, channels))
    return sessions


def _find_files(
    root: Path, listing: CaseListing
) -> tuple[_ImagesOfSubjects, list[BidsFile]]:
    """Return the images by subject, and the label maps."""
    is_pipeline = _is_pipeline(root)
    whole = root.resolve().parent.parent if is_pipeline else root
    # A pipeline's folder stands for its own labels, on the images of the whole data set.
    label_root = root.resolve() if is_pipeline else root
    found = list_files(whole, skip=_reason_to_skip)
    listing.faults.extend(found.left_out)
    images: dict[str, list[BidsFile]] = defaultdict(list)
    labels = []
    for path in found.files:
        file = parse_bids_file(path)
        if file is None:
            continue
        if file.suffix in _LABEL_SUFFIXES:
            if path.is_relative_to(label_root):
                labels.append(file)
        elif file.suffix not in _NO_CHANNELS and not is_derived(path, whole):
            images[file.subject].append(file)
    return images, labels


def is_derived(path: Path, root: Path) -> bool:
    """Tell whether a file lies among the derivatives of the BIDS data set in a folder."""
    first_folder = path.relative_to(root).parts[0]
    return first_folder == DERIVATIVES


def _is_pipeline(root: Path) -> bool:
    return root.resolve().parent.name == DERIVATIVES


def _reason_to_skip(folder: Path) -> str | None:
    if folder.name in _NO_SCAN_FOLDERS:
        return "holds no scans by BIDS"
    if folder.name in _NO_VOLUME_FOLDERS:
        return "holds no single volumes by BIDS"
    return None


def _group_labels(
    labels: Iterable[BidsFile],
) -> Mapping[str, Sequence[BidsFile]]:
    """Return the label files of each session: its label maps, or where it has none its masks."""
    sessions: dict[str, list[BidsFile]] = defaultdict(list)
    for label in labels:
        sessions[label.session].append(label)
    chosen = {}
    for session, files in sessions.items():
        label_maps = [file for file in files if not file.is_mask]
        chosen[session] = label_maps or files
    return chosen


# --- channels -----------------------------------------------------------------------------


def group_by_channel(label: BidsFile, images: Iterable[BidsFile]) -> _Channels:
    """Return the images of a label by channel: by suffix where that is enough to tell them."""
    by_suffix: dict[str, list[BidsFile]] = defaultdict(list)
    for image in images:
        if image.is_image_of(label):
            by_suffix[image.suffix].append(image)
    channels: dict[str, list[BidsFile]] = defaultdict(list)
    for suffix, mates in by_suffix.items():
        for image in mates:
            name = suffix if len(mates) == 1 else image.channel
            channels[name].append(image)
    return channels


def _choose_channels(
    sessions: Sequence[_Session], asked: Sequence[str]
) -> tuple[str, ...]:
    """Return the channels asked for if the data set has them, else those of most sessions."""
    counts: Counter[str] = Counter()
    sessions_with_images = 0
    for session in sessions:
        counts.update(session.channels.keys())
        if session.channels:
            sessions_with_images += 1
    found = find_channels(asked, sorted(counts))
    if found:
        return found
    usual = [name for name in counts if 2 * counts[name] > sessions_with_images]
    return tuple(sorted(usual))


def _warn_of_unused_channels(
    sessions: Iterable[_Session], asked: tuple[str, ...], listing: CaseListing
) -> None:
    names: set[str] = set()
    for session in sessions:
        names.update(session.channels)
    unused = sorted(names - {*listing.channel_names})
    # Whoever asked for channels and got them knows what is left.
    has_answer = asked and find_channels(asked, listing.channel_names)
    if unused and not has_answer:
        listing.warnings.append(
            f"only some labelled sessions have {abbreviate(unused)}, which is not used; name it as "
            "a channel of the bundle to train on those that have it"
        )


def _find_fault(session: _Session, names: Sequence[str]) -> Fault | None:
    """Say why a session is no case, if it is none."""
    name, labels, channels = session.name, session.labels, session.channels
    if len(labels) > 1 and not form_one_label_map(labels):
        what = (
            "has several label files; give the folder of one pipeline as the data, such as "
            f"{DERIVATIVES}/manual, or keep one. Masks in one folder whose names differ in label- "
            "alone are one label map"
        )
        return Fault(name, what, _list_names(labels))
    if not channels:
        return Fault(name, "the label has no image", labels[0].file.name)
    there = f"it has {abbreviate(channels)}"
    if not names:
        return Fault(name, "has no image like the others", there)
    missing = [channel for channel in names if channel not in channels]
    if missing:
        # Channels are suffixes and entities of BIDS: T1w, ce-gad_T1w.
        return Fault(name, f"has no {abbreviate(missing)}", there)
    for channel in names:
        if len(channels[channel]) > 1:
            what = (
                "several images may be one channel; keep one, or name its run"
            )
            files = _list_names(channels[channel])
            return Fault(name, what, f"{channel}: {files}")
    return None


def _list_names(files: Iterable[BidsFile]) -> str:
    return abbreviate(file.file.name for file in files)


# --- cases --------------------------------------------------------------------------------


def _add_cases(
    sessions: Sequence[_Session],
    wanted: Mapping[str, int],
    listing: CaseListing,
) -> None:
    """Make cases of sessions whose images are known."""
    values = _name_values(sessions, wanted, listing)
    joined: list[MaskFiles] = []
    for session in sessions:
        masks = None
        if session.has_masks and values:
            try:
                masks = join_masks(session.labels, values)
            except ScanError as error:
                listing.faults.append(Fault.from_error(session.name, error))
                continue
            joined.append(masks)
        case = _make_case(session, listing.channel_names, masks)
        listing.cases.append(case)
    missing = describe_missing(joined, values)
    if missing:
        listing.warnings.append(missing)


def _name_values(
    sessions: Sequence[_Session],
    wanted: Mapping[str, int],
    listing: CaseListing,
) -> Mapping[str, int]:
    """Name the values in label files; return those of masks that are told by their names."""
    label_maps: list[BidsFile] = []
    single_masks: list[BidsFile] = []
    for session in sessions:
        kind = single_masks if session.has_masks else label_maps
        kind.append(session.labels[0])
    for file in label_maps:
        add_label_names(listing, file)
    listing.stated_names = dict(listing.label_names)
    labels = [session.labels for session in sessions]
    values = choose_mask_values(labels, wanted, listing)
    names_by_value = {value: name for name, value in values.items()}
    for value, name in names_by_value.items():
        listing.label_names.setdefault(value, name)
    if not values:
        for file in single_masks:
            add_label_names(listing, file)
    return values


def _make_case(
    session: _Session, names: Sequence[str], masks: MaskFiles | None
) -> ListedCase:
    images = []
    for name in names:
        image = session.channels[name][0]
        images.append(image.file)
    label = session.labels[0].file
    if masks is not None:
        label = masks.paths[0]
    return ListedCase(
        images=tuple(images),
        label=label,
        name=session.name,
        fields={"patient": session.subject},
        label_source=masks,
    )
