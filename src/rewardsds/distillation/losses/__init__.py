"""Losses of score distillation; each file says only what its residual is."""

from rewardsds.distillation.losses.base import Loss
from rewardsds.distillation.losses.bridge import Bridge, TwoStageBridge
from rewardsds.distillation.losses.csd import CSD
from rewardsds.distillation.losses.dds import DDS
from rewardsds.distillation.losses.ism import ISM
from rewardsds.distillation.losses.nfsd import NFSD
from rewardsds.distillation.losses.recon import Recon
from rewardsds.distillation.losses.refine import Refine
from rewardsds.distillation.losses.reward_gradient import WithRewardGradient
from rewardsds.distillation.losses.sdi import SDI
from rewardsds.distillation.losses.sds import SDS
from rewardsds.distillation.losses.timestep_weight import TimestepWeight, TimestepWeighted
from rewardsds.distillation.losses.vsd import VSD

__all__ = [
    "CSD",
    "DDS",
    "ISM",
    "NFSD",
    "SDI",
    "SDS",
    "VSD",
    "Bridge",
    "Loss",
    "Recon",
    "Refine",
    "TimestepWeight",
    "TimestepWeighted",
    "TwoStageBridge",
    "WithRewardGradient",
]
