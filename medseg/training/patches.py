"""Training patches: of which case, from where, and how they are turned, zoomed and mirrored.

All chance comes from (seed, step, item): a resumed run sees what an unbroken one sees, whatever
the number of processes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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

Patch = tuple[int, int, int]
"""Size of a patch in voxels along x, y and z; in 2D z is 1."""

Matrix = npt.NDArray[np.float64]
"""3×3, patch voxels → volume voxels."""

AddInputs = Callable[
    [torch.Tensor, torch.Tensor, int, range],
    tuple[torch.Tensor, torch.Tensor],
]
"""Adds channels to the images of a batch, and may change its labels: of images, labels, step, and
the numbers of its items."""

Corner = npt.NDArray[np.int_]
"""A voxel of a volume, which need not lie in it: x, y and z."""

_HOST = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a patch's voxels come from: ``x_volume = centre + matrix @ (x_patch - middle)``.

    Attributes:
        centre: Position in the volume, in voxels, of the patch's middle.
        matrix: 3×3, patch voxels → volume voxels.
    """

    centre: npt.NDArray[np.float64]
    matrix: Matrix

    @property
    def is_crop(self) -> bool:
        """Whether the patch is a crop, perhaps mirrored, that needs no interpolation."""
        return bool(np.array_equal(np.abs(self.matrix), np.eye(3)))


class PatchBatches:
    """An endless supply of training batches, the same for the same seed and step.

    Iterating gives the batches of steps ``first``, ``first + 1``, …; the batch of a step does
    not depend on where iteration began.

    Args:
        cases: The training cases.
        training: The bundle's training section.
        dims: 2 or 3; 2D patches are slices along the third axis.
        padding: Image value outside a case.
        device: Where batches are wanted.
        group: The processes that share each batch.
        first: 1-based step to begin with.
        add_inputs: Adds what a network sees besides the image, as a batch is handed out.
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
        add_inputs: AddInputs | None = None,
    ) -> None:
        self._cases = cases
        self._training = training
        self._dims = dims
        self._padding = padding
        self._device = device
        self._items = group.local_items(training.batch_size)
        self.first = first
        self._add_inputs = add_inputs

    def __len__(self) -> int:
        return self._training.steps

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        steps = itertools.count(self.first)
        if not self._is_read_while_gpu_works:
            yield from map(self.batch, steps)
        # Both threads use one stream, so that a batch is there before a step needs it.
        with ThreadPoolExecutor(1, thread_name_prefix="medseg-batch") as reader:
            coming = reader.submit(self.batch, next(steps))
            for step in steps:
                batch = coming.result()
                coming = reader.submit(self.batch, step)
                yield batch

    @property
    def _is_read_while_gpu_works(self) -> bool:
        """Whether a thread makes each batch during the step before it."""
        # What is added is made by the network, with the weights of the step before.
        if self._device.type == "cpu" or self._add_inputs is not None:
            return False
        return any(case.image.device.type == "cpu" for case in self._cases)

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """Return the batch of a 1-based step.

        Returns:
            ``image`` float32 ``(batch, channels, *patch)`` and ``label`` int64
            ``(batch, 1, *patch)`` on the device: the items of this process.
        """
        images = []
        labels = []
        for item in self._items:
            image, label = self._draw_patch(step, item)
            images.append(image)
            labels.append(label)
        image = torch.stack(images).to(self._device)
        label = torch.stack(labels).to(self._device)
        image = self._augment(image, step)
        label = label.long()
        if self._add_inputs is not None:
            image, label = self._add_inputs(image, label, step, self._items)
        return {IMAGE: image, LABEL: label}

    def _augment(self, images: torch.Tensor, step: int) -> torch.Tensor:
        training = self._training
        # Behind the items' own streams, and another one for each process.
        stream = training.batch_size + self._items.start
        rng = np.random.default_rng([training.seed, step, stream])
        noise = torch.Generator(self._device)
        noise.manual_seed(int(rng.integers(2**62)))
        return augment_intensities(images, training.augmentation, rng, noise)

    def _draw_patch(
        self, step: int, item: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([self._training.seed, step, item])
        case = self._case_of(step, item)
        x, y, z = (*self._training.patch, 1)[:3]
        patch = (x, y, z)
        foreground = rng.random() < self._training.foreground_share
        placement = draw_placement(
            case,
            patch,
            self._training.augmentation,
            rng,
            foreground=foreground,
            dims=self._dims,
        )
        image, label = extract_patch(
            case, patch, placement, self._padding, self._device
        )
        if self._dims == 2:
            return image[..., 0], label[..., 0]
        return image, label

    def _case_of(self, step: int, item: int) -> CachedCase:
        """Return the case of an item; every case comes once before any comes twice."""
        number = (step - 1) * self._training.batch_size + item
        epoch, position = divmod(number, len(self._cases))
        order = np.random.default_rng([self._training.seed, epoch]).permutation(
            len(self._cases)
        )
        return self._cases[int(order[position])]


def draw_placement(
    case: CachedCase,
    patch: Patch,
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
        foreground: Whether to centre on a labelled voxel, if the case has one; else on any voxel
            that is not ignored.
        dims: 2 leaves the third axis alone.
    """
    matrix = _draw_matrix(case.spacing, augmentation, rng, dims)
    voxel = _draw_voxel(case, rng, foreground=foreground)
    centre = []
    for position, length, size in zip(voxel, case.shape, patch, strict=True):
        centre.append(_snap(_keep_inside(float(position), length, size), size))
    return Placement(np.array(centre), matrix)


