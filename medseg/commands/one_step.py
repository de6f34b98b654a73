"""``medseg train DATASET --budget 20m``: plan a bundle for a data set, and train it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from medseg.bundle.shipped import find_bundle_path
from medseg.commands.bundle_argument import may_be_bundle
from medseg.commands.plan import plan
from medseg.commands.plan_summary import describe_plan
from medseg.errors import CheckpointError, MedsegError
from medseg.events import Listener, Notice, notify
from medseg.planning import (
    is_nnunet_plans,
    parse_minutes,
    read_description,
)
from medseg.training.distributed import is_under_torchrun
from medseg.training.run_folder import RunFolder
from medseg.training.runs import RUNS, restore_bundle


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What a person asks ``medseg train`` for, as far as planning changes it.

    Attributes:
        bundle: A bundle; or a data set, which is planned first where there is a budget.
        out: The run folder, if one is named.
        overrides: Assignments such as ``training.steps=200``.
    """

    bundle: str | Path
    out: Path | None
    overrides: tuple[str, ...]


def plan_first(
    request: TrainingRequest,
    budget: str | None,
    *,
    data: Path | None,
    device: str,
    start_from: str | Path | None = None,
    resume: bool,
    on: str = "",
    listeners: Sequence[Listener],
) -> TrainingRequest:
    """Return a request with a bundle: that which was given, or one planned for a data set.

    The planned bundle is written beside the runs, ``runs/NAME/TIME-bundle.json``, or beside the
    run folder that is named. A run of a data set is resumed with the bundle that it began with.

    Args:
        request: As the person gave it.
        budget: Time for the run, such as ``20m``.
        data: The data folder, if one is named besides.
        device: Where to train.
        start_from: The trained bundle to start from, if one is named.
        resume: Whether a run is resumed.
        on: The cluster whose nodes inspect the cases, if there is one.
        listeners: Told what was planned and where it is.

    Raises:
        DatasetError: As ``plan``.
        MedsegError: If the budget is no time, or options contradict each other.
        CheckpointError: If there is no run of the data set to resume.
    """
    overrides = request.overrides
    if budget is not None:
        minutes = round(parse_minutes(budget), 3)
        overrides = (f"training.budget_minutes={minutes}", *overrides)
    if may_be_bundle(find_bundle_path(request.bundle)):
        return TrainingRequest(request.bundle, request.out, overrides)
    dataset = Path(request.bundle)
    is_asked = budget is not None or resume
    if not is_asked or not dataset.exists():
        return request  # whoever opens it says what it is
    _check_dataset(dataset, data, resume)
    if resume:
        folder = request.out or _find_run(dataset, listeners)
        restore_bundle(RunFolder(folder))
        return TrainingRequest(folder, folder, overrides)
    file = _choose_file(dataset, request.out)
    planned = plan(
        dataset,
        file,
        budget=budget,
        device=device,
        start_from=start_from,
        on=on,
        listeners=listeners,
    )
    for line in describe_plan(planned):
        notify(listeners, Notice(line))
    notify(listeners, Notice(f"the planned bundle: {file}"))
    return TrainingRequest(file, request.out, request.overrides)


def _check_dataset(dataset: Path, data: Path | None, resume: bool) -> None:
    """Refuse what cannot be planned and trained in one step.

    Raises:
        MedsegError: If it is nnU-Net's plans, other data are named, or several processes train.
    """
    if is_nnunet_plans(dataset):
        raise MedsegError(
            "nnU-Net's plans are converted first, by medseg plan with --data for the raw data; "
            "then train the bundle that it writes",
            source=dataset,
        )
    if data is not None:
        raise MedsegError(
            "--data goes with a bundle; here the data set itself is named already"
        )
    if not resume and is_under_torchrun():
        raise MedsegError(
            "several processes do not plan together; plan a bundle with medseg plan, and train "
            "that"
        )


def _choose_file(dataset: Path, out: Path | None) -> Path:
    """Return where the planned bundle goes; nothing is there yet."""
    if out is not None:
        RunFolder(out).require_empty()
        return out.with_name(f"{out.name}-bundle.json")
    now = datetime.now(tz=UTC).astimezone()
    folder = RUNS / read_description(dataset).name
    return folder / f"{now:%Y%m%d-%H%M%S}-bundle.json"


def _find_run(dataset: Path, listeners: Sequence[Listener]) -> Path:
    """Return the newest unfinished run that began with a data set.

    Others' files may be damaged; listeners are told of such runs, which are left out.

    Raises:
        CheckpointError: If there is none.
    """
    root = str(dataset.resolve())
    runs = RUNS / read_description(dataset).name
    for path in sorted(runs.glob("*"), reverse=True):
        folder = RunFolder(path)
        if not folder.has_begun or folder.is_finished:
            continue
        try:
            info = folder.read_info()
        except CheckpointError as error:
            notify(listeners, Notice(f"left out: {error}"))
            continue
        if info["data"] == root:
            return path
    raise CheckpointError(
        "there is no unfinished run of this data set to resume; name its folder with --out, or "
        "start a run without --resume",
        source=runs,
    )
