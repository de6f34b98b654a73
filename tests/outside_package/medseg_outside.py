"""What a package outside medseg adds: images in NumPy archives, and the Tversky loss."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from medseg import OutputError, ScanError, Volume
from medseg.io.formats import MAX_VOXELS, Format
from medseg.training.losses import LossContext, LossTerms

SUFFIX = ".npz"


def read(paths: Sequence[Path]) -> Volume:
    """Read an image: ``array``, shape ``(i, j, k)`` or with channels first, and ``affine``."""
    array, affine, path = _load(paths)
    return Volume(array.astype(np.float32), affine, source=path.name)


def read_labels(paths: Sequence[Path]) -> Volume:
    """Read a label map."""
    array, affine, path = _load(paths)
    if array.dtype.kind not in "bui":
        raise ScanError("a label map holds unsigned integers", source=path)
    return Volume(array, affine, source=path.name)


def write_labels(path: Path, labels: Any, like: Volume) -> None:
    """Write a label map on a volume's grid."""
    try:
        with path.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
            for name, values in (("array", labels), ("affine", like.affine)):
                # A fixed date, so that equal labels give equal bytes.
                entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
                with archive.open(entry, "w") as member:
                    np.lib.format.write_array(
                        member, np.ascontiguousarray(values)
                    )
    except OSError as error:
        raise OutputError(
            "the file cannot be written", source=path, detail=str(error)
        ) from error


def _load(paths: Sequence[Path]) -> tuple[Any, Any, Path]:
    if len(paths) != 1:
        raise ScanError(
            f"an archive is one file, got {len(paths)}", source=paths[0]
        )
    path = paths[0]
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > 8 * MAX_VOXELS:
                raise ScanError(
                    "the archive is too large to be an image", source=path
                )
        with np.load(path, allow_pickle=False) as arrays:
            array, affine = arrays["array"], arrays["affine"]
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        zipfile.BadZipFile,
        RuntimeError,
    ) as error:
        raise ScanError(
            "the archive cannot be read, or lacks array or affine",
            source=path,
            detail=str(error),
        ) from error
    except Exception as error:
        if type(error).__module__ != "zlib":
            raise
        raise ScanError("the archive is damaged", source=path) from error
    if array.ndim == 3:
        array = array[None]
    return array, affine, path


NPZ = Format(
    "NumPy archive",
    (SUFFIX,),
    read,
    read_labels,
    write_labels,
    label_suffixes=(SUFFIX,),
)


class TverskyLoss:
    """Tversky loss (Salehi et al., 2017): misses weigh more than false alarms.

    Args:
        context: Of the bundle.
    """

    def __init__(self, context: LossContext) -> None:
        if context.labels.has_regions:
            raise ValueError(
                "the Tversky loss scores labels that exclude each other"
            )
        self._labels = context.labels
        self._weights = context.class_weights

    def __call__(self, logits: torch.Tensor, label: torch.Tensor) -> LossTerms:
        """Score logits ``(batch, channels, …)`` against labels ``(batch, 1, …)``."""
        known = torch.ones_like(label, dtype=torch.bool)
        if self._labels.ignore_index is not None:
            known = label != self._labels.ignore_index
        truth = torch.zeros_like(logits).scatter_(
            1, torch.where(known, label, 0), 1.0
        )
        probabilities = logits.softmax(dim=1)
        axes = [0, *range(2, logits.ndim)]
        hits = (probabilities * truth * known).sum(axes)
        misses = ((1 - probabilities) * truth * known).sum(axes)
        alarms = (probabilities * (1 - truth) * known).sum(axes)
        index = (hits + 1e-5) / (hits + 0.7 * misses + 0.3 * alarms + 1e-5)
        weights = torch.ones_like(index)
        if self._weights is not None:
            weights = index.new_tensor(self._weights)
        total = ((1 - index) * weights).sum() / weights.sum()
        return LossTerms(total, {"tversky": total.detach()})


class TinyNet(nn.Module):
    """Two convolutions: image → logits, at the size of the patch.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Of the image.
        out_channels: Of the logits.
        width: Channels between.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        width: int = 8,
    ) -> None:
        super().__init__()
        convolution = nn.Conv3d if spatial_dims == 3 else nn.Conv2d
        self.first = convolution(in_channels, width, 3, padding=1)
        self.last = convolution(width, out_channels, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits ``(batch, out_channels, …)``."""
        hidden = self.first(image).relu()
        logits: torch.Tensor = self.last(hidden)
        return logits