def _draw_voxel(
    case: CachedCase, rng: np.random.Generator, *, foreground: bool
) -> Sequence[int]:
    """Draw the voxel that a patch is centred on, if it can be."""
    if foreground and case.foreground:
        labels = sorted(case.foreground)
        voxels = case.foreground[labels[rng.integers(len(labels))]]
    elif case.annotated is not None and len(case.annotated):
        # Where most voxels are ignored, patches from anywhere would teach nothing.
        voxels = case.annotated
    else:
        return [int(rng.integers(length)) for length in case.shape]
    voxel = voxels[rng.integers(len(voxels))]
    return [int(position) for position in np.unravel_index(voxel, case.shape)]


def _keep_inside(position: float, length: int, size: int) -> float:
    """Move the middle of a patch until the patch lies inside, if the case is not smaller."""
    if length <= size:
        return (length - 1) / 2
    half = (size - 1) / 2
    return min(max(position, half), length - 1 - half)


def _snap(position: float, size: int) -> float:
    """Move the middle of a patch until its first voxel lies on a voxel of the case.

    A plain crop must hit voxels, and the middle of an even number lies between two of them.
    """
    half = (size - 1) / 2
    return math.floor(position - half + 0.5) + half


def _draw_matrix(
    spacing: tuple[float, float, float],
    augmentation: AugmentationSpec,
    rng: np.random.Generator,
    dims: int,
) -> Matrix:
    """Draw how a patch is turned, zoomed and mirrored."""
    # Chance is drawn whether used or not, so that one setting does not shift another's draws.
    is_turned = rng.random() < augmentation.rotation
    is_zoomed = rng.random() < augmentation.scaling
    angles = np.radians(rng.uniform(-1, 1, 3) * augmentation.rotation_degrees)
    zoom = rng.uniform(*augmentation.scaling_range)
    is_mirrored = rng.random(3) < 0.5
    through_plane = _through_plane_axis(spacing, dims)
    matrix = np.eye(3)
    if is_turned:
        matrix = _rotate(angles, spacing, through_plane)
    if is_zoomed:
        factors = np.full(3, 1 / zoom)
        if through_plane is not None:
            factors[through_plane] = 1.0
        matrix = matrix @ np.diag(factors)
    signs = np.ones(3)
    for axis in augmentation.mirror_axes:
        if axis < dims and is_mirrored[axis]:
            signs[axis] = -1.0
    return matrix @ np.diag(signs)


def _through_plane_axis(
    spacing: tuple[float, float, float], dims: int
) -> int | None:
    """Return the axis that patches are not turned or zoomed along; ``None`` in isotropic 3D."""
    if dims == 2:
        return 2
    if max(spacing) / min(spacing) >= ANISOTROPIC:
        return int(np.argmax(spacing))
    return None


def _rotate(
    angles: npt.NDArray[np.float64],
    spacing: tuple[float, float, float],
    through_plane: int | None,
) -> Matrix:
    """Return a rotation in mm as a matrix of voxels.

    Args:
        angles: About each axis, in radians.
        spacing: Of the voxels, in mm.
        through_plane: The only axis to rotate about; ``None`` for all.
    """
    matrix = np.eye(3)
    for axis in range(3):
        if through_plane is None or axis == through_plane:
            matrix = matrix @ _rotation_about(axis, angles[axis])
    in_mm = np.diag(spacing)
    return np.linalg.inv(in_mm) @ matrix @ in_mm


def _rotation_about(axis: int, angle: float) -> Matrix:
    first, second = [other for other in range(3) if other != axis]
    cosine = math.cos(angle)
    sine = math.sin(angle)
    matrix = np.eye(3)
    matrix[first, first] = cosine
    matrix[second, second] = cosine
    matrix[first, second] = -sine
    matrix[second, first] = sine
    return matrix


