"""MONAI Bundles and Auto3DSeg models become bundles that segment as MONAI does, and run nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from support.bundles import Trap
from support.monai_models import edit_config, load_script

from medseg import Segmenter
from medseg.bundle.bundle import load_bundle
from medseg.commands.import_model import import_model
from medseg.errors import BundleError, MedsegError
from medseg.events import Notice
from medseg.interop.monai_config.bundle import read_monai_bundle

ZOO = load_script("monai_models")
AUTO = load_script("auto3dseg_models")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a bundle of a form once."""
    made: dict[str, Path] = {}

    def make(form: str) -> Path:
        if form not in made:
            folder = tmp_path_factory.mktemp(form) / f"{form}_segmentation"
            made[form] = ZOO.write_bundle(form, folder)
        return made[form]

    return make


@pytest.fixture
def spleen(bundles: Callable[[str], Path], tmp_path: Path) -> Path:
    """A bundle of the form of spleen_ct_segmentation, to be changed."""
    return Path(shutil.copytree(bundles("spleen"), tmp_path / "spleen_ct"))


@pytest.fixture(scope="module")
def autos(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a file of Auto3DSeg's of a form once."""
    made: dict[str, Path] = {}

    def make(form: str) -> Path:
        if form not in made:
            folder = tmp_path_factory.mktemp(form) / "segresnet_0" / "model"
            made[form] = AUTO.write_model(form, folder, steps=2)
        return made[form]

    return make


EXPECTED: dict[str, dict[str, Any]] = {
    "spleen": {
        "axes": "RAS",
        "spacing_mm": (1.5, 1.5, 2.0),
        "padding": "zero",
        "intensity": {
            "kind": "window",
            "low": -57.0,
            "high": 164.0,
            "mean": -57.0,
            "std": 221.0,
            "clip": True,
        },
        "resampling": {"tolerance": 0.0},
    },
    "pediatric": {"crop_above": 0.0, "crop_on": "input"},
    "prostate": {
        "intensity": {
            "kind": "sequence",
            "steps": (
                {"kind": "minmax", "to": (0.0, 1.0)},
                {"kind": "zscore", "nonzero": False},
            ),
        },
    },
    "whole_body": {
        "spacing_mm": (1.5, 1.5, 1.5),
        "padding": "replicate",
        "intensity": {
            "kind": "sequence",
            "steps": (
                {"kind": "zscore", "nonzero": True},
                {"kind": "minmax", "to": (-1.0, 1.0)},
            ),
        },
    },
    "ventricle": {"axes": "ijk", "intensity": {"kind": "minmax", "to": (0, 1)}},
    "brats": {"axes": "ijk", "intensity": {"kind": "zscore", "nonzero": True}},
}


@pytest.mark.parametrize("form", EXPECTED)
def test_chains_of_the_zoo_become_the_fields_that_say_the_same(
    bundles: Callable[[str], Path], form: str
) -> None:
    model = read_monai_bundle(bundles(form))
    said = model.content["preprocessing"]
    assert {name: said[name] for name in EXPECTED[form]} == EXPECTED[form]
    inference = model.content["inference"]
    how = {"whole_body": "labels", "prostate": "labels"}
    still = ("ventricle", "brats")
    wanted = "logits" if form in still else how.get(form, "probabilities")
    assert inference["resample"] == wanted
    gaussian = form == "whole_body"
    weights = "gaussian" if gaussian else "constant"
    assert inference["window_weights"] == weights
    if form == "prostate":
        assert inference["keep_largest"] == ("organ 1", "organ 2")
    wanted = "input" if form == "prostate" else "scan"
    assert inference["keep_largest_on"] == wanted
    assert model.licence == "Apache-2.0"
    assert model.version == "0.2.1"


def test_overlapping_channels_become_regions_in_the_order_they_are_painted(
    bundles: Callable[[str], Path], tmp_path: Path
) -> None:
    spec = import_model(bundles("brats"), tmp_path / "out").spec
    assert [region.name for region in spec.regions] == [
        "Whole tumor",
        "Tumor core",
        "Enhancing tumor",
    ]
    values = {label.name: label.file_values for label in spec.labels}
    assert values == {
        "rest of Tumor core": (1,),
        "rest of Whole tumor": (2,),
        "Enhancing tumor": (4,),
    }
    names = [channel.name for channel in spec.channels]
    assert names == ["T1c", "T1", "T2", "FLAIR"]
    assert {channel.modality for channel in spec.channels} == {"MR"}


def run_stock(bundle: Path, scans: Path, out: Path) -> None:
    """Run a MONAI Bundle as ``python -m monai.bundle run`` does."""
    from monai.bundle import run

    run(
        config_file=str(bundle / "configs" / "inference.json"),
        bundle_root=str(bundle),
        dataset_dir=str(scans),
        output_dir=str(out),
    )


@pytest.mark.parametrize("form", ["brats", "pediatric", "prostate"])
def test_label_maps_are_those_of_stock_monai(
    bundles: Callable[[str], Path], form: str, tmp_path: Path
) -> None:
    bundle = bundles(form)
    channels = 4 if form == "brats" else 1
    scans = ZOO.write_scans(tmp_path / "scans", channels, ("oblique", "small"))
    run_stock(bundle, tmp_path / "scans", tmp_path / "stock")
    spec = import_model(bundle, tmp_path / "imported").spec
    values = np.array([0, *(label.file_values[0] for label in spec.labels)])
    segmenter = Segmenter(tmp_path / "imported", "cpu")
    for grid, files in scans.items():
        own = values[segmenter.segment(files).labels]
        name = files[0].name.replace(".nii.gz", "_trans.nii.gz")
        stock = nib.load(tmp_path / "stock" / name).get_fdata()
        either = (own > 0) | (stock > 0)
        assert len(np.unique(own)) == len(values), grid
        assert (own != stock).sum() <= 0.0005 * either.sum(), grid


@pytest.mark.parametrize("form", ["ct", "pet_ct"])
def test_label_maps_are_those_of_auto3dsegs_template(
    autos: Callable[[str], Path], form: str, tmp_path: Path
) -> None:
    file = autos(form)
    import_model(file, tmp_path / "imported")
    segmenter = Segmenter(tmp_path / "imported", "cpu")
    grids = ("within_tolerance", "oblique", "small")
    for grid, files in AUTO.write_scans(form, tmp_path, grids).items():
        own = segmenter.segment(files).labels
        theirs = AUTO.infer(file, files)
        either = (own > 0) | (theirs > 0)
        assert either.sum() > 500, grid
        assert (own != theirs).sum() <= 0.0005 * either.sum(), grid


def test_sigmoid_channels_of_auto3dseg_become_regions(
    autos: Callable[[str], Path], tmp_path: Path
) -> None:
    file = autos("regions")
    spec = import_model(file, tmp_path / "imported").spec
    regions = [region.name for region in spec.regions]
    assert regions == ["whole", "core", "enhancing"]
    scans = AUTO.write_scans("regions", tmp_path, ("small",))
    own = Segmenter(tmp_path / "imported", "cpu").segment(scans["small"]).labels
    theirs = AUTO.infer(file, scans["small"])
    painted = np.zeros(own.shape, int)
    for channel, value in ((1, 2), (0, 1), (2, 3)):
        painted[theirs[channel]] = value
    assert (own != painted).sum() <= 0.0005 * (painted > 0).sum()


def test_what_an_auto3dseg_model_says_stands_in_the_bundle(
    autos: Callable[[str], Path], tmp_path: Path
) -> None:
    told: list[Any] = []
    folder = autos("ct").parents[2]  # above segresnet_0
    imported = import_model(
        folder, tmp_path / "a", licence="CC BY 4.0", listeners=[told.append]
    )
    spec, origin = imported.spec, imported.origin
    assert any(
        isinstance(event, Notice)
        and "found: Auto3DSeg model segresnet_0" in event.message
        for event in told
    )
    assert [label.name for label in spec.labels] == ["liver", "spleen"]
    assert spec.preprocessing.resampling.tolerance == 0.25
    assert spec.preprocessing.crop_margin == 10
    assert spec.inference.overlap == 0.625
    assert spec.network.kind == "SegResNetDS"
    assert origin.software == "MONAI Auto3DSeg"
    assert origin.licence == spec.licence == "CC BY 4.0"
    digest = origin.files["model.pt"]
    assert digest in (tmp_path / "a" / "docs" / "README.md").read_text()


def test_where_a_monai_bundle_comes_from_stands_in_it(
    spleen: Path, tmp_path: Path
) -> None:
    origin = import_model(spleen, tmp_path / "out").origin
    assert origin.software == "MONAI 1.4.0"
    assert origin.model == "spleen_ct 0.2.1"
    assert origin.licence == "Apache-2.0"
    assert set(origin.files) == {
        "configs/inference.json",
        "configs/metadata.json",
        "models/model.pt",
    }
    bundle = load_bundle(tmp_path / "out")
    assert bundle.spec.version == "0.2.1"
    assert bundle.trained.origin == origin
    with pytest.raises(MedsegError, match="is a bundle of medseg's already"):
        import_model(tmp_path / "out", tmp_path / "again")


@pytest.mark.skipif(os.name == "nt", reason="there, too long a name is none")
def test_a_place_where_nobody_may_look_is_refused(tmp_path: Path) -> None:
    """A name that is too long stands for a folder that may not be read, which root always may."""
    closed = tmp_path / ("x" * 3000)
    with pytest.raises(MedsegError, match="cannot be read: "):
        import_model(closed, tmp_path / "out")
    with pytest.raises(BundleError, match="cannot be read: "):
        load_bundle(closed)


def test_yaml_and_nested_weights_are_read(spleen: Path, tmp_path: Path) -> None:
    import yaml

    file = spleen / "configs" / "inference.json"
    content = json.loads(file.read_text())
    file.with_suffix(".yaml").write_text(yaml.safe_dump(content))
    file.unlink()
    weights = spleen / "models" / "model.pt"
    state = torch.load(weights)
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save({"model": wrapped, "epoch": 3}, weights)
    spec = import_model(spleen, tmp_path / "out").spec
    assert spec.network.kind == "UNet"


def test_what_is_no_model_is_told_what_one_is(
    spleen: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "spleen.zip"
    archive.write_bytes(b"PK")
    with pytest.raises(MedsegError, match="unpack archives first"):
        import_model(archive, tmp_path / "out")
    for weights, said in (
        (spleen / "models" / "model.pt", "of nnU-Net give the results folder"),
        (spleen / "models", "no trained model was found here"),
    ):
        with pytest.raises(MedsegError, match=said):
            import_model(weights, tmp_path / "out")


def test_options_of_nnunet_are_refused_for_others(
    spleen: Path, tmp_path: Path
) -> None:
    with pytest.raises(MedsegError, match="--folds and --checkpoint choose"):
        import_model(spleen, tmp_path / "out", folds="0", checkpoint="best")


def transforms(config: dict[str, Any]) -> list[Any]:
    found: list[Any] = config["preprocessing"]["transforms"]
    return found


def posts(config: dict[str, Any]) -> list[Any]:
    found: list[Any] = config["postprocessing"]["transforms"]
    return found


UNKNOWN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a transform": (
        lambda c: transforms(c).insert(3, ZOO.step("GaussianSmoothd")),
        "preprocessing::transforms::3: GaussianSmooth",
    ),
    "another's transform": (
        lambda c: transforms(c).append(ZOO.step("scripts.mine.Stretchd")),
        "preprocessing::transforms::5::_target_: scripts.mine.Stretchd",
    ),
    "a function": (
        lambda c: transforms(c).append(
            ZOO.step("Lambdad", func="$lambda x: x * 2")
        ),
        "preprocessing::transforms::5::func",
    ),
    "an argument": (
        lambda c: transforms(c)[3].update(diagonal=True),
        "preprocessing::transforms::3::diagonal",
    ),
    "an expression": (
        lambda c: transforms(c)[3].update(pixdim="$[1.5] * 3"),
        r"preprocessing::transforms::3::pixdim: Spacing: the expression \$\[1.5\]",
    ),
    "a network": (
        lambda c: c.update(network="$@network_def.half()"),
        "network: ",
    ),
    "a network of others": (
        lambda c: c["network_def"].update(_target_="scripts.nets.Net"),
        "network_def::_target_",
    ),
    "an inferer": (
        lambda c: c["inferer"].update(_target_="SaliencyInferer"),
        "inferer: SaliencyInferer",
    ),
    "whole scans": (
        lambda c: c.update(inferer={"_target_": "SimpleInferer"}),
        "inferer: SimpleInferer: sees a whole scan at once",
    ),
    "windows of a padded scan": (
        lambda c: transforms(c).append(ZOO.step("DivisiblePadd", k=16)),
        "preprocessing::transforms::5::k: DivisiblePad: makes each scan a multiple",
    ),
    "a window's padding": (
        lambda c: c["inferer"].update(padding_mode="reflect"),
        "inferer::padding_mode",
    ),
    "postprocessing": (
        lambda c: posts(c).insert(1, ZOO.post("FillHolesd")),
        "postprocessing::transforms::1: FillHoles",
    ),
    "no labels": (lambda c: posts(c).pop(2), "no AsDiscreted"),
    "another threshold": (
        lambda c: posts(c).__setitem__(
            2, ZOO.post("AsDiscreted", threshold=0.7)
        ),
        "a threshold of 0.5",
    ),
    "an evaluator": (
        lambda c: c["evaluator"].update(_target_="EnsembleEvaluator"),
        "evaluator: EnsembleEvaluator",
    ),
    "a change on the way": (
        lambda c: c["evaluator"].update(prepare_batch="$scripts.prepare"),
        "evaluator::prepare_batch",
    ),
    "a handler of its own": (
        lambda c: c["handlers"].append({"_target_": "scripts.Handler"}),
        "handlers::1::_target_: scripts.Handler",
    ),
    "a call before the run": (
        lambda c: c.update(
            sharpen={"_target_": "scripts.Sharpen"},
            initialize=["$@sharpen(@evaluator)"],
        ),
        "initialize::0",
    ),
    "a change before the run": (
        lambda c: c["initialize"].append("$@network.eval().half()"),
        "initialize::1",
    ),
    "an object that is made before the run": (
        lambda c: c["initialize"].append({"_target_": "scripts.patch"}),
        "initialize::1: the expression scripts.patch",
    ),
    "a switch": (
        lambda c: transforms(c)[3].update(_disabled_="$not scripts.is_fast()"),
        "preprocessing::transforms::3::_disabled_",
    ),
    "a margin that is padded": (
        lambda c: transforms(c).insert(
            2, ZOO.step("CropForegroundd", source_key="image", margin=4)
        ),
        "preprocessing::transforms::2::allow_smaller",
    ),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_is_not_known_is_refused_with_its_place(
    spleen: Path, tmp_path: Path, what: str
) -> None:
    change, place = UNKNOWN[what]
    edit_config(spleen, change)
    with pytest.raises(MedsegError) as error:
        import_model(spleen, tmp_path / "out")
    assert "does not know and does not run" in error.value.message
    assert error.match(place)
    assert not (tmp_path / "out").exists()


def test_switches_of_the_config_leave_transforms_out(
    spleen: Path,
) -> None:
    blur = ZOO.step("GaussianSmoothd", _disabled_="$not @with_blur")
    edit_config(
        spleen,
        lambda c: (c.update(with_blur=False), transforms(c).insert(3, blur)),
    )
    read_monai_bundle(spleen)
    edit_config(spleen, lambda c: c.update(with_blur=True))
    with pytest.raises(MedsegError, match="GaussianSmooth"):
        read_monai_bundle(spleen)


def test_of_which_labels_the_largest_piece_is_kept(
    bundles: Callable[[str], Path], tmp_path: Path
) -> None:
    for number, (steps, kept) in enumerate(
        (
            ([[]], ()),
            ([None], ("organ 1", "organ 2")),
            ([[2], [1]], ("organ 1", "organ 2")),
        )
    ):
        bundle = tmp_path / f"prostate_{number}"
        shutil.copytree(bundles("prostate"), bundle)
        keep = [
            ZOO.post("KeepLargestConnectedComponentd", applied_labels=named)
            for named in steps
        ]

        def replace_steps(
            config: dict[str, Any], keep: list[Any] = keep
        ) -> None:
            others = [
                step
                for step in posts(config)
                if not step["_target_"].startswith("KeepLargest")
            ]
            posts(config)[:] = [*others, *keep]

        edit_config(bundle, replace_steps)
        inference = read_monai_bundle(bundle).content["inference"]
        assert inference["keep_largest"] == kept


def test_components_are_looked_for_on_one_grid(
    bundles: Callable[[str], Path], tmp_path: Path
) -> None:
    bundle = tmp_path / "prostate"
    shutil.copytree(bundles("prostate"), bundle)
    keep = ZOO.post("KeepLargestConnectedComponentd", applied_labels=[1])
    edit_config(bundle, lambda c: posts(c).insert(3, keep))
    with pytest.raises(MedsegError, match="before Invertd or behind it"):
        read_monai_bundle(bundle)
    edit_config(bundle, lambda c: posts(c).pop(1))
    inference = read_monai_bundle(bundle).content["inference"]
    assert inference["keep_largest_on"] == "scan"


def select(function: str) -> dict[str, Any]:
    return dict(ZOO.step("Lambdad", func=function))


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("$lambda x: x[1:2]", "ADC"),
        ("$lambda x: x[[1]]", "ADC"),
        ("$lambda x: x[:1, ...]", "T2"),
        ("$lambda img: img[0, :, :, :]", "T2"),
    ],
)
def test_of_several_channels_those_are_taken_that_a_bundle_selects(
    spleen: Path, function: str, name: str
) -> None:
    edit_config(spleen, lambda c: transforms(c).insert(2, select(function)))
    told = spleen / "configs" / "metadata.json"
    metadata = json.loads(told.read_text())
    image = metadata["network_data_format"]["inputs"]["image"]
    image["channel_def"] = {"0": "T2", "1": "ADC"}
    told.write_text(json.dumps(metadata))
    model = read_monai_bundle(spleen)
    assert [each["name"] for each in model.content["channels"]] == [name]
    assert "give these alone" in model.remarks[0]


