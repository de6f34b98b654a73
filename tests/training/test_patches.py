"""Training patches: stateless chance, exact crops, image and label that stay together."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundles import made_spec
from support.cases import balls, made_case, numbered_case

from medseg.bundle.spec import AUGMENTATIONS, AugmentationSpec, TrainingSpec
from medseg.training.distributed import ProcessGroup
from medseg.training.patch_extraction import extract_patch
from medseg.training.patch_placement import Placement, draw_placement
from medseg.training.patches import PatchBatches

CPU = torch.device("cpu")
NONE = AUGMENTATIONS["none"]
TURNED = NONE.model_copy(update={"rotation": 1.0, "rotation_degrees": 180.0})
ZOOMED = NONE.model_copy(update={"scaling": 1.0, "scaling_range": (0.5, 2.0)})
MIRRORED = NONE.model_copy(update={"mirror_axes": (0, 1, 2)})
ALL = AugmentationSpec(
    rotation=1, scaling=1, noise=1, blur=1, brightness=1, contrast=1, low_resolution=1, gamma=1,
    bias_field=1,
)  # fmt: skip


def training_of(**fields: Any) -> TrainingSpec:
    dims = len(fields.get("patch", (8, 8, 8)))
    patch = fields.pop("patch", (8, 8, 8))
    augmentation = fields.pop("augmentation", NONE)
    spec = made_spec(
        training={"patch": [8] * dims, **fields}, network={"dims": dims}
    )
    return spec.training.model_copy(
        update={"patch": patch, "augmentation": augmentation}
    )


def batches_of(
    cases: Any,
    training: TrainingSpec,
    padding: float = -9.0,
    group: ProcessGroup | None = None,
) -> PatchBatches:
    return PatchBatches(
        cases,
        training,
        dims=len(training.patch),
        padding=padding,
        device=CPU,
        group=group or ProcessGroup(),
    )


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in ("image", "label"))


CASES = [
    made_case(
        balls(seed=n), np.random.default_rng(n).normal(size=(1, 24, 28, 20))
    )
    for n in range(5)
]


# --- chance ---


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("augmentation", [NONE, AugmentationSpec(), ALL])
def test_a_steps_batch_does_not_depend_on_where_iteration_began(
    dims: int, augmentation: AugmentationSpec
) -> None:
    training = training_of(
        patch=(8,) * dims, batch_size=3, augmentation=augmentation
    )
    whole = list(itertools.islice(batches_of(CASES, training), 7))
    for first in (1, 3, 7):
        batches = batches_of(CASES, training)
        batches.first = first
        torch.manual_seed(first)  # torch's own state plays no part
        np.random.seed(first)
        for step, batch in enumerate(itertools.islice(batches, 3), start=first):
            if step <= 7:
                assert equal(batch, whole[step - 1])


def test_steps_items_and_seeds_differ() -> None:
    training = training_of(batch_size=3, augmentation=AugmentationSpec())
    batches = batches_of(CASES, training)
    seen = [batches.batch(step)["image"] for step in range(1, 9)]
    patches = [patch for batch in seen for patch in batch]
    assert all(
        not torch.equal(a, b) for a, b in itertools.combinations(patches, 2)
    )
    other = batches_of(
        CASES,
        training_of(batch_size=3, seed=1, augmentation=AugmentationSpec()),
    )
    assert not torch.equal(other.batch(1)["image"], seen[0])


def test_intensities_are_changed_anew_at_every_step_and_in_every_process() -> (
    None
):
    # Patches are the whole case, so that their intensities alone can differ.
    case = made_case(np.ones((8, 8, 8)), np.ones((1, 8, 8, 8)))
    brighter = NONE.model_copy(update={"brightness": 1.0})
    training = training_of(batch_size=4, augmentation=brighter)
    factors = []
    for rank in (0, 1):
        batches = batches_of([case], training, group=ProcessGroup(rank, 2))
        for step in range(1, 6):
            factors += [
                float(image.mean()) for image in batches.batch(step)["image"]
            ]
    assert len({round(factor, 6) for factor in factors}) == len(factors) == 20
    other = batches_of([case], training.model_copy(update={"seed": 1}))
    assert float(other.batch(1)["image"][0].mean()) not in factors


def test_patches_of_one_case_in_one_batch_differ() -> None:
    batch = batches_of(
        CASES[:1], training_of(batch_size=4, foreground_share=0.0)
    ).batch(1)
    pairs = itertools.combinations(batch["image"], 2)
    assert all(not torch.equal(one, other) for one, other in pairs)


def test_making_batches_leaves_the_global_random_state() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    batches_of(CASES, training_of(augmentation=ALL)).batch(1)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_every_case_comes_once_before_any_comes_twice(batch_size: int) -> None:
    cases = [
        made_case(np.zeros((8, 8, 8)), np.full((1, 8, 8, 8), n))
        for n in range(5)
    ]
    batches = batches_of(cases, training_of(batch_size=batch_size))
    drawn = [
        int(patch[0, 0, 0, 0])
        for step in range(1, 21)
        for patch in batches.batch(step)["image"]
    ]
    for turn in range(len(drawn) // 5):
        assert sorted(drawn[5 * turn : 5 * turn + 5]) == [0, 1, 2, 3, 4]
    assert (
        len({tuple(drawn[n : n + 5]) for n in range(0, len(drawn) - 4, 5)}) > 1
    )


def test_processes_that_train_together_share_the_batch_of_one() -> None:
    training = training_of(batch_size=4)
    alone = batches_of(CASES, training).batch(3)
    shares = [
        batches_of(CASES, training, group=ProcessGroup(rank, 2)).batch(3)
        for rank in (0, 1)
    ]
    for key in ("image", "label"):
        assert torch.equal(
            torch.cat([share[key] for share in shares]), alone[key]
        )


# --- crops ---


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(4, 12)] * 3),
    patch=st.tuples(*[st.integers(1, 14)] * 3),
    step=st.integers(1, 1000),
    mirror=st.booleans(),
)
def test_a_plain_crop_is_voxels_of_the_case_as_they_are(
    shape: Any, patch: Any, step: int, mirror: bool
) -> None:
    case = numbered_case(shape)
    rng = np.random.default_rng(step)
    placement = draw_placement(
        case,
        patch,
        MIRRORED if mirror else NONE,
        rng,
        foreground=rng.random() < 0.5,
        dims=3,
    )
    assert placement.is_crop
    image, label = extract_patch(case, patch, placement, padding=-1)
    assert image.shape == (1, *patch)
    assert label.shape == (1, *patch)
    flipped = [
        axis + 1 for axis in range(3) if placement.matrix[axis, axis] < 0
    ]
    image, label = (
        image.flip(flipped)[0].numpy(),
        label.flip(flipped)[0].numpy(),
    )
    inside = image >= 0
    number, truth = case.image[0].numpy(), case.label[0].numpy()
    assert inside.sum() == np.prod(np.minimum(shape, patch))
    start = np.floor(
        placement.centre - (np.array(patch) - 1) / 2 + 1e-6
    ).astype(int)
    low, high = np.maximum(start, 0), np.minimum(start + patch, shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    there = tuple(
        slice(a, b) for a, b in zip(low - start, high - start, strict=True)
    )
    assert np.array_equal(image[there], number[box].astype(np.float32))
    assert np.array_equal(label[there], truth[box])
    assert (label[~inside] == 0).all()


def test_a_patch_larger_than_the_case_is_padded_all_round() -> None:
    case = made_case(np.ones((4, 5, 3)), np.full((2, 4, 5, 3), 7.0))
    batch = batches_of(
        [case], training_of(patch=(8, 8, 8), batch_size=1), padding=-3.0
    ).batch(1)
    image, label = batch["image"][0], batch["label"][0]
    assert image.shape == (2, 8, 8, 8)
    assert set(image.unique().tolist()) == {-3.0, 7.0}
    assert (image == 7).sum() == 2 * 4 * 5 * 3
    assert torch.equal(label[0] == 1, image[0] == 7)
    where = (image[0] == 7).nonzero()
    for axis, size in enumerate((4, 5, 3)):
        before, after = int(where[:, axis].min()), 7 - int(where[:, axis].max())
        assert before + after == 8 - size
        assert abs(before - after) <= 1


@pytest.mark.parametrize("augmentation", [NONE, AugmentationSpec(), ALL])
def test_2d_patches_are_slices_along_the_third_axis(
    augmentation: AugmentationSpec,
) -> None:
    # Each slice has its own value, so that a patch of two slices would show.
    label = np.zeros((20, 20, 9), np.uint8)
    label[6:14, 6:14] = np.arange(1, 10)
    still = augmentation.model_copy(
        update={
            "noise": 0, "blur": 0, "brightness": 0, "contrast": 0, "low_resolution": 0,
            "gamma": 0, "bias_field": 0, "ghosting": 0,
        }
    )  # fmt: skip
    training = training_of(patch=(8, 12), batch_size=4, augmentation=still)
    batches = batches_of([made_case(label)], training, padding=0.0)
    seen = set()
    for step in range(1, 20):
        batch = batches.batch(step)
        assert batch["image"].shape == (4, 1, 8, 12)
        assert batch["label"].dtype == torch.int64
        for image, patch in zip(batch["image"], batch["label"], strict=True):
            values = set(patch.unique().tolist()) - {0}
            assert len(values) <= 1
            seen |= values
            assert image.max() <= max(values, default=0) + 1e-3
    assert len(seen) > 5


# --- turned, zoomed, mirrored ---


@pytest.mark.parametrize(
    "augmentation", [TURNED, ZOOMED, MIRRORED, ALL], ids=str
)
@pytest.mark.parametrize(
    "spacing", [(1.0, 1.0, 1.0), (1.0, 1.0, 5.0), (3.0, 0.5, 1.0)]
)
@pytest.mark.parametrize("dims", [2, 3])
def test_image_and_label_stay_together(
    augmentation: AugmentationSpec, spacing: Any, dims: int
) -> None:
    # The image is the label. Where linear interpolation finds one value alone, all voxels
    # around have it, and so must the nearest.
    case = made_case(balls(), spacing=spacing)
    patch = (14, 15, 12) if dims == 3 else (14, 15, 1)
    compared = 0
    for seed in range(20):
        placement = draw_placement(
            case,
            patch,
            augmentation,
            np.random.default_rng(seed),
            foreground=True,
            dims=dims,
        )
        image, label = extract_patch(case, patch, placement, padding=0.0)
        for value in (0, 1, 2):
            sure = (image - value).abs() < 1e-3
            if value == 1:  # half of 2 and half of 0 looks like 1
                sure &= spread_around(image) < 1e-3
            assert (label[sure] == value).float().mean().nan_to_num(1) > 0.999
            compared += int(sure.sum()) if value else 0
    assert compared > (500 if dims == 3 else 60)


def spread_around(image: torch.Tensor) -> torch.Tensor:
    """Return how much each voxel's neighbourhood varies."""
    kernel = [min(3, 2 * (n // 2) + 1) for n in image.shape[1:]]
    around = [n // 2 for n in kernel]
    high = torch.nn.functional.max_pool3d(image[None], kernel, 1, around)
    low = -torch.nn.functional.max_pool3d(-image[None], kernel, 1, around)
    return (high - low)[0]


def test_mirroring_happens_half_of_the_time_on_the_axes_asked_for() -> None:
    case = numbered_case((12, 12, 12))
    some = NONE.model_copy(update={"mirror_axes": (0, 2)})
    signs = np.array(
        [
            np.diag(
                draw_placement(
                    case,
                    (8, 8, 8),
                    some,
                    np.random.default_rng(n),
                    foreground=False,
                    dims=3,
                ).matrix
            )
            for n in range(400)
        ]
    )
    assert (signs[:, 1] == 1).all()
    for axis in (0, 2):
        assert 0.4 < (signs[:, axis] < 0).mean() < 0.6


def test_2d_patches_are_mirrored_in_their_plane_alone() -> None:
    case = numbered_case((12, 12, 12))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        placement = draw_placement(
            case, (8, 8, 1), MIRRORED, rng, foreground=False, dims=2
        )
        assert placement.matrix[2].tolist() == [0, 0, 1]


def test_2d_and_anisotropic_patches_are_turned_in_the_fine_plane_alone() -> (
    None
):
    for dims, spacing, kept in (
        (2, (1.0, 1.0, 1.0), 2),
        (3, (4.0, 1.0, 1.0), 0),
    ):
        case = made_case(balls(), spacing=spacing)
        both = TURNED.model_copy(update={"scaling": 1.0})
        for seed in range(20):
            matrix = draw_placement(
                case,
                (8, 8, 8),
                both,
                np.random.default_rng(seed),
                foreground=True,
                dims=dims,
            ).matrix
            assert matrix[kept].tolist() == np.eye(3)[kept].tolist()
            assert matrix[:, kept].tolist() == np.eye(3)[kept].tolist()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 1.5)])
def test_a_turn_is_a_turn_in_mm(spacing: Any) -> None:
    case = made_case(balls(), spacing=spacing)
    in_mm = np.diag(spacing)
    for seed in range(20):
        matrix = draw_placement(
            case,
            (8, 8, 8),
            TURNED,
            np.random.default_rng(seed),
            foreground=False,
            dims=3,
        ).matrix
        turn = in_mm @ matrix @ np.linalg.inv(in_mm)
        assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-9)
        assert np.linalg.det(turn) == pytest.approx(1)


