"""Data sets of empty files: what a layout lists depends on names alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Case, Scan, find_cases
from medseg.errors import Fault


def a_spec(channels: int = 1, **data: Any) -> BundleSpec:
    """Return a bundle with some channels and one label."""
    return BundleSpec.model_validate(
        {
            "name": "tiny",
            "channels": [{"name": f"c{number}"} for number in range(channels)],
            "labels": [{"index": 1, "name": "thing"}],
            "data": data,
            "training": {"patch": [16, 16, 16]},
        }
    )


def touch(*files: Path) -> None:
    """Make empty files, and the folders they lie in."""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def an_msd_list(
    root: Path, items: list[Any], *, make_files: bool = True, **more: Any
) -> Path:
    """Write a ``dataset.json`` and empty files for its items."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps({"training": items, **more}))
    if make_files:
        for item in items:
            images = (
                item["image"]
                if isinstance(item["image"], list)
                else [item["image"]]
            )
            touch(*(root / file for file in (*images, item["label"])))
    return root


def an_item(name: str, **fields: Any) -> dict[str, Any]:
    """Return one item of a ``dataset.json``."""
    return {
        "image": f"./imagesTr/{name}.nii.gz",
        "label": f"./labelsTr/{name}.nii.gz",
        **fields,
    }


def some_cases(
    count: int, fold: Callable[[int], int | None] = lambda n: None
) -> list[Case]:
    """Return cases that lie nowhere."""
    return [
        Case(
            Scan(f"c{n}", ((Path(f"c{n}.nii"),),)),
            Path(f"l{n}.nii"),
            fold(n),
            f"c{n}",
        )
        for n in range(count)
    ]


def texts_of(faults: Iterable[Fault]) -> dict[str, str]:
    """Return what a person reads of each fault, by where it is."""
    return {fault.where: str(fault) for fault in faults}


def faults_of(root: Path, spec: BundleSpec) -> dict[str, str]:
    """Return what a person reads of the faults of a data set."""
    return texts_of(find_cases(root, spec).faults)
