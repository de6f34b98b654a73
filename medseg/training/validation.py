"""Validation while a network trains: whole held-out cases, segmented and scored on its grid."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from ignite.metrics import Metric
from monai.engines import SupervisedEvaluator
from torch import nn

from medseg.bundle.spec import BundleSpec
from medseg.datasets.cache import CachedCase
from medseg.labels import LabelSet
from medseg.metrics.metrics import CaseScores, score_case
from medseg.metrics.statistics import summarise
from medseg.networks.click_inputs import WithoutClicks
from medseg.networks.decoding import Decoding, choose_decoding
from medseg.networks.inferers import CaseInferer
from medseg.preprocessing.transforms import IMAGE, LABEL
from medseg.training.history import Scores


@dataclass(frozen=True, slots=True)
class Validation:
    """The result of a validation.

    Attributes:
        scores: ``metric → label → mean over cases``.
        cases: The scores of each case.
        examples: Case id → predicted label indices ``(x, y, z)``, for the first few cases.
    """

    scores: Scores
    cases: Sequence[CaseScores]
    examples: Mapping[str, torch.Tensor]


def validate_network(
    network: nn.Module,
    cases: Sequence[CachedCase],
    spec: BundleSpec,
    device: torch.device,
    precision: torch.dtype,
    *,
    examples: int = 0,
) -> Validation:
    """Segment cases by sliding window and score them, on the network's grid.

    Args:
        network: The network as for inference: image → logits.
        cases: The validation cases.
        spec: The bundle.
        device: Where to compute.
        precision: Arithmetic of the forward passes.
        examples: For how many cases to keep the prediction.
    """
    if spec.training.clicks is not None:
        network = WithoutClicks(network, spec.input_channels)
    metric = CaseMetric(spec.label_set, cases, examples)
    answer = partial(_find_winners, choose_decoding(spec.label_set))
    evaluator = SupervisedEvaluator(
        device=device,
        val_data_loader=_WholeCases(cases),
        prepare_batch=_leave_on_host,
        network=network,
        inferer=CaseInferer(spec, device, precision, answer),
        key_val_metric={"dice": metric},
        decollate=False,
    )
    evaluator.logger.setLevel(logging.CRITICAL)
    evaluator.run()
    return Validation(
        scores=summarise(metric.scores),
        cases=tuple(metric.scores),
        examples=dict(metric.examples),
    )


def _find_winners(decoding: Decoding, logits: torch.Tensor) -> torch.Tensor:
    """Return who wins each voxel, ``(x, y, z)``, in the host's memory."""
    winners = decoding.find_winners(logits[0]).winners
    return winners.to(torch.int32).cpu()


def _leave_on_host(
    batch: Mapping[str, torch.Tensor], *_: object, **__: object
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch's image and label: the inferer decides what goes to a GPU, and when."""
    return batch[IMAGE], batch[LABEL]


class CaseMetric(Metric):  # type: ignore[misc]
    """Scores whole cases as the evaluator segments them; its value is the mean Dice.

    Args:
        labels: The labels to score.
        cases: The cases, in the evaluator's order.
        examples: For how many cases to keep the prediction.
    """

    def __init__(
        self, labels: LabelSet, cases: Sequence[CachedCase], examples: int = 0
    ) -> None:
        self._labels = labels
        self._cases = cases
        self._max_examples = examples
        self._decoding = choose_decoding(labels)
        super().__init__(
            output_transform=lambda output: (output["pred"], output["label"])
        )

    def reset(self) -> None:
        """Forget every case."""
        self.scores: list[CaseScores] = []
        self.examples: dict[str, torch.Tensor] = {}

    def update(self, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Score one case: who wins its voxels, and its label ``(1, 1, x, y, z)``."""
        winners, label = output
        case = self._cases[len(self.scores)]
        prediction = self._decoding.to_labels(winners.numpy())
        reference = label[0, 0].to(torch.int32).numpy()
        scores = score_case(
            prediction,
            reference,
            self._labels,
            case.spacing,
            case=case.case_id,
        )
        self.scores.append(scores)
        if len(self.examples) < self._max_examples:
            self.examples[case.case_id] = torch.from_numpy(prediction)

    def compute(self) -> float:
        """Return the mean Dice over labels and cases."""
        return summarise(self.scores)["dice"]["mean"]


class _WholeCases:
    """Whole cases as batches of one, opened when their turn comes."""

    def __init__(self, cases: Sequence[CachedCase]) -> None:
        self._cases = cases

    def __len__(self) -> int:
        return len(self._cases)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for case in self._cases:
            image = case.image[None].float()
            label = case.label[None].long()
            yield {IMAGE: image, LABEL: label}
