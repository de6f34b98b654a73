"""Models that nnU-Net trained become bundles that segment as nnU-Net does, and run nothing."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from safetensors.torch import load_file
from support import dicom
from support.bundles import Trap
from support.nnunet_models import (
    MODELS,
    copy_model,
    edit_checkpoint,
    edit_json,
    load_script,
    make_scans,
    number,
    overlap_records,
    program_of_call,
    program_of_tensor,
    read_expected,
    text,
    write_program,
)

from medseg import Segmenter, segment
from medseg.bundle.bundle import load_bundle
from medseg.bundle.safe_weights import load_bundle_weights
from medseg.commands.import_model import import_model
from medseg.errors import CheckpointError, MedsegError, OutputError
from medseg.networks.building import build_network, try_network
from medseg.training.fine_tuning import InitialWeights

TRAINER = "nnUNetTrainer_1epoch__nnUNetPlans"
NAMES = sorted(path.name for path in MODELS.iterdir())
KINDS = {"resenc_m": "resenc", "convolutions": "plainconv"}
"""Models whose network MONAI's DynUNet is not."""
HEADS = ("output_block.conv.conv.weight", "decoder.seg_layers.1.weight")
"""The weight of the finest level's output, in DynUNet and in nnU-Net's networks."""
GRIDS = ("coarser", "oblique", "small")
"""Scans to be resampled, turned, and smaller than a window."""


@pytest.mark.parametrize("name", NAMES)
def test_label_maps_are_those_of_nnunet(name: str, tmp_path: Path) -> None:
    imported = import_model(MODELS / name, tmp_path / "bundle")
    assert imported.spec.network.kind == KINDS.get(name, "unet")
    expected = read_expected(name, "expected")
    exact = read_expected(name, "exact")
    mirror = name == "two_folds"
    segmenter = Segmenter(tmp_path / "bundle", "cpu", mirror=mirror)
    differ = differ_from_exact = either = 0
    for grid, files in make_scans(name, tmp_path, GRIDS).items():
        labels = segmenter.segment(files).labels
        differ += int((labels != expected[grid]).sum())
        differ_from_exact += int((labels != exact[grid]).sum())
        either += int(((labels > 0) | (exact[grid] > 0)).sum())
    assert either > 4000
    # nnU-Net adds scores up in half precision, window by window in its order. Here none differs;
    # folds are averaged before, not after, and other processors round the network otherwise.
    assert differ / either <= (0.001 if name == "two_folds" else 0.0002)
    # That rounding moves some voxels by itself.
    assert differ_from_exact / either <= 0.002


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of a whole model of nnU-Net's, to be changed."""
    return copy_model("isotropic", tmp_path / "Dataset701_isotropic")


