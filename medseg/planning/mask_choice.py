"""Chooses labels by what masks hold and by what is said of it, step by step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from medseg.datasets.colour_tables import BACKGROUND, IGNORE, interpret_name
from medseg.datasets.mask_codes import (
    SURE,
    measure_distances,
    pack,
    to_points,
    unpack,
)
from medseg.errors import DatasetError
from medseg.labels import BACKGROUND_COLOUR, Code
from medseg.names import abbreviate
from medseg.planning.label_requests import LabelRequest
from medseg.planning.mask_census import MaskCensus
from medseg.planning.mask_labels import (
    Fields,
    LabelWishes,
    MaskLabels,
    write_codes,
)
from medseg.planning.mask_names import CodeNames, format_code

_BORDER = 255
"""The value of VOC's border and of what Cityscapes does not evaluate."""

_SPARSEST = 4
"""Values up to this many times their number are class numbers, and not grey levels."""

_MOST_NAMED = 20


def choose_mask_labels(
    census: MaskCensus,
    wishes: LabelWishes,
    code_names: CodeNames,
    described: Mapping[int, str],
    ignore: int | None,
) -> MaskLabels | None:
    """Choose labels by what masks hold and by what is said of it.

    Args:
        census: What the masks hold.
        wishes: What a person says; comes first.
        code_names: What a table or a public palette says.
        described: Value → name, as the data set's ``dataset.json`` says.
        ignore: The value of unlabelled voxels, as it says.

    Returns:
        The labels; ``None`` where every value that occurs is a label of its own and nothing else
        is to be said.

    Raises:
        DatasetError: If a person names what no mask holds, or nothing is left to learn.
    """
    choice = _Choice(census, code_names)
    choice.take_requests(wishes.requests)
    choice.find_codes()
    choice.find_strays(wishes.stray_voxels)
    named = set(described) if ignore is None else {*described, ignore}
    choice.find_border(named)
    if choice.is_plain:
        return None
    if ignore is not None:
        choice.take_ignore(ignore)
    return choice.make_labels(described)


