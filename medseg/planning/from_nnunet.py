"""Converts nnU-Net's plans to the content of a bundle, and lists what a bundle cannot say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from medseg.errors import DatasetError
from medseg.interop.nnunet.network import KINDS
from medseg.interop.nnunet.plans import NnunetPlans
from medseg.interop.nnunet.plans_file import Arguments, Sizes
from medseg.interop.nnunet.preprocessing import (
    SCHEMES,
    describe_geometry,
    describe_normalisation,
    describe_windows,
)
from medseg.layouts.channel_names import guess_modality
from medseg.planning.constraints import Constraints, Notes
from medseg.planning.description import (
    DatasetDescription,
    Fields,
    format_modality,
    make_bundle_name,
)
from medseg.planning.schedule import BUDGET_REASON, UNTIMED_STEPS

OMISSIONS_NOTE = "nnU-Net"
"""The note that lists what was not carried over."""

_MAX_NOTE = 4000
"""Characters of a note."""

_PICTURE_READER = "NaturalImage2DIO"
_PLAIN_NETWORK, _RESIDUAL_NETWORK = "PlainConvUNet", "ResidualEncoderUNet"
_NNUNET_STEPS = 250_000
_VALIDATIONS = 8

_CT = "CTNormalization"


@dataclass(frozen=True, slots=True)
class ConvertedPlans:
    """nnU-Net's plans as a bundle.

    Attributes:
        content: Of ``bundle.json``; without ``$schema`` and ``data``.
        omissions: Sentences on what the plans say and the bundle does not.
    """

    content: dict[str, Any]
    omissions: tuple[str, ...]


@dataclass(slots=True)
class _Remarks:
    """What is noted while plans are converted."""

    notes: Notes = field(default_factory=dict)
    omissions: list[str] = field(default_factory=list)

    def omit(self, what: str) -> None:
        """Note what is not carried over."""
        self.omissions.append(what)


def convert_plans(
    plans: NnunetPlans,
    description: DatasetDescription,
    constraints: Constraints,
) -> ConvertedPlans:
    """Write a bundle that says what nnU-Net's plans say.

    Args:
        plans: The plans and the configuration chosen from them.
        description: What the data set's ``dataset.json`` says.
        constraints: Whether a GPU will be used, and the time there is.

    Raises:
        DatasetError: If the labels are not named, or channels and plans differ.
    """
    remarks = _Remarks()
    name = description.name
    if plans.dataset_name:
        name = make_bundle_name(plans.dataset_name)
    content: dict[str, Any] = {"name": name, **description.list_header_fields()}
    content["channels"] = convert_channels(plans, description)
    content["labels"] = convert_labels(description)
    if description.named_regions:
        content["regions"] = description.describe_regions()
    content["preprocessing"] = _convert_preprocessing(plans, remarks)
    content["network"] = _convert_network(plans, remarks)
    content["training"] = _convert_training(plans, constraints, remarks)
    content["inference"] = _convert_inference(plans, remarks)
    for omission in _find_general_omissions(plans):
        remarks.omit(omission)
    remarks.notes[OMISSIONS_NOTE] = _summarise(plans, remarks.omissions)
    content["notes"] = remarks.notes
    return ConvertedPlans(content, tuple(remarks.omissions))


def _summarise(plans: NnunetPlans, omissions: Sequence[str]) -> str:
    numbered = [
        f"({number}) {what}" for number, what in enumerate(omissions, start=1)
    ]
    note = f"Not carried over from {plans.name}: {'; '.join(numbered)}"
    return note[:_MAX_NOTE]


def convert_channels(
    plans: NnunetPlans, description: DatasetDescription
) -> list[Fields]:
    """Return the channels that plans and data set speak of.

    Raises:
        DatasetError: If they do not have the same number.
    """
    schemes = plans.configuration.normalization_schemes
    names = description.channel_names
    if len(names) != len(schemes):
        raise DatasetError(
            f"the plans normalise {len(schemes)} channels, but dataset.json names {len(names)}; "
            "do they belong together?",
            source=plans.file,
        )
    channels = []
    for name, scheme in zip(names, schemes, strict=True):
        modality = guess_modality(name) or "OT"
        if scheme == _CT:
            modality = "CT"
        channels.append({"name": name, **format_modality(modality)})
    return channels


def convert_labels(description: DatasetDescription) -> list[Fields]:
    """Return the labels that the data set names.

    Raises:
        DatasetError: If there are none.
    """
    if not description.label_names:
        raise DatasetError("dataset.json names no label besides background")
    return description.describe_named_labels()


def _convert_preprocessing(plans: NnunetPlans, remarks: _Remarks) -> Fields:
    section: Fields = {}
    if _is_of_pictures(plans):
        section["input"] = "picture"
    else:
        section.update(describe_geometry(plans))
        remarks.notes["preprocessing.spacing_mm"] = (
            f"The spacing of {plans.name}, along nnU-Net's axes"
        )
    count = len(plans.configuration.normalization_schemes)
    schemes = [
        _convert_normalization(plans, channel, remarks)
        for channel in range(count)
    ]
    all_alike = all(scheme == schemes[0] for scheme in schemes)
    section["intensity"] = schemes[0] if all_alike else schemes
    return section


def _is_of_pictures(plans: NnunetPlans) -> bool:
    return plans.reader == _PICTURE_READER


def _convert_normalization(
    plans: NnunetPlans, channel: int, remarks: _Remarks
) -> Fields:
    schemes = plans.configuration.normalization_schemes
    scheme = schemes[channel]
    note = "preprocessing.intensity"
    if len(schemes) > 1:
        note += f".{channel}"
    remarks.notes[note] = scheme
    if scheme == _CT:
        remarks.notes[note] = (
            "CTNormalization: clipped to the 0.5 % and 99.5 % quantiles inside the labels, then "
            "shifted and scaled by the mean and standard deviation there"
        )
    if scheme not in SCHEMES:
        remarks.omit(
            f"{scheme} of channel {channel}, which medseg does not have; each image is normalised "
            "by its own mean and standard deviation instead"
        )
        return {"kind": "zscore"}
    return describe_normalisation(plans, channel)


def _convert_inference(plans: NnunetPlans, remarks: _Remarks) -> Fields:
    """State nnU-Net's windows; which components are kept, held-out cases decide."""
    section = describe_windows()
    del section["keep_largest"]
    times = 2**plans.dims
    remarks.notes["inference.mirror"] = (
        f"As nnU-Net's prediction: scores are averaged over {times} flips of each window. Set it "
        f"to false to segment {times} times as fast"
    )
    return {**section, "mirror": True}


