"""``medseg train``: a bundle and a data set in, a trained bundle out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from medseg.engine.learning.record import Record
from medseg.engine.learning.refinement import (
    Refined,
    make_learner,
    refine,
    snapshot_steps,
    steps_done,
    total_steps,
)
from medseg.engine.learning.supervised import Learner, Validation
from medseg.engine.learning.team import Team, join_team, local_device
from medseg.engine.networks.refiner import refined_definition
from medseg.engine.networks.unet import inference_weights, network_definition, try_network
from medseg.engine.segmenter import Segmenter
from medseg.engine.windows import SLICE_AXIS, choose_device, window_arguments
from medseg.tools.bundle import Bundle, flat_parameters, load_bundle
from medseg.tools.checkpoint import RunFolder
from medseg.tools.dataset import Dataset, open_dataset
from medseg.tools.files import write_whole
from medseg.tools.inspection import open_case
from medseg.tools.metrics import CaseScores, score_case, statistics, summarise
from medseg.tools.model_card import Facts, metrics_json, model_card
from medseg.tools.monai_bundle import Parts, write_monai_bundle
from medseg.tools.provenance import provenance
from medseg.tools.reporting import PreviewCase, draw_cases, draw_curves
from medseg.tools.runs import Run, begin, new_run, resumed_run
from medseg.tools.tracking import MlflowTracker
from medseg.words.events import (
    Listener,
    Progress,
    RunDone,
    RunFailed,
    RunStarted,
    ValidationDone,
    Warned,
    tell,
)

PREVIEWS = 4
"""Validation cases drawn after each validation."""


def train(
    bundle: str | Path,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    fold: int | None = 0,
    device: str = "auto",
    overrides: Sequence[str] = (),
    resume: bool = False,
    skip_bad_cases: bool = False,
    listeners: Sequence[Listener] = (),
) -> Path:
    """Train a bundle.

    Args:
        bundle: A bundle's folder or ``bundle.json``.
        data: The data folder; the bundle's own ``data.root`` unless given.
        out: The run folder, new or empty; ``runs/<name>/<time>-fold<K>`` unless given.
        fold: The fold to validate on; ``None`` trains on every case.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        overrides: Assignments such as ``training.steps=200``.
        resume: Continue the run in ``out``, or the newest unfinished run of this bundle.
        skip_bad_cases: Go on without the cases that have a fault.
        listeners: Told what happens, besides MLflow.

    Returns:
        The run folder: a trained bundle.

    Raises:
        BundleError: If the bundle is wrong.
        DatasetError: If cases are bad, every one named, or there are too few.
        CheckpointError: If there is nothing to resume, or the run is of another bundle.
        TrainingError: If the loss becomes no number.
        OutputError: If the run folder cannot be written.
    """
    asked = load_bundle(bundle, overrides)
    try_network(asked.spec)
    chosen = choose_device(device)
    given_data = Path(data).resolve() if data is not None else None
    given_out = Path(out) if out is not None else None
    with join_team(chosen) as team:
        if resume:
            run = resumed_run(asked, given_data, given_out)
        else:
            run = new_run(asked, given_data, given_out, fold)
        run = replace(run, folder=RunFolder(Path(team.agree(str(run.folder.path)))))
        heard = listeners if team.is_first else ()
        if run.folder.is_finished:
            tell(heard, Warned(f"{run.folder.path} is finished already; nothing was done"))
            return run.folder.path
        dataset = team.first_then_others(
            lambda: open_dataset(
                run.data,
                run.spec,
                run.fold,
                run.home / "preprocessed",
                skip_bad_cases=skip_bad_cases,
                listeners=heard,
            )
        )
        _train(run, dataset, local_device(chosen), team, heard)
    return run.folder.path


def _train(
    run: Run, dataset: Dataset, device: torch.device, team: Team, listeners: Sequence[Listener]
) -> None:
    """Train; only the first process of a team writes, validates and speaks."""
    record = Record(run.spec.name)
    if not team.is_first:
        learner = make_learner(run.spec, dataset.training, device, [record], team)
        team.wait()
        _restore(run, learner, record)
        _learn(run, learner, record, dataset, team, ())
        return
    if not run.folder.is_run:
        begin(run)
    tracked = [*listeners, _tracker(run, listeners)]
    with run.folder.locked(), _failures_told(tracked):
        learner = make_learner(run.spec, dataset.training, device, [record, *tracked], team)
        team.wait()
        resumed_at = _restore(run, learner, record)
        facts = provenance(device) | {"data.fingerprint": dataset.fingerprint}
        tell(tracked, _started(run, facts, resumed_at))
        stopped = _learn(run, learner, record, dataset, team, tracked)
        refined = refine(run.spec, run.folder, learner, record, dataset.validation, device, tracked)
        _finish(run, record, dataset, facts, refined, str(device), tracked, stopped=stopped)


def _tracker(run: Run, listeners: Sequence[Listener]) -> Listener:
    return MlflowTracker(
        run.home / "mlflow.db",
        model_code=Path(__file__).parents[1] / "pyfunc.py",
        register_model=run.spec.tracking.register_model,
        say=lambda message: tell(listeners, Warned(message)),
    )


@contextmanager
def _failures_told(listeners: Sequence[Listener]) -> Iterator[None]:
    """Let listeners know how a run ended before the error goes on to whoever called."""
    try:
        yield
    except KeyboardInterrupt:
        tell(listeners, RunFailed("interrupted", interrupted=True))
        raise
    except BaseException as error:
        tell(listeners, RunFailed(f"{type(error).__name__}: {error}"))
        raise


def _restore(run: Run, learner: Learner, record: Record) -> int | None:
    state = run.folder.load_checkpoint()
    if state is None:
        return None
    learner.restore(state["learner"])
    record.restore(state["record"])
    return steps_done(run.spec, state)


def _started(run: Run, facts: dict[str, str], resumed_at: int | None) -> RunStarted:
    return RunStarted(
        folder=run.folder.path,
        run_id=run.run_id,
        name=run.spec.name,
        experiment=run.spec.tracking.experiment or run.spec.name,
        parameters=flat_parameters(run.spec) | {"fold": str(run.fold)},
        provenance=facts,
        resumed_at=resumed_at,
        total_steps=total_steps(run.spec),
    )


def _learn(
    run: Run,
    learner: Learner,
    record: Record,
    dataset: Dataset,
    team: Team,
    listeners: Sequence[Listener],
) -> bool:
    """Take the steps that are left; return whether training stopped early."""
    patience = run.spec.training.patience

    def validate_and_agree(step: int) -> bool:
        goes_on = validate(step) if team.is_first else True
        return team.agree("go on" if goes_on else "stop") == "go on"

    def validate(step: int) -> bool:
        if not dataset.validation:
            run.folder.save_weights(inference_weights(learner.best_guess, run.spec))
            return True
        found = learner.validate(dataset.validation, PREVIEWS)
        is_best = record.add_validation(step, found.scores)
        if is_best:
            run.folder.save_weights(inference_weights(learner.best_guess, run.spec))
        pictures = _draw(run, record, dataset, found)
        tell(listeners, ValidationDone(step, found.scores, is_best, pictures))
        return not record.has_stalled(patience)

    def save(_: int) -> None:
        if team.is_first:
            run.folder.save_checkpoint({"learner": learner.state(), "record": record.state()})

    def keep(step: int) -> None:
        if team.is_first:
            weights = inference_weights(learner.best_guess, run.spec)
            run.folder.save_weights(weights, run.folder.snapshot(step))

    if record.has_stalled(patience):
        return True
    return learner.learn(
        validate=validate_and_agree, save=save, keep=keep, keep_after=snapshot_steps(run.spec)
    )


def _draw(run: Run, record: Record, dataset: Dataset, found: Validation) -> list[Path]:
    preview = run.folder.previews / "validation.png"
    draw_curves(run.folder.curves, record.history)
    cases = {case.case_id: case for case in dataset.validation}
    scores = {scores.case: scores for scores in found.cases}
    shown = [
        PreviewCase(
            case=name,
            image=cases[name].image.float().numpy(),
            reference=cases[name].label[0].numpy(),
            prediction=prediction.numpy(),
            affine=np.diag([*cases[name].spacing, 1.0]),
            dice=summarise([scores[name]])["dice"]["mean"],
        )
        for name, prediction in found.examples.items()
    ]
    draw_cases(preview, shown, run.spec.label_set)
    return [run.folder.curves, preview]


def _finish(
    run: Run,
    record: Record,
    dataset: Dataset,
    provenance_facts: dict[str, str],
    refined: Refined,
    device: str,
    listeners: Sequence[Listener],
    *,
    stopped: bool,
) -> None:
    """Score the best weights as they will be used, and make the folder a whole bundle."""
    folder, spec = run.folder, run.spec
    scored = _score_held_back(run, dataset, device, listeners)
    scores = summarise(scored) if scored else {}
    applied = refined.finding is not None and refined.finding.applied
    network = refined_definition(spec) if applied else network_definition(spec, supervised=False)
    parts = Parts(network, window_arguments(spec), SLICE_AXIS)
    write_monai_bundle(folder.path, spec, parts, scores)
    facts = Facts(
        training_cases=len(dataset.training),
        validation_cases=len(dataset.validation),
        fold=run.fold,
        best_step=record.best_step or spec.training.steps,
        fingerprint=dataset.fingerprint,
        provenance=provenance_facts,
        refinement=refined.finding,
        critic_gap=refined.gap,
    )
    write_whole(folder.card, model_card(spec, facts, statistics(scored) if scored else {}))
    write_whole(folder.metrics, metrics_json(facts, scores, scored, record.validations))
    tell(listeners, RunDone(folder.path, scores, stopped))


def _score_held_back(
    run: Run, dataset: Dataset, device: str, listeners: Sequence[Listener]
) -> list[CaseScores]:
    """Segment the held-back scans by the path users take, and score them on their own grids."""
    if not dataset.held_back:
        return []
    segmenter = Segmenter(Bundle(run.spec, run.folder.path), device)
    scored = []
    for done, case in enumerate(dataset.held_back):
        tell(listeners, Progress("scoring held-back cases", done, len(dataset.held_back)))
        volume, reference = open_case(case, run.spec)
        found = segmenter.segment(volume)
        name = dataset.validation[done].case_id
        scored.append(
            score_case(
                found.labels,
                reference,
                run.spec.label_set,
                volume.spacing,
                case=name,
                voxel_ml=volume.voxel_ml,
            )
        )
    tell(listeners, Progress("scoring held-back cases", len(scored), len(scored)))
    return scored
