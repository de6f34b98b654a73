"""``medseg calibrate``: what the results of a trained bundle are worth, learned on other cases."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg._support.files import (
    atomic_folder,
    refuse_fixed_folder,
    write_atomically,
)
from medseg._support.json_values import nan_to_none
from medseg._support.platform.locks import (
    LockedError,
    lock_folder,
    remove_locked,
)
from medseg._support.provenance import collect_provenance
from medseg.bundle.bundle import (
    BUNDLE_FILE,
    Bundle,
    require_single,
    with_trained,
)
from medseg.bundle.hashes import hash_network
from medseg.bundle.spec import BundleSpec
from medseg.bundle.spec_files import write_bundle, write_trained
from medseg.commands.bundle_argument import open_bundle
from medseg.commands.bundle_files import (
    copy_bundle,
    copy_exported,
    copy_files,
    read_scores,
    write_configs,
)
from medseg.commands.imported_bundle import refuse_used_folder
from medseg.datasets.labelled_cases import open_labelled_cases
from medseg.errors import (
    BusyError,
    CheckpointError,
    MedsegError,
    OutputError,
)
from medseg.events import Listener, Notice, notify
from medseg.inference.backends.quantised import QUANTISED
from medseg.networks.devices import choose_device
from medseg.training.calibration import (
    SPEED_MEMORY,
    CalibrationState,
    run_calibration,
)
from medseg.training.calibration_cases import (
    leave_out_learned,
    refuse_made_up,
    say_unknown_labels,
)
from medseg.training.journal import Journal
from medseg.training.markdown import replace_sections
from medseg.training.run_folder import RunFolder

_METRICS_KEY = "calibration"
_OVERRIDABLE = ("data.", "quality.")


@dataclass(frozen=True, slots=True)
class Calibration:
    """A bundle that was calibrated.

    Attributes:
        folder: The bundle.
        cases: How many cases it was calibrated on.
        scores: ``metric → label → mean`` over these cases, ``mean`` among the labels.
        coverage: Share of scans like these whose true Dice is at or above the stated bound.
        review_below: Results with a lower expected Dice are flagged for review.
        keep_largest: Names of the labels of which results keep only the largest connected
            component; ``None`` where that was not to be decided.

    Examples:
        >>> from pathlib import Path
        >>> from medseg import Calibration
        >>> scores = {"dice": {"liver": 0.93, "mean": 0.93}}
        >>> Calibration(Path("liver_here"), 20, scores, 0.9, 0.81).coverage
        0.9
    """

    folder: Path
    cases: int
    scores: Mapping[str, Mapping[str, float]]
    coverage: float
    review_below: float
    keep_largest: tuple[str, ...] | None = None


def calibrate(
    bundle: str | Path,
    out: str | Path | None = None,
    *,
    data: str | Path,
    in_place: bool = False,
    keep_largest: bool = False,
    device: str = "auto",
    overrides: Sequence[str] = (),
    skip_bad_cases: bool = False,
    trust_values: bool = False,
    listeners: Sequence[Listener] = (),
) -> Calibration:
    """Learn on labelled cases what the results of a trained bundle are worth.

    The cases are segmented and scored, and corrupted copies of them, as at the end of a training;
    the expected Dice and its bound, and the range outside which results are flagged, are learned
    from them by the same code. On a CPU it is also decided how fast it may compute the network:
    settings are tried on at most 40 of the cases, unless the bundle says
    ``inference.speed: exact``. A call that was interrupted goes on where it was.

    Args:
        bundle: A trained bundle, such as an imported one.
        out: A new or empty folder: a copy of the bundle, calibrated.
        data: Labelled cases in any layout that ``train`` knows. The bundle must not have learned
            from them: those that it is known to have learned from are left out.
        in_place: Calibrate the bundle itself.
        keep_largest: Also decide of which labels only the largest connected component is kept.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        overrides: Assignments to fields of ``data``, which say how to read the cases, and of
            ``quality``, such as ``quality.coverage=0.95``.
        skip_bad_cases: Go on without the cases that have a fault.
        trust_values: Read labels and channels by the bundle's values and order, whatever names
            the data give them.
        listeners: Notified of progress, of what was decided, and of what a person should know.

    Raises:
        BundleError: If the bundle is wrong.
        CheckpointError: If it has no weights.
        DatasetError: If cases are bad, every one named; if the bundle has learned from them; if
            there are fewer than ``MIN_CLEAN_RESULTS``, of which nothing can be learned.
        OutputError: If the results cannot be written.
        BusyError: If another process is calibrating the same.

    Examples:
        >>> import medseg
        >>> medseg.calibrate("liver", data="labelled", overrides=["training.steps=9"])
        Traceback (most recent call last):
        ...
        medseg.errors.MedsegError: a calibration changes nothing that a network computes: --set \
