"""The U-Net of ``"kind": "unet"``: MONAI's DynUNet, which stock MONAI runs."""

from __future__ import annotations

from typing import Any

from medseg.bundle.spec import GROUPS, BundleSpec, UNetSpec

NetworkDefinition = dict[str, Any]
"""A network as MONAI's configs write it: its class under ``_target_``, and its arguments."""

_NORMS: dict[str, Any] = {
    "instance": ["INSTANCE", {"affine": True}],
    "batch": "BATCH",
    "group": ["GROUP", {"num_groups": GROUPS, "affine": True}],
}


def define_unet(
    network: UNetSpec, spec: BundleSpec, supervised: bool
) -> NetworkDefinition:
    """State a U-Net as data.

    Args:
        network: The bundle's network section.
        spec: The bundle, for its channels and labels.
        supervised: Whether to include the outputs of coarse levels, which only training uses.
    """
    strides = [list(stride) for stride in network.level_strides]
    kernels = [list(kernel) for kernel in network.level_kernels]
    # The finest level and the bottleneck have no head of their own.
    heads = len(strides) - 2
    has_heads = network.deep_supervision and heads > 0
    return {
        "_target_": "monai.networks.nets.DynUNet",
        "spatial_dims": network.dims,
        "in_channels": spec.input_channels,
        "out_channels": spec.label_set.channels,
        "kernel_size": kernels,
        "strides": strides,
        "upsample_kernel_size": strides[1:],
        "filters": list(network.level_channels),
        "norm_name": _NORMS[network.norm],
        "dropout": network.dropout or None,
        "res_block": network.residual,
        **({"trans_bias": True} if network.upsample_bias else {}),
        "deep_supervision": supervised and has_heads,
        "deep_supr_num": max(heads, 1),
    }
