"""nnU-Net's U-Nets of any number of blocks: a network of our own with nnU-Net's names of weights.

``ResidualEncoderUNet`` and ``PlainConvUNet`` of ``dynamic_network_architectures`` have no equal in
MONAI. The modules here compute the same and call every weight the same, aliases included, so that
weights go to and fro as they are: from nnU-Net into a bundle, and from a bundle into a MONAI Bundle
that names their class.

Source: Isensee et al., nnU-Net Revisited (2024), https://arxiv.org/abs/2404.09556; blocks are those
of ResNet-D (He et al., 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from medseg.bundle.spec import BundleSpec, StagedUNetSpec

Sizes = Sequence[int]

NetworkDefinition = dict[str, Any]

PACKAGE = "dynamic_network_architectures"
"""The package that a MONAI Bundle of such a network needs."""

_SLOPE = 0.01
_CLASSES = {"resenc": "ResidualEncoderUNet", "plainconv": "PlainConvUNet"}
_BLOCKS = {"resenc": "n_blocks_per_stage", "plainconv": "n_conv_per_stage"}


def build_staged_unet(
    network: StagedUNetSpec, channels: int, classes: int, *, supervised: bool
) -> StagedUNet:
    """Build a network, initialised as nnU-Net does.

    Args:
        network: The bundle's network section.
        channels: Of the input.
        classes: Channels of the output.
        supervised: Whether it returns every level's logits while training.
    """
    layers = _Layers(network.dims, network.norm)
    encoder = _Encoder(layers, network, channels)
    decoder = _Decoder(layers, network, encoder, classes)
    built = StagedUNet(encoder, decoder)
    built.deep_supervision = supervised and network.deep_supervision
    _initialise(built)
    return built


def define_staged_unet(
    network: StagedUNetSpec, spec: BundleSpec
) -> NetworkDefinition:
    """State a network as data that MONAI's configs can hold: nnU-Net's class and its arguments."""
    dims = network.dims
    norm = "InstanceNorm" if network.norm == "instance" else "BatchNorm"
    strides = [list(stride) for stride in network.level_strides]
    return {
        "_target_": f"{PACKAGE}.architectures.unet.{_CLASSES[network.kind]}",
        "input_channels": spec.input_channels,
        "n_stages": len(strides),
        "features_per_stage": list(network.level_channels),
        "conv_op": f"$torch.nn.Conv{dims}d",
        "kernel_sizes": [list(kernel) for kernel in network.level_kernels],
        "strides": strides,
        _BLOCKS[network.kind]: list(network.level_blocks),
        "num_classes": spec.label_set.channels,
        "n_conv_per_stage_decoder": list(network.level_decoder_convolutions),
        "conv_bias": True,
        "norm_op": f"$torch.nn.{norm}{dims}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "$torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
        "deep_supervision": False,
    }


class StagedUNet(nn.Module):
    """Encoder and decoder; maps ``(batch, channels, *patch)`` to logits ``(batch, classes, …)``.

    Args:
        encoder: The way down.
        decoder: The way up.

    Attributes:
        deep_supervision: Whether, while training, a list of every level's logits is returned, from
            fine to coarse.
    """

    def __init__(self, encoder: _Encoder, decoder: _Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.deep_supervision = False

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return logits, or those of all levels."""
        skips = self.encoder(image)
        if self.deep_supervision and self.training:
            return self.decoder.score_levels(skips)
        logits: torch.Tensor = self.decoder(skips)
        return logits


class _Layers:
    """The layers of one number of dimensions."""

    convolution: Any
    upsampling: Any
    pooling: Any

    def __init__(self, dims: int, norm: str) -> None:
        is_flat = dims == 2
        self.convolution = nn.Conv2d if is_flat else nn.Conv3d
        self.upsampling = nn.ConvTranspose2d if is_flat else nn.ConvTranspose3d
        self.pooling = nn.AvgPool2d if is_flat else nn.AvgPool3d
        self._norm: type[nn.Module]
        if norm == "batch":
            self._norm = nn.BatchNorm2d if is_flat else nn.BatchNorm3d
        else:
            self._norm = nn.InstanceNorm2d if is_flat else nn.InstanceNorm3d
        self.dims = dims

    def norm(self, channels: int) -> nn.Module:
        return self._norm(channels, eps=1e-5, affine=True)