takes fields of data and quality; got 'training.steps=9'
    """
    loaded = _load(bundle, overrides)
    target = _choose_target(loaded, out, in_place)
    root = Path(data)
    written = open_bundle(bundle)
    # As it is written: --set data.made_up=true makes no phantoms of its patients.
    refuse_made_up(written, root)
    as_it_is = written.spec
    decides_largest = keep_largest and not as_it_is.regions
    if keep_largest and not decides_largest:
        notify(listeners, Notice(_NO_REGIONS))
    spec = _choose_spec(as_it_is, loaded.spec, decides_largest)
    labelled = open_labelled_cases(
        root,
        loaded.spec,
        skip_bad_cases=skip_bad_cases,
        trust_values=trust_values,
        listeners=listeners,
    )
    cases, own = leave_out_learned(loaded, labelled, root, listeners)
    say_unknown_labels(cases, loaded, listeners)
    calibrated = with_trained(Bundle(spec, loaded.folder), loaded.trained)
    with _hold_journal(target, in_place) as journal:
        copy = _make_working_copy(calibrated, journal.file.parent / "bundle")
        state = run_calibration(
            CalibrationState(
                copy,
                cases,
                own=own,
                decides_largest=decides_largest,
                device=device,
                journal=journal,
                listeners=listeners,
            )
        )
        metrics = dict(state.metrics)
        metrics["provenance"] = collect_provenance(choose_device(device))
        _write(loaded, state, metrics, target, in_place)
    trained = state.bundle.trained
    quality = trained.quality
    assert quality is not None
    kept = None
    if decides_largest and trained.keep_largest is not None:
        kept = trained.keep_largest.kept
    return Calibration(
        target,
        len(cases.cases),
        metrics["scores"],
        quality.coverage,
        quality.review_below,
        kept,
    )


_NO_REGIONS = (
    "the bundle's labels form regions, which overlap, so it is not decided which of them keep only "
    "their largest component"
)


def _load(bundle: str | Path, overrides: Sequence[str]) -> Bundle:
    """Load a bundle that can be calibrated."""
    for override in overrides:
        if not override.startswith(_OVERRIDABLE):
            raise MedsegError(
                "a calibration changes nothing that a network computes: --set takes fields of "
                f"data and quality; got '{override}'"
            )
    loaded = open_bundle(bundle, overrides)
    require_single(loaded, "calibrated")
    if not loaded.is_trained:
        raise CheckpointError(
            "the bundle has no weights; train it first: medseg train BUNDLE",
            source=loaded.folder,
        )
    return loaded


def _choose_target(
    bundle: Bundle, out: str | Path | None, in_place: bool
) -> Path:
    """Return the folder of the calibrated bundle."""
    if in_place:
        if out is not None:
            raise OutputError(
                "--in-place calibrates the bundle itself, so no other folder goes with it",
                source=out,
            )
        return bundle.folder
    if out is None:
        raise OutputError(
            "name a new folder for the calibrated copy of the bundle, or say that the bundle "
            "itself is meant: --in-place"
        )
    target = Path(out)
    refuse_used_folder(target)
    # Now, and not when all is computed.
    refuse_fixed_folder(target)
    return target


def _choose_spec(
    spec: BundleSpec, asked: BundleSpec, decides_largest: bool
) -> BundleSpec:
    """Return the spec of the calibrated bundle.

    Args:
        spec: As its file says.
        asked: With what was asked for besides.
        decides_largest: Whether cases decide of which labels the largest component is kept.
    """
    update: dict[str, Any] = {"quality": asked.quality}
    if decides_largest:
        update["inference"] = spec.inference.model_copy(
            update={"keep_largest": None}
        )
    return spec.model_copy(update=update)


# --- the files ----------------------------------------------------------------------------


@contextlib.contextmanager
def _hold_journal(target: Path, in_place: bool) -> Iterator[Journal]:
    """Give the journal of the work on a folder, which nobody else works on; remove it at the end.

    Raises:
        BusyError: If another process does.
        OutputError: If it cannot be written.
    """
    folder = target / ".calibration"
    if not in_place:
        folder = target.with_name(f".{target.name}.calibration")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder)
    except (LockedError, FileNotFoundError) as error:
        # Gone is the folder of a call that has just ended.
        raise BusyError(
            "another process is calibrating this bundle; wait for it or stop it",
            source=target,
        ) from error
    except OSError as error:
        raise OutputError(
            "cannot be written to; check its permissions and the free space",
            source=target,
            detail=error.strerror,
        ) from error
    journal = Journal(folder / "journal.jsonl")
    is_done = False
    with lock:
        try:
            yield journal
            is_done = True
        finally:
            # What is noted stays for the call that goes on.
            noted = [journal.file, *folder.glob(f"{SPEED_MEMORY}*")]
            if is_done or not any(file.is_file() for file in noted):
                remove_locked(folder, lock)


def _make_working_copy(bundle: Bundle, folder: Path) -> Bundle:
    """Copy a bundle for what steps write: it stays as it is until all is computed.

    The copy of a call that was interrupted is used further, with what was written into it.
    """
    copy = with_trained(Bundle(bundle.spec, folder), bundle.trained)
    if folder.is_dir():
        if copy.is_trained and hash_network(copy) == hash_network(bundle):
            return copy
        shutil.rmtree(folder)
    with atomic_folder(folder) as part:
        copy_bundle(bundle, part)
        copy_exported(bundle, part)
    return copy


def _write(
    loaded: Bundle,
    state: CalibrationState,
    metrics: Mapping[str, Any],
    target: Path,
    in_place: bool,
) -> None:
    """Write what was found into a copy of a bundle, which appears whole, or into the bundle."""
    if in_place:
        spec = state.bundle.spec
        if spec != open_bundle(target).spec:
            write_bundle(spec, target / BUNDLE_FILE)
        _replace_quantised(loaded, state.bundle, target)
        _write_findings(loaded, state, metrics, target)
        return
    with atomic_folder(target) as folder:
        copy_bundle(Bundle(state.bundle.spec, loaded.folder), folder)
        copy_exported(loaded, folder)
        _replace_quantised(loaded, state.bundle, folder)
        _write_findings(loaded, state, metrics, folder)


def _replace_quantised(loaded: Bundle, found: Bundle, folder: Path) -> None:
    """Give a bundle's folder the networks in int8 of a new decision on the speed."""
    if found.trained.speed == loaded.trained.speed:
        return
    # Until the decision is written, last of all, it is computed as exact.
    undecided = loaded.trained.model_copy(update={"speed": None})
    write_trained(undecided, folder)
    shutil.rmtree(folder / QUANTISED, ignore_errors=True)
    copy_files(found.folder, folder, (QUANTISED.as_posix(),))


