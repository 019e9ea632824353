"""Score distillation via inversion (arXiv 2405.15891, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from rewardsds.distillation.candidates import Candidates
from rewardsds.distillation.losses.base import Loss
from rewardsds.distillation.noising import Inversion


@dataclass(frozen=True)
class SDI(Loss):
    """residual = ε̂(z_t; y, t) − ε as SDS has it, where ε comes from DDIM inversion instead of a draw."""

    guidance_scale: float = 7.5
    inversion: Inversion = field(default_factory=Inversion)

    @property
    def needs_unconditional(self) -> bool:
        return self.guidance_scale != 1.0

    @property
    def noising(self) -> Inversion:
        return self.inversion

    def residual(self, candidates: Candidates) -> Tensor:
        return candidates.prediction.guided(self.guidance_scale) - candidates.noise
