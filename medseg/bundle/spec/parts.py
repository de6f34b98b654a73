"""What every section of the spec is made of: small types, the base model, contradictions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$")]
Text = Annotated[str, Field(max_length=4000)]
ShortText = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$",
    ),
]
"""One line for people; no control characters, which could forge lines or move the cursor."""
ExperimentName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=500,
        pattern=r"^\S([^\x00-\x1f\x7f-\x9f\u2028\u2029]*\S)?$",
    ),
]
"""One line without space around it, as MLflow and Databricks name experiments."""
Byte = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Byte, Byte, Byte]
"""RGB."""
LabelValue = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""A voxel value in label files."""
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Extent = Annotated[int, Field(ge=1, le=8192)]
"""A size in voxels or channels: far above any real one, far below what overflows."""
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Sizes = Annotated[tuple[Extent, ...], Field(min_length=2, max_length=3)]


class Spec(BaseModel):
    """Base of every part: unknown fields are faults, values never change, NaN is refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
        # Most commands use few parts; their fields' sentences: see ``descriptions``.
        defer_build=True,
    )


def equals(default: Any) -> Callable[[Any], bool]:
    """Return what leaves a field out of JSON where it has its default.

    Fields that came later have this, so that bundles from before keep their bytes and hashes.
    """
    return lambda value: bool(value == default)


def refuse_syntax(value: Any) -> None:
    """Refuse text that MONAI's config parser would run, look up or replace.

    MONAI evaluates strings that start with ``$``, resolves ``@`` and ``%`` references, and
    instantiates objects with ``_target_`` keys. Values that travel from a bundle into a MONAI
    config must hold none of these.

    Raises:
        ValueError: If any string or key in ``value`` is such text, or a number is not finite.
    """
    match value:
        case str():
            _refuse_text(value)
        case float() if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
        case dict():
            for key, item in value.items():
                _refuse_key(key)
                refuse_syntax(item)
        case list() | tuple():
            for item in value:
                refuse_syntax(item)


def _refuse_text(text: str) -> None:
    starts_code = text.lstrip()[:1] in ("$", "%")
    if starts_code or any(mark in text for mark in ("@", "#", "::")):
        raise ValueError(
            f"'{text[:40]}': text with $, @, %, # or :: could run as code and is refused"
        )


def _refuse_key(key: Any) -> None:
    is_name = isinstance(key, str) and re.fullmatch(
        r"[A-Za-z][A-Za-z0-9_]*", key
    )
    if not is_name:
        raise ValueError(
            f"'{str(key)[:40]}': names are letters, digits and _, a letter first"
        )


Contradiction = tuple[tuple[str, ...], str, str]
"""The sections that a fault is about, where to mend it, and what is wrong."""


class ContradictionError(ValueError):
    """Sections that are valid by themselves do not fit each other."""

    def __init__(self, contradictions: Sequence[Contradiction]) -> None:
        self.contradictions = tuple(contradictions)
        texts = [f"{where}: {what}" for _, where, what in contradictions]
        super().__init__("; ".join(texts))


def one_or_list(value: Any) -> str:
    """Tell pydantic which of the two a value is meant to be."""
    return "list" if isinstance(value, list | tuple) else "one"


Size = Annotated[
    Annotated[Extent, Tag("one")] | Annotated[tuple[Extent, ...], Tag("list")],
    Discriminator(one_or_list),
]
"""One number for all axes, or one per axis."""


def one_or_several(colour: Any) -> str:
    """Tell pydantic whether a colour or a list of them is meant: both are lists."""
    is_list = isinstance(colour, list | tuple) and len(colour) > 0
    has_lists = is_list and isinstance(colour[0], list | tuple)
    return "list" if has_lists else "one"


Values = Annotated[
    Annotated[LabelValue, Tag("one")]
    | Annotated[
        tuple[LabelValue, ...],
        Field(min_length=1, max_length=1000),
        Tag("list"),
    ],
    Discriminator(one_or_list),
]
"""One value, or several that mean the same."""
Colours = Annotated[
    Annotated[Colour, Tag("one")]
    | Annotated[
        tuple[Colour, ...], Field(min_length=1, max_length=1000), Tag("list")
    ],
    Discriminator(one_or_several),
]
"""One colour, or several that mean the same."""
Code = Annotated[
    Annotated[LabelValue, Tag("one")] | Annotated[Colour, Tag("list")],
    Discriminator(one_or_list),
]
"""A value, or a colour as three numbers."""
Codes = Annotated[
    Annotated[LabelValue, Tag("one")]
    | Annotated[
        tuple[Code, ...], Field(min_length=1, max_length=1000), Tag("list")
    ],
    Discriminator(one_or_list),
]
"""One value, or several values and colours."""
