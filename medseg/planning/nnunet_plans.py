"""nnU-Net's plans files (v2): what a configuration says, and where its axes point.

Two forms are read: the network under ``architecture``, and the older one with its parts beside
the patch (``pool_op_kernel_sizes``, ``conv_kernel_sizes``, …). A configuration may inherit from
another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from medseg.datasets.layouts.dataset_json import read_json_object
from medseg.errors import DatasetError, Fault

FULL_3D, FLAT_2D = "3d_fullres", "2d"
_BY_DIMS = {2: FLAT_2D, 3: FULL_3D}
_LEAST_LEVELS = 3

Number = TypeVar("Number", int, float)
Axes = Annotated[tuple[PositiveInt, ...], Field(min_length=2, max_length=3)]

Counts = tuple[PositiveInt, ...]


class _Part(BaseModel):
    """Base of what is read; what nnU-Net adds to it is no fault."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Intensities(_Part):
    """Of one channel inside the labels, over all training cases."""

    mean: float
    std: Annotated[float, Field(ge=0)]
    percentile_00_5: float
    percentile_99_5: float


class Arguments(_Part):
    """Of the network's class."""

    features_per_stage: Counts
    kernel_sizes: tuple[PositiveInt | Axes, ...]
    strides: tuple[PositiveInt | Axes, ...]
    n_conv_per_stage: PositiveInt | Counts | None = None
    n_blocks_per_stage: PositiveInt | Counts | None = None
    n_conv_per_stage_decoder: PositiveInt | Counts = 2
    conv_bias: bool = False
    norm_op: str | None = None
    nonlin: str | None = None
    dropout_op: str | None = None


class Architecture(_Part):
    """A network's class and its arguments."""

    network_class_name: str
    arch_kwargs: Arguments


class Configuration(_Part):
    """One of ``configurations``, what it inherits included; axes as nnU-Net orders them."""

    batch_size: PositiveInt
    patch_size: Axes
    spacing: Annotated[tuple[PositiveFloat, ...], Field(min_length=2, max_length=3)]
    normalization_schemes: Annotated[tuple[str, ...], Field(min_length=1)]
    use_mask_for_norm: tuple[bool, ...] = ()
    batch_dice: bool = False
    architecture: Architecture


class _Whole(_Part):
    dataset_name: str = ""
    image_reader_writer: str = ""
    transpose_forward: tuple[int, ...] = (0, 1, 2)
    configurations: dict[str, dict[str, Any]]
    foreground_intensity_properties_per_channel: dict[str, Intensities] = Field(default={})
    foreground_intensity_properties_by_modality: dict[str, Intensities] = Field(default={})


@dataclass(frozen=True, slots=True)
class NnunetPlans:
    """A plans file and the configuration chosen from it.

    Attributes:
        file: The plans file.
        dataset_name: As nnU-Net calls the data set; may be empty.
        name: Of the configuration: ``2d``, ``3d_fullres``.
        others: Names of the other configurations.
        reader: nnU-Net's reader of the images, by name.
        configuration: What it says.
        intensities: Of each channel, by its number; may lack some.
        axes: nnU-Net's place of right, anterior and, in 3D, superior.
    """

    file: Path
    dataset_name: str
    name: str
    others: tuple[str, ...]
    reader: str
    configuration: Configuration
    intensities: Mapping[int, Intensities]
    axes: tuple[int, ...]

    @property
    def dims(self) -> int:
        """2 or 3."""
        return len(self.axes)

    @property
    def arguments(self) -> Arguments:
        """Of the network's class."""
        return self.configuration.architecture.arch_kwargs

    def turned(self, values: Sequence[Number]) -> list[Number]:
        """Return one value per axis in medseg's order: right, anterior, superior."""
        return [values[axis] for axis in self.axes]

    def levels(self, sizes: Sequence[int | tuple[int, ...]]) -> list[int | list[int]]:
        """Return the size of each level; one per axis, in medseg's order, where they differ."""
        return [
            one if isinstance(one, int) else one[0] if len(set(one)) == 1 else self.turned(one)
            for one in sizes
        ]


def is_nnunet_plans(path: Path) -> bool:
    """Tell whether a file is nnU-Net's plans, by its content.

    Raises:
        DatasetError: If it is a ``.json`` file without a JSON object.
    """
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    return isinstance(read_json_object(path).get("configurations"), dict)


