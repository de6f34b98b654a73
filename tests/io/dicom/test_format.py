"""DICOM keeps the contract of image formats; here one enhanced file, known by name or content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import dicom as made

from medseg.io.dicom.volume import DICOM
from medseg.testing.image_formats import ImageFormatContract


class TestDicom(ImageFormatContract):
    format = DICOM
    suffix = ".dcm"
    affine = made.affine()
    shape = made.SHAPE
    secrets = (made.PATIENT, "4711")
    reads_series = True

    @pytest.fixture
    def array(self) -> np.ndarray:
        return made.voxels()

    def write_volume(
        self, path: Path, array: np.ndarray, affine: np.ndarray
    ) -> None:
        frames = made.enhanced(array)
        for frame in frames.PerFrameFunctionalGroupsSequence:
            del frame.PixelValueTransformationSequence
        frames.save_as(path)


class TestDicomWithoutSuffix(TestDicom):
    suffix = ""
