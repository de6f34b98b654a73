"""How each channel is normalised, from the intensities there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg.planning.constraints import Notes
from medseg.planning.fingerprint import Fingerprint

_BLACK = 0.75
"""Below this share of the image in the box of its non-zero voxels, the rest is cut off."""
_OUTLIER = 3.0
"""A highest voxel this many times above the 99.5 % quantile is an outlier."""
_WILD = 10.0
"""From this ratio of the cases' scales on, the notes say so."""


def choose_intensity(
    survey: Fingerprint, channels: Sequence[dict[str, Any]], notes: Notes
) -> dict[str, Any]:
    """Return the fields of ``preprocessing`` that are about intensities."""
    cut = all(case.box < _BLACK for case in survey.cases)
    chosen = [
        _channel(survey, place, channel.get("modality", "OT"), cut, notes)
        for place, channel in enumerate(channels)
    ]
    same = all(one == chosen[0] for one in chosen)
    fields: dict[str, Any] = {"intensity": chosen[0] if same else chosen}
    if cut:
        share = float(np.median([case.box for case in survey.cases]))
        fields["crop_above"] = 0
        notes["preprocessing.crop_above"] = (
            f"All around is black: the box of what is not covers {share:.0%} of a typical image "
            "and every label"
        )
    return fields


def _channel(
    survey: Fingerprint, place: int, modality: str, cut: bool, notes: Notes
) -> dict[str, Any]:
    field = "preprocessing.intensity" + (f".{place}" if len(survey.cases[0].channels) > 1 else "")
    values = survey.labelled(place)
    if modality == "CT" and values.size and np.ptp(values) > 0:
        low, high = (float(v) for v in np.quantile(values, (0.005, 0.995)))
        clipped = values.clip(low, high)
        notes[field] = (
            f"CT: clipped to {low:.0f} to {high:.0f}, where 99 % of the labelled voxels are, then "
            "shifted and scaled by their mean and deviation; HU mean the same in every scan"
        )
        return {
            "kind": "window",
            "low": round(low, 1),
            "high": round(high, 1),
            "mean": round(float(clipped.mean()), 2),
            "std": round(max(float(clipped.std()), 1e-3), 2),
        }
    return _zscore(survey, place, modality, cut, notes, field)


def _zscore(
    survey: Fingerprint, place: int, modality: str, cut: bool, notes: Notes, field: str
) -> dict[str, Any]:
    facts = [case.channels[place] for case in survey.cases]
    highs = np.array([one.high for one in facts])
    scales = highs[highs > 0]
    spread = float(scales.max() / scales.min()) if scales.size else 1.0
    outliers = np.mean([one.highest > _OUTLIER * one.high > 0 for one in facts])
    said = ["Each image by its own mean and deviation"]
    if spread > _WILD:
        said.append(f"the images' scales differ by a factor of {spread:,.0f}")
    chosen: dict[str, Any] = {"kind": "zscore"}
    if cut:
        chosen["nonzero"] = True
        said.append("over non-zero voxels, because black was cut off around them")
    # What is hottest in PET is what is looked for.
    if outliers > 0.05 and modality != "PT":
        chosen["clip_percentiles"] = [0.005, 0.995]
        said.append(
            f"the outermost 0.5 % clipped first, because {outliers:.0%} of the images have "
            f"voxels more than {_OUTLIER:g} times as bright as that"
        )
    notes[field] = "; ".join(said)
    return chosen
