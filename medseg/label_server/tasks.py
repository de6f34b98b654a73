"""What MONAI Label's app consists of: a model, a trainer, strategies and a way of scoring."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from medseg._support.folders import resolve_path
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Scan
from medseg.datasets.integrity import read_scan
from medseg.errors import MedsegError, ScanError
from medseg.events import Event, Notice, Progress, ValidationDone
from medseg.io import write_labels
from medseg.label_server.datastore import CaseStore
from medseg.label_server.labels import FINAL, ORIGINAL
from medseg.label_server.model import Served
from medseg.label_server.retraining import STEPS, TrainingProgress, learn, training_stats
from medseg.label_server.scores import Scores, quality_of, worst_first
from medseg.label_server.state import State, is_plain
from medseg.label_server.versions import Version, Versions
from medseg.volume import Volume

HANDED_OUT_SECONDS = 1800
"""How long a case is not offered to others after it was handed to someone."""

_ENDINGS = (".nii.gz", ".nii", ".nrrd")


class SegmentTask(InferTask):  # type: ignore[misc]
    """Segments a case with the served version.

    Args:
        state: The state folder.
        store: The cases.
        served: The served version.
        spec: The bundle's spec.
    """

    def __init__(self, state: State, store: CaseStore, served: Served, spec: BundleSpec) -> None:
        self._state, self._store, self._served, self._spec = state, store, served, spec
        names = {label.name: label.index for label in spec.label_set}
        super().__init__(InferType.SEGMENTATION, names, spec.network.dims, spec.description)

    def is_valid(self) -> bool:
        """Tell that it can be used."""
        return True

    def get_path(self, validate: bool = True) -> str:
        """Return the file of the served weights."""
        return str(Versions(self._state).served.bundle().weights)

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Segment the case, or the uploaded image, that a request names.

        Returns:
            A new file with the label map, which the caller removes; and what is known of it.
        """
        began = time.perf_counter()
        image = str(request.get("image") or "")
        volume = self._volume(image)
        version, found, warnings = self._served.segment(volume)
        quality = quality_of(found)
        about = {
            "label_names": dict(self.labels),
            "quality": quality,
            "volumes_ml": found.volumes_ml,
            "warnings": list(warnings),
            "version": version.name,
            "latencies": {"total": round(time.perf_counter() - began, 3)},
        }
        if is_plain(image):
            Scores(self._state, version).keep({image: quality})
            if request.get("save_label") is True:
                tag = str(request.get("label_tag") or ORIGINAL)
                if tag == FINAL:
                    raise MedsegError(f"the tag '{FINAL}' is for labels that a person submits")
                self._store.labels.save(image, tag, found.labels, volume, {"params": about})
        file = _new_file(self._state, str(request.get("result_extension") or _ENDINGS[0]))
        write_labels(file, found.labels, volume)
        return str(file), about

    def _volume(self, image: str) -> Volume:
        """Read a case by its name, or what the server itself has stored of an upload."""
        if is_plain(image):
            return self._store.read(image)
        file = resolve_path(Path(image))
        ours = (resolve_path(self._state.uploads), resolve_path(self._state.sessions))
        if not any(folder in file.parents for folder in ours):
            raise HTTPException(404, "there is no such case")
        return read_scan(Scan("upload", ((file,),)), len(self._spec.channels))


def _new_file(state: State, ending: str) -> Path:
    if ending not in _ENDINGS:
        raise ScanError(f"result_extension takes {', '.join(_ENDINGS)}; got '{ending[:20]}'")
    state.uploads.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=state.uploads, suffix=ending)
    os.close(handle)
    return Path(name)


