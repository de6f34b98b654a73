"""``medseg calibrate``: what the results of a trained bundle are worth, learned on other cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg._support.files import refuse_fixed_folder
from medseg._support.provenance import collect_provenance
from medseg.bundle.bundle import Bundle, require_single, with_trained
from medseg.bundle.spec import BundleSpec
from medseg.commands.bundle_argument import open_bundle
from medseg.commands.calibrated_files import (
    hold_journal,
    make_working_copy,
    write_calibrated,
)
from medseg.commands.imported_bundle import refuse_used_folder
from medseg.datasets.labelled_cases import open_labelled_cases
from medseg.errors import CheckpointError, MedsegError, OutputError
from medseg.events import Listener, Notice, notify
from medseg.networks.devices import choose_device
from medseg.training.calibration import CalibrationState, run_calibration
from medseg.training.calibration_cases import (
    leave_out_learned,
    refuse_made_up,
    say_unknown_labels,
)

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
    # All that was given, by name: nothing else is there yet.
    given = dict(locals())
    return calibrate_and_export(None, **given)


def calibrate_and_export(
    export: Callable[[Bundle], Path] | None,
    bundle: str | Path,
    out: str | Path | None,
    *,
    data: str | Path,
    in_place: bool,
    keep_largest: bool = False,
    device: str = "auto",
    overrides: Sequence[str] = (),
    skip_bad_cases: bool = False,
    trust_values: bool = False,
    listeners: Sequence[Listener] = (),
) -> Calibration:
    """Do what ``calibrate`` does, and export the networks before anything of it is written.

    Where the export fails, what was learned is kept for the next call, and nothing else.

    Args:
        export: Exports the networks of a calibrated copy; returns the folder that holds them.
        bundle: As for ``calibrate``, and so are the others.
        out: As for ``calibrate``.
        data: As for ``calibrate``.
        in_place: As for ``calibrate``.
        keep_largest: As for ``calibrate``.
        device: As for ``calibrate``.
        overrides: As for ``calibrate``.
        skip_bad_cases: As for ``calibrate``.
        trust_values: As for ``calibrate``.
        listeners: As for ``calibrate``.
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
    with hold_journal(target, in_place) as journal:
        copy = make_working_copy(calibrated, journal.file.parent / "bundle")
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
        exported = None if export is None else export(state.bundle)
        metrics = dict(state.metrics)
        metrics["provenance"] = collect_provenance(choose_device(device))
        write_calibrated(loaded, state, metrics, target, in_place, exported)
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
