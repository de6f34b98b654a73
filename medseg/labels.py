"""``LabelSet``: index ↔ name ↔ colour ↔ value in label files ↔ coded meaning; and regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

RGB = tuple[int, int, int]

Code = int | RGB
"""How label files show something: a voxel value, or a colour."""

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
BRIGHTEST = 255


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
        other_values: Further values that mean it in the label maps of the training data.
        other_colours: Further colours that mean it in colour-coded label pictures.

    Examples:
        >>> Label(index=1, name="liver", value=1, colour=(230, 60, 60), code="SCT:10200004").name
        'liver'
    """

    index: int
    name: str
    value: int
    colour: RGB
    code: str | None = None
    other_values: tuple[int, ...] = ()
    other_colours: tuple[RGB, ...] = ()

    @property
    def values(self) -> tuple[int, ...]:
        """Every voxel value that means it."""
        return (self.value, *self.other_values)

    @property
    def colours(self) -> tuple[RGB, ...]:
        """Every colour that means it."""
        return (self.colour, *self.other_colours)


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
        ignore: The value in label maps of unlabelled voxels (nnU-Net's ignore label), or several
            values and colours; ``None`` where every voxel is labelled.
        regions: Structures that may overlap, a later one over an earlier one; each label is a
            structure of its own unless given.
        background: Values and colours that count as background, besides 0 and black.
        colour_coded: Whether label pictures hold colours, even where all of them are grey.

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
        ignore: int | Sequence[Code] | None = None,
        regions: Sequence[Region] = (),
        *,
        background: Sequence[Code] = (),
        colour_coded: bool = False,
    ) -> None:
        indices = [label.index for label in labels]
        if indices != list(range(1, len(labels) + 1)):
            raise ValueError(f"label indices must be 1, 2, …, got {indices}")
        self._labels = tuple(labels)
        if isinstance(ignore, int):
            ignore = (ignore,)
        self._ignored = tuple(ignore or ())
        self._regions = tuple(regions)
        self._background = tuple(background)
        self.colour_coded = colour_coded

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
        return isinstance(other, LabelSet) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[object, ...]:
        return (
            self._labels,
            self._ignored,
            self._regions,
            self._background,
            self.colour_coded,
        )

    def with_ignore(self, ignore: int) -> LabelSet:
        """Return the same labels with another value of unlabelled voxels."""
        return LabelSet(
            self._labels,
            ignore,
            self._regions,
            background=self._background,
            colour_coded=self.colour_coded,
        )

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
        return self.classes if self._ignored else None

    @property
    def values(self) -> dict[int, int]:
        """Voxel value in label files → index, background and the ignore label included."""
        indices = dict.fromkeys([0, *_select_values(self._background)], 0)
        for label in self._labels:
            indices |= dict.fromkeys(label.values, label.index)
        ignored = _select_values(self._ignored)
        return indices | dict.fromkeys(ignored, self.classes)

    @property
    def colours(self) -> dict[RGB, int]:
        """Colour in colour-coded label pictures → index, background included.

        The value of the ignore label is grey there: itself in all three channels.
        """
        background = _select_colours(self._background)
        indices = dict.fromkeys([BACKGROUND_COLOUR, *background], 0)
        for label in self._labels:
            indices |= dict.fromkeys(label.colours, label.index)
        ignored = _select_colours(self._ignored)
        return indices | dict.fromkeys(ignored, self.classes)

    @property
    def has_own_colours(self) -> bool:
        """Whether somebody chose the labels' colours, so that pictures can be read by them."""
        return all(
            label.colour != default_colour(label.index) for label in self
        )


def _select_values(codes: Sequence[Code]) -> list[int]:
    return [code for code in codes if isinstance(code, int)]


def _select_colours(codes: Sequence[Code]) -> list[RGB]:
    """Return colours, and values as greys, as far as 8 bits hold them."""
    colours = []
    for code in codes:
        if not isinstance(code, int):
            colours.append(code)
        elif code <= BRIGHTEST:
            colours.append((code, code, code))
    return colours


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
