"""``Segmenter``: a trained bundle, loaded once, that turns volumes into label maps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy.typing as npt

from medseg._support.memory import explain_lack_of_memory
from medseg.bundle.bundle import Bundle, load_bundle
from medseg.datasets.input_checks import admit
from medseg.errors import MedsegError
from medseg.inference.assembly_predictor import AssemblyPredictor
from medseg.inference.chosen_labels import choose_labels
from medseg.inference.clicks import Space
from medseg.inference.correction import Correction
from medseg.inference.device_errors import explain_device_errors
from medseg.inference.given_labels import check_labels
from medseg.inference.loading import LoadOptions, Predictor, load_predictor
from medseg.inference.prediction import Prediction, measure_volumes_ml
from medseg.inference.segmentation import Segmentation
from medseg.io.volume_like import SeriesChoice, VolumeLike
from medseg.metrics.confusion import count_voxels
from medseg.networks.devices import choose_device, release_memory
from medseg.quality.agreement import compute_mask_dice, estimate_mask_quality
from medseg.quality.estimates import MaskQuality
from medseg.volume import Array, Volume


class Segmenter:
    """Segments volumes with a trained bundle.

    The label maps are those of the bundle's MONAI chain (resample, slide a window, resample all
    scores back, decode them), computed without ever holding the scores of a whole scan: memory
    grows with classes × planes of one window, not with classes × scan.

    Threads may share one: nothing of a scan is kept in it, so each gets what it would get alone.
    Their scans are computed side by side and share the processor or GPU, so several threads save
    no time on a device that one keeps busy, and each needs the memory of its scan. Nothing has to
    be closed; ``with Segmenter(…) as segmenter`` frees the networks and the memory of a GPU at the
    end of the block, as ``close`` does.

    Args:
        bundle: A trained bundle or an assembly of some, or its path.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        backend: ``torch``, ``openvino`` (CPU only), or ``auto``: OpenVINO on a CPU where it is
            installed and the bundle's export to it was measured to give the same label maps. Or
            the name of a backend that another package registers.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``. ``auto`` is fp32 on a CPU, so that
            label maps equal stock MONAI's, and what the hardware is fast in on a GPU.
        mirror: Whether to average over flips along the bundle's mirror axes; as the bundle says
            unless given.
        fold_ensemble: Whether to average over all networks of a bundle that has one per fold;
            else the first one is used.
        gpu_memory: Most bytes of GPU memory for image and scores; what does not fit lies in the
            host's memory. A share of what is free unless given.
        speed: On a CPU, where ``backend`` and ``precision`` are ``auto``: ``exact`` computes in
            fp32 what stock MONAI does, ``balanced`` as fast as held-out cases showed to keep the
            Dice, ``fast`` faster at some cost. As the bundle says unless given: ``balanced``,
            which is ``exact`` where nothing was decided.
        labels: Names of the labels that results shall have; all unless given. Of an assembly, only
            the bundles that these need are loaded and run.

    Attributes:
        backend: What computes, such as ``torch`` or ``openvino``.
        precision: Of the arithmetic.
        arithmetic: What computes, and in what: ``openvino int8 + bf16, overlap 0.25``.
        choices: What was asked for and can change a label map, ``auto`` left as it is.

    Raises:
        CheckpointError: If the bundle has no weights, or weights of another network.
        BundleError: If its ``bundle.json`` is wrong.
        MissingExtraError: If the backend is not installed.
        MedsegError: If there is no such device or backend, or it cannot compute in this precision.

    Examples:
        >>> from medseg import Segmenter
        >>> from medseg.testing import make_phantom, write_example_bundle
        >>> segmenter = Segmenter(write_example_bundle(trained=True), device="cpu")
        >>> scan, _ = make_phantom(0, shape=(24, 20, 16), spacing=9.0)
        >>> segmentation = segmenter.segment(scan)
        >>> segmentation.labels.shape
        (24, 20, 16)
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str],
        device: str = "auto",
        *,
        backend: str = "auto",
        precision: str = "auto",
        mirror: bool | None = None,
        fold_ensemble: bool = True,
        gpu_memory: int | None = None,
        speed: str | None = None,
        labels: Sequence[str] | str | None = None,
    ) -> None:
        if not isinstance(bundle, Bundle):
            bundle = load_bundle(bundle)
        self.bundle = bundle
        self.spec = self.bundle.spec
        self._chosen = choose_labels(self.spec, labels)
        if device == "auto" and backend == "openvino":
            device = "cpu"
        self.device = choose_device(device)
        options = LoadOptions(
            self.device,
            backend,
            precision,
            mirror,
            fold_ensemble,
            gpu_memory,
            speed,
        )
        loaded = load_predictor(bundle, self._chosen, options)
        self._loaded: Predictor | None = loaded
        self.backend = loaded.backend
        self.precision = loaded.precision
        self.arithmetic = loaded.arithmetic
        self.choices = dict(loaded.choices)
        if labels is not None:
            self.choices["labels"] = ",".join(sorted(self._chosen))

    def segment(
        self,
        volume: VolumeLike,
        *,
        spacing: Sequence[float] | None = None,
        affine: npt.ArrayLike | None = None,
        series: SeriesChoice = None,
        error_map: bool = False,
        probabilities: bool = False,
    ) -> Segmentation:
        """Segment one volume, once it has passed the checks that ``medseg segment`` makes.

        Args:
            volume: What ``as_volume`` takes: a path, bytes or an open file, an array or tensor
                with its spacing or affine, pydicom data sets, an image of MONAI, nibabel or
                SimpleITK, a ``Volume``; one per channel in a list or, by the bundle's channel
                names, in a dictionary. Intensities as they are on disk: HU for CT, raw else.
            spacing: Of an array or tensor, as ``as_volume`` takes it.
            affine: Of an array or tensor, as ``as_volume`` takes it.
            series: Which of several DICOM series, as ``as_volume`` takes it.
            error_map: Whether to map, for each voxel, how probably its label is wrong.
            probabilities: Whether to keep those of every class in every voxel. They take 4 bytes
                × classes × voxels, and more than 8 GiB of them are refused.

        Returns:
            Labels on the volume's own grid. Its ``warnings`` are those of the reader, what of the
            volume is unlike what the bundle was trained on, and what happened on the way.

        Raises:
            ScanError: If the file cannot be read, or the volume does not have the bundle's
                channels, kind and modality, shows nothing or cannot be brought onto the
                network's grid; ``medseg.datasets.input_checks`` has the rules.
            GeometryError: If its shape or the size of its voxels rule it out.
            MedsegError: If the device has too little memory, or the network returns no numbers.
        """
        opened = self._open(
            volume, spacing=spacing, affine=affine, series=series
        )
        admitted = admit(opened, self.spec)
        prediction = self._predictor.predict(
            admitted, probabilities=probabilities
        )
        with explain_lack_of_memory(admitted.source):
            return prediction.finish(error_map=error_map)

    def predict(
        self,
        volume: VolumeLike,
        *,
        temperatures: Sequence[float] = (),
        given: Array | None = None,
        probabilities: bool = False,
    ) -> Prediction:
        """Pass one volume through the network; ``finish`` makes a segmentation of the result.

        The volume is taken as it is: only ``segment`` and ``judge`` check it first.

        Args:
            volume: As ``segment`` takes it.
            temperatures: Further temperatures to compute the confidence at, besides the bundle's.
            given: Label indices ``(i, j, k)`` on the volume's grid to judge by the same
                probabilities.
            probabilities: As for ``segment``.

        Raises:
            ScanError: As ``segment``; or if there is a label the bundle does not have.
            GeometryError: If ``given`` does not have the volume's shape.
            MedsegError: As ``segment``; or if other temperatures are asked of an assembly.
        """
        volume = self._open(volume)
        if given is not None:
            given = check_labels(given, volume.shape, len(self.spec.label_set))
        return self._predictor.predict(
            volume,
            given=given,
            temperatures=temperatures,
            probabilities=probabilities,
        )

    def judge(self, volume: VolumeLike, labels: Array) -> MaskQuality:
        """Estimate how good labels made by someone else are, without a reference.

        Args:
            volume: The scan, as for ``segment``.
            labels: Label indices ``(i, j, k)`` on its grid.

        Raises:
            ScanError: As ``segment`` does, or if there is a label the bundle does not have.
            GeometryError: If the labels do not have the scan's shape.
            MedsegError: As ``segment`` does.
        """
        admitted = admit(self._open(volume), self.spec)
        prediction = self.predict(admitted, given=labels)
        with explain_lack_of_memory(admitted.source):
            own = prediction.finish()
            dice = compute_mask_dice(labels, own.labels, self.spec.label_set)
        own_quality = own.quality
        calibration = self._predictor.calibration
        if calibration is None:
            # Raw scores of an assembly's networks have none in common, though each may have one.
            own_quality = replace(own_quality, is_calibrated=False)
        unasked = set(self.spec.label_set.names) - self._chosen
        dice = {name: dice[name] for name in dice if name not in unasked}
        quality = estimate_mask_quality(
            prediction.given_dice,
            dice,
            own_quality,
            calibration,
        )
        return replace(quality, warnings=own.warnings)

    def begin_correction(self, volume: VolumeLike) -> Correction:
        """Prepare a scan for clicks, once it has passed the checks of ``segment``.

        For many clicks on one scan: it is opened, resampled and normalised only here. ``correct``
        of what is returned takes the clicks.

        Args:
            volume: As for ``segment``.

        Raises:
            ScanError: As ``segment`` does.
            GeometryError: As ``segment`` does.
            MedsegError: If the bundle is not interactive.
        """
        predictor = self._predictor
        if isinstance(predictor, AssemblyPredictor):
            raise MedsegError(
                "an assembly takes no clicks; correct with one of its bundles"
            )
        if self.spec.training.clicks is None:
            raise MedsegError(
                "this bundle takes no clicks; train one that does from it: medseg train BUNDLE "
                "--from BUNDLE --set 'training.clicks={}'"
            )
        scan = admit(self._open(volume), self.spec)
        network = predictor.load_click_network()
        with explain_device_errors(scan, self.device):
            return Correction(scan, self.spec, network.compute, self.device)

    def correct(
        self,
        volume: VolumeLike,
        mask: Array,
        label: str | int,
        *,
        inside: Any = (),
        outside: Any = (),
        space: Space = "voxel",
    ) -> Segmentation:
        """Correct one label of a label map by clicks; the bundle must be interactive.

        Windows around the clicks are computed; what lies outside of them stays as it is. How good
        the result is, is not estimated.

        Args:
            volume: The scan, as for ``segment``.
            mask: Label indices ``(i, j, k)`` on its grid, such as ``segment`` found; not changed.
            label: The label to correct, by its name or index.
            inside: Clicks inside it, ``(n, 3)``.
            outside: Clicks outside of it.
            space: ``voxel`` for indices ``(i, j, k)`` of the scan's array; ``ras`` for mm to the
                patient's right, front and head.

        Raises:
            ScanError: As ``segment`` does; or if there is no such label, or a click is none or lies
                outside the scan.
            GeometryError: If the mask does not have the scan's shape.
            MedsegError: If the bundle is not interactive, or as ``segment`` does.

        Examples:
            >>> from medseg import Segmenter
            >>> from medseg.testing import make_phantom, write_example_bundle
            >>> bundle = write_example_bundle(trained=True, interactive=True)
            >>> segmenter = Segmenter(bundle, device="cpu")
            >>> scan, _ = make_phantom(0, shape=(24, 20, 16), spacing=9.0)
            >>> mask = segmenter.segment(scan).labels
            >>> corrected = segmenter.correct(scan, mask, "kidney", inside=[(12, 9, 7)])
            >>> int(corrected.labels[12, 9, 7])
            2
        """
        correction = self.begin_correction(volume)
        labels = correction.correct(mask, label, inside, outside, space=space)
        return self.describe_correction(correction, labels)

    def describe_correction(
        self, correction: Correction, labels: Array
    ) -> Segmentation:
        """Return a corrected label map with what is known of it."""
        scan, label_set = correction.scan, self.spec.label_set
        voxels = count_voxels(labels, label_set.classes)
        return Segmentation(
            labels,
            label_set,
            measure_volumes_ml(voxels, label_set, scan.voxel_ml),
            warnings=scan.warnings,
            grid=scan,
            spec=self.spec,
        )

    def close(self) -> None:
        """Free the networks, and the memory of a GPU; it segments nothing afterwards."""
        self._loaded = None
        release_memory(self.device)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        bundle = f"{self.spec.name} {self.spec.version}"
        return f"Segmenter({bundle!r}, {self.backend} on {self.device})"

    @property
    def _predictor(self) -> Predictor:
        """What passes the networks over scans that were opened and checked.

        Raises:
            MedsegError: If it was closed.
        """
        if self._loaded is None:
            raise MedsegError("this Segmenter was closed; make another one")
        return self._loaded

    def _open(
        self,
        image: VolumeLike,
        *,
        spacing: Sequence[float] | None = None,
        affine: npt.ArrayLike | None = None,
        series: SeriesChoice = None,
    ) -> Volume:
        # What reads files is imported when the first scan comes.
        from medseg.inference.input_volume import open_volume

        return open_volume(
            image,
            self.spec.channels,
            spacing=spacing,
            affine=affine,
            series=series,
        )
