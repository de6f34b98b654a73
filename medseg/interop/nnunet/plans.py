"""Reads nnU-Net's plans files (v2): what a configuration says, and in which order its axes are.

Two forms are read: the network under ``architecture``, and the older one with its arguments
beside the patch (``pool_op_kernel_sizes``, ``conv_kernel_sizes``, …). A configuration may inherit
from another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import (
    ValidationError,
)

from medseg.errors import DatasetError, Fault
from medseg.interop.nnunet.plans_file import (
    Arguments,
    Configuration,
    Intensities,
    PlansFile,
    PlansModel,
    Sizes,
)
from medseg.layouts.dataset_json import read_json_object

FULL_3D, FULL_2D = "3d_fullres", "2d"
_CONFIGURATION_BY_DIMS = {2: FULL_2D, 3: FULL_3D}
_MIN_LEVELS = 3
REORIENTING_READERS = ("NibabelIOWithReorient", "SimpleITKIOWithReorient")
"""nnU-Net's readers that turn scans to right, anterior, superior."""

Number = TypeVar("Number", int, float)


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
        transpose_forward: Order of the stored axes ``(z, y, x)`` in nnU-Net's arrays.
        label_manager: nnU-Net's class that turns scores into labels, by name.
    """

    file: Path
    dataset_name: str
    name: str
    others: tuple[str, ...]
    reader: str
    configuration: Configuration
    intensities: Mapping[int, Intensities]
    transpose_forward: tuple[int, ...]
    label_manager: str

    @property
    def dims(self) -> int:
        """2 or 3."""
        return len(self.configuration.patch_size)

    @property
    def axes(self) -> tuple[int, ...]:
        """The index among nnU-Net's axes of right, anterior and, in 3D, superior.

        Raises:
            DatasetError: If a 2D configuration slices across another axis than the third.
        """
        return _find_axes(self.transpose_forward, self.dims, self.file)

    @property
    def network_axes(self) -> str:
        """The axes the network sees, in its own order, as ``preprocessing.axes`` names them.

        nnU-Net's arrays are ``(z, y, x)``, as stored or turned to right, anterior, superior, before
        ``transpose_forward``. 2D networks see slices across the first; a bundle has that last.
        """
        letters = "SAR" if self.reader in REORIENTING_READERS else "kji"
        first, *others = (letters[axis] for axis in self.transpose_forward)
        if self.dims == 3:
            return "".join((first, *others))
        return "".join((*others, first))

    @property
    def arguments(self) -> Arguments:
        """Of the network's class."""
        return self.configuration.architecture.arch_kwargs

    def reorder_axes(self, values: Sequence[Number]) -> list[Number]:
        """Return one value per axis in medseg's order: right, anterior, superior."""
        return [values[axis] for axis in self.axes]

    def convert_level_sizes(
        self, sizes: Sequence[Sizes]
    ) -> list[int | list[int]]:
        """Return the size of each level; one per axis, in medseg's order, where they differ."""
        levels: list[int | list[int]] = []
        for size in sizes:
            if isinstance(size, int):
                levels.append(size)
            elif len(set(size)) == 1:
                levels.append(size[0])
            else:
                levels.append(self.reorder_axes(size))
        return levels


def is_nnunet_plans(path: Path) -> bool:
    """Tell whether a file is nnU-Net's plans, by its content.

    Raises:
        DatasetError: If it is a ``.json`` file without a JSON object.
    """
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    return isinstance(read_json_object(path).get("configurations"), dict)


def read_nnunet_plans(
    path: Path, dims: int | None = None, *, name: str = ""
) -> NnunetPlans:
    """Read a plans file and choose a configuration from it: ``2d`` or ``3d_fullres``.

    Args:
        path: The file.
        dims: 2 or 3; unless given, 3 where there is such a configuration.
        name: Of the configuration, instead of the dimensions.

    Raises:
        DatasetError: If it lacks that configuration, or contradicts itself.
    """
    plans = _validate(PlansFile, read_json_object(path), path, "")
    is_named = bool(name)
    name = name or _choose_configuration(plans, dims)
    content = _resolve_inheritance(plans.configurations, name, path)
    if "architecture" not in content:
        content["architecture"] = _architecture_of_flat_form(content)
    configuration = _validate(
        Configuration, content, path, f"configurations.{name}."
    )
    faults = [
        Fault(f"configurations.{name}.{field}", what)
        for field, what in _find_contradictions(configuration)
    ]
    dims = len(configuration.patch_size)
    if not is_named and _CONFIGURATION_BY_DIMS[dims] != name:
        where = f"configurations.{name}.patch_size"
        what = f"has {dims} axes, which does not fit the configuration's name"
        faults.append(Fault(where, what))
    if sorted(plans.transpose_forward) != [0, 1, 2]:
        faults.append(
            Fault("transpose_forward", "must be an order of 0, 1 and 2")
        )
    if faults:
        raise DatasetError(
            "these plans contradict themselves:", faults, source=path
        )
    return NnunetPlans(
        file=path,
        dataset_name=plans.dataset_name,
        name=name,
        others=tuple(sorted(set(plans.configurations) - {name})),
        reader=plans.image_reader_writer,
        configuration=configuration,
        intensities=plans.intensities(),
        transpose_forward=plans.transpose_forward,
        label_manager=plans.label_manager,
    )


