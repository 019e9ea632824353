"""The first-order rival of weighting: a differentiable reward's own gradient (DreamReward, arXiv 2403.14613, eq. 8)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rewardsds.distillation.candidates import Candidates
from rewardsds.distillation.losses.wrapped import Wrapped
from rewardsds.rewards.base import Reward, RewardError, in_own_units, name_of
from rewardsds.rewards.views import score


@dataclass(frozen=True, eq=False)
class WithRewardGradient(Wrapped):
    """residual = that of `base` − λ/ω(t) · ∂r(decode(x̂0)) / ∂x̂0: the step then also climbs the reward, λ steep.

    x̂0 is the candidate's one-step preview, which moves with z alone: the network's prediction is held fixed. It
    goes with any weighting, and with none.

    reward: differentiable; one made of others counts in their own units, without standardising over candidates.
    scale: λ, residual per unit of reward. preview_guidance_scale: of x̂0.
    """

    reward: Reward
    scale: float
    preview_guidance_scale: float = 7.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "reward", in_own_units(self.reward))  # frozen, as losses are

    @property
    def needs_unconditional(self) -> bool:
        return self.base.needs_unconditional or self.preview_guidance_scale != 1.0

    def residual(self, candidates: Candidates) -> Tensor:
        with torch.enable_grad():
            preview = candidates.predicted_clean(self.preview_guidance_scale).detach().requires_grad_()
            rewards = score(self.reward, candidates.prior.decode(preview), candidates.condition.prompts)
            if not rewards.requires_grad:
                raise RewardError(
                    f"the reward {name_of(self.reward)} has no gradient: choose a differentiable one, or a weighting "
                    "alone"
                )
            # Items and candidates do not mix in a reward, so the sum's gradient is each one's own.
            (gradient,) = torch.autograd.grad(rewards.sum(), preview)
        step = self.scale / self.timestep_weight(candidates) * gradient
        return self.base.residual(candidates) - step
