"""The exported configs run by stock MONAI in this process: the same label maps, no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image
from support.bundles import (
    NESTED,
    content,
    made_spec,
    monai_parts,
    refined_bundle,
    run_stock,
    trained_bundle,
)
from support.scans import write_pictures, write_volumes

from medseg import export, segment
from medseg.bundle.bundle import load_bundle, parse_spec
from medseg.bundle.spec import BundleSpec, RefinementSpec
from medseg.events import Event, Notice
from medseg.interop.monai_bundle import write_monai_bundle
from medseg.interop.monai_bundle.departures import list_departures
from medseg.testing import write_dataset
from medseg.training.losses import build_loss

BUNDLES: dict[str, dict[str, Any]] = {
    "volume": {
        "preprocessing": {
            "spacing_mm": [3, 3, 4],
            "intensity": {"kind": "window", "low": -200, "high": 300},
            "crop_above": -500,
        },
        "inference": {"keep_largest": ["kidney"], "overlap": 0.25},
    },
    "components_on_input": {
        "preprocessing": {
            "spacing_mm": [2.9, 3.1, 3.7],
            "intensity": {"kind": "window", "low": -200, "high": 300},
        },
        "inference": {
            "resample": "labels",
            "keep_largest": ["kidney"],
            "keep_largest_on": "input",
        },
    },
    "own_grid": {"preprocessing": {"intensity": "minmax"}},
    "slices": {
        "preprocessing": {"spacing_mm": [3, None, None], "intensity": "zscore"},
        "network": {"dims": 2},
        "training": {"patch": [16, 16]},
    },
    "channels": {
        "channels": [{"name": "CT"}, {"name": "PT"}],
        "preprocessing": {
            "spacing_mm": [3, 3, 3],
            "intensity": [
                {"kind": "window", "low": -200, "high": 300},
                {"kind": "zscore", "clip_percentiles": [0.01, 0.99]},
            ],
        },
    },
    "stored_axes": {
        "preprocessing": {
            "axes": "kij",
            "spacing_mm": [4, 3, 2.5],
            "resampling": {"tolerance": 0.2},
            "normalise": "before_resampling",
            "crop_nonzero": True,
            "padding": "zero",
        },
        "training": {"patch": [8, 16, 24]},
        "inference": {"mirror": True, "mirror_axes": [0]},
    },
    "stored_slices": {
        "preprocessing": {"axes": "jki", "spacing_mm": [3, 3, None]},
        "network": {"dims": 2},
        "training": {"patch": [16, 16]},
    },
    "two_steps": {
        "channels": [{"name": "CT"}, {"name": "PT"}],
        "preprocessing": {
            "axes": "LPS",
            "intensity": [
                {
                    "kind": "sequence",
                    "steps": [
                        {"kind": "zscore"},
                        {"kind": "minmax", "to": [-1, 1]},
                        {"kind": "squash", "curve": "tanh", "scale": 3},
                    ],
                },
                {
                    "kind": "sequence",
                    "steps": [
                        {"kind": "window", "low": 0, "high": 9, "clip": False},
                        {"kind": "squash", "curve": "sigmoid"},
                    ],
                },
            ],
        },
        "inference": {"window_weights": "constant"},
    },
    "foreign_network": {
        "preprocessing": {
            "spacing_mm": [4, 4, 4],
            "intensity": {"kind": "zscore", "nonzero": True},
        },
        "network": {
            "kind": "SegResNet",
            "args": {
                "init_filters": 8,
                "blocks_down": [1, 2],
                "blocks_up": [1],
            },
        },
    },
    "pictures": {
        "preprocessing": {"input": "picture", "intensity": "zscore"},
        "network": {"dims": 2},
        "training": {"patch": [16, 16]},
        "inference": {"keep_largest": ["liver"]},
    },
    "regions": {
        **NESTED,
        "preprocessing": {
            "spacing_mm": [3, 3, 4],
            "intensity": {"kind": "window", "low": -200, "high": 300},
            "crop_above": -500,
        },
    },
    "interactive": {
        "preprocessing": {
            "spacing_mm": [3, 3, 3],
            "intensity": {"kind": "window", "low": -200, "high": 300},
        },
        "training": {"patch": [24, 16, 32], "clicks": {}},
        "inference": {"mirror": True, "mirror_axes": [0]},
    },
    "interactive_slices": {
        "preprocessing": {
            "spacing_mm": [3, 3, None],
            "intensity": {"kind": "window", "low": -200, "high": 300},
        },
        "network": {"dims": 2},
        "training": {"patch": [32, 16], "clicks": {}},
    },
    "interactive_pictures": {
        "preprocessing": {"input": "picture", "intensity": "zscore"},
        "network": {"dims": 2},
        "training": {"patch": [16, 16], "clicks": {}},
    },
    "region_pictures": {
        **NESTED,
        "preprocessing": {"input": "picture", "intensity": "zscore"},
        "network": {"dims": 2},
        "training": {"patch": [16, 16]},
    },
}


def spec_of(kind: str) -> BundleSpec:
    """Return the spec of one of ``BUNDLES``."""
    sections = dict(BUNDLES[kind])
    made = content(**sections)
    if "kind" in sections.get("network", {}):
        made["network"] = sections["network"]
    return parse_spec(made)


def is_of_pictures(kind: str) -> bool:
    """Tell whether one of ``BUNDLES`` segments pictures."""
    return BUNDLES[kind].get("preprocessing", {}).get("input") == "picture"


def read_map(file: Path) -> Any:
    """Return a label map's voxels."""
    if file.suffix == ".png":
        return np.asarray(Image.open(file))
    return np.asarray(nib.load(file).dataobj)


