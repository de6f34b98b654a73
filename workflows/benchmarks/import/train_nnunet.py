"""Train tiny models by nnU-Net itself and keep what its own prediction makes of test scans.

    PEER/bin/python workflows/benchmarks/import/train_nnunet.py WORK [--only NAME ...] [--data DATA]
        [--keep] [--freeze FOLDER]

Runs in nnU-Net's own environment (``pip install nnunetv2``), never in medseg's. For each model of
``MODELS`` it makes up scans (or takes a data set of ``DATA``), plans with nnU-Net's planner, makes
the plan tiny, trains some steps with nnU-Net's trainer and segments test scans with nnU-Net's
predictor. In ``WORK/NAME``: ``results`` (the results folder as nnU-Net leaves it), ``scans``,
``expected`` (nnU-Net's label maps), ``exact`` (the same with its scores added up in float32, not in
its float16, whose rounding moves some voxels) and ``seconds.json``. ``nnunet.py`` compares medseg
with both. ``--keep`` segments again with the models that are there.
``--freeze`` keeps what medseg's tests need of models of made-up scans: no scan, as they are made
again, and of most checkpoints no state of the optimiser.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import json
import multiprocessing
import multiprocessing.pool
import os
import shutil
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

STEPS = 150
"""Steps of training: enough that labels are found, as phantoms are easy."""
FEW_STEPS = 30
"""Steps on real data, whose patches are larger."""
WHOLE = ("isotropic",)
"""Models whose checkpoints are frozen as nnU-Net wrote them."""
CASES = 4
LEAST_SHARE = 0.02
"""Share of a scan's voxels that each label gets at least, by shifting the last bias."""


@dataclass(frozen=True)
class Model:
    """A tiny model: what it learns from, and how its plan differs from nnU-Net's own.

    Attributes:
        name: Of its folder.
        spacing: Of the training scans in mm, along x, y, z.
        shape: Of the training scans.
        channels: Names of the channels as ``dataset.json`` has them.
        labels: The ``labels`` of ``dataset.json``; values may be regions.
        configuration: nnU-Net's.
        trainer: nnU-Net's.
        planner: nnU-Net's.
        reader: nnU-Net's reader, if not its default.
        folds: Trained, and predicted with.
        mirror: Whether predictions average over flips.
        skull_stripped: Whether scans are zero outside the body.
        features: Channels of each level.
        patch: In nnU-Net's order of axes; nnU-Net's own if empty.
        edit: Changes the configuration in the plans.
        add: Adds configurations to the plans.
        finish: Changes the results folder after training.
        data: Folder of a real data set under ``--data``, whose first cases are used.
        checkpoint: File of a fold's weights.
        steps: Of training. Of real data, whose patches are larger, ``FEW_STEPS``.
    """

    name: str
    spacing: tuple[float, float, float] = (1.5, 1.5, 1.5)
    shape: tuple[int, int, int] = (44, 40, 36)
    channels: tuple[str, ...] = ("CT",)
    labels: dict[str, Any] = field(
        default_factory=lambda: {"background": 0, "organ": 1, "lesion": 2}
    )
    configuration: str = "3d_fullres"
    trainer: str = "nnUNetTrainer_1epoch"
    planner: str = "ExperimentPlanner"
    reader: str = ""
    folds: tuple[int, ...] = (0,)
    mirror: bool = False
    skull_stripped: bool = False
    features: tuple[int, ...] = (4, 8, 8)
    patch: tuple[int, ...] = (24, 24, 24)
    edit: Callable[[dict[str, Any]], None] | None = None
    add: Callable[[dict[str, Any]], None] | None = None
    finish: Callable[[Path], None] | None = None
    data: str = ""
    checkpoint: str = "checkpoint_final.pth"
    steps: int = STEPS


def halve_resolution(plans: dict[str, Any]) -> None:
    """Add the low resolution that nnU-Net plans for large scans, and the stage after it."""
    configurations = plans["configurations"]
    low = copy.deepcopy(configurations["3d_fullres"])
    low["data_identifier"] = "nnUNetPlans_3d_lowres"
    low["spacing"] = [1.7 * size for size in low["spacing"]]
    low["batch_dice"] = False
    low["next_stage"] = "3d_cascade_fullres"
    configurations["3d_lowres"] = low
    configurations["3d_cascade_fullres"] = {
        "inherits_from": "3d_fullres",
        "previous_stage": "3d_lowres",
    }


