"""Delta denoising score, for editing (arXiv 2304.07090, eq. 3)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rewardsds.distillation.candidates import Candidates
from rewardsds.distillation.losses.base import Loss
from rewardsds.priors.base import Condition


@dataclass(frozen=True, eq=False)
class DDS(Loss):
    """residual = ε̂(z_t; y) − ε̂(ẑ_t; ŷ), with the same ε and t: the difference of two SDS residuals.

    reference: ẑ (B, V, D, h, w), latents of the pictures to edit. source: ŷ, what they show.
    """

    reference: Tensor
    source: Condition
    guidance_scale: float = 7.5

    @property
    def needs_unconditional(self) -> bool:
        return self.guidance_scale != 1.0

    def residual(self, candidates: Candidates) -> Tensor:
        if self.reference.shape != candidates.clean.shape:
            raise ValueError(
                f"the reference has shape {tuple(self.reference.shape)}, the latents that are edited "
                f"{tuple(candidates.clean.shape)}: each item needs its own reference"
            )
        noisy = candidates.alpha * self.reference + candidates.sigma * candidates.noise
        source = candidates.prior.predict(
            noisy, candidates.timesteps, self.source, unconditional=self.needs_unconditional
        )
        return candidates.prediction.guided(self.guidance_scale) - source.guided(self.guidance_scale)
