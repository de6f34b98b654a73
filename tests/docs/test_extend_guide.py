"""The loss and the network that the guide shows keep the contracts that the guide speaks of."""

from __future__ import annotations

import re
import types
from pathlib import Path

from medseg.testing.losses import LossContract
from medseg.testing.networks import NetworkContract

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "extend.md"


def load_shown(name: str) -> type:
    blocks = re.findall(
        r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL
    )
    (code,) = (block for block in blocks if f"class {name}" in block)
    module = types.ModuleType("shown")
    exec(compile(code, str(GUIDE), "exec"), module.__dict__)  # noqa: S102 - our own page
    shown: type = getattr(module, name)
    return shown


class TestShownLoss(LossContract):
    build = load_shown("TverskyLoss")
    takes_regions = False


class TestShownNetwork(NetworkContract):
    network = load_shown("TinyNet")