class _Unit(nn.Module):
    """Convolution, norm, and LeakyReLU where it is asked for."""

    def __init__(
        self,
        layers: _Layers,
        inputs: int,
        outputs: int,
        kernel: Sizes,
        stride: Sizes | None = None,
        *,
        bias: bool = True,
        activates: bool = True,
    ) -> None:
        super().__init__()
        self.conv = layers.convolution(
            inputs,
            outputs,
            tuple(kernel),
            tuple(stride or [1] * layers.dims),
            tuple(size // 2 for size in kernel),
            bias=bias,
        )
        self.norm = layers.norm(outputs)
        # nnU-Net's weights stand under these names, too.
        self.all_modules = nn.Sequential(self.conv, self.norm)
        self.activates = activates

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        normal = self.norm(self.conv(image))
        if not self.activates:
            return normal  # type: ignore[no-any-return]
        return functional.leaky_relu(normal, _SLOPE, inplace=True)


class _Units(nn.Module):
    """Units one after the other; the first one may shrink."""

    def __init__(
        self,
        layers: _Layers,
        channels: tuple[int, int],
        kernel: Sizes,
        count: int,
        stride: Sizes | None = None,
    ) -> None:
        super().__init__()
        inputs, outputs = channels
        first = _Unit(layers, inputs, outputs, kernel, stride)
        others = [
            _Unit(layers, outputs, outputs, kernel) for _ in range(count - 1)
        ]
        self.convs = nn.Sequential(first, *others)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.convs(image)  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Two convolutions beside a skip, which averages to shrink and mixes to change channels."""

    def __init__(
        self,
        layers: _Layers,
        channels: tuple[int, int],
        kernel: Sizes,
        stride: Sizes,
    ) -> None:
        super().__init__()
        inputs, outputs = channels
        self.conv1 = _Unit(layers, inputs, outputs, kernel, stride)
        self.conv2 = _Unit(layers, outputs, outputs, kernel, activates=False)
        skip: list[nn.Module] = []
        if any(step != 1 for step in stride):
            skip.append(layers.pooling(tuple(stride), tuple(stride)))
        if inputs != outputs:
            point = [1] * layers.dims
            projection = _Unit(
                layers, inputs, outputs, point, bias=False, activates=False
            )
            skip.append(projection)
        self.skip = nn.Sequential(*skip)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        added = self.conv2(self.conv1(image)) + self.skip(image)
        return functional.leaky_relu(added, _SLOPE, inplace=True)


class _Blocks(nn.Module):
    """Residual blocks one after the other; the first one may shrink."""

    def __init__(
        self,
        layers: _Layers,
        channels: tuple[int, int],
        kernel: Sizes,
        count: int,
        stride: Sizes,
    ) -> None:
        super().__init__()
        outputs = channels[1]
        unit_stride = [1] * layers.dims
        first = _Block(layers, channels, kernel, stride)
        others = [
            _Block(layers, (outputs, outputs), kernel, unit_stride)
            for _ in range(count - 1)
        ]
        self.blocks = nn.Sequential(first, *others)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.blocks(image)  # type: ignore[no-any-return]


class _Encoder(nn.Module):
    """The way down: returns what each level saw, from the top."""

    def __init__(
        self, layers: _Layers, network: StagedUNetSpec, channels: int
    ) -> None:
        super().__init__()
        features = network.level_channels
        kernels = network.level_kernels
        is_residual = network.kind == "resenc"
        inputs = channels
        if is_residual:
            stem = (channels, features[0])
            self.stem = _Units(layers, stem, kernels[0], 1)
            inputs = features[0]
        stages: list[nn.Module] = []
        for level, count in enumerate(network.level_blocks):
            sizes = (inputs, features[level])
            stride = network.level_strides[level]
            kernel = kernels[level]
            if is_residual:
                stages.append(_Blocks(layers, sizes, kernel, count, stride))
            else:
                units = _Units(layers, sizes, kernel, count, stride)
                stages.append(nn.Sequential(units))
            inputs = features[level]
        self.stages = nn.Sequential(*stages)
        self._has_stem = is_residual

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        if self._has_stem:
            image = self.stem(image)
        skips = []
        for stage in self.stages:
            image = stage(image)
            skips.append(image)
        return skips


class _Decoder(nn.Module):
    """The way up, from the lowest level; every level has an output of its own."""

    def __init__(
        self,
        layers: _Layers,
        network: StagedUNetSpec,
        encoder: _Encoder,
        classes: int,
    ) -> None:
        super().__init__()
        # nnU-Net's weights of the encoder stand under this name, too.
        self.encoder = encoder
        features = network.level_channels[::-1]
        strides = network.level_strides[::-1]
        kernels = network.level_kernels[::-1]
        stages, transposed, heads = [], [], []
        for step, count in enumerate(network.level_decoder_convolutions):
            below, here = features[step], features[step + 1]
            stride = strides[step]
            transposed.append(layers.upsampling(below, here, stride, stride))
            joined = (2 * here, here)
            stages.append(_Units(layers, joined, kernels[step + 1], count))
            heads.append(layers.convolution(here, classes, 1))
        self.stages = nn.ModuleList(stages)
        self.transpconvs = nn.ModuleList(transposed)
        self.seg_layers = nn.ModuleList(heads)

    def forward(self, skips: list[torch.Tensor]) -> torch.Tensor:
        logits: torch.Tensor = self.seg_layers[-1](self._rise(skips)[-1])
        return logits

    def score_levels(self, skips: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the logits of each level, from fine to coarse."""
        risen = self._rise(skips)
        logits = [
            head(features)
            for head, features in zip(self.seg_layers, risen, strict=True)
        ]
        return logits[::-1]

    def _rise(self, skips: list[torch.Tensor]) -> list[torch.Tensor]:
        image = skips[-1]
        risen = []
        for upsample, stage, skip in zip(
            self.transpconvs, self.stages, skips[-2::-1], strict=True
        ):
            joined = torch.cat((upsample(image), skip), dim=1)
            image = stage(joined)
            risen.append(image)
        return risen


def _initialise(network: StagedUNet) -> None:
    """Initialise as nnU-Net does: He's, biases at zero, and residual blocks that add nothing."""
    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    for layer in network.modules():
        if isinstance(layer, kinds):
            nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for block in network.modules():
        if isinstance(block, _Block):
            nn.init.zeros_(block.conv2.norm.get_parameter("weight"))
            nn.init.zeros_(block.conv2.norm.get_parameter("bias"))
