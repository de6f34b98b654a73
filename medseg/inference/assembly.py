"""An assembly on its way over one scan: which bundles run, where they look, what is painted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medseg.bundle.bundle import Step
from medseg.bundle.spec import BundleSpec, CropSpec
from medseg.inference.assembly_prediction import AssemblyPrediction, Painting
from medseg.inference.label_writer import choose_label_type
from medseg.inference.prediction import Prediction
from medseg.labels import LabelSet
from medseg.metrics.label_boxes import Box, find_label_box, grow_box
from medseg.volume import Array, Volume


@dataclass(frozen=True, slots=True)
class View:
    """What some bundles look at.

    Attributes:
        box: Of the scan's grid.
        steps: The bundles.
    """

    box: Box
    steps: tuple[Step, ...]

    def is_whole(self, scan: Volume) -> bool:
        """Tell whether the box holds all of a scan."""
        return all(
            part == slice(0, count)
            for part, count in zip(self.box, scan.shape, strict=True)
        )


class AssemblyRun:
    """Says which bundles can run, and keeps what they find.

    Whoever runs them asks until nothing is left::

        while views := run.take_ready():
            for view in views:
                for step in view.steps:
                    run.add(step, view.box, predict(step, scan.crop(view.box)))
        prediction = run.finish()

    Args:
        steps: The bundles, in the order in which they run.
        scan: The scan.
        spec: The assembly as a bundle.
        chosen: Names of the labels to paint.
        is_judging: Whether labels were given to be judged, too.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        scan: Volume,
        spec: BundleSpec,
        chosen: Collection[str],
        *,
        is_judging: bool = False,
    ) -> None:
        self._scan = scan
        self._spec = spec
        self._chosen = chosen
        self._is_judging = is_judging
        self._waiting = list(steps)
        self._order = [step.spec.name for step in steps]
        self._boxes: dict[str, Box | None] = {}
        self._paintings: list[Painting] = []
        self._blind: list[Step] = []
        self._warnings: list[str] = []

    def take_ready(self) -> list[View]:
        """Return the bundles whose place is known, by where they look; nothing at the end."""
        self._skip_blind()
        views: dict[str, View] = {}
        waiting = []
        for step in self._waiting:
            box = self._find_place(step)
            if box is None:
                waiting.append(step)
                continue
            view = views.get(str(box), View(box, ()))
            views[str(box)] = replace(view, steps=(*view.steps, step))
        self._waiting = waiting
        return list(views.values())

    def add(self, step: Step, box: Box, prediction: Prediction) -> None:
        """Keep what a bundle has found, as far as others or the result need it."""
        name = step.spec.name
        followers = [
            each
            for each in self._waiting
            if each.spec.crop and each.spec.crop.source == name
        ]
        if followers:
            labels = prediction.finish().labels
            label_set = step.bundle.spec.label_set
            for each in followers:
                self._boxes[each.spec.name] = self._place(
                    each.spec.crop, labels, label_set, box
                )
        names = {
            own: painted
            for own, painted in step.names.items()
            if painted in self._chosen
        }
        if names:
            self._paintings.append(Painting(step, box, prediction, names))

    def finish(self) -> AssemblyPrediction:
        """Return what all have found."""
        self._paintings.sort(
            key=lambda each: self._order.index(each.step.spec.name)
        )
        return AssemblyPrediction(
            self._scan,
            self._spec,
            self._paintings,
            chosen=self._chosen,
            blind=self._blind,
            warnings=tuple(self._warnings),
            is_judging=self._is_judging,
        )

    def _find_place(self, step: Step) -> Box | None:
        """Return where a bundle looks; ``None`` if that is not known yet."""
        if step.spec.crop is None:
            i, j, k = self._scan.shape
            return slice(0, i), slice(0, j), slice(0, k)
        return self._boxes.get(step.spec.name)

    def _skip_blind(self) -> None:
        """Leave out what would look around something that was not found; say so."""
        blind = {step.spec.name for step in self._blind}
        seeing = []
        for step in self._waiting:
            crop = step.spec.crop
            name = step.spec.name
            is_blind = name in self._boxes and self._boxes[name] is None
            if crop is not None and (is_blind or crop.source in blind):
                blind.add(name)
                self._blind.append(step)
                self._warnings.append(_say_blind(name, crop))
            else:
                seeing.append(step)
        self._waiting = seeing

    def _place(
        self,
        crop: CropSpec | None,
        labels: Array,
        label_set: LabelSet,
        box: Box,
    ) -> Box | None:
        """Return the box around labels that were found, with its margin."""
        if crop is None:
            return None
        indices = [
            label.index for label in label_set if label.name in crop.labels
        ]
        found = find_label_box(labels, indices)
        if found is None:
            return None
        return grow_box(found, box, self._scan, crop.margin_mm)


def _say_blind(name: str, crop: CropSpec) -> str:
    shown = ", ".join(crop.labels[:_MOST_NAMED])
    if len(crop.labels) > _MOST_NAMED:
        shown += " and others"
    return (
        f"{name} was not looked for: {crop.source} has found nothing of {shown}"
    )


_MOST_NAMED = 5


def translate_given(
    given: Array | None, spec: BundleSpec, step: Step, box: Box
) -> Array | None:
    """Return labels that are to be judged as one of an assembly's bundles calls them.

    Args:
        given: Label indices ``(i, j, k)`` of the assembly, on the scan's grid.
        spec: The assembly as a bundle.
        step: The bundle; what it does not know is background to it.
        box: Where it looks.
    """
    if given is None:
        return None
    own_set = step.bundle.spec.label_set
    indices = {label.name: label.index for label in own_set}
    own_names = {name: own for own, name in step.names.items()}
    table = np.zeros(spec.label_set.classes, choose_label_type(own_set.classes))
    for label in spec.label_set:
        if label.name in own_names:
            table[label.index] = indices[own_names[label.name]]
    translated: Array = table[given[box]]
    return translated
