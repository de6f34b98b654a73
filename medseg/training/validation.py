"""Validation while a network trains: whole held-out cases, segmented and scored on its grid."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

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
from medseg.networks.decoding import choose_decoding
from medseg.networks.inferers import Autocast, build_window_inferer
from medseg.preprocessing.transforms import IMAGE, LABEL
from medseg.training.history import Scores
from medseg.volume import Array


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
    evaluator = SupervisedEvaluator(
        device=device,
        val_data_loader=_WholeCases(cases),
        network=network,
        inferer=Autocast(build_window_inferer(spec), device, precision),
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
        """Score one case: logits and label, each with a batch axis of 1."""
        logits, label = output
        case = self._cases[len(self.scores)]
        winners = self._decoding.find_winners(logits[0]).winners
        prediction = self._decoding.to_labels(_to_int32(winners))
        reference = _to_int32(label[0, 0])
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


def _to_int32(values: torch.Tensor) -> Array:
    return values.to(torch.int32).cpu().numpy()


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
