"""Networks are built by name, tried on the patch, and refused with a clear message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.bundles import made_spec
from support.networks import foreign

from medseg.bundle.spec import BundleSpec, RefinementSpec
from medseg.bundle.weights import load_weights
from medseg.errors import BundleError, MissingExtraError
from medseg.networks.building import (
    build_for_shapes,
    build_network,
    select_inference_weights,
    try_network,
)
from medseg.networks.definition import define_network
from medseg.networks.levels import SupervisedNetwork
from medseg.training.run_folder import RunFolder


@pytest.mark.parametrize(
    "options", [{}, {"residual": True, "norm": "batch", "dropout": 0.2}]
)
def test_weights_of_a_supervised_network_load_into_the_one_for_inference(
    options: dict[str, Any], tmp_path: Path
) -> None:
    spec = made_spec(
        network={"channels": [4, 8, 8, 8], "strides": [1, 2, 2, 2], **options}
    )
    torch.manual_seed(3)
    trained = build_network(spec)
    # Batch norms have statistics to carry.
    trained.train()(torch.randn(2, 1, 16, 16, 16))
    folder = RunFolder(tmp_path)
    folder.save_weights(select_inference_weights(trained, spec))
    network = build_network(spec, supervised=False)
    network.load_state_dict(load_weights(folder.weights))
    assert len(network.state_dict()) < len(trained.state_dict())
    patch = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(network.eval()(patch), trained.eval()(patch))


@pytest.mark.parametrize(
    "spec",
    [
        foreign("UNet", 3, 16, channels=[4, 8], strides=[2]),
        foreign("UNet", 2, 16, channels=[4, 8], strides=[2], norm=["GROUP", {"num_groups": 2}]),
        foreign("BasicUNet", 2, 32, features=[4, 4, 4, 4, 4, 4]),
        foreign("BasicUNetPlusPlus", 3, 32, features=[4, 4, 4, 4, 4, 4]),
        foreign("SegResNet", 3, 16, init_filters=8),
        foreign("SegResNetDS", 3, 32, init_filters=8, dsdepth=2),
        foreign("AttentionUnet", 2, 16, channels=[4, 8], strides=[2]),
        foreign("VNet", 3, 32),
        foreign("UNETR", 3, 32, img_size=[32, 32, 32], feature_size=4, hidden_size=24,
                mlp_dim=24, num_heads=2),
        foreign("SwinUNETR", 2, 64, feature_size=12, depths=[1, 1, 1, 1]),
        foreign("MedNeXt", 3, 32, init_filters=4, kernel_size=3),
        foreign("FlexibleUNet", 2, 64, backbone="resnet10"),
        foreign("DynUNet", 3, 16, kernel_size=[3, 3, 3], strides=[1, 2, 2],
                upsample_kernel_size=[2, 2], filters=[4, 4, 8], deep_supervision=True),
    ],
    ids=lambda spec: f"{spec.network.kind}-{spec.network.dims}",
)  # fmt: skip
def test_monais_networks_are_there_by_name(spec: BundleSpec) -> None:
    try_network(spec)
    torch.manual_seed(0)
    network = build_network(spec).train()
    image = torch.randn(2, 1, *spec.training.patch)
    levels = SupervisedNetwork(network)(image)
    assert tuple(levels[0].shape) == (2, 3, *spec.training.patch)
    assert all(level.shape[:2] == (2, 3) for level in levels)
    definition = define_network(spec)
    assert definition["_target_"] == f"monai.networks.nets.{spec.network.kind}"
    # Their shapes are known, too, where a class computes with values while it is built.
    wanted = {name: each.shape for name, each in network.state_dict().items()}
    shapes = build_for_shapes(spec, supervised=True).state_dict()
    assert {name: each.shape for name, each in shapes.items()} == wanted
    # All weights are wanted for inference, as the class itself does not change.
    assert (
        select_inference_weights(network, spec).keys()
        == network.state_dict().keys()
    )


@pytest.mark.parametrize(
    ("kind", "args", "words"),
    [
        ("Unet3000", {}, "'Unet3000' is not a network"),
        ("UNet", {}, "missing 2 required positional arguments"),
        (
            "UNet",
            {"channels": [4, 8], "strides": [2], "spam": 1},
            "UNet has no such argument",
        ),
        (
            "UNet",
            {"channels": [4, 8], "strides": [2], "self": 1},
            "no such argument",
        ),
        (
            "UNet",
            {"channels": [4, 8], "strides": [2], "out_channels": 5},
            "leave it out",
        ),
        (
            "UNet",
            {"channels": [4, 8], "strides": [2], "spatial_dims": 2},
            "leave it out",
        ),
        ("UNet", {"channels": [4, 8], "strides": [2], "norm": "spam"}, "SPAM"),
        ("UNet", {"channels": "4", "strides": [2]}, "UNet says"),
        ("DenseNet121", {"kwargs": {}}, "no such argument"),
        (
            "DenseNet121",
            {"block_config": [1, 1]},
            "does not return a label for every voxel",
        ),
        (
            "SegResNetVAE",
            {"input_image_size": [16, 16, 16]},
            "does not return a label",
        ),
        ("SegResNet", {"upsample_mode": "spam"}, "SegResNet says"),
        ("SwinUNETR", {"feature_size": 12}, "training.patch: [16, 16, 16]"),
    ],
)
def test_what_does_not_fit_is_said_clearly(
    kind: str, args: dict[str, Any], words: str
) -> None:
    with pytest.raises(BundleError) as caught:
        try_network(foreign(kind, patch=16, **args))
    assert words in str(caught.value)
    assert all(
        len(str(fault).splitlines()) == 1 for fault in caught.value.faults
    )


def test_a_network_that_answers_in_lists_is_refused_where_one_answer_is_needed() -> (
    None
):
    listed = foreign("BasicUNetPlusPlus", 3, 32, features=[4, 4, 4, 4, 4, 4])
    try_network(
        listed.model_copy(update={"refinement": RefinementSpec(kind="joint")})
    )
    with pytest.raises(BundleError, match="BasicUNetPlusPlus returns a list"):
        try_network(listed.model_copy(update={"refinement": RefinementSpec()}))
    several = foreign(
        "BasicUNetPlusPlus", 3, 32, features=[4] * 6, deep_supervision=True
    )
    with pytest.raises(BundleError, match="4 outputs"):
        try_network(several)


def test_a_network_whose_package_is_missing_names_it() -> None:
    pytest.importorskip("monai")
    try:
        import torchvision  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match="pip install torchvision"):
            build_network(foreign("TorchVisionFCModel"))


def test_trying_a_network_leaves_the_random_state_and_takes_no_memory() -> None:
    spec = made_spec(
        network={"channels": [320, 320, 320]},
        training={"patch": [512, 512, 512]},
    )
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    try_network(spec)  # its activations alone would take 170 GB
    assert torch.equal(torch.random.get_rng_state(), before)
