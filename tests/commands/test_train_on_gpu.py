"""``medseg train`` on a pretend GPU, from prepared cases to the trained bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.bundles import content, write_json
from support.pretend_gpu import pretend_gpus

from medseg import train
from medseg.bundle.bundle import load_bundle, parse_spec
from medseg.datasets.dataset import open_dataset
from medseg.inference.segmenter import Segmenter
from medseg.testing import write_dataset


@pytest.mark.slow
def test_held_out_cases_have_the_gpu_that_training_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_dataset(tmp_path / "data", 4, shape=(24, 20, 16), spacing=9.0)
    made = content(
        data={"folds": 2},
        training={"patch": [16, 16, 16], "ema": 0.9, "steps": 2},
        refinement={"steps": 2, "adversarial_weight": 0},
    )
    # MONAI's tensors, which prepare cases, cannot pretend.
    open_dataset(data, parse_spec(made), 0, tmp_path / "preprocessed")
    held: list[int] = []
    load = Segmenter.__init__
    with pretend_gpus() as gpus:

        def note(self: Segmenter, *given: Any, **choices: Any) -> None:
            held.append(gpus.live)
            load(self, *given, **choices)

        monkeypatch.setattr(Segmenter, "__init__", note)
        run = train(
            write_json(tmp_path / "bundle", made),
            data=data,
            out=tmp_path / "run",
            device="cuda",
        )
        assert gpus.peak > 0
    assert held
    assert max(held) == 0
    assert load_bundle(run).trained.refinement is not None
