"""Chains that prepare scans in a MONAI config, as a bundle's preprocessing."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from typing import Any

from medseg.interop.monai_config.config import Component
from medseg.interop.monai_config.inferer import DescribedWindows
from medseg.interop.monai_config.intensity import (
    describe_intensity,
    find_threshold,
)
from medseg.interop.monai_config.transforms import (
    check_float,
    check_key,
    find_selected,
    parse_function,
    take_one,
)

Fields = dict[str, Any]

_STORED = "ijk"
_READERS = (None, "ITKReader", "NibabelReader", "NrrdReader")
_ABOVE_ZERO = 0.0
_LINEAR = ("bilinear", 1)


class ChainReader:
    """Reads a chain of transforms one after the other, and refuses an order that medseg lacks.

    Args:
        channels: Of the image.
        windows: The sliding window that follows.

    Attributes:
        selected: Which channels of a scan the network sees, by number, if not all of them.
        remarks: What a person should know.
    """

    def __init__(self, channels: int, windows: DescribedWindows) -> None:
        self._channels = channels
        self._windows = windows
        self._key = ""
        self._axes = _STORED
        self._spacing: tuple[float | None, ...] | None = None
        self._tolerance = 0.0
        self._before: list[Fields] = []
        self._after: list[Fields] = []
        self._crop: Fields = {}
        self.selected: tuple[int, ...] = ()
        self.remarks: list[str] = []

    @property
    def key(self) -> str:
        """Under which name the image is loaded."""
        return self._key

    @property
    def moves(self) -> bool:
        """Whether the network sees other voxels than the file has."""
        return bool(self._spacing or self._crop)

    def read(self, component: Component) -> None:
        """Take one transform.

        Raises:
            MedsegError: If it is not known, or stands where medseg cannot do it.
        """
        if not self._key:
            self._read_load(component)
            return
        check_key(component, self._key)
        reader = {
            "EnsureChannelFirst": self._read_nothing,
            "AddChannel": self._read_nothing,
            "ToTensor": self._read_nothing,
            "ToDevice": self._read_nothing,
            "Identity": self._read_nothing,
            "SelectItems": self._read_nothing,
            "EnsureType": self._read_type,
            "CastToType": self._read_type,
            "Orientation": self._read_orientation,
            "Spacing": self._read_spacing,
            "CropForeground": self._read_crop,
            "SpatialPad": self._read_pad,
            "DivisiblePad": self._read_divisible,
        }.get(component.name, self._read_intensity)
        reader(component)

    def describe(self) -> Fields:
        """Return the section ``preprocessing``."""
        steps = [*self._before, *self._after]
        intensity: Any = {"kind": "none"}
        if steps:
            intensity = steps[0]
        if len(steps) > 1:
            intensity = {"kind": "sequence", "steps": tuple(steps)}
        described: Fields = {
            "axes": self._turn(self._axes),
            "intensity": intensity,
            "padding": self._windows.padding,
            **self._crop,
        }
        if self._spacing is not None:
            described["spacing_mm"] = tuple(self._turn(self._spacing))
            described["resampling"] = {"tolerance": self._tolerance}
            if self._before:
                described["normalise"] = "before_resampling"
        return described

    def _turn(self, axes: Any) -> Any:
        """Bring the axis across which slices lie behind the others, where it is not there."""
        last = self._windows.slice_axis
        if last is None:
            return axes
        turned = [*axes[:last], *axes[last + 1 :], axes[last]]
        return "".join(turned) if isinstance(axes, str) else turned

    def _read_load(self, component: Component) -> None:
        if component.name != "LoadImage":
            raise component.refuse("stands before LoadImaged")
        key = take_one(component, "keys", None)
        if not isinstance(key, str):
            raise component.refuse("one key is known", "keys")
        self._key = key
        reader = component.take("reader")
        if reader not in _READERS:
            raise component.refuse(f"{str(reader)[:60]}", "reader")
        check_float(component, "dtype")
        component.finish(
            (
                *("image_only", "ensure_channel_first", "lazy"),
                *("simple_keys", "overwriting", "allow_missing_keys"),
                *("meta_keys", "meta_key_postfix", "expanduser"),
            )
        )

    def _read_nothing(self, component: Component) -> None:
        """Take what changes no voxel."""

    def _read_type(self, component: Component) -> None:
        check_float(component, "dtype")

    def _read_orientation(self, component: Component) -> None:
        axes = component.take("axcodes")
        if component.take("as_closest_canonical", False):
            axes = "RAS"
        if not isinstance(axes, str) or self._spacing is not None:
            raise component.refuse(
                f"{str(axes)[:20]}, which is known before Spacingd"
            )
        component.require(labels=None)
        component.finish(("keys", "allow_missing_keys", "lazy"))
        self._axes = axes

    def _read_spacing(self, component: Component) -> None:
        if self._spacing is not None:
            raise component.refuse("resamples a second time")
        wanted = component.take("pixdim")
        if not isinstance(wanted, list):
            wanted = [wanted] * 3
        if len(wanted) != 3:
            raise component.refuse("three sizes are needed", "pixdim")
        if take_one(component, "mode", "bilinear") not in _LINEAR:
            raise component.refuse("known: bilinear", "mode")
        self._spacing = tuple(_find_size(mm, component) for mm in wanted)
        self._tolerance = self._find_tolerance(component)
        for name, value in (
            ("padding_mode", "border"),
            ("align_corners", False),
        ):
            if take_one(component, name, value) != value:
                raise component.refuse(f"known: {value}", name)
        component.require(diagonal=False, scale_extent=False)
        # Windows alone are the same before and after, as far as anybody can see.
        component.finish(
            (
                *("keys", "allow_missing_keys", "lazy"),
                *("dtype", "recompute_affine", "ensure_same_shape"),
            )
        )
        if self._after:
            self._before, self._after = self._after, []

    def _find_tolerance(self, component: Component) -> float:
        """Return the share by which voxel sizes may differ and be kept."""
        lowest = component.take("min_pixdim")
        highest = component.take("max_pixdim")
        if lowest is None and highest is None:
            return 0.0
        below = self._compare(component, "min_pixdim", lowest)
        above = self._compare(component, "max_pixdim", highest)
        if not math.isclose(1 - below, above - 1, abs_tol=1e-6):
            raise component.refuse("bounds that lie unevenly", "max_pixdim")
        return round(above - 1, 6)

    def _compare(self, component: Component, name: str, bounds: Any) -> float:
        """Return how many times the wanted size a bound is, the same along each axis."""
        bounds = bounds if isinstance(bounds, list) else [bounds] * 3
        wanted = self._spacing or ()
        if len(bounds) != 3 or None in (*bounds, *wanted):
            raise component.refuse("a bound for each axis is needed", name)
        ratios = [
            float(bound) / mm
            for bound, mm in zip(bounds, wanted, strict=True)
            if mm
        ]
        if max(ratios) - min(ratios) > 1e-6:
            raise component.refuse("differs from axis to axis", name)
        return ratios[0]

    def _read_crop(self, component: Component) -> None:
        if self._crop:
            raise component.refuse("crops a second time")
        component.require(
            source_key=self._key, channel_indices=None, k_divisible=1
        )
        margin = component.take("margin", 0)
        if not isinstance(margin, int) or margin < 0:
            raise component.refuse("one number is known", "margin")
        if margin and not component.take("allow_smaller", False):
            # MONAI's default: the box is padded where it reaches beyond the scan.
            raise component.refuse(
                "with a margin, known: true", "allow_smaller"
            )
        component.take("allow_smaller")
        # What it pads with is never seen.
        component.finish(
            (
                *("keys", "allow_missing_keys", "lazy", "mode"),
                *("start_coord_key", "end_coord_key"),
            )
        )
        self._crop = self._place_crop(component, _find_bound(component))
        if margin:
            self._crop["crop_margin"] = margin

    def _place_crop(self, component: Component, bound: float) -> Fields:
        """Return where a box is looked for: in the scan, or in what the network sees."""
        if self._spacing is not None:
            return {"crop_above": bound, "crop_on": "input"}
        steps = self._after
        if not steps:
            return {"crop_above": bound}
        threshold = find_threshold(steps[0]) if len(steps) == 1 else None
        if threshold is None or bound != _ABOVE_ZERO:
            raise component.refuse(
                "is known before the intensities are normalised, or behind all other steps"
            )
        return {"crop_above": threshold}

    def _read_pad(self, component: Component) -> None:
        """Take padding that the sliding window would do in the same way."""
        size = component.take("spatial_size")
        dims = len(self._windows.patch)
        size = size if isinstance(size, list) else [size] * dims
        is_window = tuple(size[:dims]) == self._windows.patch
        if not is_window or self._windows.padding != "zero":
            raise component.refuse(
                "is known where it pads to the size of the inferer's window",
                "spatial_size",
            )
        component.require(method="symmetric", value=0)
        if take_one(component, "mode", "constant") != "constant":
            raise component.refuse("known: constant", "mode")
        component.finish(("keys", "allow_missing_keys", "lazy"))

    def _read_selection(
        self, component: Component, selected: tuple[int, ...]
    ) -> None:
        """Take some channels alone, before anything is computed of all of them."""
        if self.selected or self._before or self._after or self._crop:
            raise component.refuse(
                "selects channels, which is known before all that looks at intensities",
                "func",
            )
        if len(selected) != self._channels:
            raise component.refuse(
                f"selects {len(selected)} channels of which the network takes {self._channels}",
                "func",
            )
        component.finish(("keys", "allow_missing_keys", "lazy", "overwrite"))
        self.selected = selected
        numbers = ", ".join(map(str, selected))
        self.remarks.append(
            f"of scans with several channels it sees number {numbers}, counted from 0; give these "
            "alone"
        )

    def _read_divisible(self, component: Component) -> None:
        multiple = component.take("k")
        multiples = multiple if isinstance(multiple, list) else [multiple]
        if any(each != 1 for each in multiples):
            raise component.refuse(
                "makes each scan a multiple of this size, which moves the windows of larger ones; "
                "known: 1",
                "k",
            )

    def _read_intensity(self, component: Component) -> None:
        selected = find_selected(component)
        if selected is not None:
            self._read_selection(component, selected)
            return
        fields = describe_intensity(component, self._channels)
        if fields is None:
            raise component.refuse("this transform is not known")
        if self._before:
            raise component.refuse(
                "changes intensities behind Spacingd, as others do before it"
            )
        if self._crop.get("crop_on") == "input":
            raise component.refuse(
                "changes intensities behind CropForegroundd, which is known before Spacingd or "
                "behind all other steps"
            )
        self._after.append(fields)


def check_padding_is_last(components: Sequence[Component]) -> None:
    """Refuse padding that later transforms would take for a part of the scan."""
    changing = ("EnsureType", "CastToType", "ToTensor", "ToDevice", "Identity")
    for position, component in enumerate(components):
        if component.name != "SpatialPad":
            continue
        for later in components[position + 1 :]:
            if later.name not in changing:
                raise component.refuse(f"stands before {later.name}d")


def _find_size(mm: Any, component: Component) -> float | None:
    """Return a voxel size; ``None`` for the scan's own, which MONAI takes for 0 and below."""
    if mm is None:
        return None
    is_number = isinstance(mm, int | float) and not isinstance(mm, bool)
    if not is_number or not math.isfinite(mm):
        raise component.refuse(f"{str(mm)[:40]}", "pixdim")
    return float(mm) if mm > 0 else None


def _find_bound(component: Component) -> float:
    """Return the intensity above which a voxel is looked at: 0, or that of ``x > number``."""
    expression = component.take_expression("select_fn")
    if not expression:
        if component.take("select_fn") is not None:
            raise component.refuse("known: $lambda x: x > number", "select_fn")
        return _ABOVE_ZERO
    match parse_function(expression):
        case (
            name,
            ast.Compare(
                left=ast.Name(id=compared),
                ops=[ast.Gt()],
                comparators=[bound],
            ),
        ) if compared == name:
            try:
                value = ast.literal_eval(bound)
            except ValueError:
                value = None
            if isinstance(value, int | float):
                return float(value)
    raise component.refuse(
        f"{expression[:80]}; known: $lambda x: x > number", "select_fn"
    )
