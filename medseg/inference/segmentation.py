"""``Segmentation``: the labels of one scan, and how good they probably are."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medseg.bundle.spec import BundleSpec
from medseg.errors import OutputError
from medseg.io.volume_like import Image
from medseg.labels import LabelSet
from medseg.quality.estimates import Quality
from medseg.volume import Array, Volume


@dataclass(frozen=True, slots=True, repr=False)
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
        probabilities: Of each class in each voxel, if they were asked for: float32
            ``(classes, i, j, k)`` on the scan's grid, background first; where the bundle has
            regions ``(regions, i, j, k)``, each by itself. The network's own, at the temperature
            that the bundle was calibrated at (1 if it was not), of its scores interpolated to the
            scan's grid. ``labels`` are decoded from them before small components are removed.
        seconds: Stage → time it took: ``input``, ``network``, ``labels``.
        warnings: What a person should know: what the reader left out or repaired, what of the scan
            is unlike what the bundle was trained on, and how this result was made. They name no
            file.
        grid: The scan's grid and header, without its voxels.
        spec: The bundle that made it, which DICOM results name.

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
    probabilities: Array | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    grid: Volume | None = None
    spec: BundleSpec | None = None

    def save(
        self,
        path: str | os.PathLike[str],
        format: str | None = None,  # noqa: A002
    ) -> None:
        """Write the label map on the scan's grid, whole or not at all.

        Args:
            path: Its ending says the format: ``.nii.gz``, ``.nii``, ``.nrrd``, ``.mha``, (one
                slice) ``.png``, ``.seg.dcm`` (DICOM SEG), ``.rtstruct.dcm`` (RTSTRUCT), or that of
                a result format which an installed package adds.
            format: A result format by its name, as ``medseg segment --format`` takes it:
                ``nifti``, ``nrrd``, ``mha``, ``png``, ``dicom-seg``, ``rtstruct``, …; DICOM may
                then be called anything.

        Raises:
            OutputError: If there is no such format, the scan or its grid do not fit it, or the
                file cannot be written.
        """
        from medseg.inference.result_files import write_result

        grid = self._require_grid()
        write_result(Path(path), self.labels, grid, self.spec, format)

    def to_nibabel(self) -> Image:
        """Return the label map as a nibabel image on the scan's grid."""
        from medseg.io import nifti

        return nifti.make_label_image(self.labels, self._require_grid())

    def to_sitk(self) -> Image:
        """Return the label map as a ``SimpleITK.Image`` of three dimensions on the scan's grid.

        Raises:
            OutputError: If the grid is sheared, which ITK cannot represent.
        """
        from medseg.io import itk

        return itk.make_label_image(self.labels, self._require_grid())

    def __repr__(self) -> str:
        shape = "×".join(str(size) for size in self.labels.shape)
        found = ", ".join(f"{name} {ml}" for name, ml, _ in self._rows())
        parts = [shape, found or "nothing found", self._describe_quality()]
        if self.warnings:
            parts.append(f"{len(self.warnings)} warning(s)")
        return f"Segmentation({'; '.join(filter(None, parts))})"

    def _repr_html_(self) -> str:
        """Return a table for notebooks; names in it are made inert."""
        lines = ["<table>", "<tr><th>label<th>volume<th>expected Dice</tr>"]
        for row in self._rows():
            cells = "".join(f"<td>{html.escape(text)}" for text in row)
            lines.append(f"<tr>{cells}</tr>")
        lines.append("</table>")
        for text in filter(None, (self._describe_quality(), *self.warnings)):
            lines.append(f"<p>{html.escape(text)}</p>")
        return "\n".join(lines)

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        """Give name, volume and expected Dice of each structure that was found."""
        shown = self.quality.shown
        for name, ml in self.volumes_ml.items():
            if ml:
                dice = shown.labels.get(name)
                expected = "" if dice is None else f"{dice:.2f}"
                size = f"{ml:.1f}" if ml >= 1 else f"{ml:.2g}"
                yield name, f"{size} ml", expected

    def _describe_quality(self) -> str:
        """Say what people are shown of its quality at every door; nothing where nobody judged."""
        if self.quality.expected is None:
            return ""
        shown = self.quality.shown
        parts = [shown.text]
        if shown.expected is not None:
            parts = [f"expected Dice {shown.text}", shown.bound]
        if shown.review:
            parts.append("to be reviewed")
        parts.extend(shown.reasons)
        return ", ".join(filter(None, parts))

    def _require_grid(self) -> Volume:
        if self.grid is None:
            raise OutputError(
                "this segmentation was made without the scan's grid; give grid=volume.grid"
            )
        return self.grid
