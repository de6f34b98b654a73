"""``BundlePredictor``: the networks of one bundle, passed over scans window by window."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial

import torch

from medseg._support.memory import is_out_of_memory
from medseg.bundle.bundle import Bundle
from medseg.datasets.measures import measure_scan
from medseg.datasets.validated_range import RangeCheck
from medseg.errors import CheckpointError
from medseg.inference.backends import Member
from medseg.inference.backends.at_speed import load_for_clicks
from medseg.inference.blank_window import BlankWindow
from medseg.inference.bundle_prediction import BundlePrediction
from medseg.inference.device_errors import explain_device_errors
from medseg.inference.pass_plan import PassPlan, PassResult
from medseg.inference.sliding_window import SlidingWindow
from medseg.inference.sliding_window_pass import SlidingWindowPass
from medseg.networks.click_inputs import append_no_clicks
from medseg.networks.devices import get_precision_name, release_memory
from medseg.networks.gpu_arithmetic import full_float32
from medseg.volume import Array, Volume

_log = logging.getLogger(__name__)


class BundlePredictor:
    """Passes the networks of one bundle over scans.

    Threads may share one: nothing of a scan is kept in it.

    Args:
        bundle: The bundle.
        ensemble: Its networks.
        sliding_window: How windows lie, and what becomes of their scores.
        chosen: Names of the labels that segmentations have.
        backend: What computes.
        arithmetic: What a speed setting computes in; what the networks say unless given.
        choices: What was asked for and can change a label map.
        quick_clicks: Whether clicks may be answered in the precision this processor is fast in.

    Attributes:
        backend: What computes, such as ``torch`` or ``openvino``.
        choices: What was asked for and can change a label map.
        calibration: What confidence meant on held-out cases, if the bundle knows.
        device: Where it computes.
    """

    def __init__(
        self,
        bundle: Bundle,
        ensemble: Ensemble,
        sliding_window: SlidingWindow,
        *,
        chosen: Collection[str],
        backend: str,
        arithmetic: str | None,
        choices: Mapping[str, str],
        quick_clicks: bool,
    ) -> None:
        self.ensemble = ensemble
        self.sliding_window = sliding_window
        self.device = sliding_window.device
        self.backend = backend
        self.choices = dict(choices)
        self.calibration = bundle.trained.quality
        self._bundle = bundle
        self._keep_largest = bundle.decided.inference.keep_largest or ()
        self._chosen = chosen
        self._arithmetic = arithmetic
        self._quick_clicks = quick_clicks
        self._click_network: Ensemble | None = None
        self._loading = threading.Lock()

    @property
    def precision(self) -> torch.dtype:
        """The precision of the arithmetic."""
        return self.ensemble.precision

    @property
    def arithmetic(self) -> str:
        """What computes, and in what: ``openvino int8 + bf16, overlap 0.25``."""
        shown = self._arithmetic or get_precision_name(self.precision)
        return f"{self.backend} {shown}"

    def predict(
        self,
        volume: Volume,
        *,
        given: Array | None = None,
        temperatures: Sequence[float] = (),
        probabilities: bool = False,
    ) -> BundlePrediction:
        """Pass one scan through the networks.

        Args:
            volume: The scan, with the bundle's channels.
            given: Label indices ``(i, j, k)`` on its grid to judge by the same probabilities.
            temperatures: Further temperatures to compute the confidence at, besides the bundle's.
            probabilities: Whether to keep those of every class in every voxel.

        Raises:
            ScanError: If the scan cannot be brought onto the network's grid.
            MedsegError: If the device has too little memory, or the network returns no numbers.
        """
        with (
            torch.inference_mode(),
            explain_device_errors(volume, self.device),
        ):
            plan = self.sliding_window.plan(
                volume, given, temperatures, probabilities
            )
            result = self.pass_over(plan)
        return self.make_prediction(volume, result)

    def make_prediction(
        self, volume: Volume, result: PassResult
    ) -> BundlePrediction:
        """Return what a pass over a scan has found, to be finished as the bundle says."""
        spec = self._bundle.spec
        return BundlePrediction(
            volume.grid,
            result,
            spec.label_set,
            self.calibration,
            self._keep_largest,
            spec,
            partial(self._measure, volume),
            self._bundle.is_made_up,
            self._chosen,
        )

    def load_click_network(self) -> Ensemble:
        """Return what answers clicks: one network without flips, since somebody waits for it."""
        # Two that click first at the same time would load it twice.
        with self._loading:
            if self._click_network is None:
                self._click_network = self._make_click_network()
            return self._click_network

    def _make_click_network(self) -> Ensemble:
        members = self.ensemble.members[:1]
        if self._quick_clicks:
            # Where its files are gone since, what was loaded of them goes on.
            with contextlib.suppress(CheckpointError):
                file = self._bundle.members[0]
                quick = load_for_clicks(self._bundle, file)
                members = members if quick is None else [quick]
        spec = self._bundle.spec
        return Ensemble(
            members, spec.network.dims, channels=spec.input_channels
        )

    def _measure(self, volume: Volume) -> RangeCheck | None:
        """Measure a scan for the comparison with what the bundle was validated on."""
        validated = self._bundle.trained.validated
        if validated is None:
            return None
        measures = measure_scan(volume)
        spec = self._bundle.spec
        return RangeCheck(validated, spec, measures, volume.voxel_ml)

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
        with SlidingWindowPass(self.sliding_window, plan) as scan_pass:
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
                        # Or memory would hold them beside the next windows'.
                        del scores
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

    Attributes:
        members: The networks.
    """

    def __init__(
        self,
        members: Sequence[Member],
        dims: int,
        mirror_axes: Sequence[int] = (),
        channels: int | None = None,
    ) -> None:
        self.members = members
        self._dims = dims
        self._channels = channels
        # Axis 0 of a window is axis 2 of a batch ``(batch, channels, x, y, z)``.
        batch_axes = [2 + axis for axis in mirror_axes if axis < dims]
        self._flips = _list_combinations(batch_axes)
        self._blank = BlankWindow()

    @property
    def precision(self) -> torch.dtype:
        """The precision of the arithmetic."""
        return self.members[0].precision

    @torch.inference_mode()
    def compute(self, windows: torch.Tensor) -> torch.Tensor:
        """Return the scores of some windows, for who has windows of their own."""
        with self.arithmetic():
            return self(windows)

    def use_float32(self) -> None:
        """Compute in float32 from now on."""
        for member in self.members:
            member.precision = torch.float32

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Return the context in which to call: entered once per scan."""
        with full_float32(), self.members[0].arithmetic():
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
        first, *others = self.members
        total = first(windows)
        count = len(self.members) * len(self._flips)
        if count > 1:
            total = total.float()
            for member in others:
                total += member(windows)
            for axes in self._flips[1:]:
                flipped = windows.flip(axes)
                for member in self.members:
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
