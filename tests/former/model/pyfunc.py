"""A trained bundle as MLflow sees it: paths of scans in, paths of label maps and volumes out.

MLflow copies this file into each model it is logged with and runs it to load the model, so it
imports only what an installed medseg offers. Nothing else imports it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
from medseg.engine.segmenter import Segmenter
from medseg.tools.images import (
    read_image,
    stack_channels,
    with_channels,
    write_labels,
)
from medseg.tools.naming import distinct_names, is_picture, split_suffix
from medseg.words.errors import MedsegError
from medseg.words.quality import Quality
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

CHANNEL_SEPARATOR = ";"


class SegmentationModel(PythonModel):  # type: ignore[misc]
    """Segments scans by path, with the bundle logged as the artifact ``bundle``."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the trained bundle onto a GPU where there is one, else the CPU."""
        self._segmenter = Segmenter(Path(context.artifacts["bundle"]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Segment scans and write one label map for each, on the scan's own grid.

        Args:
            context: MLflow's; not needed any more.
            model_input: The column ``scan`` holds what ``medseg segment`` takes as one scan: a
                file or a DICOM folder; the channel files of one scan are separated by ``;``.
            params: ``out`` is the folder to write to; a fresh temporary folder unless given.

        Returns:
            One row per scan, in order: ``scan`` as given; ``label_map``, its path; ``error``,
            empty, or what is wrong with the scan, whose ``label_map`` then is empty; and for
            each label its volume in ml, ``<label>_ml``, NaN where there is an error; and
            ``expected_dice``, its ``lower_bound`` and ``review``, which tell how good the label
            map probably is (NaN where there is nothing to say).
        """
        given = (params or {}).get("out")
        out = Path(given or tempfile.mkdtemp(prefix="medseg-")).absolute()
        # MLflow makes one row of a dict, even where its value is a list of scans.
        scans = [str(scan) for scan in model_input["scan"].explode()]
        files = [_files(scan) for scan in scans]
        names = distinct_names(
            [split_suffix(of[0].name)[0] for of in files], scans
        )
        return pd.DataFrame(
            [
                {"scan": scan, **self._row(of, out / name)}
                for scan, of, name in zip(scans, files, names, strict=True)
            ]
        )

    def _row(self, files: list[Path], target: Path) -> dict[str, Any]:
        label_map = target.with_name(
            target.name + (".png" if is_picture(files[0]) else ".nii.gz")
        )
        try:
            wanted = len(self._segmenter.spec.channels)
            volume = with_channels(
                stack_channels([read_image(file) for file in files]), wanted
            )
            found = self._segmenter.segment(volume)
            write_labels(label_map, found.labels, volume)
        except MedsegError as error:
            regions = self._segmenter.spec.label_set.regions
            nothing = {region.name: math.nan for region in regions}
            judged = _judgement(Quality(review=True))
            return {
                "label_map": "",
                "error": str(error),
                **_columns(nothing),
                **judged,
            }
        judged = _judgement(found.quality)
        return {
            "label_map": str(label_map),
            "error": "",
            **_columns(found.volumes_ml),
            **judged,
        }


def _columns(volumes_ml: Mapping[str, float]) -> dict[str, float]:
    return {f"{label}_ml": ml for label, ml in volumes_ml.items()}


def _judgement(quality: Quality) -> dict[str, Any]:
    return {
        "expected_dice": math.nan
        if quality.expected is None
        else quality.expected,
        "lower_bound": math.nan if quality.lower is None else quality.lower,
        "review": quality.review,
    }


def _files(scan: str) -> list[Path]:
    whole = Path(scan)
    return (
        [whole]
        if whole.exists()
        else [Path(part) for part in scan.split(CHANNEL_SEPARATOR)]
    )


set_model(SegmentationModel())
