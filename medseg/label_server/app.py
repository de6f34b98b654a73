"""``LabelApp``: medseg as an app of MONAI Label."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.async_tasks.utils import processes

from medseg.bundle.bundle import Assembly
from medseg.bundle.spec import BundleSpec
from medseg.inference.segmentation import Segmentation
from medseg.label_server.cases import Cases, FolderCases, is_url
from medseg.label_server.clicks import BACKGROUND
from medseg.label_server.correction_task import CorrectionTask
from medseg.label_server.datastore import CaseDatastore
from medseg.label_server.dicomweb import DicomWebCases
from medseg.label_server.environment import STORE_PROPOSALS
from medseg.label_server.model import ServedModel
from medseg.label_server.state import StateFolder
from medseg.label_server.strategies import make_strategies
from medseg.label_server.tasks import (
    QualityScoring,
    RetrainTask,
    SegmentTask,
    list_unscored,
)
from medseg.label_server.versions import Versions
from medseg.volume import Volume

SCORING = "quality"

CLICKS_SUFFIX = "_clicks"
"""How the model that takes clicks is called, behind the bundle's name."""


class LabelApp(MONAILabelApp):  # type: ignore[misc]
    """Serves one trained bundle over one set of cases.

    MONAI Label makes one in the server, and one in each process it starts for a training run or a
    scoring.

    Args:
        app_dir: MONAI Label's; not used.
        studies: A folder, or the URL of a DICOMweb server.
        conf: ``state``, ``device``, ``speed``, ``modalities`` and ``store_proposals``.
    """

    def __init__(
        self, app_dir: str, studies: str, conf: dict[str, str]
    ) -> None:
        self.state = StateFolder(Path(conf["state"]))
        self.versions = Versions(self.state)
        self.spec = self.versions.find_served().load_bundle().spec
        self._device = conf.get("device", "auto")
        self._speed = conf.get("speed", "")
        self._stores_proposals = bool(conf.get(STORE_PROPOSALS))
        modalities = conf.get("modalities", "").split(",")
        self._modalities = tuple(filter(None, modalities))
        super().__init__(
            app_dir,
            studies,
            conf,
            name=f"medseg: {self.spec.name}",
            description=self.spec.description,
            labels=_list_labels(self.spec),
        )

    def init_datastore(self) -> Datastore:
        """Make the datastore of the cases."""
        cases: Cases
        if is_url(self.studies):
            cases = DicomWebCases(
                self.studies, self.state, self.spec, self._modalities
            )
        else:
            cases = FolderCases(self.state, self.spec)
        return CaseDatastore(
            self.state,
            cases,
            self.spec,
            stores_proposals=self._stores_proposals,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """Offer the bundle as a model, and where it takes clicks as another one for these."""
        self._model = ServedModel(self.versions, self._device, self._speed)
        given = (self.state, self._datastore, self._model, self.spec)
        tasks: dict[str, InferTask] = {self.spec.name: SegmentTask(*given)}
        if self.spec.training.clicks is not None:
            name = f"{self.spec.name}{CLICKS_SUFFIX}"
            tasks[name] = CorrectionTask(*given)
        return tasks

    def init_trainers(self) -> dict[str, TrainTask]:
        """Offer to train it, unless it is an assembly, which is not trained as a whole."""
        bundle = self.versions.find_served().load_bundle()
        if isinstance(bundle, Assembly):
            return {}
        return {
            self.spec.name: RetrainTask(
                self.state, self.spec, self._device, self._speed
            )
        }

    def init_strategies(self) -> dict[str, Strategy]:
        """Offer ways to choose the next case."""
        return make_strategies(self.state)

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Offer to score the cases."""
        scoring = QualityScoring(self.state, self._device, self._speed)
        return {SCORING: scoring}

    def info(self) -> dict[str, Any]:
        """Return what there is: versions, too, and the labels' colours, red, green, blue."""
        colours = {label.name: label.colour for label in self.spec.label_set}
        return {
            **super().info(),
            "label_colors": colours,
            "medseg": self.versions.summarise(),
        }

    def segment(self, volume: Volume) -> Segmentation:
        """Segment a volume with the served version."""
        return self._model.segment(volume).segmentation

    def infer(
        self, request: Mapping[str, Any], datastore: Datastore | None = None
    ) -> dict[str, Any]:
        """Segment a case, or an image that was uploaded with the request."""
        model = request.get("model")
        task = self._infers.get(model)
        if task is None:
            models = ", ".join(self._infers)
            raise HTTPException(404, f"there is no such model, only {models}")
        file, about = task(request)
        return {"label": file, "tag": "original", "file": file, "params": about}

    def batch_infer(
        self, request: Mapping[str, Any], datastore: Datastore | None = None
    ) -> dict[str, Any]:
        """Segment many cases and keep the results as proposals."""
        task = self._infers[self.spec.name]
        results = {}
        for case in self._list_cases(str(request.get("images"))):
            file, about = task({"image": case, "save_label": True})
            Path(file).unlink()
            results[case] = about
        return results

    def _list_cases(self, images: str) -> list[str]:
        match images:
            case "labeled":
                cases: list[str] = self._datastore.get_labeled_images()
            case "unlabeled":
                cases = self._datastore.get_unlabeled_images()
            case _:
                cases = self._datastore.list_images()
        return cases

    def next_sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Choose the next case, and see that the scores are those of the served version."""
        self._datastore.exchange()
        self.refresh_scores()
        sample = dict(super().next_sample(request))
        # Where the scan lies is not for clients to know.
        sample.pop("path", None)
        if sample:
            sample["checksum"] = self._datastore.hash_image(sample["id"])
        return sample

    def is_training(self) -> bool:
        """Tell whether a training run is under way."""
        return bool(processes("train"))

    def refresh_scores(self) -> None:
        """Start scoring, unless every case is scored or it runs already."""
        if processes("scoring") or processes("train"):
            return
        served = self.versions.find_served()
        if list_unscored(self.state, self._datastore, served):
            self.async_scoring(SCORING)

    def on_init_complete(self) -> None:
        """Start what runs beside the server."""
        self._datastore.labels.enter_unrecorded()
        super().on_init_complete()
        self.refresh_scores()


def _list_labels(spec: BundleSpec) -> list[str]:
    """Return what viewers make segments of; in Slicer one of its own takes clicks outside."""
    names = list(spec.label_set.names)
    if spec.training.clicks is not None:
        names.append(BACKGROUND)
    return names
