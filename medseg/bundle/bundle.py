"""``bundle.json`` ↔ ``Bundle``: reading with every fault told at once, overriding, writing."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from medseg._support.files import write_atomically
from medseg.bundle.spec import (
    SCHEMA_ID,
    AgreementSpec,
    BundleSpec,
    Spec,
    TrainedSpec,
)
from medseg.bundle.validation_messages import explain_faults, find_hidden_contradictions
from medseg.errors import BundleError

MAX_BYTES = 4 << 20
"""Largest ``bundle.json`` read; real ones have a few kilobytes."""

BUNDLE_FILE = "bundle.json"
MODELS = Path("models")
WEIGHTS_FILE = MODELS / "model.pt"
REFINER_FILE = MODELS / "refiner.pt"
TRAINED_FILE = MODELS / "trained.json"

_Part = TypeVar("_Part", bound=Spec)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        spec: What its ``bundle.json`` says, defaults filled in.
        folder: Where it lies; its paths are relative to this.
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
        return tuple(self.weights.with_name(name) for name in self.trained.members)

    @property
    def weights(self) -> Path:
        """Where its weights are, or will be."""
        return self.folder / WEIGHTS_FILE

    @property
    def trained(self) -> TrainedSpec:
        """What its training found; the defaults where no such file was written.

        Raises:
            BundleError: If the file is wrong.
        """
        file = self.folder / TRAINED_FILE
        return parse_trained(_read_json(file), str(file)) if file.exists() else TrainedSpec()

    @property
    def decided(self) -> BundleSpec:
        """The spec, with what its training decided in place of what was left to it.

        Raises:
            BundleError: If its ``trained.json`` is wrong.
        """
        inference = self.spec.inference
        if inference.keep_largest is not None:
            return self.spec
        finding = self.trained.keep_largest
        inference = inference.model_copy(update={"keep_largest": finding.kept if finding else ()})
        return self.spec.model_copy(update={"inference": inference})

    @property
    def data_root(self) -> Path:
        """The folder of its training data."""
        return (self.folder / self.spec.data.root).resolve()


def load_bundle(path: str | Path, overrides: Iterable[str] = ()) -> Bundle:
    """Read a bundle. Nothing it holds is run, imported or looked up.

    Args:
        path: A ``bundle.json`` (any name), or a folder with one.
        overrides: Assignments such as ``training.steps=200`` that win over the file. A value
            is JSON; what is no JSON is text.

    Returns:
        The bundle, checked.

    Raises:
        BundleError: With every fault found: its JSON path, what came, what is allowed.
    """
    path = Path(path)
    file = path / BUNDLE_FILE if path.is_dir() else path
    content = _read_json(file)
    for override in overrides:
        _apply(content, override)
    return Bundle(parse_spec(content, str(file)), file.parent.resolve())


def is_bundle(file: Path) -> bool:
    """Tell whether a file is a ``bundle.json``, good or bad, by its content.

    A folder is none: plans are often written into the folder of their data.
    """
    if file.suffix.lower() != ".json" or not file.is_file():
        return False
    try:
        content = _read_json(file)
    except BundleError:
        return False
    return content.get("$schema") == SCHEMA_ID or {"channels", "training"} <= content.keys()


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise BundleError(f"{file} is no file: a bundle is a folder with a bundle.json")
        if found.st_size > MAX_BYTES:
            raise BundleError(f"{file} is larger than {MAX_BYTES >> 20} MB: not a bundle.json")
        content = _parse_json(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise BundleError(
            f"{file} does not exist; a bundle is a folder with a bundle.json, or such a file"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{file} cannot be read: {error}") from error
    except RecursionError as error:
        raise BundleError(f"{file} is nested too deep: not a bundle.json") from error
    except ValueError as error:
        raise BundleError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise BundleError(f"{file} must hold a JSON object, got {type(content).__name__}")
    return content


def _parse_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_no_repeats, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"the field '{repeated[0]}' stands twice in one object")
    return found


def _apply(content: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise BundleError(
            f"'{override}' is no override; write section.field=value, as in training.steps=200"
        )
    try:
        value = _parse_json(text)
    except (ValueError, RecursionError):
        value = text
    place: Any = content
    for key in keys[:-1]:
        if isinstance(place, list):
            place = _item(place, key, override)
        else:
            place = place.setdefault(key, {})
        if not isinstance(place, dict | list):
            raise BundleError(f"'{override}': {key} is no section, it holds {json.dumps(place)}")
    if isinstance(place, list):
        _item(place, keys[-1], override)
        place[int(keys[-1])] = value
    else:
        place[keys[-1]] = value


def _item(items: list[Any], position: str, override: str) -> Any:
    if not re.fullmatch("[0-9]{1,9}", position) or int(position) >= len(items):
        allowed = f"0 to {len(items) - 1} are" if items else "give the whole list"
        raise BundleError(
            f"'{override}': '{position}' is no position in a list of {len(items)}; {allowed}"
        )
    return items[int(position)]


def parse_spec(content: Mapping[str, Any], origin: str = "the bundle") -> BundleSpec:
    """Check the content of a ``bundle.json``.

    Args:
        content: What JSON gave.
        origin: What to call it in an error.

    Raises:
        BundleError: With every fault found.
    """
    try:
        content = _with_tuples(content)
        return BundleSpec.model_validate(content, strict=True)
    except RecursionError as error:
        raise BundleError(f"{origin} is nested too deep") from error
    except ValidationError as error:
        faults = explain_faults(error, content) + find_hidden_contradictions(error, content)
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise BundleError(f"{origin} has {count}:", faults) from None


def parse_trained(content: Mapping[str, Any], origin: str = "trained.json") -> TrainedSpec:
    """Check the content of a ``trained.json``.

    Raises:
        BundleError: With every fault found.
    """
    return _parse(TrainedSpec, content, origin)


def read_agreement(file: Path) -> AgreementSpec:
    """Read what an export found.

    Raises:
        BundleError: If the file is not there or wrong.
    """
    return _parse(AgreementSpec, _read_json(file), str(file))


def _parse(kind: type[_Part], content: Mapping[str, Any], origin: str) -> _Part:
    try:
        return kind.model_validate(_with_tuples(content), strict=True)
    except RecursionError as error:
        raise BundleError(f"{origin} is nested too deep") from error
    except ValidationError as error:
        raise BundleError(f"{origin} is wrong:", explain_faults(error, content)) from None


def write_trained(trained: TrainedSpec, folder: Path) -> None:
    """Write what a training found into a bundle's folder."""
    write_atomically(folder / TRAINED_FILE, trained.model_dump_json(indent=2) + "\n")