def test_a_zoom_is_within_its_range_and_the_same_in_every_direction() -> None:
    case = made_case(balls())
    for seed in range(50):
        matrix = draw_placement(
            case,
            (8, 8, 8),
            ZOOMED,
            np.random.default_rng(seed),
            foreground=False,
            dims=3,
        ).matrix
        assert matrix == pytest.approx(matrix[0, 0] * np.eye(3))
        assert 0.5 <= 1 / matrix[0, 0] <= 2.0


def test_a_quarter_turn_puts_voxels_where_it_should() -> None:
    case = numbered_case((9, 9, 9))
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    image, label = extract_patch(
        case, (5, 5, 5), Placement(np.array([4.0, 4, 4]), quarter), padding=0
    )
    plain, _ = extract_patch(
        case, (5, 5, 5), Placement(np.array([4.0, 4, 4]), np.eye(3)), padding=0
    )
    # x_volume = centre + matrix @ (x_patch - middle)
    assert torch.allclose(
        image[0], torch.rot90(plain[0], -1, (0, 1)), atol=1e-2
    )
    assert label.shape == (1, 5, 5, 5)


# --- foreground ---


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_patches_centred_on_a_label(share: float) -> None:
    label = np.zeros((40, 40, 40), np.uint8)
    label[10:12, 20:22, 20:22] = 1
    label[28:34, 20:30, 12:30] = 2  # a hundred times larger, and met as often
    training = training_of(
        patch=(3, 3, 3), batch_size=4, foreground_share=share
    )
    batches = batches_of([made_case(label)], training)
    centres = [
        int(patch[0, 1, 1, 1])
        for step in range(1, 151)
        for patch in batches.batch(step)["label"]
    ]
    found = np.bincount(centres, minlength=3) / len(centres)
    by_chance = (label > 0).mean() * (1 - share)
    assert found[1] + found[2] == pytest.approx(share + by_chance, abs=0.06)
    assert found[1] == pytest.approx(share / 2, abs=0.06)


def test_a_case_without_labels_gives_patches_all_the_same() -> None:
    batches = batches_of(
        [made_case(np.zeros((9, 9, 9)))], training_of(foreground_share=1.0)
    )
    assert batches.batch(1)["label"].sum() == 0


def test_patches_are_centred_on_voxels_that_are_not_ignored() -> None:
    label = np.full((40, 40, 40), 3, np.uint8)
    label[20:23, 8:10, 30:33] = 0
    case = made_case(label)
    only = np.flatnonzero(label.reshape(-1) == 0)
    partly = dataclasses.replace(case, foreground={}, annotated=only)
    training = training_of(batch_size=4, patch=(8, 8, 8), foreground_share=0.0)
    batches = batches_of([partly], training)
    for step in range(1, 6):
        for patch in batches.batch(step)["label"]:
            assert (patch == 0).any()
