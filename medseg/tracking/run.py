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
"""The tag by which a resumed training finds its run again."""
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
        step: The last step heard of.
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

    def note(self, values: Mapping[str, float], step: int) -> None:
        """Collect metrics of this step, except those that this or an earlier process logged."""
        now = int(time.time() * 1000)
        self.step = max(self.step, step)
        for key, value in values.items():
            if step > self.logged.get(key, -1):
                # MLflow's databases store infinity as 1.8e308, which flattens every chart.
                value = value if math.isfinite(value) else math.nan
                self.waiting.append((key, value, now, step))
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
            for batch in _batches(self.waiting, METRICS_PER_CALL):
                self.client.log_batch(
                    self.id, metrics=[Metric(*one) for one in batch], synchronous=True
                )
        self.waiting.clear()
        self.flushed_at = time.monotonic()
        self.flush_cost = self.flushed_at - started

    def tag(self, tags: Mapping[str, str]) -> None:
        """Write tags; one that is there already is replaced."""
        with quiet_mlflow(ANSWER_SECONDS):
            _describe(self.client, self.id, {}, tags)

    def end(self, status: str, tags: Mapping[str, str]) -> None:
        """Send what waits and close the run as ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self.flush()
        with quiet_mlflow(ANSWER_SECONDS):
            _describe(self.client, self.id, {}, tags)
            self.client.set_terminated(self.id, status)


def open_run(client: Any, experiment: str, event: RunStarted, flush_seconds: float) -> MlflowRun:
    """Continue the MLflow run of this training, or create it."""
    same = f"tags.`{RUN_ID_TAG}` = '{event.run_id}'"
    found = client.search_runs([experiment], same, max_results=1)
    name = f"{event.name}-{event.run_id}"
    if found:
        run = client.get_run(found[0].info.run_id)
        client.update_run(run.info.run_id, status="RUNNING")
    else:
        run = client.create_run(experiment, run_name=name, tags={RUN_ID_TAG: event.run_id})
    known = run.data.params
    given = {_key(key): _cut(value) for key, value in event.parameters.items()}
    tags = {f"medseg.{key}": value for key, value in event.provenance.items()}
    tags[RUN_ID_TAG] = event.run_id
    # A parameter is written once for all; what a resumed run changed becomes a tag.
    changed = {key: value for key, value in given.items() if known.get(key, value) != value}
    tags |= {f"medseg.resumed.{key}": value for key, value in changed.items()}
    if event.resumed_at is not None:
        tags["medseg.resumed_at"] = str(event.resumed_at)
    new = {key: value for key, value in given.items() if key not in known}
    _describe(client, run.info.run_id, new, tags)
    logged = {metric.key: metric.step for metric in run.data.to_proto().metrics}
    step = event.resumed_at or 0
    return MlflowRun(client, run.info.run_id, experiment, event.name, logged, flush_seconds, step)


def _describe(
    client: Any, run: str, parameters: Mapping[str, str], tags: Mapping[str, str]
) -> None:
    from mlflow.entities import Param, RunTag

    for batch in _batches(list(parameters.items()), ENTRIES_PER_CALL):
        client.log_batch(run, params=[Param(*entry) for entry in batch], synchronous=True)
    for batch in _batches([(_key(key), value) for key, value in tags.items()], ENTRIES_PER_CALL):
        client.log_batch(
            run, tags=[RunTag(key, _cut(value)) for key, value in batch], synchronous=True
        )


def _batches(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _cut(value: str) -> str:
    return value if len(value) <= LONGEST_VALUE else value[: LONGEST_VALUE - 1] + "…"


def _key(name: str) -> str:
    """Return ``name`` with what MLflow refuses in a key replaced; ``/`` would make a folder."""
    return re.sub(r"[^\w\-. :]", "_", name).strip(". ")[:LONGEST_KEY] or "_"


def keyed(values: Mapping[str, float]) -> dict[str, float]:
    """Return ``values`` under keys MLflow takes; names that become equal are numbered."""
    keyed: dict[str, float] = {}
    for name, value in values.items():
        key = free = _key(name)[: LONGEST_KEY - 50]
        number = 1
        while free in keyed:
            number += 1
            free = f"{key}_{number}"
        keyed[free] = value
    return keyed


def flat(stage: str, scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return ``stage/metric/label`` → score."""
    return {
        f"{stage}/{_key(metric)}/{label}": score
        for metric, by_label in scores.items()
        for label, score in keyed(by_label).items()
    }
