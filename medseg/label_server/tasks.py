"""What MONAI Label's app consists of: a model, a trainer, strategies and a way of scoring."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.train import TrainTask

from medseg._support.folders import resolve_path
from medseg._support.platform.processes import lower_priority
from medseg.bundle.spec import BundleSpec
from medseg.datasets.cases import Scan
from medseg.datasets.integrity import read_scan
from medseg.errors import MedsegError, OutputError, ScanError
from medseg.events import Event, Progress, ValidationDone
from medseg.io import list_label_suffixes, write_labels
from medseg.io.voxels import limit_voxels
from medseg.label_server.audit import name_requester
from medseg.label_server.cases import MOST_UPLOADED_VOXELS
from medseg.label_server.datastore import CaseDatastore
from medseg.label_server.labels import FINAL, ORIGINAL
from medseg.label_server.model import ServedModel, ServedSegmentation
from medseg.label_server.request_checks import (
    parse_learning_rate,
    parse_steps,
)
from medseg.label_server.retraining import STEPS, train_new_version
from medseg.label_server.scores import Scores, summarise_quality
from medseg.label_server.state import StateFolder, is_plain_name
from medseg.label_server.store import Store
from medseg.label_server.training_progress import (
    TrainingProgress,
    read_progress,
)
from medseg.label_server.versions import Version, Versions
from medseg.label_server.worklist import Worklist
from medseg.volume import Array, Volume

_RESULT_SUFFIX = ".nii.gz"


class SegmentTask(InferTask):  # type: ignore[misc]
    """Segments a case with the served version.

    Args:
        state: The state folder.
        datastore: The cases.
        model: The served version.
        spec: The bundle's spec.
    """

    def __init__(
        self,
        state: StateFolder,
        datastore: CaseDatastore,
        model: ServedModel,
        spec: BundleSpec,
    ) -> None:
        self._state = state
        self._datastore = datastore
        self._worklist = Worklist(Store(state))
        self._model = model
        self._spec = spec
        indices = {label.name: label.index for label in spec.label_set}
        super().__init__(
            InferType.SEGMENTATION, indices, spec.network.dims, spec.description
        )

    def is_valid(self) -> bool:
        """Tell that it can be used."""
        return True

    def get_path(self, validate: bool = True) -> str:
        """Return the file of the served weights."""
        bundle = Versions(self._state).find_served().load_bundle()
        return str(bundle.weights)

    def __call__(
        self, request: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """Segment the case, or the uploaded image, that a request names.

        Returns:
            A new file with the label map, which the caller removes; and what is known of it.
        """
        began = time.perf_counter()
        image = str(request.get("image") or "")
        volume = self._read(image)
        result = self._model.segment(volume)
        quality = summarise_quality(result.segmentation)
        seconds = time.perf_counter() - began
        about: dict[str, Any] = {
            "label_names": dict(self.labels),
            "label_colors": {
                label.name: label.colour for label in self._spec.label_set
            },
            "quality": quality,
            "volumes_ml": result.segmentation.volumes_ml,
            "warnings": list(result.segmentation.warnings),
            "version": result.version.name,
            "latencies": {"total": round(seconds, 3)},
        }
        labels = result.segmentation.labels
        if is_plain_name(image):
            problems = self._show_proposal(image, result, volume)
            about["warnings"].extend(problems)
            if not problems:
                # Without one the next scoring shows it.
                Scores(self._state, result.version).add(image, quality)
            person = name_requester(request.get("client_id"))
            self._worklist.prolong(image, person)
            if request.get("save_label") is True:
                tag = _choose_tag(request)
                info = {"params": about}
                self._datastore.labels.save(image, tag, labels, volume, info)
        return self._write_result(request, labels, volume), about

    def _write_result(
        self, request: Mapping[str, Any], labels: Array, like: Volume
    ) -> str:
        """Write a label map in the format that a request asks for; return the new file."""
        suffix = request.get("result_extension") or _RESULT_SUFFIX
        file = _make_result_file(self._state, str(suffix))
        write_labels(file, labels, like)
        return str(file)

    def _show_proposal(
        self, case: str, result: ServedSegmentation, volume: Volume
    ) -> list[str]:
        """Show it where else people look; return what went wrong: they have the result here."""
        try:
            self._datastore.proposals.show(case, result, volume)
        except OutputError as error:
            return [error.message]
        return []

    def _read(self, image: str) -> Volume:
        """Read a case by its name, or what the server itself has stored of an upload."""
        if is_plain_name(image):
            return self._datastore.read_volume(image)
        file = resolve_path(Path(image))
        if not self._is_upload(file):
            raise HTTPException(404, "there is no such case")
        upload = Scan("upload", ((file,),))
        with limit_voxels(MOST_UPLOADED_VOXELS):
            return read_scan(upload, self._spec.channels)

    def _is_upload(self, file: Path) -> bool:
        uploads = resolve_path(self._state.uploads)
        sessions = resolve_path(self._state.sessions)
        return uploads in file.parents or sessions in file.parents


def _choose_tag(request: Mapping[str, Any]) -> str:
    tag = str(request.get("label_tag") or ORIGINAL)
    if tag == FINAL:
        raise MedsegError(
            f"the tag '{FINAL}' is for labels that a person submits; use another"
        )
    return tag


def _make_result_file(state: StateFolder, suffix: str) -> Path:
    known = list_label_suffixes()
    if suffix not in known:
        raise ScanError(
            f"result_extension must be one of {', '.join(known)}",
            detail=suffix[:20],
        )
    state.uploads.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=state.uploads, suffix=suffix)
    os.close(handle)
    return Path(name)


class RetrainTask(TrainTask):  # type: ignore[misc]
    """Trains a new version on the submitted labels; runs in a process of its own.

    Args:
        state: The state folder.
        spec: The bundle's spec.
        device: Where to train.
        speed: At which cases are segmented; as each version says unless given.
    """

    def __init__(
        self, state: StateFolder, spec: BundleSpec, device: str, speed: str = ""
    ) -> None:
        super().__init__(
            "Train on the submitted labels; the better version is served"
        )
        self._state = state
        self._spec = spec
        self._device = device
        self._speed = speed

    def config(self) -> dict[str, Any]:
        """Return what viewers let people change."""
        return {
            "steps": STEPS,
            "learning_rate": self._spec.training.learning_rate,
        }

    def stats(self) -> Mapping[str, Any]:
        """Return how far the last training run came."""
        return read_progress(self._state)

    def __call__(
        self, request: Mapping[str, Any], datastore: Datastore
    ) -> dict[str, Any]:
        """Train, compare, and score the unlabelled cases again if the version changed."""
        steps = parse_steps(request.get("steps", STEPS))
        learning_rate = parse_learning_rate(request.get("learning_rate"))
        datastore.exchange()
        result = train_new_version(
            self._state,
            datastore.list_labelled_scans(),
            steps=steps,
            learning_rate=learning_rate,
            device=self._device,
            listeners=[TrainingProgress(self._state), _print_event],
        )
        verdict = (
            "is served now"
            if result.promoted
            else "is kept but not served: it is worse"
        )
        _print(
            f"version {result.version.name} {verdict}; Dice on held-out cases "
            f"{result.dice:.4f}, before {result.parent_dice:.4f}"
        )
        if result.promoted:
            versions = Versions(self._state)
            model = ServedModel(versions, self._device, self._speed)
            score_unlabelled(self._state, datastore, model)
        return {"version": result.version.name, "promoted": result.promoted}


def _print_event(event: Event) -> None:
    """Print how far a training run is; its warnings may name files, and stay out."""
    match event:
        case Progress(task, done, total):
            _print(f"{task}: {done} of {total}")
        case ValidationDone():
            dice = event.scores["dice"]["mean"]
            _print(f"step {event.step}: Dice {dice:.4f}")


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 (viewers show what a task prints)


class QualityScoring(ScoringMethod):  # type: ignore[misc]
    """Scores the unlabelled cases by expected Dice; runs in a process of its own.

    Args:
        state: The state folder.
        device: Where to segment.
        speed: At which; as each version says unless given.
    """

    def __init__(
        self, state: StateFolder, device: str, speed: str = ""
    ) -> None:
        super().__init__(
            "Expected Dice of the served version's result, for each unlabelled case"
        )
        self._state = state
        self._device = device
        self._speed = speed

    def __call__(
        self, request: Mapping[str, Any], datastore: Datastore
    ) -> dict[str, Any]:
        """Score what has no score of the served version yet."""
        lower_priority()  # people who wait for a segmentation come first
        versions = Versions(self._state)
        model = ServedModel(versions, self._device, self._speed)
        return score_unlabelled(self._state, datastore, model)


def score_unlabelled(
    state: StateFolder, datastore: CaseDatastore, model: ServedModel
) -> dict[str, Any]:
    """Score every unlabelled case that the served version has no score of.

    Returns:
        Case → quality, or what is wrong with the case.
    """
    served = Versions(state).find_served()
    waiting = list_unscored(state, datastore, served)
    results: dict[str, Any] = {}
    for done, case in enumerate(waiting, start=1):
        try:
            results[case] = _score_case(state, datastore, model, case)
        except MedsegError as error:
            results[case] = {"error": error.message}
            continue
        _print(f"scoring: {done} of {len(waiting)}")
    return results


def _score_case(
    state: StateFolder, datastore: CaseDatastore, model: ServedModel, case: str
) -> dict[str, Any]:
    """Segment a case, keep how good the result probably is, and show it."""
    volume = datastore.read_volume(case)
    result = model.segment(volume)
    quality = summarise_quality(result.segmentation)
    # A case with a score is not looked at again, so the score comes last.
    datastore.proposals.show(case, result, volume)
    # Another version may be served by now: the score belongs to the one that segmented.
    scores = Scores(state, result.version)
    scores.add(case, quality)
    return quality


def list_unscored(
    state: StateFolder, datastore: CaseDatastore, version: Version
) -> list[str]:
    """Return the unlabelled cases that a version has no score of."""
    scores = Scores(state, version).read()
    return [
        case for case in datastore.get_unlabeled_images() if case not in scores
    ]