@dataclass(slots=True)
class _Choice:
    """The choice of labels, step by step.

    Attributes:
        census: What the masks hold.
        code_names: What a table says.
        requested: Codes that a person named.
        meanings: Code → name; ``background`` and ``ignore`` are none.
        codes: The codes that mean something.
        remarks: What a person should know.
        strays: What was left out on request.
    """

    census: MaskCensus
    code_names: CodeNames
    requested: set[int] = field(default_factory=set)
    meanings: dict[int, str] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)

    @property
    def is_plain(self) -> bool:
        """Whether every value that occurs is a label of its own, and nobody says more."""
        has_every_code = len(self.codes) == len(self.census.codes)
        says_nothing = not self.meanings and not self.census.is_colour
        return has_every_code and says_nothing

    def take_requests(self, requests: Sequence[LabelRequest]) -> None:
        """Take what a person says, and then what a table says of other codes.

        Raises:
            DatasetError: If a code is named twice, or colours are not three numbers.
        """
        for request in requests:
            for code in self._read_codes(request):
                if code in self.requested:
                    raise DatasetError(
                        f"--labels gives {self._write_code(code)} to two labels"
                    )
                self.requested.add(code)
                self.meanings[code] = request.meaning
        for code, name in self.code_names.names.items():
            meaning = interpret_name(name)
            if code == 0 and meaning == name and self._shows_black(code):
                self.remarks.append(f"Black is background, also as {name}")
                meaning = BACKGROUND
            self.meanings.setdefault(code, meaning)

    def _shows_black(self, code: int) -> bool:
        """Tell whether a code is black, or a value that is shown in black."""
        if self.census.is_colour:
            return code == 0
        colour = self.code_names.colours.get(code, BACKGROUND_COLOUR)
        return colour == BACKGROUND_COLOUR

    def _read_codes(self, request: LabelRequest) -> list[int]:
        """Return the values that a request names; of colours, packed ones."""
        numbers = request.numbers
        if not self.census.is_colour:
            return numbers
        is_colours = len(numbers) % 3 == 0 and max(numbers) <= 255
        if not is_colours:
            raise DatasetError(
                f"--labels gives {request.name} the numbers {numbers}, but these masks hold "
                "colours, which are three numbers from 0 to 255: red, green and blue"
            )
        colours = np.reshape(numbers, (-1, 3))
        return [int(pack(colour)) for colour in colours]

    def find_codes(self) -> None:
        """Find the codes that mean something; those a little off are what a table names.

        Raises:
            DatasetError: If a person names what no mask holds.
        """
        census = self.census
        found = census.find_labels(self.meanings)
        occurring = set(census.codes.tolist())
        codes = {self._snap(code) for code in found}
        codes |= self.requested & occurring
        self.codes = sorted(codes)
        missing = self.requested - codes
        if missing:
            raise DatasetError(
                f"--labels names {self._list_codes(missing)}, which no mask holds; they hold "
                f"{self._list_codes(codes)}"
            )
        smeared = len(occurring - codes)
        if smeared:
            self.remarks.append(
                f"{smeared} other colours or grey levels are soft or JPEG edges; each counts as "
                "the nearest label"
            )

    def _snap(self, code: int) -> int:
        """Return the named colour that a colour of JPEG masks stands for; a person's first."""
        if not self.census.is_colour:
            return code
        for named in (self.requested, self.meanings):
            if code in named:
                return code
            nearest = _find_nearest(code, list(named))
            if nearest is not None:
                return nearest
        return code

    def find_strays(self, most_voxels: int) -> None:
        """Make background of codes with few voxels, if a person asks for it."""
        for code in self.codes:
            voxels = self.census.count_voxels(code)
            is_stray = code and 0 < voxels <= most_voxels
            if is_stray and code not in self.requested:
                self.meanings[code] = BACKGROUND
                holders = abbreviate(self.census.find_holders(code))
                what = f"{self._write_code(code)} ({voxels} voxels)"
                self.strays.append(f"{what}, in {holders}")
                self.remarks.append(
                    f"{what} is left out as a stray value: it counts as background"
                )

    def take_ignore(self, value: int) -> None:
        """Take the value of unlabelled voxels; in colours, it is grey."""
        grey = pack((value, value, value))
        code = grey if self.census.is_colour else value
        self.meanings.setdefault(code, IGNORE)

    def find_border(self, named: Collection[int]) -> None:
        """Ignore 255 beside class numbers: VOC's border, and what Cityscapes leaves out."""
        census = self.census
        is_named = _BORDER in self.meanings or _BORDER in named
        if census.is_colour or not census.are_pictures or is_named:
            return
        classes = [code for code in self.codes if code not in (0, _BORDER)]
        if _BORDER not in self.codes or not classes:
            return
        if max(classes) <= _SPARSEST * len(classes):
            self.meanings[_BORDER] = IGNORE
            self.remarks.append(
                "255 beside class numbers is taken for unlabelled voxels, as in PASCAL VOC and "
                "Cityscapes; --labels NAME=255 makes it a label"
            )

    def make_labels(self, described: Mapping[int, str]) -> MaskLabels:
        """Make labels of the codes, those of one name together.

        Raises:
            DatasetError: If there is none.
        """
        groups: dict[str, list[int]] = {}
        described = self._match_by_order(described)
        for code in self._order_codes():
            name = self._name(code, described)
            groups.setdefault(name, []).append(code)
        ignored = groups.pop(IGNORE, [])
        background = groups.pop(BACKGROUND, [])
        if not groups:
            raise DatasetError(
                "no case has a labelled voxel, so there is nothing to learn"
            )
        self._remark_on_names(groups, ignored)
        labels = []
        for index, (name, codes) in enumerate(groups.items(), start=1):
            labels.append(self._make_label(index, name, codes))
        return MaskLabels(
            labels=tuple(labels),
            background=self._to_codes(code for code in background if code),
            ignore=self._to_codes(ignored),
            colour_coded=self.census.is_colour,
            remarks=tuple(self.remarks),
            strays=tuple(self.strays),
        )

    def _match_by_order(
        self, described: Mapping[int, str]
    ) -> Mapping[int, str]:
        """Return names by the order of values, where as many are named as occur and no other."""
        values = [code for code in self.codes if code not in self.meanings]
        values = [value for value in values if value]
        is_by_order = (
            not self.census.is_colour
            and len(values) == len(described)
            and not set(values) & set(described)
        )
        if not (is_by_order and described):
            return described
        names = [described[value] for value in sorted(described)]
        self.remarks.append(
            f"The data set names other values than {self._list_codes(values)}; they are taken for "
            "the same, in this order"
        )
        return dict(zip(values, names, strict=True))

    def _order_codes(self) -> list[int]:
        """Return values in order, and colours as they were named."""
        if not self.census.is_colour:
            return self.codes
        named = [code for code in self.meanings if code in self.codes]
        others = [code for code in self.codes if code not in self.meanings]
        return named + others

    def _name(self, code: int, described: Mapping[int, str]) -> str:
        """Return what a code is called; of a name in other capitals, the first spelling."""
        if code in self.meanings:
            return self.meanings[code]
        if code == 0:
            return BACKGROUND
        if not self.census.is_colour and code in described:
            return described[code]
        return self._make_name(code)

    def _make_name(self, code: int) -> str:
        """Return a name for a code that nobody names."""
        if not self.census.is_colour:
            return f"label_{code}"
        red, green, blue = unpack(code)
        return f"colour_{red}_{green}_{blue}"

    def _make_label(self, index: int, name: str, codes: list[int]) -> Fields:
        """Return a label as the bundle has it."""
        label: Fields = {"index": index, "name": name}
        several = write_codes(self._to_codes(codes))
        shown = several if len(several) > 1 else several[0]
        if self.census.is_colour:
            label["colour"] = shown
            return label
        label["value"] = shown
        colour = self.code_names.colours.get(codes[0], BACKGROUND_COLOUR)
        if colour != BACKGROUND_COLOUR:
            label["colour"] = list(colour)
        return label

    def _to_codes(self, codes: Iterable[int]) -> tuple[Code, ...]:
        """Return values, or colours."""
        if self.census.is_colour:
            return tuple(unpack(code) for code in codes)
        return tuple(codes)

    def _remark_on_names(
        self, groups: Mapping[str, list[int]], ignored: Sequence[int]
    ) -> None:
        """Say who names the labels, which nobody names, and which do not occur."""
        table = self.code_names
        if table.remark:
            self.remarks.append(table.remark)
        if table.origin:
            self.remarks.append(f"Names by {table.origin}")
        unnamed = [
            codes[0]
            for name, codes in groups.items()
            if name == self._make_name(codes[0])
        ]
        if unnamed:
            self.remarks.append(
                f"Nothing names {self._list_codes(unnamed)}; name them with --labels"
            )
        absent = [
            name
            for code, name in table.names.items()
            if code not in self.codes and interpret_name(name) == name
        ]
        if absent and table.is_own:
            listed = abbreviate(absent, _MOST_NAMED)
            self.remarks.append(f"No mask has {listed}; left out")
        if ignored:
            self.remarks.append(
                f"Nobody annotated {self._list_codes(ignored)}: nothing is learned there; "
                "--labels background=… makes it background"
            )

    def _list_codes(self, codes: Iterable[int]) -> str:
        return abbreviate(map(self._write_code, sorted(codes)), _MOST_NAMED)

    def _write_code(self, code: int) -> str:
        return format_code(code, is_colour=self.census.is_colour)


def _find_nearest(code: int, known: Sequence[int]) -> int | None:
    """Return the packed colour that another surely stands for, if there is one."""
    if not known:
        return None
    point = to_points(np.array([code]), 3)
    points = to_points(np.array(known), 3)
    (distances,) = measure_distances(point, points)
    nearest = int(distances.argmin())
    return known[nearest] if distances[nearest] <= SURE else None