@pytest.mark.parametrize("kind", BUNDLES)
def test_stock_monai_gives_the_same_label_maps(
    kind: str, tmp_path: Path
) -> None:
    compare_with_stock(
        trained_bundle(tmp_path / "bundle", spec_of(kind), seed=1),
        kind,
        tmp_path,
    )


def test_what_stock_monai_does_otherwise_is_said(tmp_path: Path) -> None:
    as_nnunet = {
        "spacing_mm": [3, 3, 3],
        "intensity": {"kind": "zscore", "nonzero": "filled"},
        "resampling": {
            "interpolation": "cubic",
            "grid": "extent",
            "coarse_axis_ratio": 3,
        },
    }
    spec = made_spec(
        preprocessing=as_nnunet,
        inference={"window_steps": "even", "window_weights": "nnunet"},
    )
    notices: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Notice):
            notices.append(event.message)

    bundle = trained_bundle(tmp_path / "bundle", spec)
    out = tmp_path / "out"
    export(bundle, out, to="monai", listeners=[listen])
    metadata = json.loads((out / "configs" / "metadata.json").read_text())
    said = [notice.split(": ")[1] for notice in notices]
    subjects = ["grid", "interpolation", "coarse axis", "normalisation"]
    assert said == [*subjects, "windows", "scores"]
    assert len(metadata["departures"]) == 6
    write_volumes(tmp_path / "scans", 1)
    run_stock(
        out,
        "inference.json",
        dataset_dir=str(tmp_path / "scans"),
        output_dir=str(tmp_path / "stock"),
    )
    assert len(list((tmp_path / "stock").iterdir())) == 3
    # And what is the same is not called different.
    for kind in BUNDLES:
        assert not list_departures(spec_of(kind))


@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize(
    "kind", ["volume", "slices", "channels", "foreign_network", "pictures"]
)
def test_a_refined_bundle_is_the_same_in_stock_monai(
    kind: str, applied: bool, tmp_path: Path
) -> None:
    spec = spec_of(kind).model_copy(
        update={"refinement": RefinementSpec(adversarial_weight=0)}
    )
    bundle = refined_bundle(tmp_path / "bundle", spec, applied=applied, seed=1)
    compare_with_stock(bundle, kind, tmp_path)


