"""MLflow's empty store, made once for all tests of a process.

A new SQLite store runs every migration that MLflow ever had: two seconds for each training in a
fresh folder. The first is MLflow's own; the others are copies of it, byte for byte.
"""

from __future__ import annotations

import sqlite3
import sys
from typing import Any

_MODULE = "mlflow.store.db.utils"
_kept: list[sqlite3.Connection] = []


def reuse_empty_store() -> None:
    """Let MLflow copy the empty store that it made first; nothing where it is not imported yet."""
    utils = sys.modules.get(_MODULE)
    if utils is None or hasattr(utils, "_make_tables"):
        return
    utils._make_tables = utils._initialize_tables
    utils._initialize_tables = _initialize_tables


def _initialize_tables(engine: Any) -> None:
    make_tables = sys.modules[_MODULE]._make_tables  # type: ignore[attr-defined]
    is_file = engine.dialect.name == "sqlite" and engine.url.database
    if not is_file:
        make_tables(engine)
        return
    if _kept:
        with sqlite3.connect(engine.url.database) as target:
            _kept[0].backup(target)
        target.close()
        return
    make_tables(engine)
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    with sqlite3.connect(engine.url.database) as source:
        source.backup(memory)
    source.close()
    _kept.append(memory)
