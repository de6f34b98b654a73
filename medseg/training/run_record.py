"""What a training run says of itself where it is tracked."""

from __future__ import annotations

from collections.abc import Mapping

from medseg.bundle.spec_files import flatten_spec
from medseg.events import RunStarted
from medseg.names import normalize_name
from medseg.training.model_card import describe_bundle
from medseg.training.runs import TrainingRun


def run_started(
    run: TrainingRun,
    provenance: Mapping[str, str],
    total_steps: int,
    resumed_at: int | None = None,
) -> RunStarted:
    """Return the event that a run begins, or continues.

    Args:
        run: The run.
        provenance: Versions, git state, device and the data's fingerprint.
        total_steps: How many steps the run is set to take.
        resumed_at: The step that it continues from, if it is resumed.
    """
    parameters = flatten_spec(run.spec)
    # Where the data are is a person's path, and changes nothing that is learned.
    parameters.pop("data.root", None)
    parameters["fold"] = str(run.fold)
    experiment = run.spec.tracking.experiment or run.spec.name
    if run.lineage is not None:
        parameters |= run.lineage.parameters
        decisions = "\n".join(run.lineage.decisions)
        provenance = {**provenance, "from.decisions": decisions}
    return RunStarted(
        folder=run.folder.path,
        run_id=run.run_id,
        name=run.spec.name,
        experiment=normalize_name(experiment),
        parameters=parameters,
        provenance=provenance,
        resumed_at=resumed_at,
        total_steps=total_steps,
        description=describe_bundle(run.spec),
    )
