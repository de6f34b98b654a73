"""Windows in which every voxel is the same are computed once: the answer cannot differ.

Outside the body, and where intensities are clipped, there are many of them. On a GPU to look for
them would cost a wait for each batch, and windows come several at a time.
"""

from __future__ import annotations

import torch

_MOST_BYTES = 256 << 20
"""Scores of more are not kept."""

Values = tuple[float, ...]


class BlankWindow:
    """The scores of the last window whose channels had one value each.

    May be shared by threads: what one replaces stays whole for another that has taken it.
    """

    def __init__(self) -> None:
        self._last: tuple[Values, torch.Tensor] | None = None

    def find_scores(self, windows: torch.Tensor) -> torch.Tensor | None:
        """Return the scores of a blank window, if they are known; they are not to be changed."""
        last = self._last
        if last is None:
            return None
        values, scores = last
        return scores if find_values(windows) == values else None

    def keep_scores(self, windows: torch.Tensor, scores: torch.Tensor) -> None:
        """Keep the scores of a window, if it is blank and they are not too large."""
        if scores.nbytes > _MOST_BYTES:
            return
        values = find_values(windows)
        if values is not None:
            self._last = values, scores


def find_values(windows: torch.Tensor) -> Values | None:
    """Return the value of each channel of a single window on the host; ``None`` if not blank."""
    if windows.device.type != "cpu" or len(windows) != 1:
        return None
    channels = windows[0].flatten(1)
    first = channels[:, :1]
    middle = channels.shape[1] // 2
    # Nearly every other window differs here already.
    if not torch.equal(channels[:, middle : middle + 1], first):
        return None
    if not bool((channels == first).all()):
        return None
    return tuple(first[:, 0].tolist())