class ImproveTask(TrainTask):  # type: ignore[misc]
    """Trains a new version on the submitted labels; runs in a process of its own.

    Args:
        state: The state folder.
        spec: The bundle's spec.
        device: Where to train.
    """

    def __init__(self, state: State, spec: BundleSpec, device: str) -> None:
        super().__init__("Learn from the submitted labels; the better version is served")
        self._state, self._spec, self._device = state, spec, device

    def config(self) -> dict[str, Any]:
        """Return what viewers let people change."""
        return {"steps": STEPS, "learning_rate": self._spec.training.learning_rate}

    def stats(self) -> Mapping[str, Any]:
        """Return how far the last training came."""
        return training_stats(self._state)

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train, compare, and score the unlabelled cases anew if the version changed."""
        end_with(os.getppid())
        steps, rate = request.get("steps", STEPS), request.get("learning_rate")
        if not isinstance(steps, int) or not 1 <= steps <= 1_000_000:
            raise MedsegError(f"steps takes a whole number from 1, got {steps!r}")
        if rate is not None and not (isinstance(rate, int | float) and rate > 0):
            raise MedsegError(f"learning_rate takes a number above 0, got {rate!r}")
        datastore.exchange()
        outcome = learn(
            self._state,
            datastore.labelled_scans(),
            steps=steps,
            learning_rate=rate,
            device=self._device,
            listeners=[TrainingProgress(self._state), _say],
        )
        verdict = "is served now" if outcome.promoted else "is kept, and not served: it is worse"
        print(  # noqa: T201 (what a training prints is what viewers show of it)
            f"version {outcome.version.name} {verdict}; Dice on held-back cases "
            f"{outcome.dice:.4f}, before {outcome.parent_dice:.4f}",
            flush=True,
        )
        if outcome.promoted:
            score_all(self._state, datastore, Served(Versions(self._state), self._device))
        return {"version": outcome.version.name, "promoted": outcome.promoted}


def _say(event: Event) -> None:
    match event:
        case Progress(task, done, total):
            print(f"{task}: {done} of {total}", flush=True)  # noqa: T201
        case ValidationDone():
            print(f"step {event.step}: Dice {event.scores['dice']['mean']:.4f}", flush=True)  # noqa: T201
        case Notice(message):
            print(f"note: {message}", flush=True)  # noqa: T201


def end_with(parent: int) -> None:
    """End this process as soon as the server that started it is gone, even if it was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with the server").start()


class QualityScoring(ScoringMethod):  # type: ignore[misc]
    """Scores the unlabelled cases by expected Dice; runs in a process of its own.

    Args:
        state: The state folder.
        device: Where to segment.
    """

    def __init__(self, state: State, device: str) -> None:
        super().__init__("Expected Dice of the served version's result, for each unlabelled case")
        self._state, self._device = state, device

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score what has no score of the served version yet."""
        end_with(os.getppid())
        os.nice(10)  # people who wait for a segmentation come first
        return score_all(self._state, datastore, Served(Versions(self._state), self._device))


def score_all(state: State, store: CaseStore, served: Served) -> dict[str, Any]:
    """Score every unlabelled case that the served version has no score of.

    Returns:
        Case → quality, or what is wrong with the case.
    """
    version = Versions(state).served
    waiting = unscored(state, store, version)
    results: dict[str, Any] = {}
    for done, case in enumerate(waiting, start=1):
        try:
            by, found, _ = served.segment(store.read(case))
        except MedsegError as error:
            results[case] = {"error": str(error)}
            continue
        results[case] = quality_of(found)
        Scores(state, by).keep({case: results[case]})
        print(f"scoring: {done} of {len(waiting)}", flush=True)  # noqa: T201
    return results


def unscored(state: State, store: CaseStore, version: Version) -> list[str]:
    """Name the unlabelled cases that a version has no score of."""
    there = Scores(state, version).read()
    return [case for case in store.get_unlabeled_images() if case not in there]


class WorstFirst(Strategy):  # type: ignore[misc]
    """Offers the unlabelled case whose result is probably worst.

    Args:
        state: The state folder.
    """

    def __init__(self, state: State) -> None:
        super().__init__("The case with the lowest expected Dice first")
        self._state = state

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose a case; one that somebody else was just given is offered last."""
        scores = Scores(self._state, Versions(self._state).served).read()
        ordered = worst_first(datastore.get_unlabeled_images(), scores)
        if not ordered:
            return None
        client = request.get("client_id")
        free = [case for case in ordered if not _is_handed_out(datastore, case, client)]
        case = (free or ordered)[0]
        return {"id": case, "quality": scores.get(case)}


def _is_handed_out(datastore: Datastore, case: str, client: object) -> bool:
    handed = datastore.get_image_info(case).get("strategy", {}).values()
    return any(
        one.get("client_id") != client and time.time() - one.get("ts", 0) < HANDED_OUT_SECONDS
        for one in handed
    )
