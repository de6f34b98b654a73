"""``Segmenter``: a trained bundle, loaded once, that turns volumes into label maps."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from monai.transforms import KeepLargestConnectedComponent

from medseg.engine.arithmetic import Predictor
from medseg.engine.networks.unet import build_network
from medseg.engine.sweep import Sweep, Swept
from medseg.engine.windows import choose_device, choose_precision
from medseg.tools.bundle import Bundle, load_bundle
from medseg.tools.checkpoint import load_weights
from medseg.tools.images import Files, itk, nifti, write_labels
from medseg.tools.images.in_memory import Image, as_volume
from medseg.words.config import BundleSpec
from medseg.words.errors import CheckpointError, MedsegError, OutputError, ScanError
from medseg.words.labels import LabelSet
from medseg.words.volume import Array, Volume

_MOST_ROUNDING = 0.2
"""Largest relative error of scores that coarse arithmetic causes by itself."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What was found in one scan.

    Attributes:
        labels: Label indices ``(i, j, k)`` on the scan's own grid, uint8 or uint16.
        label_set: What the indices mean.
        volumes_ml: Label name → millilitres.
        seconds: Stage → time it took: ``input``, ``network``, ``labels``.
        warnings: What a person should know about how this result was made.
        grid: The scan's grid and header, without its voxels.
    """

    labels: Array
    label_set: LabelSet
    volumes_ml: dict[str, float]
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
        return nifti.label_image(self.labels, self._placed())

    def to_sitk(self) -> Image:
        """Return the label map as a ``SimpleITK.Image`` of three dimensions on the scan's grid.

        Raises:
            OutputError: If the grid is sheared, which ITK cannot say.
        """
        return itk.label_image(self.labels, self._placed())

    def _placed(self) -> Volume:
        if self.grid is None:
            raise OutputError("this result does not know its scan's grid; Segmenter's do")
        return self.grid


class Segmenter:
    """Segments volumes with a trained bundle.

    The label maps are those of the bundle's MONAI chain (resample, slide a window, resample all
    scores back, compare), computed without ever holding the scores of a whole scan: memory grows
    with classes × planes of one window, not with classes × scan. May be used by several threads.

    Args:
        bundle: A trained bundle, or its path.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``. ``auto`` is fp32 on a CPU, so that
            label maps equal stock MONAI's, and what the hardware is fast in on a GPU.
        mirror: Whether to average over flips along the axes the bundle was trained to flip.
        gpu_memory: Most bytes of GPU memory for image and scores; what does not fit lies in the
            host's memory. A share of what is free unless given.

    Raises:
        CheckpointError: If the bundle has no weights, or weights of another network.
        BundleError: If its ``bundle.json`` is wrong.
        MedsegError: If there is no such device, or it cannot compute in this precision.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        device: str = "auto",
        *,
        precision: str = "auto",
        mirror: bool = False,
        gpu_memory: int | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self.spec = self.bundle.spec
        self.device = choose_device(device)
        if precision == "auto" and self.device.type == "cpu":
            precision = "fp32"
        axes = self.spec.training.augmentation.mirror_axes if mirror else ()
        predict = Predictor(
            _load_network(self.bundle),
            self.spec.network.dims,
            self.device,
            choose_precision(precision, self.device),
            axes,
        )
        if self.device.type == "cuda":
            _refuse_wrong_arithmetic(predict, self.spec, self.device)
        self.precision = predict.precision
        self._sweep = Sweep(self.spec, predict, self.device, gpu_memory)

    def segment(self, volume: Volume | Files | Image) -> Segmentation:
        """Segment one volume.

        Args:
            volume: Shape ``(channels, i, j, k)``, as a reader gave it: HU for CT, raw
                intensities else. Or what ``as_volume`` makes one of: a path, a nibabel image, a
                SimpleITK image.

        Returns:
            Labels on the volume's own grid.

        Raises:
            ScanError: If the file cannot be read, or the volume does not have the bundle's
                channels or cannot be brought onto the network's grid.
            MedsegError: If the device has too little memory, or the network returns no numbers.
        """
        volume = as_volume(volume)
        wanted, got = len(self.spec.channels), volume.array.shape[0]
        if got != wanted:
            names = ", ".join(channel.name for channel in self.spec.channels)
            raise ScanError(
                f"{volume.source or 'scan'} has {got} channel{'s' * (got != 1)}; this bundle "
                f"needs {wanted} ({names})"
            )
        swept = self._swept(volume)
        labels = self._keep_largest(swept.labels)
        return Segmentation(
            labels,
            self.spec.label_set,
            self._volumes_ml(labels, volume),
            {stage: round(seconds, 4) for stage, seconds in swept.seconds.items()},
            tuple(swept.warnings),
            volume.grid,
        )

    def _swept(self, volume: Volume) -> Swept:
        try:
            with torch.inference_mode():
                return self._sweep(volume)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _is_about_memory(error):
                raise
            hint = "; try --device cpu" if self.device.type == "cuda" else ""
            raise MedsegError(
                f"{volume.source or 'scan'} of shape {volume.shape} does not fit the memory of "
                f"{self.device}{hint}"
            ) from error

    def _keep_largest(self, labels: Array) -> Array:
        wanted = self.spec.inference.keep_largest
        largest = [label.index for label in self.spec.label_set if label.name in wanted]
        if not largest:
            return labels
        keep = KeepLargestConnectedComponent(applied_labels=largest, is_onehot=False)
        kept = keep(torch.from_numpy(labels.astype(np.int32))[None])[0]
        return np.asfortranarray(kept.numpy(), dtype=labels.dtype)

    def _volumes_ml(self, labels: Array, volume: Volume) -> dict[str, float]:
        counts = np.zeros(self.spec.label_set.channels, np.int64)
        # Slice by slice: numpy counts in 8-byte copies of what it is given.
        for k in range(labels.shape[2]):
            counts += np.bincount(labels[..., k].ravel(order="K"), minlength=len(counts))
        return {la.name: float(counts[la.index]) * volume.voxel_ml for la in self.spec.label_set}


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
        predict.precision = torch.float32


def _load_network(bundle: Bundle) -> torch.nn.Module:
    if not bundle.is_trained:
        raise CheckpointError(
            f"{bundle.folder} has no weights ({bundle.weights.relative_to(bundle.folder)}); "
            "train it first: medseg train BUNDLE"
        )
    network = build_network(bundle.spec, supervised=False)
    try:
        network.load_state_dict(load_weights(bundle.weights))
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights in {bundle.weights} are of another network than bundle.json "
            f"describes: {str(error).splitlines()[-1].strip()}"
        ) from error
    return network.eval()
