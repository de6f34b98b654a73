"""``medseg check``: every fault of a bundle and its data; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.bundle.bundle import Assembly, Bundle, list_networks
from medseg.commands.bundle_argument import open_bundle
from medseg.datasets.cases import find_cases
from medseg.datasets.integrity import (
    check_cases,
    describe_absent_labels,
    warn_of_outliers,
)
from medseg.datasets.statements import find_standing
from medseg.errors import BundleError, CheckpointError, DatasetError, Fault
from medseg.events import Listener
from medseg.inference.segmenter import Segmenter
from medseg.layouts.missing_data import suggest_download
from medseg.layouts.registry import check_layout_name
from medseg.networks.building import try_network
from medseg.training.losses import check_loss


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of a check.

    Attributes:
        faults: What must be corrected, by JSON path or case.
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
    trust_values: bool = False,
    listeners: Sequence[Listener] = (),
) -> CheckReport:
    """Check a bundle, its network, its weights if it is trained, and its data if they are there.

    Args:
        bundle: A bundle's folder or ``bundle.json``.
        data: The data folder; unless given, the bundle's own, if it exists.
        overrides: Assignments such as ``training.steps=200``.
        trust_values: Whether the bundle counts, whatever the data set calls its values and
            channels.
        listeners: Told of progress.

    Returns:
        Every fault. Cases are checked only if the bundle itself has none.

    Raises:
        DatasetError: If the layout of the data folder is unknown.

    Examples:
        >>> import medseg
        >>> from medseg.testing import write_example_bundle
        >>> report = medseg.check(write_example_bundle(), overrides=["training.steps=0"])
        >>> [fault.where for fault in report.faults]
        ['training.steps']
    """
    try:
        loaded = open_bundle(bundle, overrides)
        for each in list_networks(loaded).values():
            try_network(each.spec)
        if not (
            loaded.is_trained or isinstance(loaded, Assembly)
        ):  # a trained bundle segments without its loss and its data
            check_loss(loaded.spec)
            check_layout_name(loaded.spec.data.format)
    except BundleError as error:
        return CheckReport(error.faults or (Fault.from_error("bundle", error),))
    except DatasetError as error:
        return CheckReport((Fault.from_error("data.format", error),))
    faults = _check_weights(loaded)
    root = _find_data(loaded, data)
    if root is None:
        return CheckReport(tuple(faults), tuple(_note_absent_data(loaded)))
    found = find_cases(root, loaded.spec, trust_values=trust_values)
    checked = check_cases(found, loaded.spec, listeners)
    faults.extend(find_standing(found.contradictions, checked.labels))
    faults.extend(checked.faults)
    warnings = list(checked.warnings)
    warnings.extend(warn_of_outliers(checked.measures, loaded.spec))
    if checked.good:
        warnings.extend(describe_absent_labels(checked.labels, loaded.spec))
    return CheckReport(tuple(faults), tuple(warnings), len(checked.good))


def _note_absent_data(bundle: Bundle) -> Iterator[str]:
    """Say that the bundle alone was checked, where its data are known and could be downloaded."""
    if bundle.is_trained or isinstance(bundle, Assembly):
        return
    command = suggest_download(Path(bundle.spec.data.root))
    if command:
        yield (
            "its data are not here, so the bundle alone was checked: "
            f"{command} gets them, and --data says where they are"
        )


def _check_weights(bundle: Bundle) -> list[Fault]:
    """Check that weights are whole and of their network; an assembly needs all of them."""
    is_assembly = isinstance(bundle, Assembly)
    faults = []
    for folder, each in list_networks(bundle).items():
        if not (each.is_trained or is_assembly):
            continue
        try:
            Segmenter(each, "cpu")
        except CheckpointError as error:
            where = f"{folder}/models/model.pt".lstrip("/")
            faults.append(Fault.from_error(where, error))
    return faults


def _find_data(bundle: Bundle, data: str | Path | None) -> Path | None:
    """Return the data folder to check; ``None`` if there is none.

    Where the data of a trained bundle were need not be a place on this machine.
    """
    if data is not None:
        return Path(data)
    is_assembly = isinstance(bundle, Assembly)
    if bundle.is_trained or is_assembly or not bundle.data_root.exists():
        return None
    return bundle.data_root
