"""``Segmenter``: a trained bundle, loaded once, that turns volumes into label maps."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy.typing as npt
import torch

from medseg._support.memory import is_out_of_memory
from medseg._support.optional_packages import import_monai
from medseg.bundle.bundle import Assembly, Bundle, load_bundle
from medseg.bundle.spec import SpeedSetting
from medseg.datasets.input_checks import admit
from medseg.datasets.measures import measure_scan
from medseg.datasets.validated_range import RangeCheck
from medseg.errors import CheckpointError, MedsegError
from medseg.inference.arithmetic_check import refuse_wrong_arithmetic
from medseg.inference.assembly import AssemblyRun, translate_given
from medseg.inference.assembly_prediction import AssemblyPrediction
from medseg.inference.backends import Member
from medseg.inference.backends.at_speed import (
    EXACT,
    check_speed,
    find_decided_setting,
    load_for_clicks,
    set_overlap,
)
from medseg.inference.backends.loading import AUTO, load_members
from medseg.inference.blank_window import BlankWindow
from medseg.inference.chosen_labels import choose_labels
from medseg.inference.clicks import Space
from medseg.inference.correction import Correction
from medseg.inference.device_errors import (
    explain_device_errors,
    explain_start_errors,
)
from medseg.inference.given_labels import check_labels
from medseg.inference.joint_passes import Look, pass_together
from medseg.inference.pass_plan import PassPlan, PassResult
from medseg.inference.prediction import Prediction, measure_volumes_ml
from medseg.inference.segmentation import Segmentation
from medseg.inference.sliding_window import SlidingWindow, SlidingWindowPass
from medseg.io.volume_like import SeriesChoice, VolumeLike
from medseg.networks.click_inputs import append_no_clicks
from medseg.networks.devices import (
    choose_device,
    choose_precision,
    get_precision_name,
    release_memory,
)
from medseg.networks.gpu_arithmetic import full_float32
from medseg.networks.loading import get_output_layout
from medseg.quality.agreement import compute_mask_dice, estimate_mask_quality
from medseg.quality.estimates import MaskQuality
from medseg.volume import Array, Volume

_log = logging.getLogger(__name__)


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
        self.choices = {"backend": backend, "precision": precision}
        self._speed = check_speed(speed, self.spec)
        self._parts: dict[str, Segmenter] = {}
        if isinstance(bundle, Assembly):
            steps = bundle.select(self._chosen)
            for step in steps:
                self._parts[step.spec.name] = Segmenter(
                    step.bundle,
                    device,
                    backend=backend,
                    precision=precision,
                    mirror=mirror,
                    fold_ensemble=fold_ensemble,
                    gpu_memory=gpu_memory,
                    speed=speed,
                )
            self._adopt_parts(mirror)
        else:
            self._load_networks(mirror, fold_ensemble, gpu_memory)
        if labels is not None:
            self.choices["labels"] = ",".join(sorted(self._chosen))

    def _load_networks(
        self, mirror: bool | None, fold_ensemble: bool, gpu_memory: int | None
    ) -> None:
        """Load a bundle's networks, and what is known of them."""
        # Before anything else does, which would import MLflow and pandas with it.
        import_monai()
        if mirror is None:
            mirror = self.spec.inference.mirror
        members = self.bundle.members
        files = members if fold_ensemble else members[:1]
        self.choices["mirror"] = str(mirror)
        self.choices["members"] = str(len(files))
        precision = self.choices["precision"]
        dtype = _choose_inference_precision(precision, self.device)
        setting = self._choose_setting()
        backend = self.choices["backend"]
        if self._speed == EXACT and backend == AUTO:
            backend = "torch"
        with explain_start_errors(self.device):
            self.backend, loaded = load_members(
                self.bundle, files, backend, self.device, dtype, setting
            )
        axes = self.spec.mirror_axes if mirror else ()
        dims, channels = self.spec.network.dims, self.spec.input_channels
        ensemble = Ensemble(loaded, dims, axes, channels)
        if self.device.type == "cuda":
            with explain_start_errors(self.device):
                refuse_wrong_arithmetic(ensemble, self.spec, self.device)
        self.precision = ensemble.precision
        self._calibration = self.bundle.trained.quality
        self._keep_largest = self.bundle.decided.inference.keep_largest or ()
        temperature = (
            self._calibration.temperature if self._calibration else 1.0
        )
        layout = get_output_layout(self.bundle)
        seen = self.spec
        if setting is not None:
            seen = set_overlap(seen, setting.overlap)
        self._setting = setting
        sliding_window = SlidingWindow(
            seen, self.device, gpu_memory, layout, temperature
        )
        self._loaded: NetworkRunner | None = NetworkRunner(
            ensemble, sliding_window, self.device
        )

    def _choose_setting(self) -> SpeedSetting | None:
        """Return the speed setting to compute at; ``None`` for that of stock MONAI."""
        speed = self._speed
        if speed == EXACT or self.bundle.trained.speed is not None:
            self.choices["speed"] = speed
        if {self.choices["backend"], self.choices["precision"]} != {AUTO}:
            return None
        return find_decided_setting(self.bundle, speed, self.device)

    @property
    def arithmetic(self) -> str:
        """What computes, and in what: ``openvino int8 + bf16, overlap 0.25``."""
        if self._parts:
            kinds = {part.arithmetic for part in self._parts.values()}
            return "; ".join(sorted(kinds))
        if self._setting is None or self.backend == "torch":
            return f"{self.backend} {get_precision_name(self.precision)}"
        return f"{self.backend} {self._setting.name}"

    def _adopt_parts(self, mirror: bool | None) -> None:
        """Be to others what an assembly's parts are together."""
        parts = self._parts.values()
        self.backend = "/".join(sorted({part.backend for part in parts}))
        self.precision = next(iter(parts)).precision
        self.choices["mirror"] = str(mirror)
        for name, part in self._parts.items():
            self.choices[f"members of {name}"] = part.choices["members"]
            if "speed" in part.choices:
                self.choices[f"speed of {name}"] = part.choices["speed"]
        self._loaded = None
        self._setting = None
        self._calibration = None

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
        prediction = self.predict(admitted, probabilities=probabilities)
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
            MedsegError: As ``segment``.
        """
        volume = self._open(volume)
        if given is not None:
            given = check_labels(given, volume.shape, len(self.spec.label_set))
        if self._parts:
            if probabilities:
                raise MedsegError(
                    "an assembly has no probabilities of its own; ask one of its bundles"
                )
            return self._predict_by_parts(volume, given)
        runner = self._runner
        with (
            torch.inference_mode(),
            explain_device_errors(volume, self.device),
        ):
            plan = runner.sliding_window.plan(
                volume, given, temperatures, probabilities
            )
            result = runner.pass_over(plan)
        return self._make_prediction(volume, result)

    def _make_prediction(
        self, volume: Volume, result: PassResult
    ) -> Prediction:
        return Prediction(
            volume.grid,
            result,
            self.spec.label_set,
            self._calibration,
            self._keep_largest,
            self.spec,
            partial(self._measure, volume),
            self.bundle.is_made_up,
            self._chosen,
        )

    def _predict_by_parts(
        self, volume: Volume, given: Array | None
    ) -> AssemblyPrediction:
        """Let each of an assembly's bundles look where it should, and join what they find."""
        assembly = self.bundle
        if not isinstance(assembly, Assembly):
            raise TypeError("only an assembly has parts")
        steps = assembly.select(self._chosen)
        run = AssemblyRun(steps, volume, self.spec, self._chosen)
        # Warnings of the reader are told once, not by each part.
        quiet = replace(volume, warnings=())
        while views := run.take_ready():
            for view in views:
                part = quiet if view.is_whole(volume) else quiet.crop(view.box)
                looks = []
                for step in view.steps:
                    own = translate_given(given, self.spec, step, view.box)
                    runner = self._parts[step.spec.name]._runner
                    looks.append(Look(runner, own))
                with (
                    torch.inference_mode(),
                    explain_device_errors(part, self.device),
                ):
                    results = pass_together(looks, part)
                for step, result in zip(view.steps, results, strict=True):
                    segmenter = self._parts[step.spec.name]
                    made = segmenter._make_prediction(part, result)
                    run.add(step, view.box, made)
        return run.finish()

    def _measure(self, volume: Volume) -> RangeCheck | None:
        """Measure a scan for the comparison with what the bundle was validated on."""
        validated = self.bundle.trained.validated
        if validated is None:
            return None
        measures = measure_scan(volume)
        return RangeCheck(validated, self.spec, measures, volume.voxel_ml)

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
        own = prediction.finish()
        own_quality = own.quality
        if self._parts:
            # Raw scores of several networks have no calibration in common.
            own_quality = replace(own_quality, is_calibrated=False)
        label_set = self.spec.label_set
        dice = compute_mask_dice(labels, own.labels, label_set)
        unasked = set(label_set.names) - self._chosen
        dice = {name: dice[name] for name in dice if name not in unasked}
        quality = estimate_mask_quality(
            prediction.given_dice,
            dice,
            own_quality,
            self._calibration,
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
        if self._parts:
            raise MedsegError(
                "an assembly takes no clicks; correct with one of its bundles"
            )
        if self.spec.training.clicks is None:
            raise MedsegError(
                "this bundle takes no clicks; train one that does from it: medseg train BUNDLE "
                "--from BUNDLE --set 'training.clicks={}'"
            )
        scan = admit(self._open(volume), self.spec)
        network = self._load_click_network()
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
        return Segmentation(
            labels,
            label_set,
            measure_volumes_ml(labels, label_set, scan.voxel_ml),
            warnings=scan.warnings,
            grid=scan,
            spec=self.spec,
        )

    def close(self) -> None:
        """Free the networks, and the memory of a GPU; it segments nothing afterwards."""
        self._loaded = None
        for part in self._parts.values():
            part.close()
        release_memory(self.device)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        bundle = f"{self.spec.name} {self.spec.version}"
        return f"Segmenter({bundle!r}, {self.backend} on {self.device})"

    @property
    def _runner(self) -> NetworkRunner:
        """What passes the networks over scans.

        Raises:
            MedsegError: If it was closed.
        """
        if self._loaded is None:
            raise MedsegError("this Segmenter was closed; make another one")
        return self._loaded

    def _load_click_network(self) -> Ensemble:
        """Return what answers clicks: one network without flips, since somebody waits for it."""
        runner, spec = self._runner, self.spec
        if runner.for_clicks is not None:
            return runner.for_clicks
        members = runner.ensemble._members[:1]
        choices = {self.choices["backend"], self.choices["precision"]}
        may_choose = choices == {AUTO} and self._speed != EXACT
        if may_choose and self.backend == "torch" and self.device.type == "cpu":
            # Where its files are gone since, what was loaded of them goes on.
            with contextlib.suppress(CheckpointError):
                quick = load_for_clicks(self.bundle, self.bundle.members[0])
                members = members if quick is None else [quick]
        runner.for_clicks = Ensemble(
            members, spec.network.dims, channels=spec.input_channels
        )
        return runner.for_clicks

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


class NetworkRunner:
    """Runs the networks of one bundle.

    Args:
        ensemble: The networks.
        sliding_window: How windows lie, and what becomes of their scores.
        device: Where it computes.

    Attributes:
        device: Where it computes.
        for_clicks: What answers clicks, once somebody has clicked.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        sliding_window: SlidingWindow,
        device: torch.device,
    ) -> None:
        self.ensemble = ensemble
        self.for_clicks: Ensemble | None = None
        self.sliding_window = sliding_window
        self.device = device

    def pass_over(self, plan: PassPlan) -> PassResult:
        """Make a pass as planned; if a GPU's memory runs out, once more in the host's."""
        try:
            return self.run_windows(plan)
        except Exception as error:
            if not plan.storage.uses_gpu or not is_out_of_memory(error):
                raise
        # Behind the handler, whose error holds on to all that the first try had made.
        return self.pass_on_host(plan)

    def pass_on_host(self, plan: PassPlan) -> PassResult:
        """Make a pass whose image and scores lie in the host's memory: the GPU's ran out."""
        warning = f"the memory of {self.device} ran out; image and scores were kept in the host's"
        _log.warning(warning)
        release_memory(self.device)
        return self.run_windows(plan.on_host(warning))

    def run_windows(self, plan: PassPlan) -> PassResult:
        """Make a pass as planned, with fewer windows at a time where memory is short."""
        scan_pass = SlidingWindowPass(self.sliding_window, plan)
        with self.ensemble.arithmetic():
            while corners := scan_pass.next_corners():
                try:
                    scores = self.ensemble(scan_pass.cut(corners))
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    if not scan_pass.halve_batch(len(corners)):
                        raise
                else:
                    scan_pass.add(corners, scores)
                    del (
                        scores
                    )  # or memory would hold them beside the next windows'
                    continue
                # Behind the handler, whose error holds on to what the try had made.
                release_memory(self.device)
        return scan_pass.finish()


class Ensemble:
    """The scores of windows: the mean over all members and flips.

    Window by window, so that memory does not grow with the number of members.

    Args:
        members: Trained networks that compute in the same way; at least one.
        dims: 2 for networks that see slices, else 3.
        mirror_axes: Axes along which windows are also flipped, 0 for x; the scores of all
            combinations are averaged.
        channels: What the networks take. Channels for clicks are missing where nobody clicked.
    """

    def __init__(
        self,
        members: Sequence[Member],
        dims: int,
        mirror_axes: Sequence[int] = (),
        channels: int | None = None,
    ) -> None:
        self._members = members
        self._dims = dims
        self._channels = channels
        # Axis 0 of a window is axis 2 of a batch ``(batch, channels, x, y, z)``.
        batch_axes = [2 + axis for axis in mirror_axes if axis < dims]
        self._flips = _list_combinations(batch_axes)
        self._blank = BlankWindow()

    @property
    def precision(self) -> torch.dtype:
        """The precision of the arithmetic."""
        return self._members[0].precision

    @torch.inference_mode()
    def compute(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the scores of some windows, for who has windows of their own."""
        with self.arithmetic():
            return self(windows)

    def use_float32(self) -> None:
        """Compute in float32 from now on."""
        for member in self._members:
            member.precision = torch.float32

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Return the context in which to call: entered once per scan."""
        with full_float32(), self._members[0].arithmetic():
            yield

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Compute the mean scores of windows.

        Args:
            windows: ``(batch, channels, x, y, z)``. A 2D network gets windows of one plane,
                ``z = 1``.

        Returns:
            ``(batch, classes, x, y, z)``; float32 where there is more to average than one. Of a
            window of one value, such as one outside the body, what was computed for the last.
        """
        known = self._blank.find_scores(windows)
        if known is not None:
            return known
        scores = self._compute(windows)
        self._blank.keep_scores(windows, scores)
        return scores

    def _compute(self, windows: torch.Tensor) -> torch.Tensor:
        if self._channels is not None:
            windows = append_no_clicks(windows, self._channels)
        if self._dims == 2:
            windows = windows.squeeze(-1)
        first, *others = self._members
        total = first(windows)
        count = len(self._members) * len(self._flips)
        if count > 1:
            total = total.float()
            for member in others:
                total += member(windows)
            for axes in self._flips[1:]:
                flipped = windows.flip(axes)
                for member in self._members:
                    total += member(flipped).flip(axes)
            total /= count
        if self._dims == 2:
            total = total.unsqueeze(-1)
        return total

    @torch.inference_mode()
    def measure_rounding_error(self, windows: torch.Tensor) -> float:
        """Return how far scores are from those of float32, relative to their size.

        Rounding gives a few percent. Far more comes from a fault of hardware or libraries: some
        versions of cuDNN return wrong 3D convolutions in bfloat16.
        """
        exact = self(windows).float()
        with self.arithmetic():
            coarse = self(windows).float()
        difference = (coarse - exact).norm()
        return float(difference / exact.norm())


def _list_combinations(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return every set of axes to flip, none at all first."""
    flips: list[tuple[int, ...]] = [()]
    for axis in axes:
        flips += [(*flip, axis) for flip in flips]
    return flips


def _choose_inference_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic for a precision's name; ``auto`` on a CPU gives MONAI's label maps."""
    if name == "auto" and device.type == "cpu":
        name = "fp32"
    return choose_precision(name, device)
