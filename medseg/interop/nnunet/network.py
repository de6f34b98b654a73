"""nnU-Net's networks as a bundle states them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from medseg.errors import MedsegError
from medseg.interop.nnunet.plans import NnunetPlans
from medseg.interop.nnunet.plans_file import Arguments, Counts

Fields = dict[str, Any]
"""A section of ``bundle.json``."""

PLAIN, RESIDUAL = "PlainConvUNet", "ResidualEncoderUNet"
KINDS = {PLAIN: "plainconv", RESIDUAL: "resenc"}
"""nnU-Net's class → kind of a bundle's network."""

_UNET_CONVOLUTIONS = 2
_UNET_STRIDES = {1, 2}
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
    is_plain = section["kind"] == KINDS[PLAIN]
    if not is_plain or set(counts) != {_UNET_CONVOLUTIONS}:
        return None
    dims = section["dims"]
    strides = [_per_axis(size, dims) for size in section["strides"]]
    kernels = [_per_axis(size, dims) for size in section["kernel_sizes"]]
    if not set(itertools.chain(*strides)) <= _UNET_STRIDES:
        return None
    if not all(itertools.starmap(_fits_in, itertools.pairwise(kernels))):
        return None
    kept = ("dims", "channels", "strides", "kernel_sizes", "norm")
    return {
        "kind": "unet",
        **{field: section[field] for field in kept},
        "upsample_bias": True,
    }


def _fits_in(kernel: tuple[int, ...], larger: tuple[int, ...]) -> bool:
    pairs = zip(kernel, larger, strict=True)
    return all(size <= limit for size, limit in pairs)


def _find_unknown(kind: str, arguments: Arguments) -> Iterator[str]:
    """Yield what changes a network's answers and is not known here."""
    if kind not in KINDS:
        yield f"the network {kind}"
        return
    yield from _find_unknown_norm(arguments)
    if not _is_leaky_relu(arguments):
        yield f"the activation {get_class_name(arguments.nonlin or '')}"
    extra = arguments.model_extra or {}
    changed = [name for name, value in extra.items() if value]
    if changed:
        yield f"the arguments {', '.join(changed)}"


def _find_unknown_norm(arguments: Arguments) -> Iterator[str]:
    norm = get_class_name(arguments.norm_op or "InstanceNorm")
    if not norm.startswith(("InstanceNorm", "BatchNorm")):
        yield f"the normalisation {norm}"
    stated = dict(arguments.norm_op_kwargs or _NORM_ARGUMENTS)
    if stated != _NORM_ARGUMENTS:
        yield f"the normalisation's arguments {stated}"


def _is_leaky_relu(arguments: Arguments) -> bool:
    activation = get_class_name(arguments.nonlin or "LeakyReLU")
    stated = arguments.nonlin_kwargs or {}
    slope = stated.get("negative_slope", _SLOPE)
    return activation == "LeakyReLU" and slope == _SLOPE


def _spread(counts: Counts | int | None, levels: int) -> tuple[int, ...]:
    """Return one number per level."""
    if isinstance(counts, tuple):
        return counts
    return (counts or _UNET_CONVOLUTIONS,) * levels


def _per_axis(size: Any, dims: int) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,) * dims
