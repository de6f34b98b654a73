"""How a scan becomes the network's input."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, field_validator, model_validator

from medseg.bundle.spec.intensity import Intensities, ZScore
from medseg.bundle.spec.parts import Fraction, Spec, equals

RAS = "RAS"
"""The axes a network sees unless it says otherwise."""

_STORED = "ijk"
_OPPOSITES = ("RL", "AP", "SI")


class ResamplingSpec(Spec):
    """How a scan is brought to `spacing_mm`, and scores back: as MONAI's `Spacing` does, or as
    nnU-Net."""

    interpolation: Literal["linear", "cubic"] = "linear"
    """Of the image: `linear`, or `cubic` B-splines kept within the image's range. Scores are
    always interpolated linearly, labels taken from the nearest voxel."""
    grid: Literal["spacing", "extent"] = "spacing"
    """`spacing`: voxels have exactly the wanted size, and the first and last stay in place (MONAI).
    `extent`: the scan's extent is cut into round(voxels × spacing / wanted) equal voxels (nnU-Net,
    skimage)."""
    coarse_axis_ratio: Annotated[float, Field(gt=1)] | None = None
    """An axis whose voxels are more than this many times as long as the shortest edge is resampled
    apart from the others, by the nearest voxel; nnU-Net: 3. Needs grid `extent`."""
    tolerance: Fraction = 0.0
    """Share by which a scan's voxel size may differ from `spacing_mm`, along each axis, and be left
    as it is; Auto3DSeg: 0.25."""

    @model_validator(mode="after")
    def _check_grid(self) -> ResamplingSpec:
        if self.grid == "extent":
            return self
        for field, is_set in (
            ("interpolation 'cubic'", self.interpolation == "cubic"),
            ("coarse_axis_ratio", self.coarse_axis_ratio is not None),
        ):
            if is_set:
                raise ValueError(f"{field} needs grid 'extent'")
        return self


class PreprocessingSpec(Spec):
    """How a scan becomes the network's input; the same for training and inference."""

    input: Literal["volume", "picture"] = "volume"
    """`volume`: NIfTI, NRRD, MHA or DICOM in patient space. `picture`: PNG, TIFF or JPEG."""
    axes: Annotated[
        str, Field(pattern=r"^[A-Za-z]{3}$", exclude_if=equals(RAS))
    ] = RAS
    """The axes the network sees. Directions in the patient to which they point, such as `RAS` or
    `LPS` (MONAI's `Orientation`), or `ijk`: as the file stores them (nnU-Net), in this or another
    order. 2D networks see slices across the last."""
    spacing_mm: (
        Annotated[
            tuple[PositiveFloat | None, ...], Field(min_length=3, max_length=3)
        ]
        | None
    ) = None
    """Voxel size the network sees, along its `axes` (right, anterior and superior unless these say
    otherwise); `null` for an axis keeps the scan's own, `null` for all the scan's own grid."""
    resampling: Annotated[
        ResamplingSpec, Field(exclude_if=equals(ResamplingSpec()))
    ] = ResamplingSpec()
    intensity: Intensities = ZScore()
    """Normalisation; one for all channels, or a list with one per channel."""
    normalise: Annotated[
        Literal["after_resampling", "before_resampling"],
        Field(exclude_if=equals("after_resampling")),
    ] = "after_resampling"
    """Whether intensities are normalised on the network's grid, `after_resampling`, or on the
    scan's own, `before_resampling` (nnU-Net)."""
    crop_above: float | None = None
    """Look only at the box of voxels above this intensity (0 for skull-stripped MR, about -500
    HU for a body in CT); voxels outside it are background."""
    crop_nonzero: Annotated[bool, Field(exclude_if=equals(False))] = False
    """Look only at the box of voxels that are not 0 in any channel (nnU-Net). A scan that is 0
    everywhere is refused."""
    crop_on: Annotated[
        Literal["scan", "input"], Field(exclude_if=equals("scan"))
    ] = "scan"
    """Where such a box is looked for: in the `scan` as it is, or in the network's `input`, after
    resampling and normalising, as in chains of MONAI's that end with `CropForeground`; then
    `crop_above` is compared with normalised intensities. Needs grid `spacing`."""
    crop_margin: Annotated[int, Field(ge=0, le=1000, exclude_if=equals(0))] = 0
    """Voxels that are kept around such a box on each side, as far as there are any; Auto3DSeg:
    10."""
    padding: Annotated[
        Literal["air", "zero", "replicate"], Field(exclude_if=equals("air"))
    ] = "air"
    """What lies around a scan smaller than a window, after normalisation: `air`, the lowest value
    of a window, or 0 where not all channels have the same window; `zero` (nnU-Net); or the scan's
    outermost voxels again, `replicate`. Around training patches `replicate` is `air`."""

    @field_validator("axes")
    @classmethod
    def _check_axes(cls, axes: str) -> str:
        is_stored = sorted(axes) == sorted(_STORED)
        has_all = all(
            sum(axes.count(direction) for direction in pair) == 1
            for pair in _OPPOSITES
        )
        if is_stored or has_all:
            return axes
        raise ValueError(
            f"'{axes}' must have one of R and L, one of A and P, and one of S and I, such as "
            "'RAS'; or i, j and k for the axes as stored"
        )

    @model_validator(mode="after")
    def _check_crop(self) -> PreprocessingSpec:
        if self.crop_nonzero and self.crop_above is not None:
            raise ValueError(
                "crop_above and crop_nonzero are both set; leave out one of them"
            )
        crops = self.crop_nonzero or self.crop_above is not None
        is_elsewhere = self.crop_on == "input"
        if is_elsewhere and (self.resampling.grid == "extent" or not crops):
            raise ValueError(
                "crop_on 'input' needs crop_above or crop_nonzero, and resampling.grid 'spacing'"
            )
        if self.crop_margin and not crops:
            raise ValueError(
                "crop_margin needs a box; set crop_above or crop_nonzero, or leave it out"
            )
        return self

    @property
    def stored_order(self) -> tuple[int, int, int] | None:
        """Which stored axis is each of the network's; ``None`` if they are a patient's axes."""
        if self.axes.isupper():
            return None
        i, j, k = (_STORED.index(letter) for letter in self.axes)
        return i, j, k