def _convert_network(plans: NnunetPlans, remarks: _Remarks) -> Fields:
    arguments = plans.arguments
    kind = _get_class_name(plans.configuration.architecture.network_class_name)
    remarks.omissions.extend(_find_network_omissions(kind, arguments))
    remarks.notes["network.channels"] = f"features_per_stage of {plans.name}"
    remarks.notes["network.strides"] = f"The strides of {plans.name}"
    section: Fields = {
        **_convert_kind(kind, arguments),
        "dims": plans.dims,
        "channels": list(arguments.features_per_stage),
        "strides": _order_sizes(plans, arguments.strides),
    }
    kernels = _order_sizes(plans, arguments.kernel_sizes)
    if any(kernel != 3 for kernel in kernels):
        section["kernel_sizes"] = kernels
    section["norm"] = _convert_norm(arguments, remarks)
    section["deep_supervision"] = True
    return section


def _convert_kind(kind: str, arguments: Arguments) -> Fields:
    """Return which network of medseg's a planned one is, with the numbers of its blocks."""
    encoder = arguments.n_conv_per_stage
    if kind == _RESIDUAL_NETWORK:
        encoder = arguments.n_blocks_per_stage
    decoder = arguments.n_conv_per_stage_decoder
    # DynUNet has two convolutions at each level, and on the way up the kernel of the level below.
    is_dynunet = (
        kind == _PLAIN_NETWORK
        and _all_two(encoder)
        and _all_two(decoder)
        and len(set(arguments.kernel_sizes)) == 1
    )
    if kind not in KINDS or is_dynunet:
        return {"kind": "unet"}
    return {
        "kind": KINDS[kind],
        "blocks": _as_json(encoder or 2),
        "decoder_convolutions": _as_json(decoder),
    }


def _as_json(counts: int | tuple[int, ...]) -> int | list[int]:
    return list(counts) if isinstance(counts, tuple) else counts


