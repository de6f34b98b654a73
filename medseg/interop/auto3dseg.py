"""Auto3DSeg's SegResNet: one file that holds its configuration and its weights.

The template of MONAI's Auto3DSeg writes it, and 3D Slicer's extension ships such files. What is
done here is what the template does where it infers; transforms that a configuration brings itself
are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from medseg.bundle.foreign_checkpoints import read_foreign_checkpoint
from medseg.bundle.validation_messages import find_first_fault
from medseg.errors import CheckpointError, MedsegError
from medseg.interop.described_model import (
    DescribedModel,
    OverlappingChannels,
    describe_exclusive,
)
from medseg.interop.monai_config import network
from medseg.interop.monai_config.config import Config, as_component
from medseg.interop.monai_config.metadata import make_distinct
from medseg.interop.monai_config.network import (
    DescribedNetwork,
    describe_network,
)
from medseg.interop.state_dicts import parse_state_dict
from medseg.layouts.dataset_json import clean_text

Fields = dict[str, Any]

KIND = "Auto3DSeg model"

_CONFIG, _WEIGHTS = "config", "state_dict"
_NETWORKS = ("SegResNetDS", "SegResNetDS2", "SegResNet")
_OVERLAP = 0.625
_MARGIN = 10
_TOLERANCE = 0.25
_TANH_SCALE = 3.0
_BOUNDS = (-250.0, 250.0)
_MODALITIES = {"ct": "CT", "mri": "MR", "mr": "MR", "pet": "PT"}
_MODES = {
    **dict.fromkeys(("range", "ct"), "CT"),
    **dict.fromkeys(("meanstd", "mri", "meanstdtanh"), "MR"),
    "pet": "PT",
    "none": "OT",
}
"""How a channel may be normalised → the modality that this speaks of."""
_MOST_CLASSES = 1000
_MOST_VALUES, _MOST_DEPTH = 20_000, 20


def _no_null(value: Any) -> Any:
    return () if value is None else value


Names = Annotated[tuple[Any, ...], Field(max_length=_MOST_CLASSES)]
Values = Annotated[
    tuple[Annotated[int, Field(ge=0, le=65535)], ...], Field(max_length=1000)
]


class Auto3DSegConfig(BaseModel):
    """What inference needs of a configuration; the rest is training's."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    network: dict[str, Any]
    roi_size: Annotated[tuple[PositiveInt, ...], Field(min_length=3)]
    normalize_mode: str
    modality: str = "mri"
    intensity_bounds: tuple[float, float] | None = None
    resample: bool = False
    resample_resolution: (
        Annotated[tuple[PositiveFloat, ...], Field(min_length=3, max_length=3)]
        | None
    ) = None
    orientation_ras: bool = False
    crop_foreground: bool = True
    sigmoid: bool = False
    class_names: Annotated[Names, BeforeValidator(_no_null)] = ()
    class_index: Annotated[
        tuple[Values, ...], BeforeValidator(_no_null), Field(max_length=1000)
    ] = ()
    extra_modalities: Annotated[dict[str, str], Field(max_length=16)] = Field(
        default={}
    )
    custom_data_transforms: Annotated[
        tuple[Any, ...], BeforeValidator(_no_null)
    ] = ()
    sliding_inferrer: Any = None


def is_auto3dseg(content: dict[Any, Any]) -> bool:
    """Tell whether a checkpoint has the two parts of Auto3DSeg's."""
    return isinstance(content.get(_CONFIG), dict) and _WEIGHTS in content


def read_auto3dseg(file: Path, name: str = "") -> DescribedModel:
    """Read an Auto3DSeg model: its configuration as data, its weights as tensors.

    Args:
        file: ``model.pt``.
        name: How it is called; as the file unless given.

    Raises:
        CheckpointError: If the file is absent, damaged, forged, or another one.
        MedsegError: If the configuration asks for what medseg does not know; says where.
    """
    checkpoint = read_foreign_checkpoint(file)
    if not is_auto3dseg(checkpoint):
        raise CheckpointError(
            f"holds no {_CONFIG} and {_WEIGHTS}, as a model of Auto3DSeg's segresnet does; of "
            "nnU-Net give the results folder, of a MONAI Bundle its folder",
            source=file,
        )
    stated: dict[str, Any] = checkpoint[_CONFIG]
    reader = _ConfigReader(stated, file)
    content = reader.describe()
    weights = parse_state_dict(checkpoint[_WEIGHTS], file, _WEIGHTS)
    return DescribedModel(
        kind=KIND,
        name=name or file.stem,
        version="",
        software="MONAI Auto3DSeg",
        dataset=clean_text(stated.get("task")),
        licence="",
        content=content,
        file=file,
        weights=weights,
        sources={file.name: file},
        order=reader.order,
        remarks=tuple(reader.remarks),
    )


