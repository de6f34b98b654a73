"""Judge masks made by someone else by how far a trained bundle agrees with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg._support.files import write_atomically
from medseg.bundle.bundle import Bundle
from medseg.datasets.cases import Scan
from medseg.datasets.input_checks import check_kind, check_volume
from medseg.datasets.integrity import read_scan
from medseg.datasets.label_encoding import encode_prediction
from medseg.datasets.redaction import discreet, discreet_fault
from medseg.datasets.scans import find_scans
from medseg.errors import Fault, MedsegError
from medseg.evaluation.mask_review import JudgedMask, MaskReview, agreement_csv, worst_first
from medseg.evaluation.pairing import pair_with_scans
from medseg.events import Listener, Notice, Progress, notify
from medseg.inference.segmenter import Segmenter
from medseg.io import read_labels
from medseg.quality.estimates import MaskQuality

AGREEMENT = "agreement.csv"
"""The table that is written."""


def evaluate_without_references(
    predictions: str | Path,
    bundle: Bundle | str | Path,
    scans: str | Path,
    out: str | Path | None = None,
    *,
    device: str = "auto",
    listeners: Sequence[Listener] = (),
) -> MaskReview:
    """Say how good label maps probably are where nobody knows the truth.

    Each scan is segmented with the bundle, and the given mask is judged by the bundle's
    probabilities and its own mask. Label maps and scans are paired by name; one that cannot be
    judged is a fault and never stops the others.

    Args:
        predictions: A folder of label maps, or one label map, from any source. They hold the
            bundle's label indices.
        bundle: A trained bundle, or its path.
        scans: The scans the label maps were drawn on: a file, a folder (searched with all below
            it) or a CSV.
        out: Where ``agreement.csv`` is written.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        listeners: Hear of progress, and of scans without a label map.

    Returns:
        Every mask, the worst first, and everything that could not be judged.

    Raises:
        BundleError: If the bundle is wrong.
        CheckpointError: If it has no weights.
        DatasetError: If no label map belongs to a scan.
        OutputError: If the table cannot be written.
    """
    segmenter = Segmenter(bundle, device)
    found = find_scans(Path(scans), len(segmenter.spec.channels))
    pairing = pair_with_scans(Path(predictions), found.scans)
    if pairing.without_prediction:
        count = len(pairing.without_prediction)
        what = "1 scan has" if count == 1 else f"{count} scans have"
        notify(listeners, Notice(f"{what} no label map of its name and cannot be judged"))
    cases: list[JudgedMask] = []
    left_out = (discreet_fault(fault, Path(scans)) for fault in found.left_out)
    faults = [*left_out, *pairing.faults]
    for done, (mask, scan) in enumerate(pairing.pairs, start=1):
        try:
            cases.append(JudgedMask(scan.name, _judged(segmenter, mask, scan, listeners)))
        except MedsegError as error:
            faults.append(Fault(scan.name, discreet(str(error), scan)))
        notify(listeners, Progress("judging", done, len(pairing.pairs)))
    known = segmenter.bundle.trained.quality
    review = MaskReview(
        tuple(sorted(cases, key=worst_first)),
        tuple(faults),
        None if known is None else known.coverage,
    )
    if out is not None:
        write_atomically(Path(out) / AGREEMENT, agreement_csv(review))
    return review


def _judged(
    segmenter: Segmenter, mask: Path, scan: Scan, listeners: Sequence[Listener]
) -> MaskQuality:
    spec = segmenter.spec
    check_kind(scan, spec)
    volume, label = read_scan(scan, len(spec.channels)), read_labels(mask)
    volume.require_same_grid(label, "the scan and its label map")
    for warning in (*volume.warnings, *check_volume(volume, spec)):
        notify(listeners, Notice(f"{scan.name}: {discreet(warning, scan)}"))
    return segmenter.judge(volume, encode_prediction(label, spec.label_set))