def few_convolutions(configuration: dict[str, Any]) -> None:
    """Give the levels one, three and two convolutions."""
    arguments = configuration["architecture"]["arch_kwargs"]
    arguments["n_conv_per_stage"] = [1, 3, 2]
    arguments["n_conv_per_stage_decoder"] = [1, 3]


def write_old_plans(folder: Path) -> None:
    """Rewrite the plans in the form that nnU-Net wrote before 2.4."""
    file = folder / "plans.json"
    plans = json.loads(file.read_text())
    for configuration in plans["configurations"].values():
        if "architecture" not in configuration:
            continue
        arguments = configuration.pop("architecture")["arch_kwargs"]
        features = arguments["features_per_stage"]
        configuration |= {
            "UNet_class_name": "PlainConvUNet",
            "UNet_base_num_features": features[0],
            "unet_max_num_features": features[-1],
            "n_conv_per_stage_encoder": arguments["n_conv_per_stage"],
            "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
            "num_pool_per_axis": [2, 2, 2],
            "pool_op_kernel_sizes": arguments["strides"],
            "conv_kernel_sizes": arguments["kernel_sizes"],
        }
    file.write_text(json.dumps(plans, indent=2))


REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}
IGNORE = {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}

MODELS = (
    Model("isotropic"),
    Model(
        "anisotropic",
        spacing=(1.0, 1.0, 3.4),
        shape=(44, 48, 16),
        channels=("T1",),
        patch=(8, 32, 32),
        labels={"background": 0, "organ": 1, "lesion": 2, "rest": 3},
    ),
    Model(
        "two_dimensional",
        spacing=(1.2, 1.2, 4.0),
        shape=(48, 44, 12),
        channels=("T2",),
        configuration="2d",
        patch=(32, 32),
    ),
    Model("resenc_m", planner="nnUNetPlannerResEncM"),
    Model(
        "batch_norm",
        trainer="nnUNetTrainerBN",
        channels=("T1",),
        skull_stripped=True,
    ),
    Model("regions", labels=REGIONS, channels=("FLAIR",)),
    Model("ignore", labels=IGNORE),
    Model("two_folds", folds=(0, 1), mirror=True),
    Model(
        "coarse_y",
        spacing=(1.0, 3.2, 1.0),
        shape=(44, 16, 48),
        channels=("T1",),
        patch=(8, 32, 32),
    ),
    Model("old_plans", features=(4, 8, 16), finish=write_old_plans),
    Model("convolutions", edit=few_convolutions),
    Model("reoriented", reader="NibabelIOWithReorient"),
    Model(
        "hippocampus",
        data="hippocampus",
        channels=("MRI",),
        labels={"background": 0, "Anterior": 1, "Posterior": 2},
        features=(8, 16, 32),
        patch=(40, 56, 40),
        steps=FEW_STEPS,
    ),
    Model(
        "three_channels",
        data="sts_ct_mr_pet",
        channels=("CT", "MR", "PET"),
        labels={"background": 0, "tumour": 1},
        features=(8, 16, 16),
        patch=(24, 48, 48),
        steps=FEW_STEPS,
    ),
    Model(
        "hippocampus_resenc",
        planner="nnUNetPlannerResEncM",
        data="hippocampus",
        channels=("MRI",),
        labels={"background": 0, "Anterior": 1, "Posterior": 2},
        features=(8, 16, 32),
        patch=(40, 56, 40),
        steps=FEW_STEPS,
    ),
    Model(
        "low_resolution",
        configuration="3d_lowres",
        add=halve_resolution,
    ),
    Model(
        "resenc_l",
        planner="nnUNetPlannerResEncL",
        features=(4, 8, 8, 8),
        patch=(32, 32, 32),
    ),
    Model(
        "resenc_xl",
        planner="nnUNetPlannerResEncXL",
        features=(4, 8, 8, 8),
        patch=(32, 32, 32),
    ),
)


