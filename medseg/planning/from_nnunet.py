"""nnU-Net's plans → the content of a bundle, and a list of what a bundle cannot say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from medseg.errors import DatasetError
from medseg.planning.constraints import Constraints, Notes
from medseg.planning.description import (
    DatasetDescription,
    bundle_name,
    modality_by_name,
    modality_of,
)
from medseg.planning.nnunet_plans import Arguments, NnunetPlans
from medseg.planning.schedule import UNTIMED_STEPS

LEFT_BEHIND = "nnU-Net"
"""The note that lists what was not carried over."""

_PICTURES = "NaturalImage2DIO"
_REORIENTING = "NibabelIOWithReorient"
_FLAT_NETWORK, _RESIDUAL_NETWORK = "PlainConvUNet", "ResidualEncoderUNet"
_ITS_STEPS = 250_000
_VALIDATIONS = 8
_CUTS_BLACK = 0.0


@dataclass(frozen=True, slots=True)
class ConvertedPlans:
    """What came of nnU-Net's plans.

    Attributes:
        content: Of ``bundle.json``; without ``$schema`` and ``data``.
        left_behind: Sentences on what the plans say and the bundle does not.
    """

    content: dict[str, Any]
    left_behind: tuple[str, ...]


@dataclass(slots=True)
class _Way:
    """What is said on the way."""

    notes: Notes = field(default_factory=dict)
    left_behind: list[str] = field(default_factory=list)


def convert_plans(
    plans: NnunetPlans, subject: DatasetDescription, wishes: Constraints
) -> ConvertedPlans:
    """Write a bundle that says what plans say.

    Args:
        plans: The plans and the configuration chosen from them.
        subject: What the data set's ``dataset.json`` says.
        wishes: Whether a GPU will train, and the time there is.

    Raises:
        DatasetError: If the labels are not named, or channels and plans differ.
    """
    way = _Way()
    channels = _channels(plans, subject)
    content: dict[str, Any] = {
        "name": bundle_name(plans.dataset_name) if plans.dataset_name else subject.name,
        **({"description": subject.description} if subject.description else {}),
        **({"licence": subject.licence} if subject.licence else {}),
        "channels": channels,
        "labels": _labels(subject),
        **({"regions": subject.regions()} if subject.named_regions else {}),
        "preprocessing": _preprocessing(plans, way),
        "network": _network(plans, way),
        "training": _training(plans, wishes, way),
    }
    way.left_behind += _always(plans)
    if way.left_behind:
        listed = "; ".join(f"({n}) {what}" for n, what in enumerate(way.left_behind, start=1))
        way.notes[LEFT_BEHIND] = f"Not carried over from {plans.name}: {listed}"[:4000]
    return ConvertedPlans(content | {"notes": way.notes}, tuple(way.left_behind))


def _channels(plans: NnunetPlans, subject: DatasetDescription) -> list[dict[str, Any]]:
    schemes, names = plans.configuration.normalization_schemes, subject.channel_names
    if len(names) != len(schemes):
        raise DatasetError(
            f"{plans.file}: normalises {len(schemes)} channels, and dataset.json names "
            f"{len(names)}; do they belong together?"
        )
    return [
        {
            "name": name,
            **modality_of("CT" if scheme == "CTNormalization" else modality_by_name(name) or "OT"),
        }
        for name, scheme in zip(names, schemes, strict=True)
    ]


def _labels(subject: DatasetDescription) -> list[dict[str, Any]]:
    if not subject.label_names:
        raise DatasetError("dataset.json names no label besides background")
    return subject.named_labels()


def _preprocessing(plans: NnunetPlans, way: _Way) -> dict[str, Any]:
    section: dict[str, Any] = {}
    if plans.reader == _PICTURES:
        section["input"] = "picture"
    else:
        spacing = plans.turned(plans.configuration.spacing)
        section["spacing_mm"] = [*spacing, *([None] if plans.dims == 2 else [])]
        way.notes["preprocessing.spacing_mm"] = f"The spacing of {plans.name}"
        way.left_behind.append(
            "resampling: images are brought to the spacing linearly, not by cubic splines with "
            "the coarse axis apart"
        )
        if plans.reader != _REORIENTING:
            way.left_behind.append(
                "axes: nnU-Net counts them as the files store them, medseg as right, anterior, "
                "superior. This is the same for axial slices; for others turn the numbers of "
                "spacing_mm, patch, strides and kernel_sizes"
            )
    places = range(len(plans.configuration.normalization_schemes))
    chosen = [_intensity(plans, place, way) for place in places]
    section["intensity"] = chosen[0] if all(one == chosen[0] for one in chosen) else chosen
    masks = plans.configuration.use_mask_for_norm
    if masks and all(masks):
        section["crop_above"] = _CUTS_BLACK
        way.notes["preprocessing.crop_above"] = "The plans normalise inside non-zero voxels alone"
    elif plans.reader != _PICTURES:
        way.left_behind.append(
            "the crop to the box of non-zero voxels; set preprocessing.crop_above to 0 where "
            "images are black around and never negative"
        )
    return section


def _intensity(plans: NnunetPlans, place: int, way: _Way) -> dict[str, Any]:
    scheme = plans.configuration.normalization_schemes[place]
    note = "preprocessing.intensity" + (
        f".{place}" if len(plans.configuration.normalization_schemes) > 1 else ""
    )
    way.notes[note] = scheme
    if scheme == "CTNormalization":
        return _window(plans, place, note, way)
    if scheme == "RescaleTo01Normalization":
        return {"kind": "minmax"}
    if scheme == "RGBTo01Normalization":
        return {"kind": "window", "low": 0, "high": 255, "mean": 0, "std": 255}
    if scheme != "ZScoreNormalization":
        way.left_behind.append(
            f"{scheme} of channel {place}, which medseg does not have; each image is normalised "
            "by its own mean and deviation instead"
        )
        return {"kind": "zscore"}
    masks = plans.configuration.use_mask_for_norm
    if place < len(masks) and masks[place]:
        way.left_behind.append(
            f"the mask of channel {place}: mean and deviation are those of the voxels that are "
            "not 0, without the holes that nnU-Net fills"
        )
        return {"kind": "zscore", "nonzero": True}
    return {"kind": "zscore"}


def _window(plans: NnunetPlans, place: int, note: str, way: _Way) -> dict[str, Any]:
    """Return CTNormalization, which a window is to the letter."""
    known = plans.intensities.get(place)
    if known is None:
        raise DatasetError(
            f"{plans.file}: channel {place} has CTNormalization, and "
            "foreground_intensity_properties_per_channel says nothing of it"
        )
    if known.std == 0 or known.percentile_00_5 >= known.percentile_99_5:
        raise DatasetError(
            f"{plans.file}: channel {place} has the same intensity everywhere inside the labels "
            f"({known.mean:g}), which cannot be CT; mend the data, and plan anew"
        )
    way.notes[note] = (
        "CTNormalization: clipped to the 0.5 % and 99.5 % quantiles inside the labels, then "
        "shifted and scaled by the mean and deviation there"
    )
    return {
        "kind": "window",
        "low": known.percentile_00_5,
        "high": known.percentile_99_5,
        "mean": known.mean,
        "std": known.std,
    }


def _network(plans: NnunetPlans, way: _Way) -> dict[str, Any]:
    arguments = plans.arguments
    kind = plans.configuration.architecture.network_class_name.rpartition(".")[2]
    way.left_behind += _unlike(kind, arguments)
    way.notes["network.channels"] = f"features_per_stage of {plans.name}"
    way.notes["network.strides"] = f"The strides of {plans.name}"
    kernels = plans.levels(arguments.kernel_sizes)
    kernels_field = {"kernel_sizes": kernels} if any(one != 3 for one in kernels) else {}
    if any(kernel != kernels[0] for kernel in kernels):
        way.left_behind.append(
            "kernel sizes on the way up: a level's convolutions there have the kernel of the "
            "level below, nnU-Net's that of their own"
        )
    norm = (arguments.norm_op or "InstanceNorm").rpartition(".")[2]
    if not norm.startswith(("InstanceNorm", "BatchNorm")):
        way.left_behind.append(f"the normalisation layers {norm}; instance norm is used")
    return {
        "kind": "unet",
        "dims": plans.dims,
        "channels": list(arguments.features_per_stage),
        "strides": plans.levels(arguments.strides),
        **kernels_field,
        "residual": kind == _RESIDUAL_NETWORK,
        "norm": "batch" if norm.startswith("BatchNorm") else "instance",
        "deep_supervision": True,
    }


def _unlike(kind: str, arguments: Arguments) -> Iterator[str]:
    """Say how medseg's U-Net differs from the planned one."""
    if kind == _RESIDUAL_NETWORK:
        yield (
            f"the number of residual blocks per level, {_counts(arguments.n_blocks_per_stage)} "
            f"down and {_counts(arguments.n_conv_per_stage_decoder)} convolutions up; every level "
            "has one block of two convolutions, both ways"
        )
    elif kind != _FLAT_NETWORK:
        yield f"the network {kind}; a plain U-Net with its sizes takes its place"
    elif _other_than_two(arguments.n_conv_per_stage, arguments.n_conv_per_stage_decoder):
        yield (
            f"the number of convolutions per level, {_counts(arguments.n_conv_per_stage)} down "
            f"and {_counts(arguments.n_conv_per_stage_decoder)} up; every level has two"
        )
    if arguments.conv_bias:
        yield "biases of convolutions, which the normalisation after them cancels"
    if arguments.dropout_op is not None:
        yield f"dropout ({arguments.dropout_op.rpartition('.')[2]}); set network.dropout"
    if not (arguments.nonlin or "LeakyReLU").endswith("LeakyReLU"):
        yield f"the activation {str(arguments.nonlin).rpartition('.')[2]}; LeakyReLU is used"


