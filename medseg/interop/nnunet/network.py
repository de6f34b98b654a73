"""nnU-Net's networks as a bundle states them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from medseg.errors import MedsegError
from medseg.interop.nnunet.plans import Arguments, Counts, NnunetPlans

Fields = dict[str, Any]
"""A section of ``bundle.json``."""

PLAIN, RESIDUAL = "PlainConvUNet", "ResidualEncoderUNet"
KINDS = {PLAIN: "plainconv", RESIDUAL: "resenc"}
"""nnU-Net's class → kind of a bundle's network."""

_UNET_CONVOLUTIONS = 2
_UNET_STRIDES = (1, 2)
_NORM_ARGUMENTS: Mapping[str, Any] = {"eps": 1e-5, "affine": True}
_SLOPE = 0.01


def get_class_name(path: str) -> str:
    """Return the class of a dotted path such as ``torch.nn.LeakyReLU``."""
    return path.rpartition(".")[2]


def describe_network(plans: NnunetPlans) -> Fields:
    """Return the section ``network`` of nnU-Net's network as it is, axes in nnU-Net's order.

    Raises:
        MedsegError: If it has anything that medseg's networks do not; says what.
    """
    arguments = plans.arguments
    kind = get_class_name(plans.configuration.architecture.network_class_name)
    unknown = list(_find_unknown(kind, arguments))
    if unknown:
        raise MedsegError(
            "medseg cannot build this network; it knows nnU-Net's PlainConvUNet and "
            "ResidualEncoderUNet with instance or batch norm and LeakyReLU",
            source=plans.file,
            detail="; ".join(unknown),
        )
    levels = len(arguments.strides)
    counts = _spread(
        arguments.n_blocks_per_stage
        if kind == RESIDUAL
        else arguments.n_conv_per_stage,
        levels,
    )
    decoder = _spread(arguments.n_conv_per_stage_decoder, levels - 1)
    norm = get_class_name(arguments.norm_op or "InstanceNorm")
    return {
        "kind": KINDS[kind],
        "dims": plans.dims,
        "channels": arguments.features_per_stage,
        "strides": arguments.strides,
        "kernel_sizes": arguments.kernel_sizes,
        "blocks": counts,
        "decoder_convolutions": decoder,
        "norm": "batch" if norm.startswith("BatchNorm") else "instance",
    }


def describe_as_unet(section: Fields) -> Fields | None:
    """Return the section of the same network as ``unet``; ``None`` if it has no equal there.

    MONAI's DynUNet has two convolutions at each level, and gives a level on the way up the kernel
    of the level below: a smaller kernel can lie in it amid zeros, a larger one cannot.
    """
    counts = (*section["blocks"], *section["decoder_convolutions"])
    if section["kind"] != "plainconv" or set(counts) != {_UNET_CONVOLUTIONS}:
        return None
    dims = section["dims"]
    strides = [_per_axis(size, dims) for size in section["strides"]]
    if any(step not in _UNET_STRIDES for stride in strides for step in stride):
        return None
    kernels = [_per_axis(size, dims) for size in section["kernel_sizes"]]
    for here, below in itertools.pairwise(kernels):
        if any(size > larger for size, larger in zip(here, below, strict=True)):
            return None
    return {
        "kind": "unet",
        **{
            field: section[field]
            for field in ("dims", "channels", "strides", "kernel_sizes", "norm")
        },
        "upsample_bias": True,
    }


def _find_unknown(kind: str, arguments: Arguments) -> Iterator[str]:
    """Yield what changes a network's answers and is not known here."""
    if kind not in KINDS:
        yield f"the network {kind}"
        return
    norm = get_class_name(arguments.norm_op or "InstanceNorm")
    if not norm.startswith(("InstanceNorm", "BatchNorm")):
        yield f"the normalisation {norm}"
    stated = arguments.norm_op_kwargs
    if stated is not None and dict(stated) != _NORM_ARGUMENTS:
        yield f"the normalisation's arguments {dict(stated)}"
    activation = get_class_name(arguments.nonlin or "LeakyReLU")
    slope = (arguments.nonlin_kwargs or {}).get("negative_slope", _SLOPE)
    if activation != "LeakyReLU" or slope != _SLOPE:
        yield f"the activation {activation}"
    for name, value in (arguments.model_extra or {}).items():
        if value not in (None, False):
            yield f"the argument {name}"


def _spread(counts: Counts | int | None, levels: int) -> tuple[int, ...]:
    """Return one number per level."""
    if isinstance(counts, tuple):
        return counts
    return (counts or _UNET_CONVOLUTIONS,) * levels


def _per_axis(size: Any, dims: int) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,) * dims
