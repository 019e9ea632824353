"""Score distillation via inversion (arXiv 2405.15891, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from rewardsds.distillation.losses.sds import SDS
from rewardsds.distillation.noising import Inversion


@dataclass(frozen=True)
class SDI(SDS):
    """residual = ε̂(z_t; y, t) − ε as SDS has it, where ε comes from DDIM inversion instead of a draw."""

    guidance_scale: float = 7.5
    inversion: Inversion = field(default_factory=Inversion)

    @property
    def noising(self) -> Inversion:
        return self.inversion
