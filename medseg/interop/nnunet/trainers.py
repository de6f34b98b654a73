"""nnU-Net's trainers by name: what an unknown one may have changed that no file says."""

from __future__ import annotations

import re
from collections.abc import Iterator

_OWN = re.compile(
    r"nnUNetTrainer(BN|NoDeepSupervision|NoDA|DA5\w*|CELoss\w*|DiceLoss|DiceCELoss_noSmooth"
    r"|\w*[Tt]op[Kk]10Loss\w*|CosAnneal|(Vanilla)?Ada[mn]\w*|Benchmark_\w+|NoMirroring"
    r"|_\d+epochs?(_NoMirroring)?|_DASegOrd0(_NoMirroring)?|_noDummy2DDA|_onlyMirror01\w*"
    r"|_probabilisticOversampling\w*|_warmup)?"
)
"""Trainers that come with nnU-Net, and those with the number of epochs in their names."""


def explain_trainer(name: str) -> Iterator[str]:
    """Say what cannot be known of a trainer that does not come with nnU-Net."""
    if _OWN.fullmatch(name):
        return
    yield (
        f"the trainer {name} does not come with nnU-Net: what it changes in training does not "
        "matter, but if it changes the network beyond its weights, or how scans are prepared, "
        "label maps differ from its own; compare some"
    )
