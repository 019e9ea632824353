"""Interval score matching (LucidDreamer, arXiv 2311.11284, eq. 17)."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from rewardsds.distillation.candidates import Candidates
from rewardsds.distillation.losses.base import Loss
from rewardsds.distillation.noising import Interval


@dataclass(frozen=True)
class ISM(Loss):
    """residual = ε̂(z_t; y, t) − ε̂(z_s; ∅, s), where z_t is one DDIM step above z_s."""

    guidance_scale: float = 7.5
    interval: Interval = field(default_factory=Interval)

    @property
    def needs_unconditional(self) -> bool:
        return self.guidance_scale != 1.0

    @property
    def noising(self) -> Interval:
        return self.interval

    def residual(self, candidates: Candidates) -> Tensor:
        return candidates.prediction.guided(self.guidance_scale) - candidates.noise