@pytest.mark.parametrize(
    ("position", "function", "says"),
    [
        (5, "$lambda x: x[:1]", "before all that looks at intensities"),
        (2, "$lambda x: x[:2]", "selects 2 channels of which"),
        (2, "$lambda x: x[-1:]", "the function"),
        (2, "$lambda x: x[:, 0]", "the function"),
        (2, "$lambda x: x[True]", "the function"),
        (2, "$lambda x: x[:1000000000]", "the function"),
        (2, "$lambda x: y[:1]", "the function"),
    ],
)
def test_other_selections_are_refused(
    spleen: Path, position: int, function: str, says: str
) -> None:
    edit_config(
        spleen, lambda c: transforms(c).insert(position, select(function))
    )
    with pytest.raises(MedsegError, match=says):
        read_monai_bundle(spleen)


def test_label_maps_of_a_selected_channel_are_those_of_stock_monai(
    spleen: Path, tmp_path: Path
) -> None:
    selection = select("$lambda x: x[1:2]")
    edit_config(spleen, lambda c: transforms(c).insert(2, selection))
    first, second = ZOO.write_scans(tmp_path / "one", 2, ("small",))["small"]
    channels = [nib.load(file).get_fdata() for file in (first, second)]
    both = np.stack([channels[1], channels[0]], axis=-1).astype(np.int16)
    (tmp_path / "both").mkdir()
    nib.save(
        nib.Nifti1Image(both, nib.load(first).affine),
        tmp_path / "both" / "small.nii.gz",
    )
    run_stock(spleen, tmp_path / "both", tmp_path / "stock")
    import_model(spleen, tmp_path / "imported")
    own = Segmenter(tmp_path / "imported", "cpu").segment(first).labels
    stock = nib.load(tmp_path / "stock" / "small_trans.nii.gz").get_fdata()
    assert own.any()
    assert np.array_equal(own, stock)


