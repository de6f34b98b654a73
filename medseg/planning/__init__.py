"""What a data set looks like → a bundle for it, with a sentence for every choice.

``looking.py`` opens a data set, once. The rules are functions of what it saw and of what is wished
for, and open nothing; ``drafting.py`` goes through them. Where nnU-Net's rules (Isensee et al., Nat
Methods 2021) are good they are taken: the median spacing, the coarse axis, CT windows, kernels and
strides that follow the spacing. Plans that nnU-Net itself has written are carried over
(``nnunet.py``, ``carried.py``).
"""

from medseg.planning.constraints import Notes, Wishes, minutes
from medseg.planning.dataset import Seen, draft_spec, look_at
from medseg.planning.description import Subject, asked_channel, read_subject
from medseg.planning.draft import bundle_content
from medseg.planning.from_nnunet import Carried, carry_over
from medseg.planning.grid import Grid, choose_grid
from medseg.planning.intensity import choose_intensity
from medseg.planning.network import choose_network, patch_voxels
from medseg.planning.nnunet_plans import NnunetPlans, is_nnunet_plans, read_nnunet_plans
from medseg.planning.schedule import choose_learning

__all__ = [
    "Carried",
    "Grid",
    "NnunetPlans",
    "Notes",
    "Seen",
    "Subject",
    "Wishes",
    "asked_channel",
    "bundle_content",
    "carry_over",
    "choose_grid",
    "choose_intensity",
    "choose_learning",
    "choose_network",
    "draft_spec",
    "is_nnunet_plans",
    "look_at",
    "minutes",
    "patch_voxels",
    "read_nnunet_plans",
    "read_subject",
]
