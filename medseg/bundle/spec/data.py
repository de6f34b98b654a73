"""What goes in and comes out, and where the training cases are."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

from medseg.bundle.spec.parts import (
    Code,
    Codes,
    Colour,
    Colours,
    Name,
    Seed,
    ShortText,
    Spec,
    Values,
)
from medseg.labels import BACKGROUND_COLOUR

SHIPPED_LAYOUTS = (
    "auto",
    "msd",
    "nnunet",
    "folders",
    "csv",
    "bids",
    "tree",
    "dicom",
)
"""What ``data.format`` may say without another package; where cases are listed, more may be."""


class ChannelSpec(Spec):
    """One input channel of the network."""

    name: ShortText
    """Its name, for people: `T1`, `CT`, `red`."""
    modality: ShortText = "OT"
    """DICOM modality of the scans it comes from: `CT`, `MR`, `PT`; `OT` for others."""


class LabelSpec(Spec):
    """One structure to segment."""

    index: Annotated[PositiveInt, Field(le=65535)]
    """Its value in the label maps medseg writes: 1, 2, … without gaps; 0 is background."""
    name: ShortText
    """Its name in tables and reports."""
    value: Values | None = None
    """Its value in the label files trained from, or a list of values that all mean this label; the
    index unless given. 0 may be a label, too; then label files have no background."""
    colour: Colours | None = None
    """RGB for display and in colour-coded label pictures, or a list of colours that all mean this
    label; the first is displayed."""
    code: (
        Annotated[str, Field(pattern=r"^[A-Z0-9]{1,16}:[A-Za-z0-9.\-]{1,64}$")]
        | None
    ) = None
    """Coded meaning `SCHEME:VALUE`, for example `SCT:10200004` (liver)."""

    @property
    def file_values(self) -> tuple[int, ...]:
        """Its values in the label files trained from."""
        if self.value is None:
            return (self.index,)
        if isinstance(self.value, int):
            return (self.value,)
        return self.value

    @property
    def file_colours(self) -> tuple[Colour, ...]:
        """Its colours in label pictures, where it names any."""
        if self.colour is None:
            return ()
        first = self.colour[0]
        if isinstance(first, int):
            return (self.colour,)  # type: ignore[return-value]
        return self.colour  # type: ignore[return-value]


class RegionSpec(Spec):
    """A structure made of labels. Regions may overlap: the network answers each by itself."""

    name: ShortText
    """Its name in tables and reports."""
    labels: Annotated[
        tuple[ShortText, ...], Field(min_length=1, max_length=1000)
    ]
    """Names of the labels it is made of."""
    paints: ShortText | None = None
    """The label that label maps show where this region is and no later one is. Needed only where
    not exactly one of its labels is in no later region."""


class ColumnsSpec(Spec):
    """The columns of a CSV of cases, as its first line calls them."""

    image: Annotated[tuple[ShortText, ...], Field(min_length=1, max_length=100)]
    """The image file of each channel."""
    label: Annotated[
        tuple[ShortText, ...], Field(min_length=1, max_length=1000)
    ]
    """The label file or a folder of masks; of several columns, each holds the mask of one
    structure, called like the column."""
    name: ShortText | None = None
    """The case's name."""
    patient: ShortText | None = None
    """Its patient: cases of one patient stay in one fold."""
    fold: ShortText | None = None
    """Its fold."""