def make_case(
    model: Model,
    seed: int,
    shape: Sequence[int],
    affine: np.ndarray,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the channels and the label map of a made-up scan: a body with an organ and a lesion.

    Args:
        model: Says which labels there are.
        seed: Moves the shapes.
        shape: Along x, y, z.
        affine: Its voxel sizes scale the shapes.
    """
    # Unlike newer generators, this one never changes its numbers.
    generator = np.random.RandomState(seed)
    grids = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    shift = generator.uniform(-0.12, 0.12, 3)
    ways = [g - s for g, s in zip(grids, shift, strict=True)]
    body = sum(g**2 for g in grids) < 0.95
    organ = _ellipsoid(ways, (0.62, 0.5, 0.6))
    lesion = _ellipsoid(ways, (0.3, 0.26, 0.33))
    labels = np.zeros(shape, np.uint8)
    labels[organ], labels[lesion] = 1, 2
    if "rest" in model.labels:
        labels[body & (labels == 0) & (grids[0] > 0)] = 3
    images = []
    for channel, name in enumerate(model.channels):
        image = _paint(name, channel, body, organ, lesion)
        if "rest" in model.labels:
            image[labels == 3] += 60
        image += generator.normal(0, 12, shape)
        if model.skull_stripped:
            image[~body] = 0
        images.append(image.astype(np.float32))
    if "ignore" in model.labels:
        labels[:, :, : shape[2] // 5] = 3
    return images, labels


def _ellipsoid(
    ways: Sequence[np.ndarray], radii: Sequence[float]
) -> np.ndarray:
    """Return the mask of an ellipsoid about the origin of these ways."""
    squares = [(w / r) ** 2 for w, r in zip(ways, radii, strict=True)]
    return np.sum(squares, axis=0) < 1


def _paint(
    name: str,
    channel: int,
    body: np.ndarray,
    organ: np.ndarray,
    lesion: np.ndarray,
) -> np.ndarray:
    air = -1000.0 if name == "CT" else 4.0
    image = np.full(body.shape, air)
    image[body] = 20.0 + 80 * (name != "CT")
    image[organ] += 90.0 + 20 * channel
    image[lesion] += 90.0
    return image


def make_affine(spacing: Sequence[float], degrees: float = 0.0) -> np.ndarray:
    """Return an affine, turned about two axes."""
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ about_x @ about_z @ np.diag(spacing)
    affine[:3, 3] = (30, -20, 10)
    return affine


def list_test_grids(
    model: Model,
) -> dict[str, tuple[tuple[int, int, int], np.ndarray]]:
    """Return the grids of the test scans by name."""
    x, y, z = model.shape
    sx, sy, sz = model.spacing
    small = (max(x // 3, 8), max(y // 3, 8), max(z // 3, 6))
    return {
        "same": (model.shape, make_affine(model.spacing)),
        "finer": (
            (int(x * 1.3), int(y * 1.2), int(z * 1.4)),
            make_affine((sx * 0.8, sy * 0.85, sz * 0.7)),
        ),
        "coarser": (
            (int(x * 0.8), int(y * 0.7), int(z * 0.75)),
            make_affine((sx * 1.3, sy * 1.4, sz * 1.3)),
        ),
        "oblique": (model.shape, make_affine((sx, sy * 1.1, sz), 17)),
        "small": (small, make_affine(model.spacing)),
    }


def save(array: np.ndarray, affine: np.ndarray, file: Path) -> None:
    """Write NIfTI whose two affines agree."""
    image = nibabel.Nifti1Image(array, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nibabel.save(image, file)


def write_raw_data(model: Model, raw: Path, scans: Path, data: Path) -> None:
    """Write the training cases as nnU-Net wants them, and the test scans."""
    for folder in (raw / "imagesTr", raw / "labelsTr", scans):
        folder.mkdir(parents=True)
    if model.data:
        _copy_real_data(model, raw, scans, data)
    else:
        _make_up_data(model, raw, scans)
    description: dict[str, Any] = {
        "channel_names": {str(n): c for n, c in enumerate(model.channels)},
        "labels": model.labels,
        "numTraining": CASES,
        "file_ending": ".nii.gz",
    }
    if any(isinstance(value, list) for value in model.labels.values()):
        description["regions_class_order"] = [1, 2]
    if model.reader:
        description["overwrite_image_reader_writer"] = model.reader
    (raw / "dataset.json").write_text(json.dumps(description, indent=2))


def _make_up_data(model: Model, raw: Path, scans: Path) -> None:
    affine = make_affine(model.spacing)
    for number in range(CASES):
        images, labels = make_case(model, number, model.shape, affine)
        save(labels, affine, raw / "labelsTr" / f"case_{number}.nii.gz")
        for channel, image in enumerate(images):
            name = f"case_{number}_{channel:04d}.nii.gz"
            save(image, affine, raw / "imagesTr" / name)
    for number, (name, grid) in enumerate(list_test_grids(model).items()):
        images, _ = make_case(model, 100 + number, *grid)
        for channel, image in enumerate(images):
            save(image, grid[1], scans / f"{name}_{channel:04d}.nii.gz")


def _copy_real_data(model: Model, raw: Path, scans: Path, data: Path) -> None:
    """Take the first cases to learn from and the next to segment."""
    list_cases = _list_real_cases
    if model.data == "sts_ct_mr_pet":
        list_cases = _bring_onto_ct
    cases = list_cases(data / model.data, len(model.channels))
    for number, (images, label) in enumerate(cases[: CASES + 3]):
        is_test = number >= CASES
        folder = scans if is_test else raw / "imagesTr"
        for channel, image in enumerate(images):
            name = f"case_{number}_{channel:04d}.nii.gz"
            shutil.copyfile(image, folder / name)
        if not is_test:
            target = raw / "labelsTr" / f"case_{number}.nii.gz"
            shutil.copyfile(label, target)


def _bring_onto_ct(
    folder: Path, channels: int
) -> list[tuple[list[Path], Path]]:
    """Resample MR and PET onto the grid of CT, as nnU-Net wants its channels."""
    import SimpleITK

    made = Path(tempfile.mkdtemp(prefix="sts-"))
    cases = []
    for case in sorted((folder / "nifti").iterdir()):
        ct = SimpleITK.ReadImage(str(case / "CT_image.nii.gz"))
        images = [case / "CT_image.nii.gz"]
        for name in ("MR_T1", "PET")[: channels - 1]:
            image = SimpleITK.ReadImage(str(case / f"{name}_image.nii.gz"))
            moved = SimpleITK.Resample(image, ct, defaultPixelValue=0.0)
            images.append(made / f"{case.name}_{name}.nii.gz")
            SimpleITK.WriteImage(moved, str(images[-1]))
        cases.append((images, case / "CT_mask.nii.gz"))
    return cases


def _list_real_cases(
    folder: Path, channels: int
) -> list[tuple[list[Path], Path]]:
    cases = []
    for label in sorted((folder / "labelsTr").glob("[!.]*.nii.gz")):
        stem = label.name.removesuffix(".nii.gz")
        images = [folder / "imagesTr" / label.name]
        if channels > 1 or not images[0].is_file():
            names = [f"{stem}_{n:04d}.nii.gz" for n in range(channels)]
            images = [folder / "imagesTr" / name for name in names]
        cases.append((images, label))
    return cases


def plan(model: Model, number: int) -> tuple[str, str]:
    """Plan with nnU-Net's planner and make the plan tiny; return data set and plans by name."""
    import nnunetv2
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
    )
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
    from nnunetv2.utilities.dataset_name_id_conversion import (
        convert_id_to_dataset_name,
    )
    from nnunetv2.utilities.find_class_by_name import (
        recursive_find_python_class,
    )

    extract_fingerprint_dataset(number, num_processes=1, verbose=False)
    planner = recursive_find_python_class(
        str(Path(nnunetv2.__path__[0]) / "experiment_planning"),
        model.planner,
        current_module="nnunetv2.experiment_planning",
    )
    _, identifier = plan_experiment_dataset(number, planner)
    dataset = convert_id_to_dataset_name(number)
    folder = Path(str(nnUNet_preprocessed)) / dataset
    file = folder / f"{identifier}.json"
    plans = json.loads(file.read_text())
    if model.add is not None:
        model.add(plans)
    _make_tiny(model, plans["configurations"][model.configuration])
    file.write_text(json.dumps(plans, indent=2))
    halves = [
        {
            "train": [f"case_{n}" for n in range(CASES) if n % 2 != fold],
            "val": [f"case_{n}" for n in range(CASES) if n % 2 == fold],
        }
        for fold in (0, 1)
    ]
    (folder / "splits_final.json").write_text(json.dumps(halves))
    raw = Path(str(nnUNet_raw)) / dataset / "dataset.json"
    shutil.copyfile(raw, folder / "dataset.json")
    return dataset, identifier


