"""``MlflowRun``: one open run in MLflow, what was logged to it and what waits to be."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from medseg.events import RunStarted
from medseg.tracking.store import ANSWER_SECONDS, quiet_mlflow

RUN_ID_TAG = "medseg.run_id"
"""The tag by which a resumed training run finds its MLflow run again."""
ERROR_TAG = "medseg.error"
"""The tag that says why a run failed, in words that name nobody."""
LONGEST_VALUE = 500
"""MLflow 3 takes 6000 characters, older servers 500; bundle.json is logged whole."""
LONGEST_KEY = 250
METRICS_PER_CALL = 1000
ENTRIES_PER_CALL = 100

_T = TypeVar("_T")


@dataclass
class MlflowRun:
    """One run that is open in MLflow, and the metrics that wait to be sent to it.

    Attributes:
        client: The client of its store.
        id: MLflow's own id of the run.
        experiment: Id of its experiment.
        name: The bundle's name.
        logged: Metric key → last step logged or waiting.
        flush_seconds: Metrics wait at least this long.
        step: The last step there was an event of.
        waiting: Key, value, time in ms, step.
        flushed_at: When metrics were last sent, on the monotonic clock.
        flush_cost: How many seconds that took.
    """

    client: Any
    id: str
    experiment: str
    name: str
    logged: dict[str, int]
    flush_seconds: float
    step: int = 0
    waiting: list[tuple[str, float, int, int]] = field(default_factory=list)
    flushed_at: float = field(default_factory=time.monotonic)
    flush_cost: float = 0.0

    def add_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Collect metrics of this step, except those that this or an earlier process logged."""
        now = int(time.time() * 1000)
        self.step = max(self.step, step)
        for key, value in values.items():
            if step <= self.logged.get(key, -1):
                continue
            # MLflow's databases store infinity as 1.8e308, which flattens every chart.
            finite_or_nan = value if math.isfinite(value) else math.nan
            self.waiting.append((key, finite_or_nan, now, step))
            self.logged[key] = step

    def flush_if_due(self) -> None:
        """Send what waits, so seldom that it takes at most a twentieth of the time."""
        pause = max(self.flush_seconds, 20 * self.flush_cost)
        if time.monotonic() - self.flushed_at >= pause:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        from mlflow.entities import Metric

        started = time.monotonic()
        with quiet_mlflow(ANSWER_SECONDS):
            for batch in _split(self.waiting, METRICS_PER_CALL):
                metrics = [Metric(*values) for values in batch]
                self.client.log_batch(
                    self.id, metrics=metrics, synchronous=True
                )
        self.waiting.clear()
        self.flushed_at = time.monotonic()
        self.flush_cost = self.flushed_at - started

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Write tags; one that is there already is replaced."""
        with quiet_mlflow(ANSWER_SECONDS):
            _log_tags(self.client, self.id, tags)

    def end(self, status: str, tags: Mapping[str, str]) -> None:
        """Send what waits and close the run as ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self.flush()
        with quiet_mlflow(ANSWER_SECONDS):
            _log_tags(self.client, self.id, tags)
            self.client.set_terminated(self.id, status)


def open_run(
    client: Any, experiment: str, event: RunStarted, flush_seconds: float
) -> MlflowRun:
    """Continue the MLflow run of this training run, or create it."""
    run = _find_run(client, experiment, event.run_id)
    if run is None:
        name = f"{event.name}-{event.run_id}"
        run = client.create_run(
            experiment, run_name=name, tags={RUN_ID_TAG: event.run_id}
        )
    else:
        client.update_run(run.info.run_id, status="RUNNING")
        if ERROR_TAG in run.data.tags:
            client.delete_tag(run.info.run_id, ERROR_TAG)
    stated = {
        to_key(key): _shorten(value) for key, value in event.parameters.items()
    }
    new, changed = _compare_parameters(run.data.params, stated)
    _log_parameters(client, run.info.run_id, new)
    _log_tags(client, run.info.run_id, _collect_tags(event, changed))
    logged = {metric.key: metric.step for metric in run.data.to_proto().metrics}
    return MlflowRun(
        client=client,
        id=run.info.run_id,
        experiment=experiment,
        name=event.name,
        logged=logged,
        flush_seconds=flush_seconds,
        step=event.resumed_at or 0,
    )


def _find_run(client: Any, experiment: str, run_id: str) -> Any | None:
    """Return MLflow's run of a training run that was tracked before."""
    has_run_id = f"tags.`{RUN_ID_TAG}` = '{run_id}'"
    matching = client.search_runs([experiment], has_run_id, max_results=1)
    if not matching:
        return None
    # Asked for again: what a search returns may lack metrics.
    return client.get_run(matching[0].info.run_id)


def _compare_parameters(
    known: Mapping[str, str], stated: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the parameters that MLflow does not know yet, and those it knows with other values."""
    new, changed = {}, {}
    for key, value in stated.items():
        if key not in known:
            new[key] = value
        elif known[key] != value:
            changed[key] = value
    return new, changed


def _collect_tags(
    event: RunStarted, changed: Mapping[str, str]
) -> dict[str, str]:
    tags = {f"medseg.{key}": value for key, value in event.provenance.items()}
    tags[RUN_ID_TAG] = event.run_id
    # A parameter is written once for all; what a resumed run changed becomes a tag.
    for key, value in changed.items():
        tags[f"medseg.resumed.{key}"] = value
    if event.resumed_at is not None:
        tags["medseg.resumed_at"] = str(event.resumed_at)
    return tags


def _log_parameters(
    client: Any, run: str, parameters: Mapping[str, str]
) -> None:
    from mlflow.entities import Param

    entities = [Param(key, value) for key, value in parameters.items()]
    for batch in _split(entities, ENTRIES_PER_CALL):
        client.log_batch(run, params=batch, synchronous=True)


def _log_tags(client: Any, run: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    entities = [
        RunTag(to_key(key), _shorten(value)) for key, value in tags.items()
    ]
    for batch in _split(entities, ENTRIES_PER_CALL):
        client.log_batch(run, tags=batch, synchronous=True)


def _split(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _shorten(value: str) -> str:
    if len(value) <= LONGEST_VALUE:
        return value
    return value[: LONGEST_VALUE - 1] + "…"


def to_key(name: str) -> str:
    """Return ``name`` with what MLflow refuses in a key replaced; ``/`` would make a folder."""
    allowed = re.sub(r"[^\w\-. :]", "_", name)
    return allowed.strip(". ")[:LONGEST_KEY] or "_"


def to_distinct_keys(values: Mapping[str, float]) -> dict[str, float]:
    """Return ``values`` under keys MLflow takes; names that become equal are numbered.

    Examples:
        >>> to_distinct_keys({"tumour (core)": 0.8, "tumour [core]": 0.7})
        {'tumour _core_': 0.8, 'tumour _core__2': 0.7}
    """
    by_key: dict[str, float] = {}
    for name, value in values.items():
        key = to_key(name)[: LONGEST_KEY - 50]
        distinct = key
        number = 1
        while distinct in by_key:
            number += 1
            distinct = f"{key}_{number}"
        by_key[distinct] = value
    return by_key


def flatten_scores(
    stage: str, scores: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """Return ``stage/metric/label`` → score."""
    flat = {}
    for metric, by_label in scores.items():
        prefix = f"{stage}/{to_key(metric)}"
        for label, score in to_distinct_keys(by_label).items():
            flat[f"{prefix}/{label}"] = score
    return flat
