"""Probabilities on the scan's grid: those of a plain resampling of all scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.bundles import made_spec, trained_bundle

from medseg import LabelSet, MedsegError, Segmenter, Volume
from medseg.inference import probabilities
from medseg.inference.probabilities import allocate_probabilities
from medseg.networks.decoding import Decoding

SHEARED = np.array(
    [[1.1, 0.0, 0.3, 4.0], [0, -1.3, 0, 5], [0, 0.2, 2.2, 6], [0, 0, 0, 1]]
)


@pytest.mark.parametrize("affine", [np.diag([1.0, 1.5, 2, 1]), SHEARED])
def test_they_decode_to_the_labels_on_any_grid(
    affine: np.ndarray, tmp_path: Path
) -> None:
    spec = made_spec(preprocessing={"spacing_mm": [1.4, 1.4, 1.4]})
    segmenter = Segmenter(trained_bundle(tmp_path, spec), "cpu")
    rng = np.random.default_rng(0)
    scan = Volume(rng.normal(0, 300, (1, 19, 17, 15)).astype("f4"), affine)
    found = segmenter.segment(scan, probabilities=True)
    assert found.probabilities is not None
    assert np.array_equal(found.probabilities.argmax(axis=0), found.labels)
    sure = found.probabilities.max(axis=0)
    assert sure.min() > 1 / 3
    assert sure.max() <= 1


def test_a_temperature_divides_the_scores() -> None:
    logits = torch.tensor([[2.0, 0.0]])
    sharp = Decoding().to_probabilities(logits, 0.5, dim=1)
    assert torch.allclose(sharp, (2 * logits).softmax(dim=1))
    regions = Decoding(paints=(1, 2)).to_probabilities(logits, 2.0, dim=1)
    assert torch.allclose(regions, (logits / 2).sigmoid())


def test_the_limit_is_on_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels: LabelSet = made_spec().label_set
    monkeypatch.setattr(probabilities, "MAX_BYTES", 4 * 3 * 60)
    assert allocate_probabilities((3, 4, 5), labels).shape == (3, 3, 4, 5)
    with pytest.raises(MedsegError, match="3 classes on 3×4×6 voxels"):
        allocate_probabilities((3, 4, 6), labels)