def _convert_norm(arguments: Arguments, remarks: _Remarks) -> str:
    norm = _get_class_name(arguments.norm_op or "InstanceNorm")
    if norm.startswith("BatchNorm"):
        return "batch"
    if not norm.startswith("InstanceNorm"):
        remarks.omit(f"the normalisation layers {norm}; instance norm is used")
    return "instance"


def _find_network_omissions(kind: str, arguments: Arguments) -> Iterator[str]:
    """Say how medseg's U-Net differs from the planned one."""
    if kind not in KINDS:
        yield f"the network {kind}; a plain U-Net of its size takes its place"
    if arguments.conv_bias and _convert_kind(kind, arguments)["kind"] == "unet":
        yield "biases of convolutions, which the normalisation after them cancels"
    if arguments.dropout_op is not None:
        yield f"dropout ({_get_class_name(arguments.dropout_op)})"
    activation = _get_class_name(arguments.nonlin or "LeakyReLU")
    if activation != "LeakyReLU":
        yield f"the activation {activation}; LeakyReLU is used"


def _get_class_name(path: str) -> str:
    """Return the class of a dotted path such as ``torch.nn.LeakyReLU``."""
    return path.rpartition(".")[2]


def _all_two(counts: int | tuple[int, ...] | None) -> bool:
    """Tell whether every level has two convolutions; where nothing is said, it has."""
    if isinstance(counts, tuple):
        return all(count == 2 for count in counts)
    return counts in (None, 2)


def _convert_training(
    plans: NnunetPlans, constraints: Constraints, remarks: _Remarks
) -> Fields:
    steps = UNTIMED_STEPS[constraints.on_gpu]
    remarks.notes |= {
        "training.patch": f"The patch of {plans.name}",
        "training.batch_size": f"The batch of {plans.name}",
        "training.steps": (
            f"medseg's default; plans do not say. nnU-Net's trainer takes {_NNUNET_STEPS:,}"
        ),
        "training.optimizer": "As nnU-Net's trainer: SGD with momentum, rate 0.01, poly",
    }
    section: Fields = {
        "patch": _order_patch(plans),
        "batch_size": plans.configuration.batch_size,
        "steps": steps,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "schedule": "poly",
        "foreground_share": 0.33,
        "validate_every": steps // _VALIDATIONS,
    }
    if constraints.budget_minutes is not None:
        section["budget_minutes"] = round(constraints.budget_minutes, 3)
        remarks.notes["training.budget_minutes"] = BUDGET_REASON
    if not plans.configuration.batch_dice:
        remarks.omit(
            "batch_dice false: the Dice loss pools the patches of a batch here"
        )
    return section


def _order_patch(plans: NnunetPlans) -> list[int]:
    """Return the patch along the axes of the bundle: nnU-Net's, or those of a picture."""
    patch = plans.configuration.patch_size
    return plans.reorder_axes(patch) if _is_of_pictures(plans) else list(patch)


def _order_sizes(
    plans: NnunetPlans, levels: Sequence[Sizes]
) -> list[int | list[int]]:
    """Return sizes of each level along the axes of the bundle; one number where they are alike."""
    if _is_of_pictures(plans):
        return plans.convert_level_sizes(levels)
    ordered: list[int | list[int]] = []
    for size in levels:
        sizes = [size] if isinstance(size, int) else list(size)
        ordered.append(sizes[0] if len(set(sizes)) == 1 else sizes)
    return ordered


def _find_general_omissions(plans: NnunetPlans) -> Iterator[str]:
    """Say what no bundle carries: the cascade, and what nnU-Net's code decides by itself."""
    cascade = [
        name for name in plans.others if "cascade" in name or "lowres" in name
    ]
    if cascade:
        yield f"the cascade ({', '.join(cascade)}): medseg has one stage"
    others = [name for name in plans.others if name not in cascade]
    if others:
        listed = ", ".join(others)
        yield f"the other configurations ({listed}); use --dims to choose, or plan each"
    yield "deep supervision's coarsest output: it counts least here, and not at all in nnU-Net"
    yield (
        "nnU-Net's augmentation: medseg's standard one is used, which mirrors along the same axes, "
        "varies intensities less often, and treats anisotropic patches like any others"
    )
    if (plans.file.parent / "splits_final.json").is_file():
        yield "splits_final.json: name the raw data with --data to keep the folds"