def _choose_configuration(plans: PlansFile, dims: int | None) -> str:
    if dims:
        return _CONFIGURATION_BY_DIMS[dims]
    return FULL_3D if FULL_3D in plans.configurations else FULL_2D


def _find_axes(
    transpose_forward: Sequence[int], dims: int, path: Path
) -> tuple[int, ...]:
    """Return the index of right, anterior and superior among a configuration's axes.

    nnU-Net's arrays are ``(z, y, x)`` before ``transpose_forward``; a 2D configuration has lost
    the first axis after it.
    """
    if dims == 2 and transpose_forward[0] != 0:
        stored_axis = "zyx"[transpose_forward[0]]
        raise DatasetError(
            f"the 2D configuration slices scans across the stored axis {stored_axis}, but medseg "
            "slices along the third; use --dims 3",
            source=path,
        )
    kept = list(transpose_forward[3 - dims :])
    return tuple(kept.index(axis) for axis in (2, 1, 0) if axis in kept)


def _resolve_inheritance(
    configurations: Mapping[str, dict[str, Any]], name: str, path: Path
) -> dict[str, Any]:
    """Return a configuration with what it inherits, over any number of generations."""
    content: dict[str, Any] = {}
    visited: list[str] = []
    parent: Any = name
    while parent is not None:
        if parent in visited:
            raise DatasetError(
                "configurations inherit in a circle",
                source=path,
                detail=", ".join(visited),
            )
        if not isinstance(parent, str) or parent not in configurations:
            listed = ", ".join(configurations) or "none"
            raise DatasetError(
                f"a configuration is missing; --dims 2 takes {FULL_2D}, --dims 3 {FULL_3D}",
                source=path,
                detail=f"has no configuration '{parent}'; it has {listed}",
            )
        visited.append(parent)
        content = configurations[parent] | content
        parent = configurations[parent].get("inherits_from")
    return content


def _architecture_of_flat_form(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``architecture`` of a configuration that has its arguments beside the patch.

    Features double from level to level up to a limit, as nnU-Net reads this form. What is missing
    or of a wrong type is left to the validation that follows.
    """
    convolutions = content.get("n_conv_per_stage_encoder")
    base = content.get("UNet_base_num_features")
    most = content.get("unet_max_num_features")
    features: Sequence[int] = ()
    if (
        isinstance(convolutions, list)
        and isinstance(base, int)
        and isinstance(most, int)
    ):
        features = [
            min(base * 2**level, most) for level in range(len(convolutions))
        ]
    return {
        "network_class_name": content.get("UNet_class_name"),
        "arch_kwargs": {
            "features_per_stage": features,
            "kernel_sizes": content.get("conv_kernel_sizes"),
            "strides": content.get("pool_op_kernel_sizes"),
            "n_conv_per_stage": convolutions,
            "n_conv_per_stage_decoder": content.get("n_conv_per_stage_decoder"),
            "conv_bias": True,
        },
    }


def _find_contradictions(
    configuration: Configuration,
) -> Iterator[tuple[str, str]]:
    """Yield fields of a configuration that do not fit the others, and why."""
    dims = len(configuration.patch_size)
    axes = len(configuration.spacing)
    if axes != dims:
        yield "spacing", f"has {axes} axes, patch_size {dims}"
    arguments = configuration.architecture.arch_kwargs
    strides, kernels = arguments.strides, arguments.kernel_sizes
    for field, sizes in (("strides", strides), ("kernel_sizes", kernels)):
        if not _fit_dims(sizes, dims):
            yield field, f"each level must have {dims} numbers"
    levels = len(strides)
    counts = {
        "kernel_sizes": len(kernels),
        "features_per_stage": len(arguments.features_per_stage),
    }
    for field, count in counts.items():
        if count != levels:
            yield field, f"has {count} levels, the strides {levels}"
    if levels < _MIN_LEVELS:
        yield (
            "strides",
            f"has {levels} levels; medseg needs {_MIN_LEVELS} or more",
        )


def _fit_dims(sizes: Sequence[Sizes], dims: int) -> bool:
    return all(isinstance(size, int) or len(size) == dims for size in sizes)


Model = TypeVar("Model", bound=PlansModel)


def _validate(
    model: type[Model], content: Mapping[str, Any], path: Path, prefix: str
) -> Model:
    """Read a part of the file; every fault is named by its JSON path, below ``prefix``."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            location = ".".join(str(part) for part in fault["loc"])
            faults.append(Fault(prefix + location, fault["msg"]))
        raise DatasetError(
            "this is not a plans file of nnU-Net v2:", faults, source=path
        ) from error
