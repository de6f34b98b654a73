"""Training patches: which case, where, turned how. All chance comes from (seed, step, item)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from medseg.bundle.spec import AugmentationSpec, TrainingSpec
from medseg.datasets.cache import CachedCase
from medseg.preprocessing.transforms import IMAGE, LABEL
from medseg.training.augmentation import augment_intensities
from medseg.training.distributed import SINGLE_PROCESS, ProcessGroup

ANISOTROPIC = 3.0
"""From this ratio of spacings on, patches are turned and zoomed in the fine plane only."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a patch's voxels come from: ``x_volume = centre + matrix @ (x_patch - middle)``.

    Attributes:
        centre: Position in the volume, in voxels, of the patch's middle.
        matrix: 3×3, patch voxels → volume voxels.
    """

    centre: npt.NDArray[np.float64]
    matrix: npt.NDArray[np.float64]

    @property
    def is_plain(self) -> bool:
        """Whether the patch is a mere crop, perhaps mirrored: no voxel falls between others."""
        return bool(np.array_equal(np.abs(self.matrix), np.eye(3)))


class PatchBatches:
    """An endless supply of training batches, the same for the same seed and step.

    Iterating gives the batches of steps ``first``, ``first + 1``, …; the batch of a step does
    not depend on where iteration began, so a resumed run sees what an unbroken one sees.

    Args:
        cases: The training cases.
        training: The bundle's training section.
        dims: 2 or 3; 2D patches are slices along the third axis.
        padding: Image value outside a case.
        device: Where batches are wanted.
        group: The processes that share each batch.
        first: 1-based step to begin with.
    """

    def __init__(
        self,
        cases: Sequence[CachedCase],
        training: TrainingSpec,
        *,
        dims: int,
        padding: float,
        device: torch.device,
        group: ProcessGroup = SINGLE_PROCESS,
        first: int = 1,
    ) -> None:
        self._cases = cases
        self._training = training
        self._dims = dims
        self._padding = padding
        self._device = device
        self._share = group.local_items(training.batch_size)
        self.first = first

    def __len__(self) -> int:
        return self._training.steps

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        step = self.first
        while True:
            yield self.batch(step)
            step += 1

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """Return the batch of a 1-based step.

        Returns:
            ``image`` float32 ``(batch, channels, *patch)`` and ``label`` int64
            ``(batch, 1, *patch)`` on the device: this process' share.
        """
        size = self._training.batch_size
        drawn = [self._draw(step, item) for item in self._share]
        image = torch.stack([image for image, _ in drawn]).to(self._device)
        label = torch.stack([label for _, label in drawn]).to(self._device)
        rng = np.random.default_rng([self._training.seed, step, size + self._share.start])
        noise = torch.Generator(self._device).manual_seed(int(rng.integers(2**62)))
        image = augment_intensities(image, self._training.augmentation, rng, noise)
        return {IMAGE: image, LABEL: label.long()}

    def _draw(self, step: int, item: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([self._training.seed, step, item])
        case = self._case_of(step, item)
        x, y, z = (*self._training.patch, 1)[:3]
        patch = (x, y, z)
        placement = draw_placement(
            case,
            patch,
            self._training.augmentation,
            rng,
            foreground=rng.random() < self._training.foreground_share,
            dims=self._dims,
        )
        image, label = extract_patch(case, patch, placement, self._padding)
        return (image, label) if self._dims == 3 else (image[..., 0], label[..., 0])

    def _case_of(self, step: int, item: int) -> CachedCase:
        # Every case once before any case twice.
        turn, position = divmod((step - 1) * self._training.batch_size + item, len(self._cases))
        order = np.random.default_rng([self._training.seed, turn]).permutation(len(self._cases))
        return self._cases[int(order[position])]


def draw_placement(
    case: CachedCase,
    patch: tuple[int, int, int],
    augmentation: AugmentationSpec,
    rng: np.random.Generator,
    *,
    foreground: bool,
    dims: int,
) -> Placement:
    """Choose where in a case a patch comes from, and how it is turned, zoomed and mirrored.

    Args:
        case: The case.
        patch: Its size in voxels.
        augmentation: How often and how much.
        rng: Source of chance.
        foreground: Whether to centre on a labelled voxel, if the case has one; else any voxel
            that was annotated will do.
        dims: 2 leaves the third axis alone.
    """
    matrix = _linear(case.spacing, augmentation, rng, dims)
    if foreground and case.foreground:
        label = sorted(case.foreground)[rng.integers(len(case.foreground))]
        positions = case.foreground[label]
        wanted = np.array(np.unravel_index(positions[rng.integers(len(positions))], case.shape))
    elif case.annotated is not None and len(case.annotated):
        # Where little is annotated, most places would teach nothing.
        position = case.annotated[rng.integers(len(case.annotated))]
        wanted = np.array(np.unravel_index(position, case.shape))
    else:
        wanted = np.array([rng.integers(n) for n in case.shape])
    centre = [
        # A patch never reaches over the border unless the case is smaller than the patch.
        min(max(float(at), (size - 1) / 2), n - 1 - (size - 1) / 2) if n > size else (n - 1) / 2
        for at, n, size in zip(wanted, case.shape, patch, strict=True)
    ]
    # A plain crop must hit voxels, whose middle lies between two of them for even sizes.
    snapped = [
        math.floor(at - (size - 1) / 2 + 0.5) + (size - 1) / 2
        for at, size in zip(centre, patch, strict=True)
    ]
    return Placement(np.array(snapped), matrix)


def _linear(
    spacing: tuple[float, float, float],
    augmentation: AugmentationSpec,
    rng: np.random.Generator,
    dims: int,
) -> npt.NDArray[np.float64]:
    flat = dims == 2 or max(spacing) / min(spacing) >= ANISOTROPIC
    coarse = 2 if dims == 2 else int(np.argmax(spacing))
    # Chance is drawn whether used or not, so that one setting does not shift another's draws.
    turned, zoomed = rng.random() < augmentation.rotation, rng.random() < augmentation.scaling
    angles = np.radians(rng.uniform(-1, 1, 3) * augmentation.rotation_degrees)
    zoom = rng.uniform(*augmentation.scaling_range)
    mirrored = rng.random(3) < 0.5
    matrix = np.eye(3)
    if turned:
        kept = [axis for axis in range(3) if not flat or axis == coarse]
        for axis in kept:
            matrix = matrix @ _rotation(axis, angles[axis])
        in_mm = np.diag(spacing)
        matrix = np.linalg.inv(in_mm) @ matrix @ in_mm
    if zoomed:
        matrix = matrix @ np.diag(
            [1.0 if flat and axis == coarse else 1 / zoom for axis in range(3)]
        )
    signs = [
        -1.0 if axis in augmentation.mirror_axes and axis < dims and mirrored[axis] else 1.0
        for axis in range(3)
    ]
    return matrix @ np.diag(signs)


def _rotation(axis: int, angle: float) -> npt.NDArray[np.float64]:
    first, second = [other for other in range(3) if other != axis]
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = math.cos(angle)
    matrix[first, second], matrix[second, first] = -math.sin(angle), math.sin(angle)
    return matrix


def extract_patch(
    case: CachedCase, patch: tuple[int, int, int], placement: Placement, padding: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take a patch out of a case.

    Args:
        case: The case, on any device; only the box that the patch touches is read.
        patch: Size in voxels.
        placement: Where from.
        padding: Image value outside the case; labels there are background.

    Returns:
        Image ``(channels, *patch)`` float32 by linear, and label ``(1, *patch)`` by nearest
        interpolation.
    """
    half = (np.array(patch) - 1) / 2
    reach = np.abs(placement.matrix) @ half
    low = np.floor(placement.centre - reach).astype(int)
    high = np.ceil(placement.centre + reach).astype(int) + 1
    image = _box(case.image, low, high, padding).float()
    label = _box(case.label, low, high, 0)
    if placement.is_plain:
        flipped = [axis + 1 for axis in range(3) if placement.matrix[axis, axis] < 0]
        return (image.flip(flipped), label.flip(flipped)) if flipped else (image, label)
    grid = _sampling_grid(patch, placement, low, high).to(image.device)
    image = _sample(image - padding, grid, "bilinear") + padding
    return image, _sample(label.float(), grid, "nearest").to(label.dtype)


