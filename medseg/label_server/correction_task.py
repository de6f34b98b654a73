"""``CorrectionTask``: the model that people click with, in 3D Slicer and OHIF."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferType

from medseg.bundle.spec import BundleSpec
from medseg.label_server.audit import name_requester
from medseg.label_server.clicks import (
    BACKGROUND,
    ClickHistories,
    ClickHistory,
    read_clicks,
)
from medseg.label_server.datastore import CaseDatastore
from medseg.label_server.model import ServedModel
from medseg.label_server.state import StateFolder
from medseg.label_server.tasks import SegmentTask
from medseg.label_server.versions import Versions
from medseg.volume import Array


class CorrectionTask(SegmentTask):
    """Corrects what the served version proposes for a case, by the clicks of a request.

    Its type is ``deepedit``, which viewers offer points for. They want ``background`` among the
    labels; it comes last, as 3D Slicer numbers segments by their order, and OHIF takes a label's
    number 0 for none.

    Args:
        state: The state folder.
        datastore: The cases.
        model: The served version.
        spec: The spec of an interactive bundle.
    """

    def __init__(
        self,
        state: StateFolder,
        datastore: CaseDatastore,
        model: ServedModel,
        spec: BundleSpec,
    ) -> None:
        super().__init__(state, datastore, model, spec)
        self.type = InferType.DEEPEDIT
        self.description = "Clicks correct one label at a time"
        names = [*spec.label_set.names, BACKGROUND]
        self.labels = {name: n for n, name in enumerate(names, start=1)}
        self._histories = ClickHistories()

    def __call__(
        self, request: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """Follow the clicks of a request.

        Returns:
            A new file with the label map, which the caller removes; and what is known of it. Of
            several labels it holds those that the request names: OHIF takes all others for the one
            that was clicked on.
        """
        began = time.perf_counter()
        image = str(request.get("image") or "")
        version = Versions(self._state).find_served()
        person = name_requester(request.get("client_id"))
        key = (image, version.number, person)
        history = self._histories.get(key, lambda: self._begin(image))
        scan = history.correction.scan
        label_set = self._spec.label_set
        asked = read_clicks(request, label_set, scan)
        with history.lock:
            labels = self._model.follow(history, asked)
        shown = _show(labels, asked.named)
        seconds = time.perf_counter() - began
        about = {
            "label_names": dict(self.labels),
            "clicks": len(asked.clicks),
            "warnings": list(scan.warnings),
            "version": version.name,
            "latencies": {"total": round(seconds, 3)},
        }
        return self._write_result(request, shown, scan), about

    def _begin(self, image: str) -> ClickHistory:
        """Open a scan and segment it; the proposal is what is corrected."""
        return self._model.begin_clicks(self._read(image))


def _show(labels: Array, named: frozenset[int]) -> Array:
    if not named:
        return labels
    is_shown = np.isin(labels, list(named))
    return np.where(is_shown, labels, 0).astype(labels.dtype)
