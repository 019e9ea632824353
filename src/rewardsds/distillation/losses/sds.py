"""Score distillation sampling (DreamFusion, arXiv 2209.14988, eq. 3)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rewardsds.distillation.candidates import Candidates
from rewardsds.distillation.losses.base import Loss


@dataclass(frozen=True)
class SDS(Loss):
    """residual = ε̂(z_t; y, t) − ε, with ω(t) = σ_t² = 1 − ᾱ_t."""

    guidance_scale: float = 100.0

    @property
    def needs_unconditional(self) -> bool:
        return self.guidance_scale != 1.0

    def residual(self, candidates: Candidates) -> Tensor:
        return candidates.prediction.guided(self.guidance_scale) - candidates.noise
