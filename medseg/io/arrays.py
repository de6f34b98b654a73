"""NumPy arrays, torch tensors and MONAI's ``MetaTensor`` → volumes.

Neither torch nor MONAI is imported here: who has a tensor has imported them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError, ScanError
from medseg.volume import Affine, Volume

_LPS = "LPS"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def is_array(image: object) -> bool:
    """Tell whether an image is an array or a tensor, which may not say where its voxels lie."""
    return isinstance(image, np.ndarray) or _is_tensor(image)


def from_array(
    image: Any,
    affine: npt.ArrayLike | None = None,
    spacing: Sequence[float] | None = None,
) -> Volume:
    """Make a volume of an array or a tensor.

    Args:
        image: Shape ``(i, j)``, ``(i, j, k)`` or ``(channels, i, j, k)``. A ``MetaTensor`` has
            its channels first and its own affine.
        affine: 4×4, voxel index → mm, RAS+.
        spacing: Instead of an affine: mm along i, j and k.

    Raises:
        GeometryError: If its place is not given, given twice, or no such place.
        ScanError: If its voxels are no real numbers.
    """
    if isinstance(image, np.ndarray):
        return Volume.from_numpy(image, affine, spacing=spacing)
    if not _is_meta_tensor(image):
        voxels = _to_numpy(image)
        return Volume.from_numpy(voxels, affine, spacing=spacing)
    if affine is not None or spacing is not None:
        raise GeometryError(
            "a MetaTensor has an affine of its own, so none can be given beside it; set its "
            "affine, or give its as_tensor()"
        )
    return _from_meta_tensor(image)


def _is_tensor(image: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(image, torch.Tensor)


def _is_meta_tensor(image: object) -> bool:
    data = sys.modules.get("monai.data")
    return data is not None and isinstance(image, data.MetaTensor)


def _to_numpy(tensor: Any) -> npt.NDArray[Any]:
    try:
        plain = tensor.detach().cpu()
        # NumPy has no bfloat16.
        if plain.is_floating_point():
            plain = plain.float()
        voxels: npt.NDArray[Any] = plain.numpy()
    except (RuntimeError, TypeError) as error:
        raise ScanError(
            "a tensor of this kind has no voxels to read; a dense one is needed",
            detail=str(error),
        ) from error
    return voxels


def _from_meta_tensor(image: Any) -> Volume:
    if image.has_pending_operations:
        raise ScanError(
            "the MetaTensor has lazy operations that were not applied, so its voxels do not lie "
            "where its affine says; apply them first (monai.transforms.ApplyPending)"
        )
    affine = np.asarray(image.affine.cpu(), dtype=np.float64)
    if affine.shape not in ((3, 3), (4, 4)):
        raise GeometryError(
            f"a MetaTensor of one scan has an affine of shape (4, 4), got {affine.shape}; give "
            "scans of a batch one by one (monai.data.decollate_batch)"
        )
    voxels = _to_numpy(image.as_tensor())
    if voxels.ndim == 3 and _has_channels(image, affine):
        voxels = voxels[..., None]
    in_space = _fill_affine(affine)
    if str(image.meta.get("space", "")) == _LPS:
        in_space = _LPS_TO_RAS @ in_space
    volume = Volume.from_numpy(voxels, in_space)
    # Without the image, whose file may be called after a patient.
    return replace(volume, source="")


def _has_channels(image: Any, affine: Affine) -> bool:
    """Tell whether the first of three axes is that of channels: that of a picture is."""
    from monai.data.utils import is_no_channel

    if affine.shape == (3, 3):
        return True
    channel = image.meta.get("original_channel_dim")
    if channel is None:
        return True
    was_added = image.shape[0] == 1
    return was_added or not is_no_channel(channel)


def _fill_affine(affine: Affine) -> Affine:
    """Return the affine of a picture as that of one slice of 1 mm."""
    if affine.shape == (4, 4):
        return affine
    filled: Affine = np.eye(4)
    filled[:2, :2] = affine[:2, :2]
    filled[:2, 3] = affine[:2, 2]
    return filled
