"""Divide a labelled data set into cases to train on and cases that nothing has seen.

    python workflows/benchmarks/split.py DATA BUNDLE OUT

``DATA`` is a folder with ``dataset.json`` (MSD); ``BUNDLE`` says which cases belong together, as
those of a patient do. ``OUT/known`` gets copies of the cases outside of fold 0, to be trained on
and validated on by folds of their own; ``OUT/unseen`` gets those of fold 0.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import medseg
from medseg.datasets.cases import Case, find_cases
from medseg.datasets.folds import split_cases

HELD_OUT = 0

Item = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with dataset.json")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    spec = medseg.load_bundle(given.bundle).spec
    cases = find_cases(given.data, spec).cases
    _, unseen = split_cases(cases, spec.data, HELD_OUT)
    for name, held_out in (("known", False), ("unseen", True)):
        count = write_part(
            given.data, given.out / name, unseen, held_out=held_out
        )
        print(f"{name}: {count} cases")


def write_part(
    data: Path,
    folder: Path,
    unseen: Iterable[Case],
    *,
    held_out: bool = False,
    most: int | None = None,
) -> int:
    """Copy the held-out cases, or all others (``most``: their first); return how many."""
    names = {file.name for case in unseen for file in case.scan.files}
    listing = json.loads((data / "dataset.json").read_text())
    kept: list[Item] = []
    for item in listing["training"]:
        if (Path(item["image"]).name in names) == held_out:
            # Without one fold the others must be dealt anew, by patient.
            item.pop("fold", None)
            kept.append(item)
    kept = kept[:most]
    for item in kept:
        for kind in ("image", "label"):
            target = folder / item[kind]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(data / item[kind], target)
    content = json.dumps({**listing, "training": kept})
    (folder / "dataset.json").write_text(content)
    return len(kept)


if __name__ == "__main__":
    main()
