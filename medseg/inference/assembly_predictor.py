"""``AssemblyPredictor``: each of an assembly's bundles looks where it should."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch

from medseg.bundle.bundle import Assembly
from medseg.errors import MedsegError
from medseg.inference.assembly import AssemblyRun, View, translate_given
from medseg.inference.assembly_prediction import AssemblyPrediction
from medseg.inference.bundle_predictor import BundlePredictor
from medseg.inference.device_errors import explain_device_errors
from medseg.inference.joint_passes import Look, pass_together
from medseg.inference.pass_plan import PassResult
from medseg.volume import Array, Volume


class AssemblyPredictor:
    """Passes the networks of an assembly's bundles over scans.

    Args:
        assembly: The assembly.
        parts: Name of each bundle that is run → its networks.
        device: Where they compute.
        chosen: Names of the labels that segmentations have.
        choices: What was asked for of all parts, and can change a label map.

    Attributes:
        parts: Name of each bundle that is run → its networks.
        backend: What computes; several with slashes between.
        choices: What was asked for and can change a label map.
        calibration: Nothing: raw scores of several networks have no calibration in common.
        device: Where they compute.
    """

    calibration = None

    def __init__(
        self,
        assembly: Assembly,
        parts: Mapping[str, BundlePredictor],
        device: torch.device,
        *,
        chosen: Collection[str],
        choices: Mapping[str, str],
    ) -> None:
        self.parts = parts
        self.device = device
        backends = {part.backend for part in parts.values()}
        self.backend = "/".join(sorted(backends))
        self.choices = dict(choices)
        for name, part in parts.items():
            self.choices[f"members of {name}"] = part.choices["members"]
            if "speed" in part.choices:
                self.choices[f"speed of {name}"] = part.choices["speed"]
        self._assembly = assembly
        self._chosen = chosen

    @property
    def precision(self) -> torch.dtype:
        """The precision of the first part's arithmetic."""
        first = next(iter(self.parts.values()))
        return first.precision

    @property
    def arithmetic(self) -> str:
        """What computes, and in what, of all parts."""
        kinds = {part.arithmetic for part in self.parts.values()}
        return "; ".join(sorted(kinds))

    def predict(
        self,
        volume: Volume,
        *,
        given: Array | None = None,
        temperatures: Sequence[float] = (),
        probabilities: bool = False,
    ) -> AssemblyPrediction:
        """Let each bundle look where it should, and join what they find.

        Args:
            volume: The scan, with the assembly's channels.
            given: Label indices ``(i, j, k)`` on its grid to judge by the same probabilities.
            temperatures: None: each bundle has its own.
            probabilities: ``False``: no class is in all bundles.

        Raises:
            ScanError: If the scan cannot be brought onto a network's grid.
            MedsegError: If the device has too little memory, a network returns no numbers, or
                temperatures or probabilities are asked for.
        """
        if probabilities:
            raise MedsegError(
                "an assembly has no probabilities of its own; ask one of its bundles"
            )
        if temperatures:
            raise MedsegError(
                "an assembly has no temperature of its own; ask one of its bundles"
            )
        spec = self._assembly.spec
        steps = self._assembly.select(self._chosen)
        run = AssemblyRun(
            steps, volume, spec, self._chosen, is_judging=given is not None
        )
        # Warnings of the reader are told once, not by each part.
        quiet = replace(volume, warnings=())
        while views := run.take_ready():
            for view in views:
                part = quiet if view.is_whole(volume) else quiet.crop(view.box)
                results = self._pass_over(view, part, given)
                for step, result in zip(view.steps, results, strict=True):
                    predictor = self.parts[step.spec.name]
                    made = predictor.make_prediction(part, result)
                    run.add(step, view.box, made)
        return run.finish()

    def _pass_over(
        self, view: View, part: Volume, given: Array | None
    ) -> list[PassResult]:
        """Pass the networks of bundles that look at one part of the scan over it."""
        looks = []
        for step in view.steps:
            own = translate_given(given, self._assembly.spec, step, view.box)
            looks.append(Look(self.parts[step.spec.name], own))
        with (
            torch.inference_mode(),
            explain_device_errors(part, self.device),
        ):
            return pass_together(looks, part)
