"""Several networks over one scan: what they have in common is done once."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from medseg._support.memory import is_out_of_memory
from medseg.inference.accumulator import count_bytes_held
from medseg.inference.bundle_predictor import BundlePredictor, Ensemble
from medseg.inference.pass_plan import PassPlan, PassResult, Stopwatch
from medseg.inference.sliding_window_pass import SlidingWindowPass
from medseg.networks.devices import release_memory
from medseg.preprocessing.shared_input import SharedInput
from medseg.volume import Array, Volume

_MOST_BYTES_TOGETHER = 2 << 30
"""Memory that sums of scores may take where several networks pass over a scan at once."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one of several networks is to look at.

    Attributes:
        predictor: Runs it.
        given: Label indices on the scan's grid that are to be judged, too.
    """

    predictor: BundlePredictor
    given: Array | None

    def plan(self, shared: SharedInput, volume: Volume) -> PassPlan:
        """Plan its pass on the grid it shares with others."""
        window = self.predictor.sliding_window
        grid = shared.find_grid(window.spec.preprocessing)
        return window.plan(volume, self.given, grid=grid)

    def can_join(self, other: Look) -> bool:
        """Tell whether every window is the same for both networks."""
        own = self.predictor.sliding_window
        precision = other.predictor.ensemble.precision
        if self.predictor.ensemble.precision != precision:
            return (
                False  # they compute in one context, which is of one precision
            )
        return own.has_windows_of(other.predictor.sliding_window)


def pass_together(looks: Sequence[Look], volume: Volume) -> list[PassResult]:
    """Pass several networks over one scan; what they have in common is done once.

    Networks with the same windows get each window in turn, as many networks at once as their sums
    of scores fit the memory for it.

    Args:
        looks: The networks.
        volume: What they look at.

    Returns:
        What each pass made, in their order.
    """
    shared = SharedInput(volume)
    results: list[PassResult] = []
    while len(results) < len(looks):
        group = _take_group(looks[len(results) :], shared, volume)
        results += _pass_group(group, shared)
    return results


def _take_group(
    looks: Sequence[Look], shared: SharedInput, volume: Volume
) -> list[tuple[Look, PassPlan]]:
    """Return the first network, and those after it that can take the same windows."""
    group: list[tuple[Look, PassPlan]] = []
    held = 0
    for look in looks:
        if group and not look.can_join(group[0][0]):
            break
        plan = look.plan(shared, volume)
        channels = look.predictor.sliding_window.layout.channels
        held += count_bytes_held(plan.windows, channels)
        if group and held > _MOST_BYTES_TOGETHER:
            break
        group.append((look, plan))
    return group


def _pass_group(
    group: Sequence[tuple[Look, PassPlan]], shared: SharedInput
) -> list[PassResult]:
    """Pass a group over its scan together; where memory runs out, one after the other."""
    first, plan = group[0]
    is_alone = len(group) == 1
    try:
        return _pass_with_shared_image(group, shared)
    except Exception as error:
        can_be_tried_again = plan.storage.uses_gpu or not is_alone
        if not can_be_tried_again or not is_out_of_memory(error):
            raise
    # Behind the handler, whose error holds on to what the first try had made.
    shared.forget()
    if is_alone:
        return [first.predictor.pass_on_host(plan)]
    release_memory(first.predictor.device)
    return [look.predictor.pass_over(plan) for look, plan in group]


def _pass_with_shared_image(
    group: Sequence[tuple[Look, PassPlan]], shared: SharedInput
) -> list[PassResult]:
    first, plan = group[0]
    window = first.predictor.sliding_window
    image = shared.make(window.spec, window.make_input, plan.storage.image)
    plan.stopwatch.lap("input")
    seeing = [(look, replace(each, image=image)) for look, each in group]
    if len(seeing) > 1:
        return _run_windows_together(seeing)
    return [first.predictor.run_windows(seeing[0][1])]


def _run_windows_together(
    group: Sequence[tuple[Look, PassPlan]],
) -> list[PassResult]:
    passes = []
    with contextlib.ExitStack() as writers:
        with contextlib.ExitStack() as arithmetic:
            for look, plan in group:
                ensemble = look.predictor.ensemble
                arithmetic.enter_context(ensemble.arithmetic())
                window = look.predictor.sliding_window
                # Or each would count the time of those before it as well.
                plan.stopwatch.restart()
                scan_pass = SlidingWindowPass(window, plan)
                writers.enter_context(scan_pass)
                passes.append((ensemble, scan_pass, plan.stopwatch))
            _compute_together(passes)
        results = []
        for _, scan_pass, stopwatch in passes:
            stopwatch.restart()
            results.append(scan_pass.finish())
        return results


def _compute_together(
    passes: Sequence[tuple[Ensemble, SlidingWindowPass, Stopwatch]],
) -> None:
    """Give each window to one network after the other."""
    _, leader, watch_of_leader = passes[0]
    while corners := leader.next_corners():
        # What all of them share counts as the first one's.
        watch_of_leader.restart()
        windows = leader.cut(corners)
        watch_of_leader.lap("network")
        for ensemble, scan_pass, stopwatch in passes:
            stopwatch.restart()
            scan_pass.add(corners, ensemble(windows))
