"""``LabelSet``: index ↔ name ↔ colour ↔ value in label files ↔ coded meaning; and regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

RGB = tuple[int, int, int]

# Hues far apart from each other and from the greys of the image below them.
_PALETTE: tuple[RGB, ...] = (
    (230, 60, 60),
    (70, 170, 255),
    (90, 200, 80),
    (255, 190, 40),
    (190, 100, 230),
    (0, 200, 190),
    (255, 130, 60),
    (250, 120, 190),
    (150, 160, 60),
    (120, 130, 255),
)
BACKGROUND_COLOUR: RGB = (0, 0, 0)
_BRIGHTEST = 255


@dataclass(frozen=True, slots=True)
class Label:
    """One structure.

    Attributes:
        index: Its voxel value in label maps medseg writes; 1, 2, … without gaps (0 is
            background).
        name: Its name in tables and files.
        value: Its voxel value in the label maps of the training data.
        colour: RGB, 0 to 255, for display, and in colour-coded label pictures.
        code: Its coded meaning as ``SCHEME:VALUE`` (``SCT:10200004`` is the liver), or ``None``.

    Examples:
        >>> Label(index=1, name="liver", value=1, colour=(230, 60, 60), code="SCT:10200004").name
        'liver'
    """

    index: int
    name: str
    value: int
    colour: RGB
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """What is learned, scored and measured by itself: one label, or several together.

    Attributes:
        name: Its name in tables and reports.
        labels: Indices of the labels it is made of.
        channel: Its output channel in the network.
        paints: The index that label maps hold where it is and no later region is (nnU-Net's
            ``regions_class_order``).
    """

    name: str
    labels: tuple[int, ...]
    channel: int
    paints: int


class LabelSet(Sequence[Label]):
    """The labels of a bundle, in index order, background left out.

    Args:
        labels: Labels whose indices are 1, 2, … in order.
        ignore: The value in label maps of unlabelled voxels (nnU-Net's ignore label); ``None``
            where every voxel is labelled.
        regions: Structures that may overlap, a later one over an earlier one; each label is a
            structure of its own unless given.

    Raises:
        ValueError: If the indices are others.

    Examples:
        >>> labels = LabelSet([Label(1, "liver", 1, (230, 60, 60))])
        >>> labels.names, labels.channels
        (('liver',), 2)
    """

    def __init__(
        self,
        labels: Sequence[Label],
        ignore: int | None = None,
        regions: Sequence[Region] = (),
    ) -> None:
        indices = [label.index for label in labels]
        if indices != list(range(1, len(labels) + 1)):
            raise ValueError(f"label indices must be 1, 2, …, got {indices}")
        self._labels = tuple(labels)
        self._ignore = ignore
        self._regions = tuple(regions)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, position):  # type: ignore[no-untyped-def]
        return self._labels[position]

    def __iter__(self) -> Iterator[Label]:
        return iter(self._labels)

    def __repr__(self) -> str:
        entries = [f"{label.index}={label.name}" for label in self]
        return f"LabelSet({', '.join(entries)})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, LabelSet)
            and self._labels == other._labels
            and self._ignore == other._ignore
            and self._regions == other._regions
        )

    def __hash__(self) -> int:
        return hash((self._labels, self._ignore, self._regions))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the labels, in index order."""
        return tuple(label.name for label in self._labels)

    @property
    def classes(self) -> int:
        """How many values a label map can hold: the labels and background."""
        return len(self._labels) + 1

    @property
    def has_regions(self) -> bool:
        """Whether structures may overlap, so that the network predicts each by itself."""
        return bool(self._regions)

    @property
    def regions(self) -> tuple[Region, ...]:
        """What is learned, scored and measured: the regions, or each label by itself."""
        if self._regions:
            return self._regions
        return tuple(_region_of_label(label) for label in self._labels)

    @property
    def channels(self) -> int:
        """How many output channels a network needs: the regions, or the labels and background."""
        if self._regions:
            return len(self._regions)
        return self.classes

    @property
    def ignore_index(self) -> int | None:
        """The index of unlabelled voxels, the first after the labels'.

        Only references have it: no network predicts it and no result holds it. ``None`` where
        every voxel is labelled.
        """
        if self._ignore is None:
            return None
        return self.classes

    @property
    def values(self) -> dict[int, int]:
        """Voxel value in label files → index, background and the ignore label included."""
        indices = {0: 0}
        for label in self._labels:
            indices[label.value] = label.index
        if self._ignore is not None:
            indices[self._ignore] = self.classes
        return indices

    @property
    def colours(self) -> dict[RGB, int]:
        """Colour in colour-coded label pictures → index, background included.

        The ignore label is grey there: its value in all three channels.
        """
        indices = {BACKGROUND_COLOUR: 0}
        for label in self._labels:
            indices[label.colour] = label.index
        grey = self._ignore
        if grey is not None and grey <= _BRIGHTEST:
            indices[grey, grey, grey] = self.classes
        return indices


def _region_of_label(label: Label) -> Region:
    return Region(
        label.name,
        labels=(label.index,),
        channel=label.index,
        paints=label.index,
    )


def default_colour(index: int) -> RGB:
    """Return the display colour of the label with this 1-based index."""
    return _PALETTE[(index - 1) % len(_PALETTE)]