def read_nnunet_plans(path: Path, dims: int | None) -> NnunetPlans:
    """Read a plans file and choose ``2d`` or ``3d_fullres`` from it.

    Args:
        path: The file.
        dims: 2 or 3; 3 where there is one unless given.

    Raises:
        DatasetError: If it lacks that configuration, or says what cannot be meant.
    """
    whole = _checked(_Whole, read_json_object(path), path, "")
    name = _BY_DIMS[dims] if dims else (FULL_3D if FULL_3D in whole.configurations else FLAT_2D)
    content = _inherited(whole.configurations, name, path)
    if "architecture" not in content:
        content = content | {"architecture": _from_flat_form(content)}
    configuration = _checked(Configuration, content, path, f"configurations.{name}.")
    faults = [
        Fault(f"configurations.{name}.{field}", what) for field, what in _torn(configuration, name)
    ]
    if sorted(whole.transpose_forward) != [0, 1, 2]:
        faults.append(Fault("transpose_forward", "must be an order of 0, 1 and 2"))
    if faults:
        raise DatasetError(f"{path}: these plans contradict themselves:", faults)
    known = (
        whole.foreground_intensity_properties_per_channel
        or whole.foreground_intensity_properties_by_modality
    )
    return NnunetPlans(
        file=path,
        dataset_name=whole.dataset_name,
        name=name,
        others=tuple(sorted(set(whole.configurations) - {name})),
        reader=whole.image_reader_writer,
        configuration=configuration,
        intensities={int(key): one for key, one in known.items() if key.isdigit()},
        axes=_axes(whole.transpose_forward, len(configuration.patch_size), path),
    )


def _axes(transposed: Sequence[int], dims: int, path: Path) -> tuple[int, ...]:
    """Return where right, anterior and superior stand among a configuration's axes.

    nnU-Net's arrays are ``(z, y, x)`` before ``transpose_forward``; a 2D configuration has lost
    the first axis after it.
    """
    if dims == 2 and transposed[0] != 0:
        raise DatasetError(
            f"{path}: its 2D configuration slices scans across the stored axis "
            f"{'zyx'[transposed[0]]}, and medseg slices along the third; use --dims 3"
        )
    kept = list(transposed[3 - dims :])
    return tuple(kept.index(axis) for axis in (2, 1, 0) if axis in kept)


def _inherited(
    configurations: Mapping[str, dict[str, Any]], name: str, path: Path
) -> dict[str, Any]:
    content: dict[str, Any] = {}
    seen: list[str] = []
    wanted: Any = name
    while wanted is not None:
        if wanted in seen:
            raise DatasetError(f"{path}: configurations inherit in a circle: {', '.join(seen)}")
        if wanted not in configurations:
            raise DatasetError(
                f"{path}: has no configuration '{wanted}'; it has "
                f"{', '.join(configurations) or 'none'}. --dims 2 takes {FLAT_2D}, --dims 3 "
                f"{FULL_3D}"
            )
        seen.append(wanted)
        content = configurations[wanted] | content
        wanted = configurations[wanted].get("inherits_from")
    return content


def _from_flat_form(content: Mapping[str, Any]) -> dict[str, Any]:
    """Put a network that is written beside the patch into an ``architecture``.

    Features double from level to level up to a limit, as nnU-Net reads this form.
    """
    convolutions = content.get("n_conv_per_stage_encoder")
    base, most = content.get("UNet_base_num_features"), content.get("unet_max_num_features")
    levels = len(convolutions) if isinstance(convolutions, list) else 0
    whole = isinstance(base, int) and isinstance(most, int)
    return {
        "network_class_name": content.get("UNet_class_name"),
        "arch_kwargs": {
            "features_per_stage": [min(base * 2**n, most) for n in range(levels)] if whole else (),
            "kernel_sizes": content.get("conv_kernel_sizes"),
            "strides": content.get("pool_op_kernel_sizes"),
            "n_conv_per_stage": convolutions,
            "n_conv_per_stage_decoder": content.get("n_conv_per_stage_decoder"),
            "conv_bias": True,
        },
    }


def _torn(configuration: Configuration, name: str) -> list[tuple[str, str]]:
    """Say which lists of a configuration have unlike lengths."""
    dims, arguments = len(configuration.patch_size), configuration.architecture.arch_kwargs
    levels = len(arguments.strides)
    found = []
    if len(configuration.spacing) != dims:
        found.append(("spacing", f"has {len(configuration.spacing)} axes, patch_size {dims}"))
    if _BY_DIMS[dims] != name:
        found.append(("patch_size", f"has {dims} axes, which does not fit the name"))
    for field, sizes in (("strides", arguments.strides), ("kernel_sizes", arguments.kernel_sizes)):
        if any(not isinstance(size, int) and len(size) != dims for size in sizes):
            found.append((field, f"each level must have {dims} numbers"))
    for field, count in (
        ("kernel_sizes", len(arguments.kernel_sizes)),
        ("features_per_stage", len(arguments.features_per_stage)),
    ):
        if count != levels:
            found.append((field, f"has {count} levels, the strides {levels}"))
    if levels < _LEAST_LEVELS:
        found.append(("strides", f"has {levels} levels; medseg needs {_LEAST_LEVELS} or more"))
    return found


Model = TypeVar("Model", bound=_Part)


def _checked(model: type[Model], content: Mapping[str, Any], path: Path, under: str) -> Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        faults = [
            Fault(under + ".".join(map(str, each["loc"])), each["msg"]) for each in error.errors()
        ]
        raise DatasetError(f"{path}: these are no plans of nnU-Net v2:", faults) from error