def test_weights_are_not_guessed_among_several(
    spleen: Path, tmp_path: Path
) -> None:
    edit_config(
        spleen,
        lambda c: (
            c["handlers"][0].update(load_path="$scripts.find_best()"),
            c["initialize"].append({"_target_": "set_determinism", "seed": 1}),
        ),
    )
    read_monai_bundle(spleen)
    weights = spleen / "models" / "model.pt"
    shutil.copyfile(weights, weights.with_name("best.pt"))
    with pytest.raises(MedsegError, match="load_path"):
        read_monai_bundle(spleen)


def test_files_of_odd_names_are_recorded_in_plain_text(
    autos: Callable[[str], Path], tmp_path: Path
) -> None:
    file = tmp_path / "liver\x1b[31m.pt"
    shutil.copyfile(autos("ct"), file)
    origin = import_model(file, tmp_path / "out").origin
    assert list(origin.files) == ["liver[31m.pt"]


CODE = "__import__('os').system('touch canary')"
FORGED: dict[str, Callable[[Path], Any]] = {
    "os.system as a transform": lambda b: edit_config(
        b,
        lambda c: transforms(c).append(
            {"_target_": "os.system", "command": "touch canary"}
        ),
    ),
    "os.system as the network": lambda b: edit_config(
        b,
        lambda c: c.update(
            network_def={"_target_": "os.system", "command": "touch canary"}
        ),
    ),
    "code as a voxel size": lambda b: edit_config(
        b, lambda c: transforms(c)[3].update(pixdim=f"${CODE}")
    ),
    "code as a network": lambda b: edit_config(
        b, lambda c: c.update(network_def=f"${CODE}")
    ),
    "code to be run": lambda b: edit_config(
        b, lambda c: c.update(initialize=[f"${CODE}"])
    ),
    "code that moves a network": lambda b: edit_config(
        b, lambda c: c.update(network=f"$@network_def.to({CODE})")
    ),
    "a called mode": lambda b: edit_config(
        b, lambda c: c["network_def"].update(_mode_="debug")
    ),
    "a module of MONAI's that runs commands": lambda b: edit_config(
        b,
        lambda c: transforms(c).append(
            {"_target_": "monai.utils.misc.run_cmd", "cmd_list": ["touch"]}
        ),
    ),
    "references in a circle": lambda b: edit_config(
        b,
        lambda c: c.update(
            inferer="@postprocessing", postprocessing="@inferer"
        ),
    ),
    "a reference into itself": lambda b: edit_config(
        b,
        lambda c: c.update(initialize=["$@h(@evaluator)"], h="@h::x"),
    ),
    "an entry that holds itself": lambda b: edit_config(
        b,
        lambda c: c.update(
            network_def={"_target_": "UNet", "x": "@network_def"}
        ),
    ),
    "references that double": lambda b: edit_config(
        b,
        lambda c: c.update(
            network_def="@a0",
            **{f"a{n}": [f"@a{n + 1}"] * 2 for n in range(40)},
            a40=1,
        ),
    ),
    "a network of a billion blocks": lambda b: edit_config(
        b, lambda c: c["network_def"].update(num_res_units=10**9)
    ),
    "a network of a billion channels": lambda b: edit_config(
        b, lambda c: c["network_def"].update(channels=[8, 10**9, 10**9])
    ),
    "a window of a trillion voxels": lambda b: edit_config(
        b, lambda c: c["inferer"].update(roi_size=[10**6] * 3)
    ),
    "weights elsewhere": lambda b: edit_config(
        b,
        lambda c: c["handlers"][0].update(load_path="models/../../secret.pt"),
    ),
    "weights by an absolute path": lambda b: edit_config(
        b, lambda c: c["handlers"][0].update(load_path="/dev/zero")
    ),
    "a tag in YAML": lambda b: (
        (b / "configs" / "inference.json").unlink(),
        (b / "configs" / "inference.yaml").write_text(
            "network_def: !!python/object/apply:os.system ['touch canary']"
        ),
    ),
    "a circle in YAML": lambda b: (
        (b / "configs" / "inference.json").unlink(),
        (b / "configs" / "inference.yaml").write_text("network_def: &a [*a]"),
    ),
    "text where a mapping should be": lambda b: edit_config(
        b, lambda c: c.update(inferer="text", evaluator="@inferer")
    ),
    "mappings where numbers should be": lambda b: edit_config(
        b,
        lambda c: (
            c["network_def"].update(channels={"a": [{}]}),
            transforms(c)[3].update(pixdim={"a": 1}),
        ),
    ),
    "lists where numbers should be": lambda b: edit_config(
        b,
        lambda c: (
            c["inferer"].update(overlap=[[0.5], {}]),
            posts(c)[2].update(argmax=[[True]]),
        ),
    ),
    "metadata that is a list": lambda b: (
        b / "configs" / "metadata.json"
    ).write_text("[]"),
    "a pickled command": lambda b: torch.save(
        {"x": Trap(Path("canary"))}, b / "models" / "model.pt"
    ),
    "weights of other shapes": lambda b: torch.save(
        {
            name: value.new_zeros(3)
            for name, value in torch.load(b / "models" / "model.pt").items()
        },
        b / "models" / "model.pt",
    ),
    "weights that are no numbers": lambda b: torch.save(
        {
            name: value * torch.nan
            for name, value in torch.load(b / "models" / "model.pt").items()
        },
        b / "models" / "model.pt",
    ),
    "no weights": lambda b: (b / "models" / "model.pt").unlink(),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_forged_bundles_run_nothing_and_say_in_a_line_what_is_wrong(
    spleen: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forgery: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    FORGED[forgery](spleen)
    with pytest.raises(MedsegError) as error:
        import_model(spleen, tmp_path / "out")
    assert "\n" not in error.value.message
    assert not list(tmp_path.rglob("canary"))
    assert not (tmp_path / "out").exists()


def change_config(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda content: change(content["config"])


def hold_itself(config: dict[str, Any]) -> None:
    config["class_names"] = [config]


def double(config: dict[str, Any]) -> None:
    value: list[Any] = [1]
    for _ in range(60):
        value = [value, value]
    config["class_names"] = value


FORGED_AUTO: dict[str, Callable[[Any], Any]] = {
    "a pickled command": lambda c: c.update(x=Trap(Path("canary"))),
    "os.system as the network": change_config(
        lambda c: c.update(network={"_target_": "os.system", "command": "ls"})
    ),
    "code as a number of channels": change_config(
        lambda c: c["network"].update(init_filters=f"${CODE}")
    ),
    "transforms of its own": change_config(
        lambda c: c.update(
            custom_data_transforms=[{"key": "x", "path": ".", "transform": {}}]
        )
    ),
    "an unknown normalisation": change_config(
        lambda c: c.update(normalize_mode="mine")
    ),
    "a config that holds itself": change_config(hold_itself),
    "a config that doubles": change_config(double),
    "a network of a billion blocks": change_config(
        lambda c: c["network"].update(blocks_down=[1, 10**9])
    ),
    "no window": change_config(lambda c: c.pop("roi_size")),
    "a window of no voxels": change_config(
        lambda c: c.update(roi_size=[0] * 3)
    ),
    "channels that nothing prepares": change_config(
        lambda c: c.update(extra_modalities={"image2": "ct"})
    ),
    "no config": lambda c: c.pop("config"),
    "weights that are a list": lambda c: c.update(state_dict=[1]),
    "a weight of a type of its own": lambda c: c["state_dict"].update(x=1),
    "a weight too many": lambda c: c["state_dict"].update(x=torch.zeros(1)),
}


@pytest.mark.parametrize("forgery", FORGED_AUTO)
def test_forged_auto3dseg_models_run_nothing_and_say_what_is_wrong(
    autos: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forgery: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    content = torch.load(autos("ct"), weights_only=False)
    FORGED_AUTO[forgery](content)
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(MedsegError) as error:
        import_model(tmp_path / "model.pt", tmp_path / "out")
    assert "\n" not in error.value.message
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "out").exists()
