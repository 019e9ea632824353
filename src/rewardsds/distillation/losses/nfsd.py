"""Noise-free score distillation (arXiv 2310.17590, eq. 9 to 11)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rewardsds.distillation.candidates import Candidates
from rewardsds.distillation.losses.base import Loss
from rewardsds.distillation.phrases import BAD_QUALITY


@dataclass(frozen=True)
class NFSD(Loss):
    """residual = δ_D + s · δ_C with δ_C = ε̂(z_t; y) − ε̂(z_t; ∅), and δ_D what leads to the data without its noise.

    δ_D is ε̂(z_t; ∅) below `small` of the timesteps, where a prediction holds little noise, and
    ε̂(z_t; ∅) − ε̂(z_t; p_neg) above, with p_neg what pictures look like that are off the data, `bad_quality`.
    """

    guidance_scale: float = 7.5
    bad_quality: str = BAD_QUALITY
    small: float = 0.2

    def residual(self, candidates: Candidates) -> Tensor:
        prediction = candidates.prediction
        assert prediction.unconditional is not None
        prior = candidates.prior
        items, views = candidates.clean.shape[:2]
        cameras = candidates.condition.camera_to_world
        # said of each view, so that no words for its side are put to it
        said = [self.bad_quality] * items if cameras is None else [[self.bad_quality] * views] * items
        bad = prior.condition(said, camera_to_world=cameras)
        off = prior.predict(candidates.noisy, candidates.timesteps, bad, unconditional=False).conditional
        is_small = candidates.timesteps < self.small * len(prior.alphas_cumprod)
        is_small = is_small.reshape(candidates.sigma.shape)
        to_data = prediction.unconditional - torch.where(is_small, 0.0, off)
        return to_data + self.guidance_scale * prediction.direction
