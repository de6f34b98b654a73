"""Networks that a MONAI config asks for, as a bundle states them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medseg.interop.monai_config.config import Component

Fields = dict[str, Any]

MODULE = "monai.networks.nets"

_DIMENSIONS = ("spatial_dims", "dimensions")
_DEFAULT_DIMENSIONS, _DEFAULT_INPUTS, _DEFAULT_OUTPUTS = 3, 1, 2
"""Of MONAI's networks that have any."""
_OUTDATED = {"SwinUNETR": ("img_size",)}
"""Arguments that MONAI has no more; they never changed the arithmetic."""
_MOST_CHANNELS = 1000
_MOST_SIZE = 8192
_MOST_NUMBERS = 300
_COUNTS = re.compile(r"blocks|depth|units|layers|heads")
_MOST_BLOCKS = 400
_NVFUSER, _PLAIN_NORM = "INSTANCE_NVFUSER", "INSTANCE"
"""The same arithmetic, and the same names of weights; the former needs a GPU and apex."""


@dataclass(frozen=True, slots=True)
class DescribedNetwork:
    """A network of MONAI's.

    Attributes:
        section: As ``network`` of a bundle.
        inputs: Input channels.
        outputs: Output channels.
    """

    section: Fields
    inputs: int
    outputs: int

    @property
    def dims(self) -> int:
        """2 or 3."""
        return int(self.section["dims"])


def describe_network(component: Component) -> DescribedNetwork:
    """Return a network as a bundle states it; whether MONAI has one is for others to see.

    Raises:
        MedsegError: If its numbers of channels or dimensions make no sense.
    """
    dims = _DEFAULT_DIMENSIONS
    for name in _DIMENSIONS:
        dims = _take_count(component, name, dims, 3)
    inputs = _take_count(
        component, "in_channels", _DEFAULT_INPUTS, _MOST_CHANNELS
    )
    outputs = _take_count(
        component, "out_channels", _DEFAULT_OUTPUTS, _MOST_CHANNELS
    )
    if dims < 2:
        raise component.refuse(f"{dims} dimensions", _DIMENSIONS[0])
    own = (*_DIMENSIONS, "in_channels", "out_channels")
    left_out = (*own, *_OUTDATED.get(component.name, ()))
    arguments = {}
    for name in component.arguments:
        value = component.take(name)
        _check_size(component, name, value)
        if name not in left_out and value is not None:
            arguments[name] = _replace_norm(value)
    section = {"kind": component.name, "dims": dims, "args": arguments}
    return DescribedNetwork(section, inputs, outputs)


def _take_count(
    component: Component, name: str, default: int, most: int
) -> int:
    count = component.take(name, default)
    is_count = isinstance(count, int) and not isinstance(count, bool)
    if not is_count or not 1 <= count <= most:
        raise component.refuse(f"{str(count)[:40]}", name)
    return int(count)


def _check_size(component: Component, name: str, value: Any) -> None:
    """Refuse numbers that no real network has: building it might never end."""
    numbers = list(_list_numbers(value))
    is_count = _COUNTS.search(name) is not None
    most = _MOST_BLOCKS if is_count else _MOST_SIZE * _MOST_NUMBERS
    if (
        len(numbers) > _MOST_NUMBERS
        or any(abs(number) > _MOST_SIZE for number in numbers)
        or sum(numbers) > most
    ):
        raise component.refuse("numbers larger than in any network", name)


def _list_numbers(value: Any) -> Iterator[float]:
    if isinstance(value, list):
        for item in value:
            yield from _list_numbers(item)
    elif isinstance(value, dict):
        yield from _list_numbers(list(value.values()))
    elif isinstance(value, int | float):
        yield value


def _replace_norm(value: Any) -> Any:
    if isinstance(value, list) and value:
        return [_replace_norm(value[0]), *value[1:]]
    is_nvfuser = isinstance(value, str) and value.upper() == _NVFUSER
    return _PLAIN_NORM if is_nvfuser else value