def _write_findings(
    loaded: Bundle,
    state: CalibrationState,
    metrics: Mapping[str, Any],
    folder: Path,
) -> None:
    """Write what was found into a bundle's folder; what decides comes last."""
    files = RunFolder(folder)
    content = _read_metrics(loaded)
    if "cases" not in content:  # of a training
        content["scores"] = metrics["scores"]
    content[_METRICS_KEY] = metrics
    text = json.dumps(nan_to_none(content), indent=2)
    card = ""
    if files.card.is_file():
        card = files.card.read_text(encoding="utf-8", errors="replace")
    sections = dict(state.sections)
    origin = state.bundle.trained.origin
    if origin is not None:
        sections["Results"] = "medseg measured them for its calibration, below."
    bundle = state.bundle
    write_atomically(files.metrics, text + "\n")
    write_configs(bundle, folder, read_scores(Bundle(bundle.spec, folder)))
    write_atomically(files.card, replace_sections(card, sections))
    write_trained(bundle.trained, folder)


def _read_metrics(bundle: Bundle) -> dict[str, Any]:
    """Return what a bundle's ``metrics.json`` holds; nothing where an import has none."""
    file = RunFolder(bundle.folder).metrics
    if not file.is_file():
        return {}
    read_scores(bundle)  # or it is damaged, and says so
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