def _make_tiny(model: Model, configuration: dict[str, Any]) -> None:
    levels = len(model.features)
    arguments = configuration["architecture"]["arch_kwargs"]
    arguments["n_stages"] = levels
    arguments["features_per_stage"] = list(model.features)
    for name in ("kernel_sizes", "strides"):
        arguments[name] = arguments[name][:levels]
    for name in ("n_conv_per_stage", "n_blocks_per_stage"):
        if name in arguments:
            arguments[name] = arguments[name][:levels]
    decoder = arguments["n_conv_per_stage_decoder"]
    arguments["n_conv_per_stage_decoder"] = decoder[: levels - 1]
    configuration["batch_size"] = 2
    configuration["patch_size"] = list(model.patch)
    if model.edit is not None:
        model.edit(configuration)


def train(model: Model, dataset: str, identifier: str) -> Path:
    """Preprocess and train with nnU-Net's own code; return the results folder."""
    import torch
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
    from nnunetv2.run.run_training import get_trainer_from_args
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    torch.manual_seed(0)
    np.random.seed(0)
    folder = Path(str(nnUNet_preprocessed)) / dataset
    raw = Path(str(nnUNet_raw)) / dataset
    manager = PlansManager(str(folder / f"{identifier}.json"))
    configuration = manager.get_configuration(model.configuration)
    target = folder / configuration.data_identifier
    target.mkdir(exist_ok=True)
    preprocessor = configuration.preprocessor_class(verbose=False)
    for label in sorted((raw / "labelsTr").iterdir()):
        stem = label.name.removesuffix(".nii.gz")
        images = sorted((raw / "imagesTr").glob(f"{stem}_*.nii.gz"))
        preprocessor.run_case_save(
            str(target / stem),
            [str(image) for image in images],
            str(label),
            manager,
            configuration,
            str(folder / "dataset.json"),
        )
    # The planner needs at least one; the trainer then augments in its own process.
    os.environ |= {"nnUNet_n_proc_DA": "0"}
    for fold in model.folds:
        trainer = get_trainer_from_args(
            dataset,
            model.configuration,
            fold,
            model.trainer,
            identifier,
            device=torch.device("cpu"),
        )
        trainer.num_epochs = 1
        trainer.num_iterations_per_epoch = model.steps
        trainer.num_val_iterations_per_epoch = 1
        trainer.run_training()
    return Path(trainer.output_folder).parent


