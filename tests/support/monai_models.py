"""MONAI Bundles and Auto3DSeg models with random weights, as the benchmark scripts make them."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_SCRIPTS = Path(__file__).parents[2] / "workflows" / "benchmarks" / "import"


def load_script(name: str) -> Any:
    """Return the module that makes models: ``monai_models`` or ``auto3dseg_models``."""
    sys.path.insert(0, str(_SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(_SCRIPTS))


def edit_config(
    bundle: Path,
    change: Callable[[dict[str, Any]], Any],
    name: str = "inference",
) -> None:
    """Change what a config of a bundle says."""
    file = bundle / "configs" / f"{name}.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
