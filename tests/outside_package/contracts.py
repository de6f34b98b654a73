"""The package's own tests: the contracts, on what it adds. Run where the package is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from medseg_outside import NPZ, TinyNet, TverskyLoss

from medseg.testing.image_formats import ImageFormatContract
from medseg.testing.losses import LossContract
from medseg.testing.networks import NetworkContract


class TestNumpyArchive(ImageFormatContract):
    """The image format keeps its contract."""

    format = NPZ
    suffix = ".npz"

    def write_volume(self, path: Path, array: Any, affine: Any) -> None:
        """Write a volume with NumPy."""
        np.savez_compressed(path, array=array, affine=affine)


class TestTversky(LossContract):
    """The loss keeps its contract."""

    build = TverskyLoss
    takes_regions = False


class TestTinyNet(NetworkContract):
    """The network keeps its contract."""

    network = TinyNet
