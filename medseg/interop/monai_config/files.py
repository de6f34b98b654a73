"""Config files of MONAI Bundles, JSON or YAML, as plain values.

They come from strangers: sizes and depths have bounds, a key stands once, and YAML's tags, which
build objects, and its anchors, by which a few lines become gigabytes, are refused.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

from medseg._support.json_files import parse_json_object, parse_mapping
from medseg.errors import MedsegError

CONFIGS = "configs"
"""The folder of a MONAI Bundle that holds its configs."""
SUFFIXES = (".json", ".yaml", ".yml")

_MOST_BYTES = 4 << 20
_BRACKETS = re.compile(r"[\[\]{}]")
_MOST_BRACKETS = 200


def find_config(folder: Path, *names: str) -> Path | None:
    """Return the first config file of these names; ``None`` where there is none.

    Args:
        folder: A MONAI Bundle, or its folder of configs.
        names: Without suffix, those to be preferred first.
    """
    for name in names:
        for place in (folder / CONFIGS, folder):
            for suffix in SUFFIXES:
                file = place / f"{name}{suffix}"
                if file.is_file():
                    return file
    return None


def read_config(file: Path) -> dict[str, Any]:
    """Read a config file as plain values.

    Raises:
        MedsegError: If it is not JSON or YAML of a fair size and depth, or holds no mapping.
    """
    text = _read_text(file)
    if file.suffix == ".json":
        return parse_json_object(text, file, MedsegError)
    return parse_mapping(text, file, MedsegError, "YAML", parse_yaml)


def parse_yaml(text: str) -> Any:
    """Parse YAML of plain values: no tags, no anchors, no key twice.

    Raises:
        ValueError: If it is not such YAML.
        RecursionError: If it is nested too deeply.
    """
    import yaml

    _refuse_deep_brackets(text)

    class PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
        """Refuses what mappings of plain values do not need."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key) for key, _ in node.value]
            if not all(isinstance(key, str | int) for key in keys):
                raise ValueError("a key is neither text nor a number")
            if len(set(keys)) < len(keys):
                raise ValueError("a mapping has a key twice")
            made = super().construct_mapping(node, deep)
            return {str(key): value for key, value in made.items()}

    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("YAML aliases (*name) are refused")
            # A scalar in quotes has the tag "!".
            if getattr(event, "tag", None) not in (None, "!"):
                raise ValueError("YAML tags (!name) are refused")
        return yaml.load(text, PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error


def _refuse_deep_brackets(text: str) -> None:
    """Refuse brackets within brackets, of which PyYAML looks at all again for each that follows."""
    depth = 0
    for bracket in _BRACKETS.findall(text):
        depth += 1 if bracket in "[{" else -1
        if depth > _MOST_BRACKETS:
            raise RecursionError


def _read_text(file: Path) -> str:
    try:
        status = file.stat()
        is_fit = stat.S_ISREG(status.st_mode) and status.st_size <= _MOST_BYTES
        if not is_fit:
            raise MedsegError(
                f"is no file of at most {_MOST_BYTES >> 20} MB, as configurations are",
                source=file,
            )
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MedsegError(
            "cannot be read", source=file, detail=str(error)
        ) from error
