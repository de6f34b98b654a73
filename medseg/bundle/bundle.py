"""``bundle.json`` ↔ ``Bundle``: reading with every fault told at once, overriding, writing."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from medseg._support.files import write_atomically
from medseg.bundle.overrides import apply_override, parse_json
from medseg.bundle.shipped import find_bundle_path
from medseg.bundle.spec import (
    SCHEMA_ID,
    AgreementSpec,
    BundleSpec,
    Spec,
    TrainedSpec,
)
from medseg.bundle.validation_messages import (
    explain_faults,
    find_hidden_contradictions,
)
from medseg.errors import BundleError

MAX_BYTES = 4 << 20
"""Largest ``bundle.json`` read; real ones have a few kilobytes."""

BUNDLE_FILE = "bundle.json"
MODELS = Path("models")
WEIGHTS_FILE = MODELS / "model.pt"
REFINER_FILE = MODELS / "refiner.pt"
TRAINED_FILE = MODELS / "trained.json"

_Part = TypeVar("_Part", bound=Spec)


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        spec: What its ``bundle.json`` says, defaults filled in.
        folder: Where it lies; its paths are relative to this.

    Examples:
        >>> from medseg.testing import write_example_bundle
        >>> bundle = load_bundle(write_example_bundle())
        >>> bundle.spec.name, bundle.is_trained
        ('example', False)
    """

    spec: BundleSpec
    folder: Path

    @property
    def is_trained(self) -> bool:
        """Whether it has weights."""
        return all(member.is_file() for member in self.members)

    @property
    def members(self) -> tuple[Path, ...]:
        """The weights of its networks: of one, or of one per fold.

        Raises:
            BundleError: If its ``trained.json`` is wrong.
        """
        return tuple(
            self.weights.with_name(name) for name in self.trained.members
        )

    @property
    def weights(self) -> Path:
        """Where its weights are, or will be."""
        return self.folder / WEIGHTS_FILE

    @cached_property
    def trained(self) -> TrainedSpec:
        """What its training run found, read once; the defaults where no such file was written.

        Raises:
            BundleError: If the file is wrong.
        """
        file = self.folder / TRAINED_FILE
        if not file.exists():
            return TrainedSpec()
        return parse_trained(_read_json(file), file)

    @property
    def decided(self) -> BundleSpec:
        """The spec, with what its training run decided in place of what was left to it.

        Raises:
            BundleError: If its ``trained.json`` is wrong.
        """
        if self.spec.inference.keep_largest is not None:
            return self.spec
        finding = self.trained.keep_largest
        kept = finding.kept if finding else ()
        inference = self.spec.inference.model_copy(
            update={"keep_largest": kept}
        )
        return self.spec.model_copy(update={"inference": inference})

    @property
    def is_made_up(self) -> bool:
        """Whether it was trained on made-up data, so that its results say nothing of patients.

        Raises:
            BundleError: If its ``trained.json`` is wrong.
        """
        return self.spec.data.made_up or self.trained.made_up

    @property
    def data_root(self) -> Path:
        """The folder of its training data."""
        return (self.folder / self.spec.data.root).resolve()


