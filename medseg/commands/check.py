"""``medseg check``: every fault of a bundle and its data, nothing trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.bundle.bundle import load_bundle
from medseg.datasets.cases import find_cases
from medseg.datasets.integrity import check_cases, describe_absent_labels
from medseg.errors import BundleError, CheckpointError, Fault
from medseg.events import Listener
from medseg.inference.segmenter import Segmenter
from medseg.networks.building import try_network
from medseg.training.losses import check_loss


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found.

    Attributes:
        faults: What must be mended, by JSON path or case.
        warnings: What a person should know.
        cases: How many cases can be used; ``None`` if no data were checked.
    """

    faults: tuple[Fault, ...]
    warnings: tuple[str, ...] = ()
    cases: int | None = None


def check(
    bundle: str | Path,
    *,
    data: str | Path | None = None,
    overrides: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
) -> CheckReport:
    """Check a bundle, its network, its weights if it has some, and its data if they are there.

    Args:
        bundle: A bundle's folder or ``bundle.json``.
        data: The data folder; the bundle's own, where it exists, unless given.
        overrides: Assignments such as ``training.steps=200``.
        listeners: Told of progress.

    Returns:
        Every fault found. Cases are checked only with a bundle that is right by itself.

    Raises:
        DatasetError: If the data folder as a whole cannot be understood.
    """
    try:
        loaded = load_bundle(bundle, overrides)
        try_network(loaded.spec)
        if not loaded.is_trained:  # a trained bundle segments without its loss
            check_loss(loaded.spec)
    except BundleError as error:
        return CheckReport(error.faults or (Fault("bundle", str(error)),))
    faults = []
    if loaded.is_trained:
        try:
            Segmenter(loaded, "cpu")  # they must fit the network, too
        except CheckpointError as error:
            faults.append(Fault("models/model.pt", str(error)))
    root = Path(data) if data is not None else loaded.data_root
    if data is None and (loaded.is_trained or not root.exists()):
        return CheckReport(tuple(faults))
    found = check_cases(find_cases(root, loaded.spec), loaded.spec, listeners)
    absent = tuple(describe_absent_labels(found.labels, loaded.spec)) if found.good else ()
    return CheckReport((*faults, *found.faults), (*found.warnings, *absent), len(found.good))
