"""Interval score matching (LucidDreamer, arXiv 2311.11284, eq. 17)."""

from __future__ import annotations

from dataclasses import dataclass, field

from rewardsds.distillation.losses.sds import SDS
from rewardsds.distillation.noising import Interval


@dataclass(frozen=True)
class ISM(SDS):
    """residual = ε̂(z_t; y, t) − ε̂(z_s; ∅, s), where z_t is one DDIM step above z_s: SDS's, with that as ε."""

    guidance_scale: float = 7.5
    interval: Interval = field(default_factory=Interval)

    @property
    def noising(self) -> Interval:
        return self.interval