class _ConfigReader:
    """Reads a configuration.

    Args:
        stated: Of the checkpoint.
        file: For errors.

    Attributes:
        order: Which output channel comes first, second, …; empty for the network's own order.
        remarks: What a person should know.
    """

    def __init__(self, stated: dict[str, Any], file: Path) -> None:
        self._resolved = Config(_PlainCopy(file).copy(stated), file)
        fields = Auto3DSegConfig.model_fields
        given = {name: self._resolved.get(name) for name in fields}
        try:
            self._config = Auto3DSegConfig.model_validate(
                {
                    name: value
                    for name, value in given.items()
                    if value is not None
                }
            )
        except ValidationError as error:
            where, reason = find_first_fault(error)
            raise MedsegError(
                f"its configuration is none of Auto3DSeg: {where} is missing or wrong",
                source=file,
                detail=reason,
            ) from error
        self.order: tuple[int, ...] = ()
        self.remarks: list[str] = []

    def describe(self) -> Fields:
        """Return the content of ``bundle.json``."""
        config = self._config
        self._refuse_code()
        described = self._read_network()
        modes = [config.normalize_mode, *config.extra_modalities.values()]
        if described.inputs != len(modes):
            raise self._resolved.refuse(
                "network::in_channels",
                f"{described.inputs} channels, and {len(modes)} are prepared",
            )
        intensity = tuple(map(self._describe_intensity, modes))
        return {
            "channels": tuple(self._describe_channels()),
            **self._describe_structures(described.outputs),
            "preprocessing": {
                **self._describe_geometry(),
                "intensity": intensity if len(intensity) > 1 else intensity[0],
                "padding": "zero",
            },
            "network": described.section,
            "training": {"patch": config.roi_size[: described.dims]},
            "inference": {
                "overlap": _OVERLAP,
                "batch_size": 1,
                "resample": "probabilities",
                "keep_largest": (),
            },
        }

    def _refuse_code(self) -> None:
        if self._config.custom_data_transforms:
            raise self._resolved.refuse(
                "custom_data_transforms", "transforms of its own"
            )
        if self._config.sliding_inferrer is not None:
            raise self._resolved.refuse(
                "sliding_inferrer", "a sliding window of its own"
            )

    def _read_network(self) -> DescribedNetwork:
        component = as_component(
            self._config.network, "network", self._resolved, network.MODULE
        )
        if component.name not in _NETWORKS:
            raise component.refuse(f"known: {', '.join(_NETWORKS)}")
        described = describe_network(component)
        if described.dims != 3:
            raise component.refuse("known: 3 dimensions", "spatial_dims")
        return described

    def _describe_geometry(self) -> Fields:
        config = self._config
        geometry: Fields = {"axes": "RAS" if config.orientation_ras else "ijk"}
        if config.resample and config.resample_resolution is not None:
            geometry["spacing_mm"] = config.resample_resolution
            geometry["resampling"] = {"tolerance": _TOLERANCE}
        if config.crop_foreground and not config.extra_modalities:
            geometry |= {"crop_above": 0.0, "crop_margin": _MARGIN}
        return geometry

    def _describe_intensity(self, mode: str) -> Fields:
        if mode in ("range", "ct"):
            return self._describe_soft_window()
        zscore = {"kind": "zscore", "nonzero": True}
        squash = {"kind": "squash"}
        tanh = squash | {"curve": "tanh", "scale": _TANH_SCALE}
        known: dict[str, Fields] = {
            "none": {"kind": "none"},
            "meanstd": zscore,
            "mri": zscore,
            "meanstdtanh": {"kind": "sequence", "steps": (zscore, tanh)},
            "pet": {
                "kind": "sequence",
                "steps": (
                    {"kind": "zscore", "subtract": "lowest"},
                    squash | {"curve": "sigmoid"},
                ),
            },
        }
        if mode not in known:
            raise self._resolved.refuse(
                "normalize_mode", f"{mode[:40]}; known: {', '.join(_MODES)}"
            )
        return known[mode]

    def _describe_soft_window(self) -> Fields:
        low, high = self._config.intensity_bounds or _BOUNDS
        if low >= high:
            raise self._resolved.refuse(
                "intensity_bounds", "the first must be below the second"
            )
        window = {"kind": "window", "low": low, "high": high, "clip": False}
        curve = {"kind": "squash", "curve": "sigmoid"}
        return {"kind": "sequence", "steps": (window, curve)}

    def _describe_channels(self) -> Iterator[Fields]:
        config = self._config
        first = _MODALITIES.get(config.modality.lower(), "OT")
        names, modalities = [first], [first]
        for key, mode in config.extra_modalities.items():
            names.append(clean_text(key)[:200] or "image")
            modalities.append(_MODES.get(mode, "OT"))
        for name, modality in zip(
            make_distinct(names), modalities, strict=True
        ):
            yield {"name": name, "modality": modality}

    def _describe_structures(self, outputs: int) -> Fields:
        names = self._name_outputs(outputs)
        if not self._config.sigmoid:
            if outputs < 2:
                raise self._resolved.refuse(
                    "network::out_channels", "background alone"
                )
            return describe_exclusive(["background", *names])
        overlap = self._find_overlap(names)
        self.order = overlap.order
        return overlap.describe()

    def _find_overlap(self, names: tuple[str, ...]) -> OverlappingChannels:
        """Return which channel covers which: those of fewer label values lie inside others."""
        sets = [frozenset(values) for values in self._config.class_index]
        if len(sets) == len(names):
            nested = _find_nesting(sets)
            if nested:
                return OverlappingChannels(names, nested, are_nested=True)
            self._remark_overlap(sets)
        in_order = [(channel, channel + 1) for channel in range(len(names))]
        return OverlappingChannels(names, in_order, are_nested=False)

    def _remark_overlap(self, sets: list[frozenset[int]]) -> None:
        apart = sum(map(len, sets)) == len(frozenset().union(*sets))
        if not apart:
            self.remarks.append(
                "its channels overlap in a way that one label map cannot show: label maps show "
                "the last channel that is there"
            )

    def _name_outputs(self, outputs: int) -> tuple[str, ...]:
        """Return the names of the structures, without background."""
        count = outputs if self._config.sigmoid else outputs - 1
        told = [clean_text(name) for name in self._config.class_names]
        names = (
            told[len(told) - count :] if len(told) in (count, outputs) else []
        )
        if not all(names) or len(names) != count:
            names = [f"label {number}" for number in range(1, count + 1)]
            self.remarks.append(
                "its configuration names no labels; name them in bundle.json"
            )
        plain = ["".join(filter(str.isprintable, name))[:200] for name in names]
        return make_distinct(plain)


