"""The loss that the guide shows keeps the contract that the guide speaks of."""

from __future__ import annotations

import re
import types
from pathlib import Path

from medseg.testing.losses import LossContract

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "extend.md"


def load_shown_loss() -> type:
    blocks = re.findall(
        r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL
    )
    (code,) = (block for block in blocks if "class TverskyLoss" in block)
    module = types.ModuleType("my_losses")
    exec(compile(code, str(GUIDE), "exec"), module.__dict__)  # noqa: S102 - our own page
    return module.TverskyLoss


class TestShownLoss(LossContract):
    build = load_shown_loss()
    takes_regions = False