def load_bundle(
    path: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    *,
    complete: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> Bundle:
    """Read a bundle. Nothing it holds is run, imported or looked up.

    Args:
        path: A ``bundle.json`` (any name), a folder with one, or the name of a bundle that comes
            with medseg.
        overrides: Assignments such as ``training.steps=200`` that win over the file. A value
            is JSON; what is not JSON is text.
        complete: Adds to the file's content what it leaves out, before overrides are applied.

    Returns:
        The bundle, checked.

    Raises:
        BundleError: With every fault found: its JSON path, what came, what is allowed.

    Examples:
        >>> from medseg.testing import write_example_bundle
        >>> load_bundle(write_example_bundle(), ["training.steps=200"]).spec.training.steps
        200
    """
    found = find_bundle_path(path)
    file = found / BUNDLE_FILE if found.is_dir() else found
    content = _read_json(file)
    if complete is not None:
        content = complete(content)
    for override in overrides:
        apply_override(content, override)
    return Bundle(parse_spec(content, file), file.parent.resolve())


def is_bundle(file: Path) -> bool:
    """Tell whether a file is a ``bundle.json``, valid or not, by its content.

    A folder is none: plans are often written into the folder of their data.
    """
    if file.suffix.lower() != ".json" or not file.is_file():
        return False
    try:
        content = _read_json(file)
    except BundleError:
        return False
    return (
        content.get("$schema") == SCHEMA_ID
        or {"channels", "training"} <= content.keys()
    )


def _read_json(file: Path) -> dict[str, Any]:
    text = _read_text(file)
    try:
        content = parse_json(text)
    except RecursionError as error:
        raise BundleError(
            "the JSON is nested too deeply for a bundle", source=file
        ) from error
    except ValueError as error:
        raise BundleError(
            "the file is not valid JSON", source=file, detail=str(error)
        ) from error
    if not isinstance(content, dict):
        raise BundleError(
            f"the file must hold a JSON object, got {type(content).__name__}",
            source=file,
        )
    return content


def _read_text(file: Path) -> str:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(
                "not a file; a bundle is a folder with a bundle.json",
                source=file,
            )
        if status.st_size > MAX_BYTES:
            raise BundleError(
                f"the file is larger than {MAX_BYTES >> 20} MB, so it is not a bundle.json",
                source=file,
            )
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise BundleError(
            "it does not exist; a bundle is a folder with a bundle.json, or such a file",
            source=file,
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            "the file cannot be read", source=file, detail=str(error)
        ) from error


def parse_spec(
    content: Mapping[str, Any], source: str | Path | None = None
) -> BundleSpec:
    """Check the content of a ``bundle.json``.

    Args:
        content: What JSON gave.
        source: The file it came from, for errors.

    Raises:
        BundleError: With every fault found.
    """
    try:
        content = _use_tuples(content)
        return BundleSpec.model_validate(content, strict=True)
    except RecursionError as error:
        raise BundleError(
            "the JSON is nested too deeply", source=source
        ) from error
    except ValidationError as error:
        faults = explain_faults(error, content)
        faults += find_hidden_contradictions(error, content)
        plural = "s" if len(faults) > 1 else ""
        headline = f"the bundle has {len(faults)} fault{plural}:"
        raise BundleError(headline, faults, source=source) from None


def parse_trained(
    content: Mapping[str, Any], source: str | Path = "trained.json"
) -> TrainedSpec:
    """Check the content of a ``trained.json``.

    Raises:
        BundleError: With every fault found.
    """
    return _parse_part(TrainedSpec, content, source)


def read_agreement(file: Path) -> AgreementSpec:
    """Read what an export found.

    Raises:
        BundleError: If the file is absent or wrong.
    """
    return _parse_part(AgreementSpec, _read_json(file), file)


def _parse_part(
    kind: type[_Part], content: Mapping[str, Any], source: str | Path
) -> _Part:
    try:
        return kind.model_validate(_use_tuples(content), strict=True)
    except RecursionError as error:
        raise BundleError(
            "the JSON is nested too deeply", source=source
        ) from error
    except ValidationError as error:
        faults = explain_faults(error, content)
        raise BundleError(
            "the file is not valid:", faults, source=source
        ) from None


def write_trained(trained: TrainedSpec, folder: Path) -> None:
    """Write what a training run found into a bundle's folder."""
    write_atomically(
        folder / TRAINED_FILE, trained.model_dump_json(indent=2) + "\n"
    )


def _use_tuples(value: Any) -> Any:
    """Return JSON with its lists as tuples: pydantic, told to be strict, takes only those.

    Strict, because ``"16"`` for 16 or ``true`` for 1 is a slip that someone should hear about.
    """
    if isinstance(value, Mapping):
        return {key: _use_tuples(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_use_tuples(item) for item in value)
    return value


def write_bundle(spec: BundleSpec, file: Path) -> None:
    """Write a spec, every default spelled out, as ``bundle.json``."""
    write_atomically(file, format_spec(spec))


def format_spec(spec: BundleSpec) -> str:
    """Return a spec as the text of a ``bundle.json``, every default spelled out."""
    content = spec.model_dump(mode="json", by_alias=True)
    content["$schema"] = content["$schema"] or SCHEMA_ID
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


_UNTRACKED = {"schema_", "description", "references", "notes"}
"""Fields for people, which change nothing that is learned."""
_NAMED_BY_LABELS = "training.class_weights"
"""A field whose keys are names of labels, not of fields."""


def flatten_spec(spec: BundleSpec) -> dict[str, str]:
    """Return the spec as ``section.field`` → text, for tracking."""
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        has_fields = (
            isinstance(value, dict) and value and prefix != _NAMED_BY_LABELS
        )
        if not has_fields:
            flat[prefix] = (
                value if isinstance(value, str) else json.dumps(value)
            )
            return
        for key, item in value.items():
            walk(f"{prefix}.{key}" if prefix else key, item)

    walk("", spec.model_dump(mode="json", exclude=_UNTRACKED))
    return flat


def build_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``bundle.json``, for editors."""
    schema = BundleSpec.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
    } | schema


def list_differences(one: BundleSpec, other: BundleSpec) -> Sequence[str]:
    """Name the fields in which two specs differ, as ``field: a → b``."""
    first = flatten_spec(one)
    second = flatten_spec(other)
    differences = []
    for field in sorted(first.keys() | second.keys()):
        before = first.get(field, "–")
        after = second.get(field, "–")
        if before != after:
            differences.append(f"{field}: {before} → {after}")
    return differences
