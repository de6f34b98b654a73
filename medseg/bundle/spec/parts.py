"""What every section of the spec is made of: small types, the base model, contradictions."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$")]
Text = Annotated[str, Field(max_length=4000)]
ShortText = Annotated[
    str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")
]
"""One line for people; no control characters, which could forge lines or move the cursor."""
Byte = Annotated[int, Field(ge=0, le=255)]
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
        use_attribute_docstrings=True,
    )


def refuse_syntax(value: Any) -> None:
    """Refuse text that MONAI's config parser would run, look up or replace.

    MONAI evaluates strings that start with ``$``, resolves ``@`` and ``%`` references, and
    instantiates objects with ``_target_`` keys. Values that travel from a bundle into a MONAI
    config must hold none of these.

    Raises:
        ValueError: If any string or key in ``value`` is such text, or a number is not finite.
    """
    if isinstance(value, str):
        if value.lstrip()[:1] in ("$", "%") or any(mark in value for mark in ("@", "#", "::")):
            raise ValueError(
                f"'{value[:40]}': text with $, @, %, # or :: could run as code and is refused"
            )
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no finite number")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", key):
                raise ValueError(
                    f"'{str(key)[:40]}': names are letters, digits and _, a letter first"
                )
            refuse_syntax(item)
    elif isinstance(value, list | tuple):
        for item in value:
            refuse_syntax(item)


Contradiction = tuple[tuple[str, ...], str, str]
"""The sections a fault is about, where to mend it, and what is wrong."""


class ContradictionError(ValueError):
    """Sections that are fine by themselves do not fit each other."""

    def __init__(self, found: Sequence[Contradiction]) -> None:
        self.found = tuple(found)
        super().__init__("; ".join(f"{where}: {what}" for _, where, what in found))


def one_or_list(value: Any) -> str:
    """Tell pydantic which of the two a value is meant to be."""
    return "list" if isinstance(value, list | tuple) else "one"


Size = Annotated[
    Annotated[Extent, Tag("one")] | Annotated[tuple[Extent, ...], Tag("list")],
    Discriminator(one_or_list),
]
"""One number for all axes, or one per axis."""