def compare_with_stock(bundle: Path, kind: str, tmp_path: Path) -> None:
    """Segment scans by stock MONAI and by medseg, and compare the maps voxel for voxel."""
    spec = load_bundle(bundle).spec
    scans = tmp_path / "scans"
    if is_of_pictures(kind):
        write_pictures(scans)
    else:
        write_volumes(scans, len(spec.channels))
    run_stock(
        bundle,
        "inference.json",
        dataset_dir=str(scans),
        output_dir=str(tmp_path / "stock"),
    )
    batch = segment(bundle, scans, tmp_path / "own", device="cpu")
    assert not batch.failed, batch.failed
    ending = "png" if is_of_pictures(kind) else "nii.gz"
    names = {
        file.name.split(".")[0].removesuffix("_0000").removesuffix("_0001")
        for file in scans.iterdir()
    }
    assert len(names) == (6 if is_of_pictures(kind) else 3)
    seen: set[int] = set()
    for name in sorted(names):
        file = tmp_path / "own" / f"{name}.{ending}"
        given = f"{name}_0000" if len(spec.channels) > 1 else name
        stock = tmp_path / "stock" / f"{given}_seg.{ending}"
        own_map, stock_map = read_map(file), read_map(stock)
        assert own_map.shape == stock_map.shape
        assert int((own_map != stock_map).sum()) == 0
        if ending == "nii.gz":
            assert np.allclose(
                nib.load(file).affine, nib.load(stock).affine, atol=1e-4
            )
        seen |= set(np.unique(own_map).tolist())
    assert len(seen) >= 2  # a map of one value would prove nothing


@pytest.mark.parametrize("weights", [None, {"kidney": 4, "background": 0.5}])
@pytest.mark.parametrize("ignore", [None, 9])
def test_stock_monai_minimises_the_same_loss(
    ignore: int | None, weights: dict[str, float] | None, tmp_path: Path
) -> None:
    spec = made_spec(
        data={"ignore": ignore}, training={"class_weights": weights}
    )
    bundle = trained_bundle(tmp_path / "bundle", spec)
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "train.json")
    parser["device"] = "$torch.device('cpu')"
    stock = parser.get_parsed_content("loss")
    own = build_loss(spec)
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, 8)
    label = torch.randint(0, 4 if ignore else 3, (2, 1, 8, 8, 8))
    assert float(stock(logits, label.float())) == pytest.approx(
        float(own([logits], label))
    )


@pytest.mark.parametrize("weights", [None, {"whole": 0.5, "enhancing": 4}])
@pytest.mark.parametrize("ignore", [None, 9])
def test_stock_monai_minimises_the_same_loss_of_regions(
    ignore: int | None, weights: dict[str, float] | None, tmp_path: Path
) -> None:
    spec = made_spec(
        **NESTED, data={"ignore": ignore}, training={"class_weights": weights}
    )
    bundle = trained_bundle(tmp_path / "bundle", spec)
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "train.json")
    parser["device"] = "$torch.device('cpu')"
    stock = parser.get_parsed_content("loss")
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, 8)
    label = torch.randint(0, 5 if ignore else 4, (2, 1, 8, 8, 8))
    channels = [
        torch.isin(label, torch.tensor(held))
        for held in ([1, 2, 3], [2, 3], [3])
    ]
    channels += [label != 4] if ignore else []
    masks = torch.cat(channels, dim=1).float()
    wanted = float(build_loss(spec)([logits], label))
    assert float(stock(logits, masks)) == pytest.approx(wanted)