def _box(
    array: torch.Tensor, low: npt.NDArray[np.int_], high: npt.NDArray[np.int_], fill: float
) -> torch.Tensor:
    """Cut ``low ≤ x < high`` out of ``(channels, x, y, z)``; outside the array is ``fill``."""
    shape = np.array(array.shape[1:])
    inside = [
        slice(int(a), int(b))
        for a, b in zip(np.clip(low, 0, shape), np.clip(high, 0, shape), strict=True)
    ]
    before, after = np.maximum(-low, 0), np.maximum(high - shape, 0)
    box = array[:, inside[0], inside[1], inside[2]]
    if not (before.any() or after.any()):
        return box
    padding = [int(n) for axis in (2, 1, 0) for n in (before[axis], after[axis])]
    return functional.pad(box, padding, value=fill)


def _sampling_grid(
    patch: tuple[int, int, int],
    placement: Placement,
    low: npt.NDArray[np.int_],
    high: npt.NDArray[np.int_],
) -> torch.Tensor:
    """Return torch's sampling grid ``(1, *patch, 3)``, in its z, y, x order and −1…1 scale."""
    axes = [torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in patch]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    positions = offsets @ torch.from_numpy(placement.matrix).T
    positions = positions + torch.from_numpy(placement.centre - low)
    last = torch.from_numpy(np.maximum(high - low - 1, 1).astype(float))
    return (2 * positions / last - 1).flip(-1).float()[None]


def _sample(box: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    return functional.grid_sample(
        box[None], grid, mode=mode, padding_mode="zeros", align_corners=True
    )[0]