class DataSpec(Spec):
    """Where the training cases are and how they are split."""

    root: ShortText = "."
    """The data folder, relative to the bundle. `--data` wins."""
    format: Annotated[Name, Field(examples=list(SHIPPED_LAYOUTS))] = "auto"
    """How the folder lists its cases, `auto` to find out: `msd` (dataset.json with a `training`
    list), `nnunet` (imagesTr with `_0000` channels), `folders` (images/ and labels/), `csv`
    (cases.csv), `bids` (subjects, their labels among the derivatives), `tree` (one folder per case,
    labels beside images, folders of masks and others, told by names or by `images` and `labels`),
    `dicom` (series with SEG or RTSTRUCT), or a layout that an installed package adds. A trained
    bundle segments without that package."""
    images: Annotated[tuple[ShortText, ...], Field(max_length=100)] = ()
    """Which files are images, one pattern for each channel, such as `scans/*.nii.gz`. What `*`
    stands for must be the same in `labels`. Needed only where names do not say it."""
    labels: ShortText | None = None
    """Which files are labels, such as `truth/*_manual.nii.gz`; one `*` more than in `images` is the
    name of a structure that has a mask of its own."""
    columns: ColumnsSpec | None = None
    """Which columns of a CSV hold what, where they are not called `image` and `label`."""
    split_4d: Literal["instance-number"] | None = None
    """How DICOM series are split whose headers do not tell their volumes apart: by the numbers of
    their slices, as `medseg segment --split-4d` does; `null` to refuse them."""
    splits: ShortText | None = None
    """The file that says which cases are held out, relative to the data folder: nnU-Net's
    `splits_final.json`, a CSV with `name` and `fold` or `split`, or `val.txt` beside `train.txt`.
    Cases that it does not name are left out; `null` to split by `folds` or as the data set does."""
    folds: Annotated[int, Field(ge=2, le=100)] = 5
    """Parts for cross-validation; fold K is validated on, the others are trained on."""
    ignore: Codes | None = None
    """The ignore label: value in label files of voxels that were not annotated, or a list of values
    and colours. They take no part in loss, sampling and scores; `null` where every voxel is
    annotated."""
    background: Annotated[tuple[Code, ...], Field(max_length=1000)] = ()
    """Values, and colours as `[r, g, b]`, that count as background in label files, besides 0 and
    black."""
    colour_coded: bool = False
    """Whether label pictures hold the labels' colours, even a picture that is grey throughout."""
    group_by: ShortText | None = None
    """Field of the data list whose equal values stay in one fold (`patient`)."""
    group_pattern: ShortText | None = None
    """Regular expression whose first group, found in a case's name, stays in one fold."""
    seed: Seed = 0
    """Seed of the split, where the data list does not name folds itself."""

    made_up: bool = False
    """Whether the cases are made up, such as phantoms. The results of a bundle trained on them say
    nothing of patients, and never pass as good."""

    @model_validator(mode="after")
    def _check_readers(self) -> Self:
        """Refuse what the layout would not look at."""
        if (self.images or self.labels) and self.format not in ("auto", "tree"):
            raise ValueError(
                "images and labels go with the format 'tree' or 'auto' alone"
            )
        if self.columns is not None and self.format not in ("auto", "csv"):
            raise ValueError(
                "columns goes with the format 'csv' or 'auto' alone"
            )
        return self

    @property
    def ignored(self) -> tuple[int | Colour, ...]:
        """Every value and colour of voxels that were not annotated."""
        if self.ignore is None:
            return ()
        if isinstance(self.ignore, int):
            return (self.ignore,)
        return self.ignore

    @field_validator("group_pattern")
    @classmethod
    def _check_pattern(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            compiled = re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(
                f"not a valid regular expression: {error}"
            ) from None
        if compiled.groups < 1:
            raise ValueError(
                "needs one group in parentheses, which names the patient"
            )
        return pattern


def check_label_specs(labels: tuple[LabelSpec, ...]) -> tuple[LabelSpec, ...]:
    """Return labels in the order of their indices, once none contradicts another.

    Raises:
        ValueError: If indices have gaps, or two labels share a name, a value or a colour.
    """
    indices = [label.index for label in labels]
    if sorted(indices) != list(range(1, len(labels) + 1)):
        raise ValueError(
            f"indices must be 1 to {len(labels)} without gaps, got {indices}; where label "
            "files hold other numbers, give each label its 'value'"
        )
    names = [label.name.lower() for label in labels]
    values = [value for label in labels for value in label.file_values]
    colours = [code for label in labels for code in label.file_colours]
    _refuse_repeats("name", names)
    _refuse_repeats("value", values)
    _refuse_repeats("colour", colours)
    if "mean" in names:
        raise ValueError(
            "no label can be named 'mean': tables have the mean under this name"
        )
    if BACKGROUND_COLOUR in colours:
        raise ValueError("colour [0, 0, 0] is background")
    return tuple(sorted(labels, key=lambda label: label.index))


def _refuse_repeats(what: str, values: list[Any]) -> None:
    repeated = sorted(
        {str(value) for value in values if values.count(value) > 1}
    )
    if repeated:
        raise ValueError(
            f"two labels have the same {what}: {', '.join(repeated)}"
        )