def _other_than_two(*counts: int | tuple[int, ...] | None) -> bool:
    return any(
        n != 2 for each in counts for n in (each if isinstance(each, tuple) else (each or 2,))
    )


def _counts(counts: int | tuple[int, ...] | None) -> str:
    return ", ".join(map(str, counts)) if isinstance(counts, tuple) else str(counts)


def _training(plans: NnunetPlans, wishes: Constraints, way: _Way) -> dict[str, Any]:
    steps = UNTIMED_STEPS[wishes.on_gpu]
    way.notes["training.patch"] = f"The patch of {plans.name}"
    way.notes["training.batch_size"] = f"The batch of {plans.name}"
    way.notes["training.steps"] = (
        f"medseg's own; plans do not say. nnU-Net's trainer takes {_ITS_STEPS:,}"
    )
    way.notes["training.optimizer"] = "As nnU-Net's trainer: SGD with momentum, rate 0.01, poly"
    section: dict[str, Any] = {
        "patch": plans.turned(plans.configuration.patch_size),
        "batch_size": plans.configuration.batch_size,
        "steps": steps,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "schedule": "poly",
        "foreground_share": 0.33,
        "validate_every": steps // _VALIDATIONS,
    }
    if wishes.budget_minutes is not None:
        section["budget_minutes"] = round(wishes.budget_minutes, 3)
        way.notes["training.budget_minutes"] = (
            "As asked for. The training measures its own speed first and then fits the steps"
        )
    if not plans.configuration.batch_dice:
        way.left_behind.append("batch_dice false: the Dice loss pools the patches of a batch here")
    return section


def _always(plans: NnunetPlans) -> Iterator[str]:
    """Say what no bundle carries: the cascade, and what nnU-Net's code decides by itself."""
    cascade = [name for name in plans.others if "cascade" in name or "lowres" in name]
    if cascade:
        yield f"the cascade ({', '.join(cascade)}): medseg has one stage"
    rest = [name for name in plans.others if name not in cascade]
    if rest:
        yield f"the other configurations ({', '.join(rest)}); --dims chooses, or plans each"
    yield ("deep supervision's coarsest output: it counts least here, and nothing in nnU-Net")
    yield (
        "nnU-Net's augmentation: medseg's standard one is used, which mirrors along the same axes, "
        "varies intensities less often, and treats anisotropic patches as any others"
    )
    yield "mirroring when predicting; `medseg segment --mirror` does it"
    if (plans.file.parent / "splits_final.json").is_file():
        yield "splits_final.json: list the folds in a cases.csv to keep them"
