"""Losses of score distillation; each file says only what its residual is."""

from rewardsds.distillation.losses.base import Loss
from rewardsds.distillation.losses.recon import Recon
from rewardsds.distillation.losses.sds import SDS

__all__ = ["SDS", "Loss", "Recon"]
