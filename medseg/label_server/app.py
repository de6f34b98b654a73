"""``LabelApp``: medseg as an app of MONAI Label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.utils.async_tasks.utils import processes

from medseg.inference.segmentation import Segmentation
from medseg.label_server.cases import Cases, FolderCases, is_url
from medseg.label_server.datastore import CaseStore
from medseg.label_server.dicomweb import DicomWebCases
from medseg.label_server.model import Served
from medseg.label_server.state import State
from medseg.label_server.tasks import ImproveTask, QualityScoring, SegmentTask, WorstFirst, unscored
from medseg.label_server.versions import Versions
from medseg.volume import Volume

SCORING = "quality"


class LabelApp(MONAILabelApp):  # type: ignore[misc]
    """Serves one trained bundle over one set of cases.

    MONAI Label makes one in the server, and one in each process it starts for a training or a
    scoring.

    Args:
        app_dir: MONAI Label's; not used.
        studies: A folder, or the URL of a DICOMweb server.
        conf: ``state``, ``device`` and ``modalities``.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.state = State(Path(conf["state"]))
        self.versions = Versions(self.state)
        self.spec = self.versions.served.bundle().spec
        self._device = conf.get("device", "auto")
        self._modalities = tuple(filter(None, conf.get("modalities", "").split(",")))
        super().__init__(
            app_dir,
            studies,
            conf,
            name=f"medseg: {self.spec.name}",
            description=self.spec.description,
            labels=list(self.spec.label_set.names),
        )

    def init_datastore(self) -> Datastore:
        """Make the store of the cases."""
        cases: Cases
        if is_url(self.studies):
            cases = DicomWebCases(self.studies, self.state, self.spec, self._modalities)
        else:
            cases = FolderCases(self.state, self.spec)
        return CaseStore(self.state, cases, self.spec)

    def init_infers(self) -> dict[str, InferTask]:
        """Offer the bundle as the one model."""
        self._served = Served(self.versions, self._device)
        task = SegmentTask(self.state, self._datastore, self._served, self.spec)
        return {self.spec.name: task}

    def init_trainers(self) -> dict[str, TrainTask]:
        """Offer to train it."""
        return {self.spec.name: ImproveTask(self.state, self.spec, self._device)}

    def init_strategies(self) -> dict[str, Strategy]:
        """Offer ways to choose the next case; viewers take the first one unless told."""
        return {"worst_first": WorstFirst(self.state), "random": Random(), "first": First()}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Offer to score the cases."""
        return {SCORING: QualityScoring(self.state, self._device)}

    def info(self) -> dict[str, Any]:
        """Say what there is, versions included."""
        return {**super().info(), "medseg": self.versions.summary()}

    def segment(self, volume: Volume) -> Segmentation:
        """Segment a volume with the served version."""
        return self._served.segment(volume)[1]

    def infer(
        self, request: Mapping[str, Any], datastore: Datastore | None = None
    ) -> dict[str, Any]:
        """Segment a case, or an image that was uploaded with the request."""
        task = self._infers.get(request.get("model"))
        if task is None:
            raise HTTPException(404, f"there is no such model; there is {', '.join(self._infers)}")
        file, about = task(request)
        return {"label": file, "tag": "original", "file": file, "params": about}

    def batch_infer(
        self, request: Mapping[str, Any], datastore: Datastore | None = None
    ) -> dict[str, Any]:
        """Segment many cases and keep the results as proposals."""
        wanted: dict[str, Callable[[], list[str]]] = {
            "labeled": self._datastore.get_labeled_images,
            "unlabeled": self._datastore.get_unlabeled_images,
        }
        cases = wanted.get(str(request.get("images")), self._datastore.list_images)()
        task = self._infers[self.spec.name]
        done = {}
        for case in cases:
            file, about = task({"image": case, "save_label": True})
            Path(file).unlink()
            done[case] = about
        return done

    def next_sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Choose the next case, and see that the scores are those of the served version."""
        self._datastore.exchange()
        self.refresh_scores()
        found: dict[str, Any] = super().next_sample(request)
        return found

    def refresh_scores(self) -> None:
        """Start scoring, unless every case is scored or it runs already."""
        stale = unscored(self.state, self._datastore, self.versions.served)
        if stale and not processes("scoring") and not processes("train"):
            self.async_scoring(SCORING)

    def on_init_complete(self) -> None:
        """Start what runs beside the server."""
        self._datastore.labels.audit_what_a_kill_left_out()
        super().on_init_complete()
        self.refresh_scores()