def _with_tuples(value: Any) -> Any:
    """Return JSON with its lists as tuples: pydantic, told to be strict, takes only those.

    Strict, because ``"16"`` for 16 or ``true`` for 1 is a slip that someone should hear about.
    """
    if isinstance(value, Mapping):
        return {key: _with_tuples(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_with_tuples(item) for item in value)
    return value


def write_bundle(spec: BundleSpec, file: Path) -> None:
    """Write a spec, every default spelled out, as ``bundle.json``."""
    write_atomically(file, format_spec(spec))


def format_spec(spec: BundleSpec) -> str:
    """Return a spec as the text of a ``bundle.json``, every default spelled out."""
    content = spec.model_dump(mode="json", by_alias=True)
    content["$schema"] = content["$schema"] or SCHEMA_ID
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def flatten_spec(spec: BundleSpec) -> dict[str, str]:
    """Return the spec as ``section.field`` → text, for tracking."""
    flat: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        # Names of labels are no names of fields.
        if isinstance(value, dict) and value and prefix != "training.class_weights":
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else key, item)
        else:
            flat[prefix] = value if isinstance(value, str) else json.dumps(value)

    walk(
        "", spec.model_dump(mode="json", exclude={"schema_", "description", "references", "notes"})
    )
    return flat


def build_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``bundle.json``, for editors."""
    schema = BundleSpec.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID} | schema


def list_differences(one: BundleSpec, other: BundleSpec) -> Sequence[str]:
    """Name the fields in which two specs differ, as ``field: a → b``."""
    first, second = flatten_spec(one), flatten_spec(other)
    return [
        f"{field}: {first.get(field, '–')} → {second.get(field, '–')}"
        for field in sorted(first.keys() | second.keys())
        if first.get(field) != second.get(field)
    ]
