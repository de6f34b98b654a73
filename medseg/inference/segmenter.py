"""``Segmenter``: a trained bundle, loaded once, that turns volumes into label maps."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from monai.transforms import get_largest_connected_component_mask
from scipy.ndimage import find_objects

from medseg.bundle.bundle import Bundle, load_bundle
from medseg.bundle.spec import BundleSpec
from medseg.errors import GeometryError, MedsegError, OutputError, ScanError
from medseg.inference.backends.loading import load_members
from medseg.inference.confidence import PERCENT, map_errors
from medseg.inference.predictor import Predictor
from medseg.inference.sliding_window import Sweep, Swept
from medseg.io import Files, itk, nifti, write_labels
from medseg.io.adapters import Image, as_volume
from medseg.labels import LabelSet
from medseg.metrics.metrics import count_voxels
from medseg.networks.devices import choose_device, choose_precision
from medseg.quality.agreement import compute_mask_dice, estimate_mask_quality
from medseg.quality.calibration import estimate_quality
from medseg.quality.estimates import MaskQuality, Quality
from medseg.volume import Array, Volume

_MOST_ROUNDING = 0.2
"""Largest relative error of scores that coarse arithmetic causes by itself."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What was found in one scan.

    Attributes:
        labels: Label indices ``(i, j, k)`` on the scan's own grid, uint8 or uint16.
        label_set: What the indices mean.
        volumes_ml: Label name → millilitres; with regions, of these.
        quality: How good this probably is.
        confidence: Label name → what ``quality`` was judged from: the Dice to be expected if the
            network's own probabilities were right, at the bundle's temperature.
        confidence_at: Temperature → the same at it, where others were asked for.
        error_map: Probability in percent that a voxel's label is wrong, uint8 ``(i, j, k)``, if
            it was asked for.
        seconds: Stage → time it took: ``input``, ``network``, ``labels``.
        warnings: What a person should know about how this result was made.
        grid: The scan's grid and header, without its voxels.
    """

    labels: Array
    label_set: LabelSet
    volumes_ml: dict[str, float]
    quality: Quality = field(default_factory=Quality)
    confidence: Mapping[str, float] = field(default_factory=dict)
    confidence_at: Mapping[float, Mapping[str, float]] = field(default_factory=dict)
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
        write_labels(Path(path), self.labels, self._placed())

    def to_nibabel(self) -> Image:
        """Return the label map as a nibabel image on the scan's grid."""
        return nifti.make_label_image(self.labels, self._placed())

    def to_sitk(self) -> Image:
        """Return the label map as a ``SimpleITK.Image`` of three dimensions on the scan's grid.

        Raises:
            OutputError: If the grid is sheared, which ITK cannot say.
        """
        return itk.make_label_image(self.labels, self._placed())

    def _placed(self) -> Volume:
        if self.grid is None:
            raise OutputError("this result does not know its scan's grid; Segmenter's do")
        return self.grid


