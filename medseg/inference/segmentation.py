"""``Segmentation``: the labels of one scan, and how good they probably are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medseg.errors import OutputError
from medseg.io import itk, nifti, write_labels
from medseg.io.adapters import Image
from medseg.labels import LabelSet
from medseg.quality.estimates import Quality
from medseg.volume import Array, Volume


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The labels of one scan, and how good they probably are.

    Attributes:
        labels: Label indices ``(i, j, k)`` on the scan's own grid, uint8 or uint16.
        label_set: What the indices mean.
        volumes_ml: Label name → millilitres; of regions, where the bundle has these.
        quality: How good this probably is.
        confidence: Label name → what ``quality`` was estimated from: the Dice to be expected if
            the network's own probabilities were right, at the bundle's temperature.
        confidence_at: Temperature → the same at it, where others were asked for.
        error_map: Probability in percent that a voxel's label is wrong, uint8 ``(i, j, k)``, if
            it was asked for.
        seconds: Stage → time it took: ``input``, ``network``, ``labels``.
        warnings: What a person should know: what the reader left out or repaired, what of the scan
            is unlike what the bundle was trained on, and how this result was made. They name no
            file.
        grid: The scan's grid and header, without its voxels.

    Examples:
        >>> import numpy as np
        >>> from medseg import Label, LabelSet, Segmentation, Volume
        >>> scan = Volume.from_numpy(np.zeros((4, 4, 4)), spacing=(1.0, 1.0, 2.0))
        >>> labels = np.zeros((4, 4, 4), np.uint8)
        >>> labels[1, 1, :] = 1
        >>> liver = LabelSet([Label(1, "liver", 1, (255, 0, 0))])
        >>> found = Segmentation(labels, liver, {"liver": 0.008}, grid=scan.grid)
        >>> found.to_nibabel().shape
        (4, 4, 4)
    """

    labels: Array
    label_set: LabelSet
    volumes_ml: dict[str, float]
    quality: Quality = field(default_factory=Quality)
    confidence: Mapping[str, float] = field(default_factory=dict)
    confidence_at: Mapping[float, Mapping[str, float]] = field(
        default_factory=dict
    )
    error_map: Array | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    grid: Volume | None = field(default=None, repr=False)

    def save(self, path: str | Path) -> None:
        """Write the label map on the scan's grid, whole or not at all.

        Args:
            path: Ending in ``.nii.gz``, ``.nii``, ``.nrrd``, ``.mha`` or (one slice) ``.png``.

        Raises:
            OutputError: If the ending is none of these, the grid does not fit the format, or
                the file cannot be written.
        """
        write_labels(Path(path), self.labels, self._require_grid())

    def to_nibabel(self) -> Image:
        """Return the label map as a nibabel image on the scan's grid."""
        return nifti.make_label_image(self.labels, self._require_grid())

    def to_sitk(self) -> Image:
        """Return the label map as a ``SimpleITK.Image`` of three dimensions on the scan's grid.

        Raises:
            OutputError: If the grid is sheared, which ITK cannot represent.
        """
        return itk.make_label_image(self.labels, self._require_grid())

    def _require_grid(self) -> Volume:
        if self.grid is None:
            raise OutputError(
                "this segmentation was made without the scan's grid; give grid=volume.grid"
            )
        return self.grid
