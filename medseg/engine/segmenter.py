"""``Segmenter``: a trained bundle, loaded once, that turns volumes into label maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.transforms import KeepLargestConnectedComponent

from medseg.engine.networks.unet import build_network
from medseg.engine.windows import Autocast, choose_device, choose_precision, window_inferer
from medseg.tools.bundle import Bundle, load_bundle
from medseg.tools.checkpoint import load_weights
from medseg.tools.transforms import IMAGE, Preprocessing
from medseg.words.errors import CheckpointError, MedsegError, ScanError
from medseg.words.labels import LabelSet
from medseg.words.volume import Array, Volume


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What was found in one scan.

    Attributes:
        labels: Label indices ``(i, j, k)`` on the scan's own grid, uint8 or uint16.
        label_set: What the indices mean.
        volumes_ml: Label name → millilitres.
    """

    labels: Array
    label_set: LabelSet
    volumes_ml: dict[str, float]


class Segmenter:
    """Segments volumes with a trained bundle.

    Args:
        bundle: A trained bundle, or its path.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        CheckpointError: If the bundle has no weights, or weights of another network.
        BundleError: If its ``bundle.json`` is wrong.
    """

    def __init__(self, bundle: Bundle | str | Path, device: str = "auto") -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self.spec = self.bundle.spec
        self.device = choose_device(device)
        self._network = _load_network(self.bundle).to(self.device)
        self._preprocess = Preprocessing(self.spec)
        # On a CPU the arithmetic is that of stock MONAI, so that the label maps are equal.
        precision = choose_precision("auto" if self.device.type == "cuda" else "fp32", self.device)
        self._inferer = Autocast(window_inferer(self.spec), self.device, precision)

    def segment(self, volume: Volume) -> Segmentation:
        """Segment one volume.

        Args:
            volume: Shape ``(channels, i, j, k)``, as a reader gave it: HU for CT, raw
                intensities else.

        Returns:
            Labels on the volume's own grid.

        Raises:
            ScanError: If the volume does not have the bundle's channels.
            MedsegError: If the device has too little memory.
        """
        wanted, got = len(self.spec.channels), volume.array.shape[0]
        if got != wanted:
            names = ", ".join(channel.name for channel in self.spec.channels)
            raise ScanError(
                f"{volume.source or 'scan'} has {got} channel{'s' * (got != 1)}; this bundle "
                f"needs {wanted} ({names})"
            )
        try:
            labels = self._label_map(volume)
        except torch.OutOfMemoryError as error:
            raise MedsegError(
                f"{volume.source or 'scan'} of shape {volume.shape} does not fit the memory of "
                f"{self.device}; try --device cpu"
            ) from error
        return Segmentation(labels, self.spec.label_set, self._volumes_ml(labels, volume))

    @torch.inference_mode()
    def _label_map(self, volume: Volume) -> Array:
        image = self._preprocess(volume)[IMAGE]
        logits = self._inferer(image[None].as_tensor().to(self.device), self._network)[0]
        on_scan = self._preprocess.invert(logits.cpu(), image)
        labels = on_scan.max(dim=0).indices
        largest = [
            la.index for la in self.spec.label_set if la.name in self.spec.inference.keep_largest
        ]
        if largest:
            keep = KeepLargestConnectedComponent(applied_labels=largest, is_onehot=False)
            labels = keep(labels[None])[0]
        kind = np.uint8 if len(self.spec.labels) < 256 else np.uint16
        return labels.numpy().astype(kind)

    def _volumes_ml(self, labels: Array, volume: Volume) -> dict[str, float]:
        counts = np.bincount(labels.reshape(-1), minlength=self.spec.label_set.channels)
        return {la.name: float(counts[la.index]) * volume.voxel_ml for la in self.spec.label_set}


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
