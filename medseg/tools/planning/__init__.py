"""What a data set looks like → a bundle for it, with a sentence for every choice.

The rules are functions of a survey and of what is wished for; nothing is opened here. Where
nnU-Net's rules (Isensee et al., Nat Methods 2021) are good they are taken: the median spacing, the
coarse axis, CT windows, kernels and strides that follow the spacing. Plans that nnU-Net itself has
written are carried over (``nnunet.py``, ``carried.py``).
"""

from medseg.tools.planning.carried import Carried, carry_over
from medseg.tools.planning.grid import Grid, choose_grid
from medseg.tools.planning.intensity import choose_intensity
from medseg.tools.planning.learning import choose_learning
from medseg.tools.planning.network import choose_network, step_voxels
from medseg.tools.planning.nnunet import NnunetPlans, is_nnunet_plans, read_nnunet_plans
from medseg.tools.planning.subject import Subject, asked_channel, read_subject
from medseg.tools.planning.wishes import Notes, Wishes, minutes

__all__ = [
    "Carried",
    "Grid",
    "NnunetPlans",
    "Notes",
    "Subject",
    "Wishes",
    "asked_channel",
    "carry_over",
    "choose_grid",
    "choose_intensity",
    "choose_learning",
    "choose_network",
    "is_nnunet_plans",
    "minutes",
    "read_nnunet_plans",
    "read_subject",
    "step_voxels",
]
