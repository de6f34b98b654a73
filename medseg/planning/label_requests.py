"""What a person says of labels: ``--labels liver=1``, ``1=liver,2=kidney``, ``road=128,64,128``.

A definition names a structure and the values or colours that mean it in label files, whichever
side of the ``=`` has the number. Definitions are separated by commas, semicolons or blanks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from medseg.datasets.colour_tables import BACKGROUND, IGNORE
from medseg.errors import MedsegError

_NUMBER = re.compile(r"\d{1,10}")
_SEPARATORS = re.compile(r"[,;]")
_BLANK_BEFORE_DEFINITION = re.compile(r"(?<=\d)\s+(?=[^\s,;=]+\s*=)")
_MOST_SHOWN = 60


@dataclass(slots=True)
class LabelRequest:
    """One structure, and how label files show it.

    Attributes:
        name: As the person writes it. ``background`` and ``ignore`` are no structures: what they
            mean is nothing, and what nobody annotated.
        numbers: Values; or red, green and blue of colours, one after the other.
    """

    name: str
    numbers: list[int] = field(default_factory=list)

    @property
    def meaning(self) -> str:
        """The name, in small letters where it is no structure's."""
        plain = self.name.casefold()
        return plain if plain in (BACKGROUND, IGNORE) else self.name


def parse_label_requests(texts: Sequence[str]) -> list[LabelRequest]:
    """Read the definitions of labels.

    Args:
        texts: Each one definition or several. A name may come twice; it has the numbers of both.

    Raises:
        MedsegError: If one is no definition.
    """
    requests: dict[str, LabelRequest] = {}
    for text in texts:
        separated = _BLANK_BEFORE_DEFINITION.sub(",", text)
        current = None
        for part in _SEPARATORS.split(separated):
            part = part.strip()
            if "=" in part:
                name, number = _split(part, text)
                key = name.casefold()
                current = requests.setdefault(key, LabelRequest(name))
                current.numbers.append(number)
            elif current is not None and _NUMBER.fullmatch(part):
                current.numbers.append(int(part))
            elif part:
                raise _explain(text)
    return list(requests.values())


def _split(definition: str, text: str) -> tuple[str, int]:
    """Return the name and the number of ``name=number`` or ``number=name``.

    Raises:
        MedsegError: If not exactly one side is a number.
    """
    left, _, right = (part.strip() for part in definition.partition("="))
    left_is_number = _NUMBER.fullmatch(left) is not None
    right_is_number = _NUMBER.fullmatch(right) is not None
    if left_is_number == right_is_number or not (left and right):
        raise _explain(text)
    if left_is_number:
        return right, int(left)
    return left, int(right)


def _explain(text: str) -> MedsegError:
    return MedsegError(
        "--labels takes a name and the values that mean it, such as liver=1 or myelin=127,128, or "
        "in colour pictures its colour, such as road=128,64,128; got "
        f"'{text[:_MOST_SHOWN]}'"
    )