def leave_out_a_half(data: Path) -> None:
    """Mark the upper half of every label map as annotated by nobody: 9."""
    for file in (data / "labelsTr").iterdir():
        label = nib.load(file)
        array = np.array(label.dataobj)
        array[..., array.shape[2] // 2 :] = 9
        nib.save(nib.Nifti1Image(array, label.affine), file)


REGIONS = {
    "regions": [
        {"name": "organs", "labels": ["liver", "kidney"]},
        {"name": "kidney", "labels": ["kidney"]},
    ]
}


@pytest.mark.parametrize(
    "more",
    [{}, {"data": {"ignore": 9}}, REGIONS, {"data": {"ignore": 9}, **REGIONS}],
    ids=["plain", "ignore", "regions", "regions_ignore"],
)
def test_stock_monai_trains_the_bundle(
    more: dict[str, Any], tmp_path: Path
) -> None:
    data = write_dataset(tmp_path / "data", 2)
    if "data" in more:
        leave_out_a_half(data)
    spec = made_spec(
        preprocessing={"spacing_mm": [8, 8, 8], "intensity": "minmax"}, **more
    )
    bundle = trained_bundle(tmp_path / "bundle", spec)
    before = (bundle / "models" / "model.pt").read_bytes()
    parser = run_stock(
        bundle,
        "train.json",
        dataset_dir=str(data),
        epochs=1,
        device="$torch.device('cpu')",
    )
    trainer = parser.get_parsed_content("train::trainer")
    assert trainer.state.epoch == 1
    assert np.isfinite(trainer.state.output[0]["loss"])
    assert (bundle / "models" / "model.pt").read_bytes() != before
    assert not segment(
        bundle, data / "imagesTr", tmp_path / "out", device="cpu"
    ).failed


@pytest.mark.parametrize("kind", BUNDLES)
def test_the_train_config_gives_batches_of_the_bundles_shape(
    kind: str, tmp_path: Path
) -> None:
    spec = spec_of(kind)
    write_monai_bundle(tmp_path, spec, monai_parts(spec), {})
    parser = ConfigParser()
    parser.read_config(tmp_path / "configs" / "train.json")
    assert type(parser.get_parsed_content("network_def")).__name__ in (
        "DynUNet",
        "SegResNet",
    )
    scans = tmp_path / "scans"
    if is_of_pictures(kind):
        write_pictures(scans)
        image = label = str(scans / "grey.png")
    else:
        write_volumes(scans, len(spec.channels))
        count = len(spec.channels)
        image: Any = [
            str(scans / f"plain_{n:04d}.nii.gz") for n in range(count)
        ]
        image = image if count > 1 else str(scans / "plain.nii.gz")
        label = image[0] if count > 1 else image
    parser["files"] = [{"image": image, "label": label}]
    item = parser.get_parsed_content("train::preprocessing")(
        parser["files"][0]
    )[0]
    patch = tuple(spec.training.patch)
    assert tuple(item["image"].shape) == (
        spec.input_channels,
        *patch,
    )
    assert tuple(item["label"].shape) == (len(spec.regions) or 1, *patch)


@pytest.mark.parametrize("kind", BUNDLES)
def test_the_metadata_have_every_field_stock_monai_asks_for(
    kind: str, tmp_path: Path
) -> None:
    spec = spec_of(kind)
    write_monai_bundle(
        tmp_path, spec, monai_parts(spec), {"dice": {"mean": 0.5}}
    )
    made = json.loads((tmp_path / "configs" / "metadata.json").read_text())
    # The fields that MONAI's bundle specification calls mandatory.
    assert {
        "version", "monai_version", "pytorch_version", "numpy_version",
        "required_packages_version", "task", "description", "authors", "copyright",
        "network_data_format",
    } <= made.keys()  # fmt: skip
    for ends in ("inputs", "outputs"):
        for tensor in made["network_data_format"][ends].values():
            assert {
                "type", "format", "modality", "num_channels", "spatial_shape", "dtype",
                "value_range", "is_patch_data", "channel_def",
            } <= tensor.keys()  # fmt: skip
            assert len(tensor["channel_def"]) == tensor["num_channels"]


def test_a_loss_that_monai_does_not_know_has_no_train_config_and_the_metadata_say_so(
    tmp_path: Path,
) -> None:
    spec = made_spec(training={"loss": "tversky"})
    bundle = trained_bundle(tmp_path / "bundle", spec)
    assert sorted(file.name for file in (bundle / "configs").iterdir()) == [
        "inference.json",
        "metadata.json",
    ]
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert "loss tversky is not one of MONAI's" in metadata["training"]
    plain = trained_bundle(tmp_path / "plain", made_spec())
    assert "training" not in json.loads(
        (plain / "configs" / "metadata.json").read_text()
    )