class Segmenter:
    """Segments volumes with a trained bundle.

    The label maps are those of the bundle's MONAI chain (resample, slide a window, resample all
    scores back, compare them or paint regions), computed without ever holding the scores of a whole
    scan: memory grows with classes × planes of one window, not with classes × scan. May be used by
    several threads.

    Args:
        bundle: A trained bundle, or its path.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        backend: ``torch``, ``openvino`` (CPU only), or ``auto``: OpenVINO on a CPU where it is
            installed and the bundle's export to it was measured to give the same label maps.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``. ``auto`` is fp32 on a CPU, so that
            label maps equal stock MONAI's, and what the hardware is fast in on a GPU.
        mirror: Whether to average over flips along the axes the bundle was trained to flip; as
            the bundle says unless given.
        fold_ensemble: Whether to average over all networks of a bundle that has one per fold;
            else the first one is used.
        gpu_memory: Most bytes of GPU memory for image and scores; what does not fit lies in the
            host's memory. A share of what is free unless given.

    Attributes:
        backend: What computes: ``torch`` or ``openvino``.
        precision: Of the arithmetic.
        choices: What was asked for and can change a label map, ``auto`` left as it is.

    Raises:
        CheckpointError: If the bundle has no weights, or weights of another network.
        BundleError: If its ``bundle.json`` is wrong.
        MissingExtraError: If the backend is not installed.
        MedsegError: If there is no such device or backend, or it cannot compute in this precision.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        device: str = "auto",
        *,
        backend: str = "auto",
        precision: str = "auto",
        mirror: bool | None = None,
        fold_ensemble: bool = True,
        gpu_memory: int | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self.spec = self.bundle.spec
        if device == "auto" and backend == "openvino":
            device = "cpu"
        self.device = choose_device(device)
        mirror = self.spec.inference.mirror if mirror is None else mirror
        files = self.bundle.members if fold_ensemble else self.bundle.members[:1]
        self.choices = {
            "backend": backend,
            "precision": precision,
            "mirror": str(mirror),
            "members": str(len(files)),
        }
        if precision == "auto" and self.device.type == "cpu":
            precision = "fp32"
        wanted = choose_precision(precision, self.device)
        self.backend, members, answer = load_members(
            self.bundle, files, backend, self.device, wanted
        )
        axes = self.spec.training.augmentation.mirror_axes if mirror else ()
        predict = Predictor(members, self.spec.network.dims, axes)
        if self.device.type == "cuda":
            _refuse_wrong_arithmetic(predict, self.spec, self.device)
        self.precision = predict.precision
        self._quality = self.bundle.trained.quality
        self._keep_largest = self.bundle.decided.inference.keep_largest or ()
        temperature = self._quality.temperature if self._quality else 1.0
        self._sweep = Sweep(self.spec, predict, self.device, gpu_memory, answer, temperature)

    def segment(self, volume: Volume | Files | Image, *, error_map: bool = False) -> Segmentation:
        """Segment one volume.

        Args:
            volume: Shape ``(channels, i, j, k)``, as a reader gave it: HU for CT, raw
                intensities else. Or what ``as_volume`` makes one of: a path, a nibabel image, a
                SimpleITK image.
            error_map: Whether to say for each voxel how probably its label is wrong.

        Returns:
            Labels on the volume's own grid.

        Raises:
            ScanError: If the file cannot be read, or the volume does not have the bundle's
                channels or cannot be brought onto the network's grid.
            MedsegError: If the device has too little memory, or the network returns no numbers.
        """
        return self.segment_in_ways(volume, [self._keep_largest], error_map=error_map)[0]

    def segment_in_ways(
        self,
        volume: Volume | Files | Image,
        ways: Sequence[Collection[str]],
        *,
        error_map: bool = False,
        temperatures: Sequence[float] = (),
    ) -> list[Segmentation]:
        """Segment one volume once, and finish the result in several ways.

        Args:
            volume: As ``segment`` takes it.
            ways: For each result, the names of the labels of which only the largest connected
                piece is kept, in place of what the bundle says.
            error_map: Whether to say for each voxel how probably its label is wrong.
            temperatures: At which to say what confidence would be, besides the bundle's own.

        Returns:
            A result for each way, as ``segment`` gives it.

        Raises:
            ScanError: As ``segment``.
            MedsegError: As ``segment``.
        """
        volume = self._opened(volume)
        swept = self._swept(volume, temperatures=temperatures)
        return self._in_ways(volume, swept, ways, error_map=error_map)

    def judge(self, volume: Volume | Files | Image, labels: Array) -> MaskQuality:
        """Say how good labels made by someone else probably are, without knowing the truth.

        Args:
            volume: The scan, as for ``segment``.
            labels: Label indices ``(i, j, k)`` on its grid.

        Raises:
            ScanError: As ``segment`` does, or if there is a label the bundle does not have.
            GeometryError: If the labels do not have the scan's shape.
            MedsegError: As ``segment`` does.
        """
        volume = self._opened(volume)
        labels = _checked(labels, volume.shape, len(self.spec.label_set))
        swept = self._swept(volume, labels)
        (own,) = self._in_ways(volume, swept, [self._keep_largest])
        if swept.given is None:
            raise RuntimeError("the sweep forgot the labels that it was given")
        return estimate_mask_quality(
            swept.given.expected_dice(self.spec.label_set),
            compute_mask_dice(labels, own.labels, self.spec.label_set),
            own.quality,
            self._quality,
        )

    def _opened(self, volume: Volume | Files | Image) -> Volume:
        volume = as_volume(volume)
        wanted, got = len(self.spec.channels), volume.array.shape[0]
        if got != wanted:
            names = ", ".join(channel.name for channel in self.spec.channels)
            raise ScanError(
                f"{volume.source or 'scan'} has {got} channel{'s' * (got != 1)}; this bundle "
                f"needs {wanted} ({names})"
            )
        return volume

    def _in_ways(
        self,
        volume: Volume,
        swept: Swept,
        ways: Sequence[Collection[str]],
        *,
        error_map: bool = False,
    ) -> list[Segmentation]:
        errors = None
        if error_map or any(ways):
            errors = map_errors(swept.found, swept.grid, volume.shape)
        shown = errors if error_map else None
        return [self._finished(swept, volume, way, errors, shown) for way in ways]

    def _finished(
        self,
        swept: Swept,
        volume: Volume,
        keep_largest: Collection[str],
        errors: Array | None,
        shown: Array | None,
    ) -> Segmentation:
        """Make a result of what was swept; ``errors`` are needed where something is taken away."""
        labels, found = swept.labels, swept.found
        largest = [la.index for la in self.spec.label_set if la.name in keep_largest]
        if largest and errors is not None:
            labels = _keep_largest(swept.labels, largest)
            found = found.without(_shares_kept(swept.labels, labels, largest, errors))
        confidence, *others = (
            found.expected_dice(self.spec.label_set, n) for n in range(len(swept.temperatures))
        )
        return Segmentation(
            labels,
            self.spec.label_set,
            self._volumes_ml(labels, volume),
            estimate_quality(confidence, self._quality),
            confidence,
            dict(zip(swept.temperatures[1:], others, strict=True)),
            shown,
            {stage: round(seconds, 4) for stage, seconds in swept.seconds.items()},
            swept.warnings,
            volume.grid,
        )

    def _swept(
        self, volume: Volume, given: Array | None = None, temperatures: Sequence[float] = ()
    ) -> Swept:
        try:
            with torch.inference_mode():
                return self._sweep(volume, given, temperatures)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _is_about_memory(error):
                raise
            hint = "; try --device cpu" if self.device.type == "cuda" else ""
            raise MedsegError(
                f"{volume.source or 'scan'} of shape {volume.shape} does not fit the memory of "
                f"{self.device}{hint}"
            ) from error

    def _volumes_ml(self, labels: Array, volume: Volume) -> dict[str, float]:
        label_set = self.spec.label_set
        counts = count_voxels(labels, label_set.classes)
        return {
            region.name: float(counts[list(region.labels)].sum()) * volume.voxel_ml
            for region in label_set.regions
        }


def _checked(labels: Array, shape: tuple[int, int, int], most: int) -> Array:
    """Return labels as unsigned integers once they are certain to be label indices of a scan."""
    if labels.shape != shape:
        raise GeometryError(
            f"the labels have shape {labels.shape} and the scan {shape}; both must lie on one grid"
        )
    if labels.dtype.kind not in "bui":
        raise ScanError(f"label indices are integers, these labels are {labels.dtype}")
    if labels.min() < 0 or labels.max() > most:
        raise ScanError(
            f"the labels hold values from {labels.min()} to {labels.max()}; label indices 0 to "
            f"{most} are needed"
        )
    return labels.astype(np.uint8 if most < 256 else np.uint16, copy=False)


def _keep_largest(labels: Array, indices: list[int]) -> Array:
    """Return the labels with only the largest connected piece of some of them."""
    kept = np.array(labels, order="F")
    boxes = find_objects(labels)
    for index in indices:
        box = boxes[index - 1] if index <= len(boxes) else None
        if box is None:
            continue
        mask = np.ascontiguousarray(labels[box] == index)
        largest = get_largest_connected_component_mask(torch.from_numpy(mask)).numpy()
        kept[box][mask & ~largest.astype(bool)] = 0
    return kept


def _shares_kept(
    before: Array, after: Array, indices: list[int], errors: Array
) -> dict[int, float]:
    """Return class → share of its mask's probability that lies in what is kept of it."""
    shares = {}
    for index in indices:
        sure, kept = (
            float((PERCENT - errors[labels == index].astype(np.float64)).sum())
            for labels in (before, after)
        )
        shares[index] = kept / sure if sure else 1.0
    return shares


def _is_about_memory(error: RuntimeError) -> bool:
    # On a CPU torch says so in words alone.
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def _refuse_wrong_arithmetic(predict: Predictor, spec: BundleSpec, device: torch.device) -> None:
    """Fall back to float32 where the GPU's coarse arithmetic returns something else altogether."""
    if predict.precision == torch.float32:
        return
    generator = torch.Generator().manual_seed(0)
    size = (*spec.training.patch, 1)[:3]
    windows = torch.randn(1, len(spec.channels), *size, generator=generator)
    error = predict.rounding_error(windows.to(device))
    if not error <= _MOST_ROUNDING:
        _log.warning(
            "scores in %s are %.0f %% off those in float32 on %s; computing in float32",
            predict.precision,
            100 * error,
            device,
        )
        predict.use_float32()
