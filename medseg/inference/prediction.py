"""``Prediction``: what a trained bundle answers for one scan, before postprocessing.

A scan goes through the networks once, and can be finished in several ways: training tries out of
which structures only the largest connected component should be kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from medseg.inference.segmentation import Segmentation
from medseg.labels import LabelSet
from medseg.metrics.confusion import Counts
from medseg.volume import Array


class Prediction(ABC):
    """What a trained bundle, or an assembly, answers for one scan, before postprocessing.

    Names are those of the structures in its results: the labels that were asked for, or regions
    where the bundle has these.
    """

    @property
    @abstractmethod
    def labels(self) -> Array:
        """Label indices ``(i, j, k)`` on the scan's grid, no component removed; not to be changed.

        What ``finish`` returns may be.
        """

    @property
    @abstractmethod
    def given_dice(self) -> dict[str, float]:
        """Name → the Dice to be expected of the labels that were given to be judged.

        It is what the networks' own probabilities expect, not calibrated. Of a label that a part
        of an assembly paints by regions it is the mean of these, as in ``Segmentation.quality``.

        Raises:
            ValueError: If no labels were given.
        """

    @abstractmethod
    def finish(
        self,
        *,
        keep_largest: Collection[str] | None = None,
        error_map: bool = False,
    ) -> Segmentation:
        """Make a segmentation of the prediction.

        Args:
            keep_largest: Names of the labels of which only the largest connected component is
                kept; those that the bundle, or each of an assembly's, names unless given.
            error_map: Whether to map, for each voxel, how probably its label is wrong; of
                background that several bundles looked at, the highest of theirs.
        """


def measure_volumes_ml(
    voxels: Counts, label_set: LabelSet, voxel_ml: float
) -> dict[str, float]:
    """Return the volume of each label or region, by name.

    Args:
        voxels: How many voxels each label index has.
        label_set: What the indices mean.
        voxel_ml: Volume of one.
    """
    volumes = {}
    for region in label_set.regions:
        of_region = float(voxels[list(region.labels)].sum())
        volumes[region.name] = of_region * voxel_ml
    return volumes
