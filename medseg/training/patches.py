"""Training batches: patches of which cases, and with what varied.

All chance comes from (seed, step, item): a resumed run sees what an unbroken one sees, whatever
the number of processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from medseg.bundle.spec import TrainingSpec
from medseg.datasets.cache import CachedCase
from medseg.preprocessing.transforms import IMAGE, LABEL
from medseg.training.augmentation import augment_intensities
from medseg.training.distributed import SINGLE_PROCESS, ProcessGroup
from medseg.training.patch_extraction import extract_patch
from medseg.training.patch_placement import draw_placement

AddInputs = Callable[
    [torch.Tensor, torch.Tensor, int, range],
    tuple[torch.Tensor, torch.Tensor],
]
"""Adds channels to the images of a batch, and may change its labels: of images, labels, step, and
the numbers of its items."""


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
