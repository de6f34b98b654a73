"""Chains that turn a network's scores into labels in a MONAI config, as a bundle states them."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

from medseg.interop.monai_config.config import Component, Config
from medseg.interop.monai_config.transforms import (
    check_key,
    parse_function,
    take_one,
)

_PRED = "pred"
_HALF = 0.5
_EXCLUSIVE, _OVERLAPPING = "softmax", "sigmoid"


@dataclass(slots=True)
class DescribedLabels:
    """How scores become labels.

    Attributes:
        overlap: Whether each channel is a structure by itself.
        resample: As in ``inference`` of a bundle.
        painted: Value in label maps of each channel, the one that covers all others last:
            ``(channel, value)``; empty where the chain merges none.
        keep_largest: Labels of which one component is kept; ``None`` for none.
        keep_largest_on: As in ``inference`` of a bundle.
        remarks: What a person should know.
    """

    overlap: bool = False
    resample: str = "logits"
    painted: tuple[tuple[int, int], ...] = ()
    keep_largest: tuple[int, ...] | None = None
    keep_largest_on: str = "scan"
    remarks: list[str] = field(default_factory=list)


class ScoreReader:
    """Reads a chain of postprocessing, and refuses an order that medseg lacks.

    Args:
        moves: Whether the network's voxels are others than the scan's.
        labels: How many labels there are, without background.
    """

    def __init__(self, moves: bool, labels: int) -> None:
        self._moves = moves
        self._labels = labels
        self._activation = ""
        self._is_discrete = False
        self._is_back = False
        self._found = DescribedLabels()

    def read(self, component: Component) -> None:
        """Take one transform.

        Raises:
            MedsegError: If it is not known, or stands where medseg cannot do it.
        """
        if component.name in ("SaveImage", "DeleteItems", "CopyItems"):
            return
        if component.name != "Invert":
            check_key(component, _PRED)
        reader = {
            "Activations": self._read_activation,
            "AsDiscrete": self._read_discrete,
            "Invert": self._read_return,
            "KeepLargestConnectedComponent": self._read_largest,
            "Lambda": self._read_merging,
            "EnsureType": self._read_nothing,
            "ToTensor": self._read_nothing,
            "ToDevice": self._read_nothing,
        }.get(component.name)
        if reader is None:
            raise component.refuse("this transform is not known")
        reader(component)

    def describe(self, chain: str, config: Config) -> DescribedLabels:
        """Return how scores become labels.

        Args:
            chain: Where the chain stands, for errors.
            config: The config.

        Raises:
            MedsegError: If they become none.
        """
        if not self._is_discrete:
            raise config.refuse(
                chain, "no AsDiscreted makes labels of the scores"
            )
        if self._moves and not self._is_back:
            self._found.resample = "labels"
            self._found.remarks.append(
                "its own label maps lie on the network's grid; here they are brought back to the "
                "scan's"
            )
        return self._found

    def _read_nothing(self, component: Component) -> None:
        """Take what changes no score."""

    def _read_activation(self, component: Component) -> None:
        sigmoid = take_one(component, _OVERLAPPING, False)
        softmax = take_one(component, _EXCLUSIVE, False)
        component.require(other=None)
        component.finish(("keys", "allow_missing_keys", "dim", "lazy"))
        if self._activation or self._is_discrete or sigmoid == softmax:
            raise component.refuse("one of sigmoid and softmax is known")
        self._activation = _OVERLAPPING if sigmoid else _EXCLUSIVE
        if not self._is_back:
            self._found.resample = "probabilities"

    def _read_discrete(self, component: Component) -> None:
        argmax = take_one(component, "argmax", False)
        threshold = take_one(component, "threshold", None)
        component.require(rounding=None)
        to_onehot = take_one(component, "to_onehot", None)
        if self._is_discrete or to_onehot:
            raise component.refuse("label maps are known, and once")
        component.finish(("keys", "allow_missing_keys", "dim", "keepdim"))
        if argmax and threshold is None:
            self._check_activation(component, _EXCLUSIVE)
        elif not argmax and threshold == _HALF and self._activation:
            self._check_activation(component, _OVERLAPPING)
            self._found.overlap = True
        else:
            raise component.refuse(
                "known: argmax, or a threshold of 0.5 behind a sigmoid"
            )
        self._is_discrete = True
        if not self._is_back:
            self._found.resample = "labels" if self._moves else "logits"

    def _check_activation(self, component: Component, wanted: str) -> None:
        if self._activation not in ("", wanted):
            raise component.refuse(f"stands behind {self._activation}")

    def _read_return(self, component: Component) -> None:
        keys = take_one(component, "keys", None)
        if keys != _PRED or self._is_back:
            raise component.refuse("brings one prediction back, once", "keys")
        component.require(post_func=None)
        nearest = take_one(component, "nearest_interp", True)
        self._is_back = True
        if not self._moves:
            self._found.resample = "logits"
            return
        if self._is_discrete and not nearest:
            self._found.remarks.append(
                "it interpolates label values as if they were intensities (Invertd behind "
                "AsDiscreted with nearest_interp false), which makes labels in between; here each "
                "voxel takes the nearest label"
            )
        elif nearest and not self._is_discrete:
            # The label of the nearest voxel is that of its scores.
            self._found.resample = "labels"

    def _read_largest(self, component: Component) -> None:
        labels = component.take("applied_labels")
        labels = [labels] if isinstance(labels, int) else labels
        if labels is not None and not _are_numbers(labels):
            raise component.refuse("numbers are known", "applied_labels")
        component.require(independent=True, num_components=1, connectivity=None)
        if component.take("is_onehot"):
            raise component.refuse("known: label maps", "is_onehot")
        component.finish(("keys", "allow_missing_keys"))
        if self._found.overlap or not self._is_discrete:
            raise component.refuse("is known for labels that do not overlap")
        self._place_components(component)
        every = range(1, self._labels + 1)
        kept = set(self._found.keep_largest or ())
        kept.update(every if labels is None else labels)
        self._found.keep_largest = tuple(sorted(kept))
        if not set(self._found.keep_largest) <= set(every):
            raise component.refuse("names other labels", "applied_labels")

    def _place_components(self, component: Component) -> None:
        """Note on which grid components are looked for."""
        place = "input" if self._moves and not self._is_back else "scan"
        if self._found.keep_largest and place != self._found.keep_largest_on:
            raise component.refuse("is known before Invertd or behind it")
        self._found.keep_largest_on = place

    def _read_merging(self, component: Component) -> None:
        """Recognise how overlapping channels become one label map."""
        expression = component.take_expression("func")
        parsed = parse_function(expression)
        painted = None
        if parsed is not None and self._found.overlap:
            painted = _find_painted(*parsed)
        if painted is None:
            shown = expression or str(component.take("func"))
            raise component.refuse(f"the function {shown[:100]}", "func")
        self._found.painted = painted


def _are_numbers(labels: Any) -> bool:
    is_list = isinstance(labels, list)
    return is_list and all(isinstance(label, int) for label in labels)


def _find_painted(
    name: str, body: ast.expr
) -> tuple[tuple[int, int], ...] | None:
    """Return what ``torch.where(x[[2]] > 0, 4, torch.where(…, 0))`` paints, the lowest first.

    Args:
        name: Of the function's argument.
        body: Of the function.

    Returns:
        ``(channel, value)`` of each; ``None`` for other functions.
    """
    found: list[tuple[int, int]] = []
    while True:
        match body:
            case ast.Constant(value=0):
                return tuple(reversed(found))
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="torch"), attr="where"),
                args=[
                    ast.Compare(
                        left=ast.Subscript(
                            value=ast.Name(id=image),
                            slice=ast.List(
                                elts=[ast.Constant(value=int() as channel)]
                            ),
                        ),
                        ops=[ast.Gt()],
                        comparators=[ast.Constant(value=0)],
                    ),
                    ast.Constant(value=int() as label),
                    other,
                ],
                keywords=[],
            ) if image == name:
                found.append((channel, label))
                body = other
            case _:
                return None