def predict(model: Model, results: Path, scans: Path, out: Path) -> float:
    """Segment the test scans with nnU-Net's predictor; return the seconds it took."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_mirroring=model.mirror,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    out.mkdir(exist_ok=True)
    start = time.perf_counter()
    predictor.initialize_from_trained_model_folder(
        str(results), model.folds, model.checkpoint
    )
    predictor.predict_from_files_sequential(str(scans), str(out))
    for file in out.glob("*.json"):
        file.unlink()
    return time.perf_counter() - start


def add_up_in_float32() -> None:
    """Let nnU-Net's predictor add up scores in float32; everything else stays its own code."""
    from nnunetv2.inference import predict_from_raw_data as module

    predictor = module.nnUNetPredictor
    name = "_internal_predict_sliding_window_return_logits"
    source = textwrap.dedent(inspect.getsource(getattr(predictor, name)))
    changed = source.replace("torch.half", "torch.float32").replace(
        "value_scaling_factor=10,",
        "value_scaling_factor=10, dtype=torch.float32,",
    )
    if changed.count("torch.float32") != 3:
        raise RuntimeError("nnU-Net's predictor is not the one that is known")
    exec(changed, vars(module))  # noqa: S102  (nnU-Net's own function, three words of it changed)
    setattr(predictor, name, vars(module)[name])


def give_labels_voxels(model: Model, results: Path, scans: Path) -> None:
    """Shift the last bias of each network where a label would have too few voxels.

    A network of few steps may not know a rare label yet; agreement on it would say nothing.
    """
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    for fold in model.folds:
        predictor = nnUNetPredictor(
            use_mirroring=False,
            perform_everything_on_device=False,
            device=torch.device("cpu"),
            allow_tqdm=False,
        )
        predictor.initialize_from_trained_model_folder(
            str(results), (fold,), model.checkpoint
        )
        configuration = predictor.configuration_manager
        preprocessor = configuration.preprocessor_class(verbose=False)
        first = sorted(scans.iterdir())[0].name[: -len("_0000.nii.gz")]
        images = [str(f) for f in sorted(scans.glob(f"{first}_*.nii.gz"))]
        data, _, _ = preprocessor.run_case(
            images,
            None,
            predictor.plans_manager,
            configuration,
            predictor.dataset_json,
        )
        logits = predictor.predict_logits_from_preprocessed_data(
            torch.from_numpy(data)
        ).float()
        shift = _find_shift(logits, predictor.label_manager.has_regions)
        file = results / f"fold_{fold}" / model.checkpoint
        checkpoint = torch.load(file, weights_only=False)
        last = len(model.features) - 2
        bias = checkpoint["network_weights"][f"decoder.seg_layers.{last}.bias"]
        bias += shift
        torch.save(checkpoint, file)
        print(model.name, "fold", fold, "shifted by", shift.tolist())


