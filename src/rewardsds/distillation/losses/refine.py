"""DreamGaussian's refinement (arXiv 2309.16653, section 3.3): ½‖z − x̂‖² with x̂ denoised in several steps.

At low noise x̂ keeps what the latent shows and sharpens it, as SDEdit does (arXiv 2108.01073): meant for the texture
of a shape that is finished, with timesteps from 0.2 of the prior's down to 0.05.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rewardsds.distillation.candidates import Candidates
from rewardsds.distillation.losses.base import Loss


@dataclass(frozen=True)
class Refine(Loss):
    """residual = z − x̂, without ω(t), where x̂ is the candidate's preview: what the reward sees is what is followed."""

    @property
    def needs_unconditional(self) -> bool:
        return False

    @property
    def needs_preview(self) -> bool:
        return True

    def timestep_weight(self, candidates: Candidates) -> Tensor:
        return torch.ones_like(candidates.sigma)

    def residual(self, candidates: Candidates) -> Tensor:
        assert candidates.preview is not None
        return candidates.clean - candidates.preview
