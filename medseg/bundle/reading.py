"""Reads the JSON files of a bundle, and tells every fault of one at once."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from medseg._support.json_files import parse_json_object
from medseg.bundle.spec import AgreementSpec, AssemblySpec, Spec, TrainedSpec
from medseg.bundle.validation_messages import explain_faults
from medseg.errors import BundleError

MAX_BYTES = 4 << 20
"""Largest ``bundle.json`` read; real ones have a few kilobytes."""

_Part = TypeVar("_Part", bound=Spec)


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object, strictly.

    Raises:
        BundleError: If the file is none, or cannot be read.
    """
    return parse_json_object(_read_text(file), file, BundleError)


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


def parse_part(
    kind: type[_Part], content: Mapping[str, Any], source: str | Path
) -> _Part:
    """Check the content of a file of a bundle.

    Raises:
        BundleError: With every fault found.
    """
    try:
        return kind.model_validate(use_tuples(content), strict=True)
    except RecursionError as error:
        raise BundleError(
            "the JSON is nested too deeply", source=source
        ) from error
    except ValidationError as error:
        faults = explain_faults(error, content)
        raise BundleError(
            "the file is not valid:", faults, source=source
        ) from None


def parse_assembly(
    content: Mapping[str, Any], source: str | Path = "assembly.json"
) -> AssemblySpec:
    """Check the content of an ``assembly.json``, without its bundles.

    Raises:
        BundleError: With every fault found.
    """
    return parse_part(AssemblySpec, content, source)


def parse_trained(
    content: Mapping[str, Any], source: str | Path = "trained.json"
) -> TrainedSpec:
    """Check the content of a ``trained.json``.

    Raises:
        BundleError: With every fault found.
    """
    return parse_part(TrainedSpec, content, source)


def read_agreement(file: Path) -> AgreementSpec:
    """Read what an export found.

    Raises:
        BundleError: If the file is absent or wrong.
    """
    return parse_part(AgreementSpec, read_json(file), file)


def use_tuples(value: Any) -> Any:
    """Return JSON with its lists as tuples: pydantic, told to be strict, takes only those.

    Strict, because ``"16"`` for 16 or ``true`` for 1 is a slip that someone should hear about.
    """
    if isinstance(value, Mapping):
        return {key: use_tuples(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(use_tuples(item) for item in value)
    return value