def _find_nesting(sets: list[frozenset[int]]) -> list[tuple[int, int]]:
    """Return channel and own value of each set, if each holds the next and one value more.

    Returns:
        The largest set first; empty if they are not so.
    """
    order = sorted(range(len(sets)), key=lambda channel: len(sets[channel]))
    painted: list[tuple[int, int]] = []
    inside: frozenset[int] = frozenset()
    for channel in order:
        added = sets[channel] - inside
        if len(added) != 1 or not inside <= sets[channel]:
            return []
        painted.insert(0, (channel, min(added)))
        inside = sets[channel]
    return painted


class _PlainCopy:
    """Copies what a checkpoint's configuration holds, its tuples as lists.

    A pickle can hold itself, or one list so often that a copy would never end.

    Args:
        file: For errors.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._left = _MOST_VALUES

    def copy(self, value: Any, depth: int = 0) -> Any:
        """Return a copy; ``None`` for what is no plain value."""
        self._left -= 1
        if self._left < 0 or depth > _MOST_DEPTH:
            raise CheckpointError(
                "its configuration is nested too deeply, or has too many values",
                source=self._file,
            )
        if isinstance(value, dict):
            return {
                str(key): self.copy(item, depth + 1)
                for key, item in dict.items(value)
            }
        if isinstance(value, list | tuple):
            return [self.copy(item, depth + 1) for item in value]
        is_plain = isinstance(value, bool | int | float | str)
        return value if is_plain else None
