"""What a bundle and an assembly say of themselves, for people, ledgers and results."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from medseg.bundle.spec.data import LabelSpec, check_label_specs
from medseg.bundle.spec.parts import Name, ShortText, Spec, Text, equals


class DescribedSpec(Spec):
    """A file that says what it is; its kinds go on with ``labels`` and more."""

    schema_: Annotated[str, Field(max_length=500)] | None = Field(
        default=None, alias="$schema"
    )
    """Where editors find this schema."""
    name: Name
    """Letters, digits, `_` and `-`; names runs, experiments, models and results."""
    version: Annotated[
        str, Field(pattern=r"^[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}$")
    ] = "0.1.0"
    """Its version, which ledgers and DICOM results repeat."""
    description: Text = ""
    """What it segments, in one sentence."""
    intended_use: Text = "Research only; not a medical device."
    """For people."""
    authors: Text = "unknown"
    """For people."""
    licence: Text = "unknown"
    """Licence of the weights, which may follow from the data's."""
    origin: Annotated[ShortText | None, Field(exclude_if=equals(None))] = None
    """Where the weights come from, if other software trained them; `medseg import` writes it, and
    the ledger and DICOM results repeat it."""
    references: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    """Publications and sources of the data."""

    @field_validator("labels", check_fields=False)
    @classmethod
    def _check_labels(
        cls, labels: tuple[LabelSpec, ...]
    ) -> tuple[LabelSpec, ...]:
        return check_label_specs(labels)
