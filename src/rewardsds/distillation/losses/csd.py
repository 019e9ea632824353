"""Classifier score distillation (arXiv 2310.19415, eq. 7 and 9)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rewardsds.distillation.candidates import Candidates
from rewardsds.distillation.losses.base import Loss


@dataclass(frozen=True)
class CSD(Loss):
    """residual = s · (ε̂(z_t; y) − ε̂(z_t; ∅)): SDS without ε̂ − ε, its generative part.

    ∅ is the run's negative prompt, so that a text there repels as in the paper's eq. 9.
    """

    guidance_scale: float = 50.0

    def residual(self, candidates: Candidates) -> Tensor:
        return self.guidance_scale * candidates.prediction.direction
