"""MVDream's x0-reconstruction loss (arXiv 2308.16512, section 3.2): ½‖z − x̂0‖² with x̂0 held fixed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rewardsds.distillation.candidates import Candidates
from rewardsds.distillation.losses.base import Loss


@dataclass(frozen=True)
class Recon(Loss):
    """residual = z − x̂0, without ω(t).

    rescale: how far x̂0 is brought back to the standard deviation of the unguided x̂0, 0 to 1. Large guidance
    scales oversaturate x̂0; this is the rescale of arXiv 2305.08891, eq. 15–16, over the values of one
    candidate, all its views together.
    """

    guidance_scale: float = 50.0
    rescale: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.rescale <= 1.0:
            raise ValueError(f"the rescale of the recon loss must lie between 0 and 1, got {self.rescale}")

    @property
    def needs_unconditional(self) -> bool:
        return self.guidance_scale != 1.0

    def timestep_weight(self, candidates: Candidates) -> Tensor:
        return torch.ones_like(candidates.sigma)

    def residual(self, candidates: Candidates) -> Tensor:
        guided = candidates.predicted_clean(self.guidance_scale)
        if self.rescale > 0.0:
            unguided = candidates.predicted_clean(1.0)
            rescaled = guided * (_spread(unguided) / _spread(guided).clamp_min(1e-8))
            guided = self.rescale * rescaled + (1.0 - self.rescale) * guided
        return candidates.clean - guided


def _spread(latents: Tensor) -> Tensor:
    """Standard deviation over views, channels and pixels: (M, B, V, D, h, w) → (M, B, 1, 1, 1, 1)."""
    return latents.std(dim=(-4, -3, -2, -1), keepdim=True)