def _find_shift(logits: Any, has_regions: bool) -> Any:
    """Return by how much each channel's logit must rise, so that its label has voxels."""
    import torch

    shift = torch.zeros(len(logits))
    first = 0 if has_regions else 1
    for _ in range(20):
        moved = logits + shift.reshape(-1, 1, 1, 1)
        is_low = False
        for channel in range(first, len(logits)):
            if has_regions:
                share = (moved[channel] > 0).float().mean()
            else:
                share = (moved.argmax(0) == channel).float().mean()
            if share < LEAST_SHARE:
                shift[channel] += 0.3
                is_low = True
        if not is_low:
            break
    return shift


def freeze(model: Model, work: Path, target: Path) -> None:
    """Keep the smallest files that a test of medseg's needs."""
    import torch

    results = next((work / model.name / "results").glob("*/*__*"))
    folder = target / model.name / results.name
    shutil.rmtree(target / model.name, ignore_errors=True)
    for fold in model.folds:
        place = folder / f"fold_{fold}"
        place.mkdir(parents=True)
        checkpoint = results / place.name / model.checkpoint
        if model.name in WHOLE:
            shutil.copyfile(checkpoint, place / model.checkpoint)
            continue
        content = torch.load(checkpoint, weights_only=False)
        content["optimizer_state"] = None
        torch.save(content, place / model.checkpoint)
    for name in ("plans.json", "dataset.json"):
        shutil.copyfile(results / name, folder / name)
    for kind in ("expected", "exact"):
        maps = {}
        for file in sorted((work / model.name / kind).glob("*.nii.gz")):
            labels = np.asarray(nibabel.load(file).dataobj)
            maps[file.name.removesuffix(".nii.gz")] = labels.astype(np.uint8)
        np.savez_compressed(folder.parent / f"{kind}.npz", **maps)


class _Threads:
    """Stands in for a multiprocessing context: nnU-Net's workers would each import it anew."""

    Pool = multiprocessing.pool.ThreadPool


def run(model: Model, number: int, work: Path, data: Path) -> None:
    """Make a model: raw data, plan, training."""
    folder = work / model.name
    shutil.rmtree(folder, ignore_errors=True)
    scratch = work / "scratch"
    raw = scratch / "raw" / f"Dataset{number:03d}_{model.name}"
    preprocessed = scratch / "preprocessed" / raw.name
    for place in (raw, preprocessed, scratch / "results" / raw.name):
        shutil.rmtree(place, ignore_errors=True)
    scans = folder / "scans"
    write_raw_data(model, raw, scans, data)
    dataset, identifier = plan(model, number)
    trained = train(model, dataset, identifier)
    give_labels_voxels(model, trained, scans)
    results = folder / "results" / dataset / trained.name
    shutil.copytree(trained, results)
    if model.finish is not None:
        model.finish(results)


def segment(model: Model, work: Path, out: str) -> None:
    """Segment the test scans of a model that is there."""
    folder = work / model.name
    results = next((folder / "results").glob("*/*__*"))
    seconds = predict(model, results, folder / "scans", folder / out)
    if out == "expected":
        facts = {
            "seconds": seconds,
            "folds": model.folds,
            "mirror": model.mirror,
        }
        (folder / "seconds.json").write_text(json.dumps(facts))


def main() -> None:
    """Run the models asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", type=Path, default=Path())
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--freeze", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    work = options.work.resolve()
    for name in ("raw", "preprocessed", "results"):
        place = work / "scratch" / name
        place.mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(place)
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}
    os.environ |= {"nnUNet_def_n_proc": str(options.threads)}
    multiprocessing.get_context = lambda *_: _Threads  # type: ignore[assignment]
    import torch

    torch.set_num_threads(options.threads)
    wanted = [
        (number, model)
        for number, model in enumerate(MODELS, start=701)
        if model.name in options.only or not options.only
    ]
    for number, model in wanted:
        os.environ |= {"nnUNet_n_proc_DA": "1"}
        if not options.keep:
            run(model, number, work, options.data)
        segment(model, work, "expected")
    add_up_in_float32()
    for _, model in wanted:
        segment(model, work, "exact")
        if options.freeze is not None and not model.data:
            freeze(model, work, options.freeze.resolve())


if __name__ == "__main__":
    main()