def extract_patch(
    case: CachedCase,
    patch: Patch,
    placement: Placement,
    padding: float,
    device: torch.device = _HOST,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Extract a patch from a case.

    Args:
        case: The case, on this device or the host; only the box that the patch touches is read.
        patch: Size in voxels.
        placement: Where from.
        padding: Image value outside the case; labels there are background.
        device: Where the patch is wanted, and made.

    Returns:
        Image ``(channels, *patch)`` float32 by linear, and label ``(1, *patch)`` by nearest
        interpolation.
    """
    low, high = _find_box(patch, placement)
    image = _extract_box(case.image, low, high, padding, device).float()
    label = _extract_box(case.label, low, high, 0, device)
    if placement.is_crop:
        mirrored = [
            axis + 1 for axis in range(3) if placement.matrix[axis, axis] < 0
        ]
        if not mirrored:
            return image, label
        return image.flip(mirrored), label.flip(mirrored)
    if device.type == "cpu":
        grid = _sampling_grid(patch, placement, low, high)
    else:
        grid = make_grid_on(device, patch, placement, low, high)
    # Torch pads with 0, so that the padding value is made 0 for it.
    image = _sample(image - padding, grid, "bilinear") + padding
    sampled = _sample(label.float(), grid, "nearest")
    return image, sampled.to(label.dtype)


def _find_box(patch: Patch, placement: Placement) -> tuple[Corner, Corner]:
    """Return the first voxel that a patch touches, and the one behind the last."""
    half = (np.array(patch) - 1) / 2
    reach = np.abs(placement.matrix) @ half
    first = placement.centre - reach
    last = placement.centre + reach
    low = np.floor(first).astype(int)
    high = np.ceil(last).astype(int) + 1
    return low, high


def _extract_box(
    array: torch.Tensor,
    low: Corner,
    high: Corner,
    fill: float,
    device: torch.device,
) -> torch.Tensor:
    """Return ``low ≤ x < high`` of ``(channels, x, y, z)``; outside the array is ``fill``."""
    inside = [slice(None)]
    padding: list[int] = []
    for axis, length in enumerate(array.shape[1:]):
        start, stop = int(low[axis]), int(high[axis])
        first = min(max(start, 0), length)
        last = min(max(stop, 0), length)
        inside.append(slice(first, last))
        # Torch wants the padding of the last axis first.
        padding = [max(-start, 0), max(stop - length, 0), *padding]
    box = _send(array[tuple(inside)], device)
    if not any(padding):
        return box
    return functional.pad(box, padding, value=fill)


def _sampling_grid(
    patch: Patch,
    placement: Placement,
    low: Corner,
    high: Corner,
) -> torch.Tensor:
    """Return torch's sampling grid ``(1, *patch, 3)``, in its z, y, x order and −1…1 scale."""
    axes = []
    for size in patch:
        axis = torch.arange(size, dtype=torch.float64)
        axes.append(axis - (size - 1) / 2)
    grid = torch.meshgrid(*axes, indexing="ij")
    offsets = torch.stack(grid, dim=-1)
    matrix = torch.from_numpy(placement.matrix)
    middle = torch.from_numpy(placement.centre - low)
    positions = offsets @ matrix.T + middle
    last = np.maximum(high - low - 1, 1).astype(float)
    scaled = 2 * positions / torch.from_numpy(last) - 1
    return scaled.flip(-1).float()[None]


def make_grid_on(
    device: torch.device,
    patch: Patch,
    placement: Placement,
    low: Corner,
    high: Corner,
) -> torch.Tensor:
    """Return the grid of ``_sampling_grid``, made on a GPU of twelve numbers in float32.

    On the host it takes as long as a large network's whole step on the GPU.
    """
    last = np.maximum(high - low - 1, 1)
    scale = 2 / last
    start = (placement.centre - low) * scale - 1
    steps = placement.matrix * scale[:, None]
    # In torch's order z, y, x.
    numbers = np.column_stack([steps, start])[::-1]
    sent = _send(torch.from_numpy(numbers.astype(np.float32)), device)
    grid = sent[:, 3]
    for axis, size in enumerate(patch):
        shape = [1, 1, 1, 1]
        shape[axis] = size
        offsets = torch.arange(size, device=device) - (size - 1) / 2
        grid = grid + offsets.view(shape) * sent[:, axis]
    return grid[None]


def _send(array: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return an array on a device; the host does not wait until it is there."""
    if array.device.type == device.type:
        return array
    # From other memory than this the GPU cannot copy while the host goes on.
    return array.pin_memory().to(device, non_blocking=True)


def _sample(box: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    sampled = functional.grid_sample(
        box[None], grid, mode=mode, padding_mode="zeros", align_corners=True
    )
    return sampled[0]
