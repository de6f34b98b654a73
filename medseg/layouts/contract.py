"""The contract of a layout, and what every layout's list becomes.

A listed case says what is listed, not whether it is right: that is checked for all layouts alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from medseg.bundle.spec import ChannelSpec, ColumnsSpec
from medseg.errors import Fault
from medseg.volume import Volume


class LabelSource(Protocol):
    """Labels of one case that are no single label map, such as masks or DICOM objects."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that holds labels."""

    @property
    def key(self) -> str:
        """Text that differs where the label map would, with the same files' content."""

    def read_label_map(self, image: Volume) -> Volume:
        """Read them as one label map on the image's grid.

        Args:
            image: The image of the case, shape ``(channels, i, j, k)``.

        Returns:
            Unsigned integers, shape ``(1, i, j, k)``.

        Raises:
            ScanError: If a file cannot be read, or labels overlap.
            GeometryError: If a file does not lie on the image.
        """


@dataclass(frozen=True, slots=True)
class Selection:
    """What a bundle wants of data whose files say what they are.

    Attributes:
        channels: Its channels; none where there is no bundle yet.
        labels: Name → value of its labels; empty for every label there is.
        image_patterns: Its ``data.images``: which files are images, where names do not say it.
        label_pattern: Its ``data.labels``: which files are labels; ``""`` where names say it.
        columns: Its ``data.columns``, where a table has columns of its own.
        trust_values: Whether values of label files count and names in them do not.
        split_4d: Its ``data.split_4d``: how DICOM series are split that no header splits.
        splits: Its ``data.splits``: the file that says which cases are held out.
    """

    channels: tuple[ChannelSpec, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    image_patterns: tuple[str, ...] = ()
    label_pattern: str = ""
    columns: ColumnsSpec | None = None
    trust_values: bool = False
    split_4d: str = ""
    splits: str = ""


@dataclass(frozen=True, slots=True)
class ListedCase:
    """One case as a data set lists it.

    Attributes:
        images: The file of each channel, or one file that holds all.
        label: Its label file.
        name: The name the list gives it, if it does.
        fields: What else the list says of it: ``fold``, ``patient``, …; keys in lower case.
        series: The files of each channel, where that is a DICOM series; ``images`` has the first
            of each.
        volume: Which volume of these files it is, where they hold several.
        label_source: Its labels, where they are no single label map; ``label`` is the first of
            their files.
        warnings: What lies beside its files and makes it doubtful.
    """

    images: tuple[Path, ...]
    label: Path
    name: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    series: tuple[tuple[Path, ...], ...] = ()
    volume: str = ""
    label_source: LabelSource | None = None
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class CaseListing:
    """What a layout lists.

    Attributes:
        origin: The list or folder that says so.
        has_fields: Whether cases of this layout can say more than their files.
        cases: The cases, in the order of the list.
        faults: What is listed and cannot be a case.
        warnings: What a person should know. They are shown and never recorded, so they may name
            cases and files.
        channel_names: What the layout calls the channels, in order; empty where it does not.
        label_names: What the layout calls the values of label files; empty where it does not.
        ignore: The value that it gives to unlabelled voxels (nnU-Net's ignore label), if any.
        layout: The name of the layout.
        recognised: How the layout was recognised and what it says of cases, channels and labels,
            in sentences for people. Recorded in the plan, so it names no case.
        label_pattern: The ``data.labels`` that finds the same labels again, where their content
            told them from images.
        stated_names: Value → name of label files, where a table or list states them.
        modalities: The DICOM modality of each channel, where the files state it.
    """

    origin: Path
    has_fields: bool
    cases: list[ListedCase] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    channel_names: tuple[str, ...] = ()
    label_names: dict[int, str] = field(default_factory=dict)
    ignore: int | None = None
    layout: str = ""
    recognised: tuple[str, ...] = ()
    label_pattern: str = ""
    stated_names: Mapping[int, str] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()


class Layout(Protocol):
    """How data sets of one kind list their cases.

    Contract:
        A layout is any object with these two methods, registered under the entry-point group
        ``medseg.dataset_layouts``; ``data.format`` in a bundle is the name of its entry point.

        - Nothing is written, and no pixel is read where names say which files are labels.
        - What is listed does not depend on the order in which the file system answers.
        - A case that cannot be used is one of ``CaseListing.faults``, with its reason, and does
          not stop the others. Paths need not exist: they are checked afterwards.
        - Every case has its label, and one image file per channel or one file for all channels.
          Cases of one patient say so in ``fields["patient"]``, so that they stay in one fold.
        - No message and no ``Fault.what`` holds a path, a file name or text of a file: these go
          to ``source`` and ``detail``, which are never recorded.

        ``medseg.testing.dataset_layouts.DatasetLayoutContract`` tests most of this.

    Examples:
        >>> class FlatLayout:
        ...     def recognizes(self, root: Path) -> bool:
        ...         return (root / "flat.txt").is_file()
        ...
        ...     def list_cases(self, root: Path, selection: Selection) -> CaseListing:
        ...         listing = CaseListing(root, has_fields=False)
        ...         for image in sorted(root.glob("*_image.nii.gz")):
        ...             label = image.with_name(image.name.replace("_image", "_label"))
        ...             listing.cases.append(ListedCase((image,), label))
        ...         return listing
        >>> FlatLayout().list_cases(Path("empty"), Selection()).cases
        []
    """

    def recognizes(self, root: Path) -> bool:
        """Tell whether a data set has this layout, by the names of its files and folders.

        Args:
            root: A folder, or a file that lists cases. It exists.

        Raises:
            DatasetError: If a file that marks this layout is there and cannot be understood.
        """

    def list_cases(self, root: Path, selection: Selection) -> CaseListing:
        """List the cases of a data set.

        Args:
            root: As for ``recognizes``; a person may have chosen this layout for a folder that
                it does not recognise.
            selection: Which channels and labels to take, for layouts whose files say what they
                are; others ignore it.

        Raises:
            DatasetError: If the data set as a whole cannot be understood.
        """