def test_where_a_bundle_comes_from_stands_in_it(
    model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    imported = import_model(model, out, licence="CC BY 4.0")
    bundle = load_bundle(out)
    origin = bundle.trained.origin
    assert origin is not None
    assert origin == imported.origin
    assert origin.model == "nnUNetTrainer_1epoch__nnUNetPlans__3d_fullres"
    assert origin.licence == bundle.spec.licence == "CC BY 4.0"
    assert set(origin.files) == {
        "plans.json",
        "dataset.json",
        "fold_0/checkpoint_final.pth",
    }
    card = (out / "docs" / "README.md").read_text()
    for digest in origin.files.values():
        assert digest in card
    assert origin.short_hash in str(bundle.spec.origin)
    assert bundle.decided.origin == bundle.spec.origin
    assert "CC BY 4.0" in card
    try_network(bundle.spec)


def test_weights_stand_as_safetensors_that_others_read(
    model: Path, tmp_path: Path
) -> None:
    import_model(model, tmp_path / "bundle")
    models = tmp_path / "bundle" / "models"
    safe = load_file(models / "model.safetensors")
    pickled = torch.load(models / "model.pt", weights_only=True)
    assert safe.keys() < pickled.keys()  # a tensor with two names stands once
    for name, value in safe.items():
        assert torch.equal(value, pickled[name])


def test_a_parent_folder_with_several_models_offers_a_choice(
    model: Path, tmp_path: Path
) -> None:
    other = model.with_name("nnUNetTrainer__nnUNetPlans__2d")
    shutil.copytree(model, other)
    parent = model.parent.parent
    with pytest.raises(MedsegError, match="2 trained models are here") as error:
        import_model(parent, tmp_path / "bundle")
    assert "nnUNetTrainer__nnUNetPlans__2d" in str(error.value)
    with pytest.raises(MedsegError, match="has the configuration '3d_x'"):
        import_model(parent, tmp_path / "bundle", configuration="3d_x")
    made = import_model(parent, tmp_path / "bundle", configuration="3d_fullres")
    assert made.members == 1
    with pytest.raises(MedsegError, match="no trained model"):
        import_model(tmp_path / "bundle" / "docs", tmp_path / "none")


def test_folds_are_chosen_and_become_an_ensemble(
    model: Path, tmp_path: Path
) -> None:
    for fold in ("1", "all"):
        shutil.copytree(model / "fold_0", model / f"fold_{fold}")
    shutil.copyfile(
        model / "fold_1" / "checkpoint_final.pth",
        model / "fold_1" / "checkpoint_best.pth",
    )
    assert import_model(model, tmp_path / "a").members == 2
    assert import_model(model, tmp_path / "b", folds="all").members == 1
    best = import_model(model, tmp_path / "c", checkpoint="best")
    assert load_bundle(tmp_path / "c").trained.members == ("model.pt",)
    assert "fold_1/checkpoint_best.pth" in best.origin.files
    with pytest.raises(MedsegError, match="here: 0, 1, all"):
        import_model(model, tmp_path / "d", folds="0,7")
    with pytest.raises(MedsegError, match="--checkpoint takes final, best"):
        import_model(model, tmp_path / "d", checkpoint="latest")
    with pytest.raises(OutputError, match="is not empty"):
        import_model(model, tmp_path / "a")


def test_a_trainer_of_someone_elses_is_said(
    model: Path, tmp_path: Path
) -> None:
    edit_checkpoint(model, lambda c: c.update(trainer_name="MyTrainer"))
    remarks = import_model(model, tmp_path / "a").remarks
    assert any("MyTrainer does not come with nnU-Net" in r for r in remarks)
    # What scrolls by stands in the model card, too.
    card = (tmp_path / "a" / "docs" / "README.md").read_text()
    assert "MyTrainer does not come with nnU-Net" in card
    edit_checkpoint(
        model,
        lambda c: c.update(
            trainer_name="nnUNetTrainer_4000epochs_NoMirroring",
            inference_allowed_mirroring_axes=None,
        ),
    )
    imported = import_model(model, tmp_path / "b")
    assert not imported.remarks
    assert not imported.spec.inference.mirror


def full(plans: dict[str, Any]) -> dict[str, Any]:
    configuration: dict[str, Any] = plans["configurations"]["3d_fullres"]
    return configuration


def arguments(plans: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = full(plans)["architecture"]["arch_kwargs"]
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda p: full(p).update(previous_stage="3d_lowres"),
            "second stage of a cascade.*after 3d_lowres",
        ),
        (
            lambda p: full(p)["architecture"].update(
                network_class_name="x.primus.Primus"
            ),
            "the network Primus",
        ),
        (
            lambda p: full(p).update(normalization_schemes=["MyScheme"]),
            "the normalisation MyScheme",
        ),
        (
            lambda p: full(p).update(
                resampling_fn_data="resample_torch_fornnunet"
            ),
            "the resampling resample_torch_fornnunet",
        ),
        (
            lambda p: p.update(image_reader_writer="Tiff3DIO"),
            "the reader Tiff3DIO",
        ),
        (
            lambda p: full(p).update(preprocessor_name="MyPreprocessor"),
            "the preprocessor MyPreprocessor",
        ),
        (
            lambda p: p.update(label_manager="MyLabels"),
            "the label manager MyLabels",
        ),
        (lambda p: arguments(p).update(nonlin="torch.nn.ReLU"), "ReLU"),
        (
            lambda p: arguments(p).update(nonlin_first=True),
            "the arguments nonlin_first",
        ),
        (
            lambda p: arguments(p).update(norm_op="torch.nn.GroupNorm"),
            "the normalisation GroupNorm",
        ),
    ],
)
def test_what_medseg_does_not_compute_is_named(
    model: Path, tmp_path: Path, change: Callable[[Any], Any], said: str
) -> None:
    edit_json(model / "plans.json", change)
    with pytest.raises(MedsegError, match=said):
        import_model(model, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


CHECKPOINT = Path("fold_0", "checkpoint_final.pth")


def change_bytes(
    change: Callable[[bytes], bytes], file: Path = CHECKPOINT
) -> Callable[[Path], None]:
    def forge(model: Path) -> None:
        content = (model / file).read_bytes()
        (model / file).write_bytes(change(content))

    return forge


def change_weights(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda model: edit_checkpoint(
        model, lambda content: change(content["network_weights"])
    )


def change_plans(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda model: edit_json(model / "plans.json", change)


def write_plans(content: str) -> Callable[[Path], None]:
    def forge(model: Path) -> None:
        (model / "plans.json").write_text(content)

    return forge


def program(*instructions: bytes) -> Callable[[Path], None]:
    return lambda model: write_program(model, *instructions)


def pack(model: Path) -> None:
    """Pack a gigabyte of zeros into the archive."""
    with zipfile.ZipFile(
        model / CHECKPOINT, "w", zipfile.ZIP_DEFLATED
    ) as archive:
        archive.writestr("c/data.pkl", b"\x80\x02}.")
        with archive.open("c/data/0", "w") as record:
            for _ in range(64):
                record.write(bytes(1 << 20))


def add_a_second_program(model: Path) -> None:
    """Add a program under a name that torch takes for the same, which differs in case."""
    with zipfile.ZipFile(model / CHECKPOINT, "a") as archive:
        folder = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{folder}/DATA.PKL", b"\x80\x02}.")


def flip_bit(content: bytes) -> bytes:
    """Change a bit within the largest record."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        record = max(archive.infolist(), key=lambda item: item.file_size)
    place = record.header_offset + record.file_size // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def nest(model: Path) -> None:
    """Put the checkpoint into an archive of its own."""
    content = (model / CHECKPOINT).read_bytes()
    with zipfile.ZipFile(model / CHECKPOINT, "w") as archive:
        archive.writestr("checkpoint_final.pth", content)


def link_to_device(model: Path) -> None:
    (model / CHECKPOINT).unlink()
    (model / CHECKPOINT).symlink_to("/dev/zero")


HEAD = "decoder.seg_layers.1.weight"
FORGED: dict[str, Callable[[Path], None]] = {
    "a call of os.system": program(
        program_of_call("posix", "system", text("touch canary"))
    ),
    "a terabyte by bytearray": program(
        program_of_call("builtins", "bytearray", number(1 << 40))
    ),
    "a terabyte by torch.Tensor": program(
        program_of_call("torch", "Tensor", number(1 << 40))
    ),
    "a name of several parts": program(
        program_of_call("torch", "os.system", text("touch canary"))
    ),
    "a storage larger than its record": program(
        program_of_tensor(1 << 40, 0, [1 << 40], [1])
    ),
    "a tensor larger than its storage": program(
        program_of_tensor(4, 0, [1 << 40], [1])
    ),
    "a tensor of one number a trillion times": program(
        program_of_tensor(4, 0, [1 << 40], [0])
    ),
    "negative strides": program(program_of_tensor(4, 3, [4], [-1])),
    "negative offsets": program(program_of_tensor(4, -2, [4], [1])),
    "a program without an end": program(b"}q\x00" * 9 + b"X\xff\xff\xff\xff"),
    "a list that holds itself": program(b"]q\x00h\x00a0"),
    "weights of another shape": change_weights(
        lambda w: w.update({HEAD: w[HEAD].transpose(0, 1)})
    ),
    "weights of integers": change_weights(
        lambda w: w.update({HEAD: w[HEAD].int()})
    ),
    "sparse weights": change_weights(
        lambda w: w.update({HEAD: w[HEAD].to_sparse()})
    ),
    "weights that are no numbers": change_weights(
        lambda w: w[HEAD].fill_(float("nan"))
    ),
    "a weight too few": change_weights(lambda w: w.pop(HEAD)),
    "a weight too many": change_weights(
        lambda w: w.update({"decoder.more": torch.ones(1)})
    ),
    "no weights": change_weights(lambda w: w.clear()),
    "axes that are not there": lambda model: edit_checkpoint(
        model, lambda c: c.update(inference_allowed_mirroring_axes=(0, 5))
    ),
    "no name of a configuration": lambda model: edit_checkpoint(
        model, lambda c: c.update(init_args={"configuration": 3})
    ),
    "another configuration": lambda model: edit_checkpoint(
        model, lambda c: c["init_args"].update(configuration="../../x")
    ),
    "records over each other": change_bytes(overlap_records),
    "packed records": pack,
    "a second program": add_a_second_program,
    "an archive in an archive": nest,
    "half a file": change_bytes(lambda content: content[: len(content) // 2]),
    "a changed byte": change_bytes(flip_bit),
    "text": change_bytes(lambda _: b"weights"),
    "nothing": change_bytes(lambda _: b""),
    "a link to a device": link_to_device,
    "plans with a trillion features": change_plans(
        lambda p: arguments(p).update(features_per_stage=[4, 8, 10**12])
    ),
    "plans with a million stages": change_plans(
        lambda p: arguments(p).update(strides=[1] * 10**6)
    ),
    "plans with a million blocks": change_plans(
        lambda p: arguments(p).update(n_conv_per_stage=[10**6] * 3)
    ),
    "plans for a patch of a trillion voxels": change_plans(
        lambda p: full(p).update(patch_size=[10**4] * 3)
    ),
    "plans for code": change_plans(
        lambda p: full(p)["architecture"].update(network_class_name="os.system")
    ),
    "plans that inherit in a circle": change_plans(
        lambda p: full(p).update(inherits_from="3d_fullres")
    ),
    "plans without end": write_plans('{"configurations": ' + "[" * 10**6),
    "plans with a field twice": write_plans(
        '{"configurations": {}, "configurations": {}}'
    ),
    "plans that are a list": write_plans("[]"),
    "plans that are a number": change_plans(
        lambda p: p.update(configurations=7)
    ),
    "a data set without labels": lambda model: edit_json(
        model / "dataset.json", lambda d: d.update(labels={})
    ),
    "a data set with code in its names": lambda model: edit_json(
        model / "dataset.json",
        lambda d: d.update(labels={"background": 0, "$import os\x1b": 1}),
    ),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_forged_models_run_nothing_and_end_in_one_clear_line(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forge: Callable[[Path], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    forge(model)
    with pytest.raises(MedsegError) as error:
        import_model(model, tmp_path / "bundle")
    assert "\n" not in error.value.message
    assert len(error.value.message) > 10
    assert str(tmp_path) not in error.value.message
    assert not (tmp_path / "bundle").exists()
    assert not (tmp_path / "canary").exists()


def test_code_in_a_checkpoint_is_not_run(model: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    edit_checkpoint(model, lambda c: c.update(logging=Trap(canary)))
    canary.unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="was not opened"):
        import_model(model, tmp_path / "bundle")
    assert not canary.exists()
    torch.load(model / CHECKPOINT, weights_only=False)
    assert canary.exists()  # the trap works where code does run


def test_older_plans_give_the_same_bundle(model: Path, tmp_path: Path) -> None:
    import_model(model, tmp_path / "new")
    load_script().write_old_plans(model)
    content = json.loads((model / "plans.json").read_text())
    assert "UNet_class_name" in full(content)
    import_model(model, tmp_path / "old")
    for name in ("models/model.safetensors", "configs/inference.json"):
        new, old = (tmp_path / form / name for form in ("new", "old"))
        assert new.read_bytes() == old.read_bytes()


def segment_small(bundle: Path, files: list[Path]) -> np.ndarray:
    labels: np.ndarray = (
        Segmenter(bundle, "cpu", mirror=False).segment(files).labels
    )
    return labels


def test_an_ignore_label_and_low_resolution_change_no_label_map(
    model: Path, tmp_path: Path
) -> None:
    import_model(model, tmp_path / "before")
    edit_json(model / "dataset.json", lambda d: d["labels"].update(ignore=3))
    edit_json(
        model / "plans.json",
        lambda p: p.update(configurations={"3d_lowres": full(p)}),
    )
    edit_checkpoint(
        model, lambda c: c["init_args"].update(configuration="3d_lowres")
    )
    low = model.rename(model.with_name(f"{TRAINER}__3d_lowres"))
    spec = import_model(low, tmp_path / "after").spec
    assert spec.data.ignore == 3
    assert [label.name for label in spec.labels] == ["organ", "lesion"]
    (files,) = make_scans("isotropic", tmp_path, ["small"]).values()
    before = segment_small(tmp_path / "before", files)
    assert before.any()
    assert np.array_equal(before, segment_small(tmp_path / "after", files))


def test_each_of_several_channels_is_seen_where_nnunet_sees_it(
    model: Path, tmp_path: Path
) -> None:
    import_model(model, tmp_path / "one")

    def add_channel(weights: dict[str, torch.Tensor]) -> None:
        # Of a channel that shows nothing it takes nothing.
        for name, value in weights.items():
            is_first = ".stages.0.0.convs.0." in name
            if (
                is_first
                and name.endswith("weight")
                and value.shape[1:2] == (1,)
            ):
                nothing = torch.zeros_like(value)
                weights[name] = torch.cat([nothing, value], dim=1)

    change_weights(add_channel)(model)
    edit_json(
        model / "dataset.json",
        lambda d: d.update(channel_names={"0": "PET", "1": "CT"}),
    )

    def plan_channel(plans: dict[str, Any]) -> None:
        known = plans["foreground_intensity_properties_per_channel"]
        known["1"] = known["0"]
        full(plans)["normalization_schemes"].insert(0, "ZScoreNormalization")
        full(plans)["use_mask_for_norm"].insert(0, False)

    edit_json(model / "plans.json", plan_channel)
    spec = import_model(model, tmp_path / "two").spec
    assert [channel.name for channel in spec.channels] == ["PET", "CT"]
    assert [each.kind for each in spec.intensities] == ["zscore", "window"]
    (files,) = make_scans("isotropic", tmp_path, ["small"]).values()
    noise = tmp_path / "noise.nii.gz"
    image = nib.load(files[0])
    voxels = np.random.RandomState(0).normal(0, 1, image.shape)
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), image.affine), noise)
    one = segment_small(tmp_path / "one", files)
    assert one.any()
    two = segment_small(tmp_path / "two", [noise, *files])
    assert (one != two).sum() <= 0.001 * (one > 0).sum()


def test_weights_without_biases_are_taken(model: Path, tmp_path: Path) -> None:
    def drop_biases(weights: dict[str, torch.Tensor]) -> None:
        for name in list(weights):
            is_transposed = ".transpconvs." in name and name.endswith("bias")
            is_bias = name.endswith((".conv.bias", ".all_modules.0.bias"))
            if is_bias or is_transposed:
                del weights[name]

    change_weights(drop_biases)(model)
    edit_json(
        model / "plans.json", lambda p: arguments(p).update(conv_bias=False)
    )
    import_model(model, tmp_path / "bundle")
    weights = load_file(tmp_path / "bundle" / "models" / "model.safetensors")
    added = [value for name, value in weights.items() if "transp" in name]
    assert any(not bool(np.any(value.numpy())) for value in added)


def test_the_ledger_and_dicom_seg_name_the_origin(
    model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("highdicom")
    bundle = tmp_path / "bundle"
    imported = import_model(model, bundle, licence="CC BY 4.0")
    script = load_script()
    kind = script.MODELS[0]
    (image,), _ = script.make_case(kind, 7, (40, 24, 14), np.eye(4))
    scans = dicom.save(tmp_path / "scans", dicom.series(image.astype(np.int16)))
    segment(
        bundle, scans, tmp_path / "out", device="cpu", mirror=False,
        report=False, formats=["dicom-seg"],
    )  # fmt: skip
    (line,) = (tmp_path / "out" / "ledger.jsonl").read_text().splitlines()
    origin = imported.spec.origin
    assert origin is not None
    assert json.loads(line)["origin"] == origin
    assert "licence CC BY 4.0" in origin
    assert imported.origin.short_hash in origin
    (file,) = (tmp_path / "out").glob("*.seg.dcm")
    segments = pydicom.dcmread(file).SegmentSequence
    assert len(segments) == 2
    for item in segments:
        (stated,) = item.SegmentationAlgorithmIdentificationSequence
        assert imported.spec.name in stated.AlgorithmName
        assert imported.spec.version in stated.AlgorithmVersion
        assert origin[:40] in stated.AlgorithmSource
        assert origin in stated.AlgorithmParameters


@pytest.mark.parametrize("name", ["isotropic", "resenc_m"])
def test_an_imported_model_is_a_parent_to_fine_tune_from(
    name: str, tmp_path: Path
) -> None:
    import_model(MODELS / name, tmp_path / "bundle")
    parent = load_bundle(tmp_path / "bundle")
    lesion = parent.spec.labels[1].model_copy(update={"index": 1})
    spec = parent.spec.model_copy(update={"labels": (lesion,)})
    network = build_network(spec)
    InitialWeights(spec, parent).load_into(network)
    before = load_bundle_weights(parent, parent.weights)
    after = network.state_dict()
    head = next(key for key in HEADS if key in after)
    assert torch.equal(after[head][1], before[head][2])  # the lesion's
    assert torch.equal(after[head][0], before[head][0])  # background
