"""``medseg segment``: scans in; label maps, a ledger and a table of volumes out."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from medseg.engine.segmenter import Segmenter
from medseg.tools.bundle import load_bundle
from medseg.tools.cases import Scan
from medseg.tools.files import write_whole
from medseg.tools.images import write_labels
from medseg.tools.inspection import read_scan
from medseg.tools.scans import LEDGER, find_scans
from medseg.words.errors import MedsegError, OutputError
from medseg.words.events import Listener, Progress, Warned, tell


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one scan: a line of the ledger.

    Attributes:
        scan: The scan's name in this batch.
        state: ``done`` or ``failed``.
        label_map: File name of the label map inside ``OUT``; empty if failed.
        volumes_ml: Label name → millilitres.
        seconds: Time for reading, segmenting and writing.
        warnings: What a person should know about the scan.
        error: What is wrong with the scan and what to do; empty if done.
    """

    scan: str
    state: str
    label_map: str = ""
    volumes_ml: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """What became of all scans.

    Attributes:
        out: Where the results are.
        results: One per scan, in the order worked on.
    """

    out: Path
    results: tuple[Result, ...]

    @property
    def failed(self) -> tuple[Result, ...]:
        """The scans without a label map."""
        return tuple(result for result in self.results if result.state == "failed")


def segment(
    bundle: str | Path,
    scans: str | Path,
    out: str | Path,
    *,
    device: str = "auto",
    listeners: Sequence[Listener] = (),
) -> Batch:
    """Segment a scan, a folder of scans or a list of scans.

    Each label map lies on its scan's own grid and appears whole or not at all. A bad scan is
    named with its fault and never stops the others.

    Args:
        bundle: A trained bundle.
        scans: A file, a folder (searched with all below it) or a CSV.
        out: The folder for results; made if needed.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        listeners: Told of progress and warnings.

    Returns:
        What became of each scan; also in ``OUT/ledger.jsonl`` and ``OUT/volumes.csv``.

    Raises:
        BundleError: If the bundle is wrong.
        CheckpointError: If it has no weights.
        DatasetError: If there is no scan.
        OutputError: If ``out`` cannot be written.
    """
    trained = load_bundle(bundle)
    segmenter = Segmenter(trained, device)
    out = Path(out)
    found = find_scans(Path(scans), len(trained.spec.channels))
    for note in found.notes:
        tell(listeners, Warned(note))
    results = [
        Result(fault.where, "failed", error=fault.what, seconds=0.0) for fault in found.left_out
    ]
    for result in results:
        _enter(out / LEDGER, result)
    tell(listeners, Progress("segmenting", 0, len(found.scans)))
    for done, result in enumerate(_segment_each(segmenter, found.scans, out), start=1):
        _enter(out / LEDGER, result)
        results.append(result)
        tell(listeners, Progress("segmenting", done, len(found.scans)))
    write_whole(out / "volumes.csv", _volumes_csv(results, trained.spec.label_set.names))
    return Batch(out, tuple(results))


def _segment_each(segmenter: Segmenter, scans: Sequence[Scan], out: Path) -> Iterator[Result]:
    ending = ".png" if segmenter.spec.preprocessing.input == "picture" else ".nii.gz"
    for scan in scans:
        began = time.perf_counter()
        target = out / f"{scan.name}{ending}"
        try:
            volume = read_scan(scan, len(segmenter.spec.channels))
            found = segmenter.segment(volume)
            write_labels(target, found.labels, volume)
        except OutputError:
            raise  # a full disk or a wrong folder is no fault of this scan and ends the batch
        except MedsegError as error:
            yield Result(scan.name, "failed", error=str(error), seconds=_since(began))
        else:
            yield Result(
                scan.name,
                "done",
                label_map=target.name,
                volumes_ml={name: round(ml, 4) for name, ml in found.volumes_ml.items()},
                seconds=_since(began),
                warnings=volume.warnings,
            )


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 3)


def _enter(ledger: Path, result: Result) -> None:
    try:
        ledger.parent.mkdir(parents=True, exist_ok=True)
        with ledger.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")
    except OSError as error:
        raise OutputError(f"cannot write {ledger}: {error.strerror}") from error


def _volumes_csv(results: Sequence[Result], names: Sequence[str]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["scan", *(f"{name}_ml" for name in names)])
    for result in results:
        if result.state == "done":
            table.writerow([result.scan, *(f"{result.volumes_ml[name]:.4f}" for name in names)])
    return text.getvalue()
