"""A trained bundle as MLflow sees it: paths of scans in, paths of label maps and volumes out.

MLflow copies this file into each model it is logged with and runs it to load the model, with
whatever release of medseg is installed then. So it imports nothing but medseg's public names, and
no module of medseg imports it.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from medseg import MedsegError, Quality, Segmenter, VolumeLike, as_volume

CHANNEL_SEPARATOR = ";"
_WARNING_SEPARATOR = "; "

_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_VOLUMES = (
    ".nii.gz",
    ".nii",
    ".hdr",
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
    ".mgz",
    ".mgh",
    ".dcm",
    ".dicom",
    ".ima",
)
_LONGEST_NAME = 80
_MOST_BYTES = 160
_HASH_DIGITS = 10


class SegmentationModel(PythonModel):  # type: ignore[misc]
    """Segments scans by path, with the bundle logged as the artifact ``bundle``."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the trained bundle onto a GPU where there is one, else the CPU.

        Args:
            context: MLflow's. Its ``model_config`` may say at which ``speed`` a CPU computes:
                ``exact``, ``balanced`` or ``fast``; as the bundle says unless given.
        """
        config = context.model_config or {}
        bundle = Path(context.artifacts["bundle"])
        self._segmenter = Segmenter(bundle, speed=config.get("speed") or None)

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
                file, a DICOM folder or the folder of a case of several channels; or the channel
                files of one scan, separated by ``;``.
            params: ``out`` is the folder to write to; a fresh temporary folder unless given.

        Returns:
            One row per scan, in order: ``scan`` as given; ``label_map``, its path; ``error``,
            empty, or what is wrong with the scan, whose ``label_map`` then is empty;
            ``warnings``, empty, or what a person should know of the scan, ``; `` between; for
            each label its volume in ml, ``<label>_ml``, NaN where there is an error; and
            ``expected_dice``, its ``lower_bound`` and ``review``, which tell how good the label
            map probably is (NaN where there is nothing to say: also where the bundle is not
            calibrated, or was trained on made-up data); ``quality``, the same in words, and
            ``reasons`` for a review, ``; `` between. No column names a file or quotes a header,
            since both may name the patient.
        """
        out_folder = (params or {}).get("out") or tempfile.mkdtemp(
            prefix="medseg-"
        )
        out = Path(out_folder).absolute()
        # MLflow makes one row of a dict, even where its value is a list of scans.
        scans = [str(scan) for scan in model_input["scan"].explode()]
        rows = []
        for scan, name in zip(scans, _name_label_maps(scans), strict=True):
            rows.append({"scan": scan, **self._segment(scan, out / name)})
        return pd.DataFrame(rows)

    def _segment(self, scan: str, label_map: Path) -> dict[str, Any]:
        try:
            files = _list_channel_files(scan)
            image: VolumeLike = files[0]
            if len(files) > 1:
                image = [as_volume(file) for file in files]
            found = self._segmenter.segment(image)
            found.save(label_map)
        except MedsegError as error:
            regions = self._segmenter.spec.label_set.regions
            volumes_ml = {region.name: math.nan for region in regions}
            return {
                "label_map": "",
                "error": error.message,
                "warnings": "",
                **_make_volume_columns(volumes_ml),
                **_make_quality_columns(Quality(review=True)),
                "quality": "",
                "reasons": "",
            }
        return {
            "label_map": str(label_map),
            "error": "",
            "warnings": _WARNING_SEPARATOR.join(found.warnings),
            **_make_volume_columns(found.volumes_ml),
            **_make_quality_columns(found.quality),
        }


def _make_volume_columns(volumes_ml: Mapping[str, float]) -> dict[str, float]:
    return {f"{label}_ml": ml for label, ml in volumes_ml.items()}


def _make_quality_columns(quality: Quality) -> dict[str, Any]:
    shown = quality.shown
    return {
        "expected_dice": math.nan if shown.expected is None else shown.expected,
        "lower_bound": math.nan if shown.lower is None else shown.lower,
        "review": shown.review,
        "quality": shown.text,
        "reasons": _WARNING_SEPARATOR.join(shown.reasons),
    }


def _list_channel_files(scan: str) -> list[Path]:
    # Many joined ones are too long for the name of any file.
    with contextlib.suppress(OSError):
        if Path(scan).exists():
            return [Path(scan)]
    return [Path(part) for part in scan.split(CHANNEL_SEPARATOR)]


def _name_label_maps(scans: Sequence[str]) -> list[str]:
    """Name the label map of each scan by its first file; scans of equal names get a hash, too."""
    stems, endings = [], []
    for scan in scans:
        stem, suffix = _split_suffix(_list_channel_files(scan)[0].name)
        stems.append(_make_plain(stem))
        endings.append(".png" if suffix in _PICTURES else ".nii.gz")
    counts = Counter(stem.casefold() for stem in stems)
    names = []
    for scan, stem, ending in zip(scans, stems, endings, strict=True):
        if counts[stem.casefold()] > 1:
            digest = hashlib.sha256(scan.encode(errors="replace")).hexdigest()
            stem = f"{stem}-{digest[:_HASH_DIGITS]}"
        names.append(f"{stem}{ending}")
    return names


def _split_suffix(name: str) -> tuple[str, str]:
    for suffix in (*_VOLUMES, *_PICTURES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], suffix
    return name, ""


def _make_plain(text: str) -> str:
    """Make a text a plain file name on every system, with the letters of every script."""
    signs = []
    for sign in unicodedata.normalize("NFC", text):
        kind = unicodedata.category(sign)
        if kind != "Cf":  # what shows nothing
            is_kept = kind[0] in "LMN" or sign in "._-"
            signs.append(sign if is_kept else " ")
    plain = re.sub(" +", "_", "".join(signs)).lstrip(".-")
    name = unicodedata.normalize("NFC", plain)[:_LONGEST_NAME]
    while len(name.encode()) > _MOST_BYTES:
        name = name[:-1]
    return name.rstrip(".") or "scan"


set_model(SegmentationModel())
