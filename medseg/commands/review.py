"""``medseg review``: masks by others, judged by how far a trained bundle agrees with them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medseg._support.files import write_atomically
from medseg._support.folders import refuse_file, refuse_unreadable
from medseg.bundle.bundle import Bundle
from medseg.datasets.case_warnings import list_warnings
from medseg.datasets.cases import Scan
from medseg.datasets.input_checks import check_kind
from medseg.datasets.integrity import read_scan
from medseg.datasets.label_encoding import encode_prediction
from medseg.datasets.scans import find_scans
from medseg.errors import DatasetError, Fault, MedsegError
from medseg.evaluation.mask_review import (
    JudgedMask,
    MaskReview,
    format_agreement_csv,
    review_order,
)
from medseg.evaluation.named_labels import LabelReader, make_bundle_readers
from medseg.evaluation.pairing import ScanPairing, pair_with_scans
from medseg.evaluation.stated_sides import compare_results
from medseg.events import Listener, Notice, Progress, notify, notify_outcomes
from medseg.inference.segmenter import Segmenter
from medseg.quality.estimates import MaskQuality

AGREEMENT = "agreement.csv"
"""The table that is written."""

_TASK = "reviewing masks"


def review(
    masks: str | Path,
    scans: str | Path,
    bundle: Bundle | str | Path,
    out: str | Path | None = None,
    *,
    device: str = "auto",
    split_4d: str = "",
    trust_values: bool = False,
    listeners: Sequence[Listener] = (),
) -> MaskReview:
    """Judge masks by others without references: how good are they probably?

    Each scan is segmented with the bundle, and the given mask is judged by the bundle's
    probabilities and its own mask. Masks and scans are paired by name; a mask that cannot be
    judged is a fault and never stops the others.

    Args:
        masks: A folder of label maps, or one label map, from any source. They hold the bundle's
            label indices, or name their segments, and lie on their scans' grids.
        scans: The scans that the masks were drawn on: a file, a folder (searched with all below
            it) or a CSV.
        bundle: A trained bundle, or its path.
        out: The folder in which ``agreement.csv`` is written.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        split_4d: As for ``medseg.segment``.
        trust_values: Go by the masks' values alone, whatever names ``dataset.json`` and
            ``.seg.nrrd`` files give them.
        listeners: Told of progress, and of scans without a mask.

    Returns:
        Every mask, the worst first, and everything that could not be judged.

    Raises:
        BundleError: If the bundle is wrong.
        CheckpointError: If it has no weights.
        DatasetError: If no mask belongs to a scan, or the masks' ``dataset.json`` gives labels
            other values than the bundle.
        OutputError: If the table cannot be written.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import medseg
        >>> from medseg.testing import write_dataset, write_example_bundle
        >>> folder = Path(tempfile.mkdtemp())
        >>> data = write_dataset(folder, 2, shape=(24, 20, 16), spacing=9.0)
        >>> bundle = write_example_bundle(trained=True)
        >>> review = medseg.review(data / "labelsTr", data / "imagesTr", bundle, device="cpu")
        >>> sorted(mask.case for mask in review.cases)
        ['phantom_000', 'phantom_001']
    """
    target = None if out is None else Path(out)
    refuse_file(target)
    refuse_unreadable(Path(masks), DatasetError)
    segmenter = Segmenter(bundle, device)
    label_set = segmenter.spec.label_set
    if not trust_values:
        compare_results(Path(masks), label_set)
    reader, _ = make_bundle_readers(label_set, trust_values)
    channels = segmenter.spec.channels
    scan_list = find_scans(
        Path(scans),
        len(channels),
        split_4d=split_4d,
        channel_specs=channels,
    )
    pairing = pair_with_scans(Path(masks), scan_list.scans)
    _warn_of_unpaired_scans(pairing, listeners)
    faults = [entry.result_fault for entry in scan_list.left_out]
    faults.extend(pairing.faults)
    judged: list[JudgedMask] = []
    oddities: dict[str, Sequence[str]] = {}
    for done, (mask, scan) in enumerate(pairing.pairs, start=1):
        try:
            quality = _judge_mask(segmenter, reader, mask, scan)
            oddities[scan.name] = quality.warnings
            judged.append(JudgedMask(scan.name, quality))
        except MedsegError as error:
            faults.append(Fault.from_error(scan.name, error))
        notify(listeners, Progress(_TASK, done, len(pairing.pairs)))
    for warning in list_warnings(oddities, len(oddities)):
        notify(listeners, Notice(warning))
    calibration = segmenter.bundle.trained.quality
    coverage = None
    if calibration is not None and not segmenter.bundle.is_made_up:
        coverage = calibration.coverage
    made = MaskReview(
        tuple(sorted(judged, key=review_order)), tuple(faults), coverage
    )
    notify_outcomes(listeners, made.cases, made.faults)
    if target is not None:
        write_atomically(target / AGREEMENT, format_agreement_csv(made))
    return made


def evaluate_without_references(
    predictions: str | Path,
    bundle: Bundle | str | Path,
    scans: str | Path,
    out: str | Path | None = None,
    *,
    device: str = "auto",
    listeners: Sequence[Listener] = (),
) -> MaskReview:
    """Do what ``review`` does; the name it had in 0.1.0, with its order of arguments."""
    warnings.warn(
        "evaluate_without_references is now review(masks, scans, bundle); "
        "the old name will be removed in the next release",
        DeprecationWarning,
        stacklevel=2,
    )
    return review(
        predictions, scans, bundle, out, device=device, listeners=listeners
    )


def _warn_of_unpaired_scans(
    pairing: ScanPairing, listeners: Sequence[Listener]
) -> None:
    count = len(pairing.without_prediction)
    if not count:
        return
    who = "1 scan has" if count == 1 else f"{count} scans have"
    notify(
        listeners,
        Notice(f"{who} no mask of the same name and cannot be reviewed"),
    )


def _judge_mask(
    segmenter: Segmenter, reader: LabelReader, mask: Path, scan: Scan
) -> MaskQuality:
    """Judge a mask; its reader's warnings come before those of its scan."""
    spec = segmenter.spec
    check_kind(scan, spec)
    volume = read_scan(scan, spec.channels)
    labels = reader.read(mask, volume)
    labels = volume.reorder_to_grid(labels, "the scan and its mask")
    encoded = encode_prediction(labels, spec.label_set)
    quality = segmenter.judge(volume, encoded.indices)
    return replace(quality, warnings=(*encoded.warnings, *quality.warnings))
