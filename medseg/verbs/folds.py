"""``medseg train --fold all``: every fold trained, and one bundle made of them."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from medseg.engine.learning.refinement import corrector_of
from medseg.engine.learning.team import Team
from medseg.engine.networks.unet import network_definition
from medseg.engine.windows import SLICE_AXIS, window_arguments
from medseg.tools.bundle import MODELS, write_trained
from medseg.tools.calibration import calibrate
from medseg.tools.files import whole_file, write_whole
from medseg.tools.fold_results import read_fold
from medseg.tools.metrics import statistics, summarise
from medseg.tools.model_card import Facts, metrics_json, model_card
from medseg.tools.monai_bundle import Parts, write_monai_bundle
from medseg.tools.runs import Run, begin, fold_run
from medseg.words.config import TrainedSpec
from medseg.words.errors import BundleError, Fault
from medseg.words.events import Listener, RunDone, RunStarted, tell


def train_folds(
    run: Run,
    folds: Sequence[int],
    train_one: Callable[[Run], None],
    team: Team,
    started: Callable[[str], RunStarted],
    listeners: Sequence[Listener],
) -> None:
    """Train the folds that are not finished, each an ordinary run, and make one bundle of all.

    Args:
        run: The cross-validation.
        folds: Their numbers.
        train_one: Trains the run of one fold, or goes on with it.
        team: The processes that train together.
        started: From the data's fingerprint, the event that the bundle is being made.
        listeners: Told of the bundle; ``train_one`` has its own.

    Raises:
        BundleError: If the bundle wants a refiner.
    """
    if corrector_of(run.spec) is not None:
        raise BundleError(
            "--fold all makes one bundle of all folds' networks, and a bundle holds one refiner",
            [Fault("refinement", 'train single folds, or set refinement to null or "joint"')],
        )
    if team.is_first and not run.folder.is_run:
        begin(run)
    team.wait()
    with run.folder.locked() if team.is_first else contextlib.nullcontext():
        runs = [fold_run(run, fold) for fold in folds]
        for one in runs:
            if not one.folder.is_finished:
                train_one(one)
        if team.is_first:
            _assemble(run, runs, folds, started, listeners)


def _assemble(
    run: Run,
    runs: Sequence[Run],
    folds: Sequence[int],
    started: Callable[[str], RunStarted],
    listeners: Sequence[Listener],
) -> None:
    """Make the folder a whole bundle of all folds' networks; ``metrics.json`` comes last."""
    folder, spec = run.folder, run.spec
    results = [read_fold(one.folder, fold) for one, fold in zip(runs, folds, strict=True)]
    event = started(results[0].fingerprint)
    tell(listeners, event)
    members = tuple(f"fold_{fold}.pt" for fold in folds)
    for one, member in zip(runs, members, strict=True):
        _copy(one.folder.weights, folder.path / MODELS / member)
    # For readers of MONAI Bundles that know one network only.
    _copy(runs[0].folder.weights, folder.weights)
    samples = [sample for result in results for sample in result.samples]
    quality = calibrate(
        samples,
        spec.label_set.names,
        coverage=spec.quality.coverage,
        review_share=spec.quality.review_share,
    )
    write_trained(TrainedSpec(members=members, quality=quality), folder.path)
    scored = [case for result in results for case in result.cases]
    scores = summarise(scored)
    parts = Parts(network_definition(spec, supervised=False), window_arguments(spec), SLICE_AXIS)
    write_monai_bundle(folder.path, spec, parts, scores, members)
    facts = Facts(
        training_cases=len(scored),
        validation_cases=len(scored),
        fold=run.fold,
        best_step=max(result.facts.best_step for result in results),
        fingerprint=results[0].fingerprint,
        provenance=event.provenance,
        quality=quality,
        lineage=run.lineage,
        folds=[result.facts for result in results],
    )
    write_whole(folder.card, model_card(spec, facts, statistics(scored)))
    write_whole(folder.metrics, metrics_json(facts, scores, scored, samples, ()))
    tell(listeners, RunDone(folder.path, scores))


def _copy(source: Path, target: Path) -> None:
    with whole_file(target) as temporary:
        shutil.copyfile(source, temporary)
