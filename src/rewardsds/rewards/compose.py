"""Rewards made of rewards: weighted sums, and the weakest of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rewardsds.rewards.base import Reward, standardised


@dataclass(frozen=True, eq=False)
class WeightedSum:
    """Σ_i weight_i · r_i, each reward first standardised over an item's candidates unless `standardise` is False.

    Rewards come in scales of their own (a cosine in hundredths, an aesthetic score from 1 to 10): weights of raw
    values would say little. Standardised, a reward that is the same for all candidates of an item has no say.
    """

    rewards: Sequence[Reward]
    weights: Sequence[float]
    standardise: bool = True

    def __post_init__(self) -> None:
        if not self.rewards or len(self.rewards) != len(self.weights):
            raise ValueError(
                f"a weighted sum needs as many weights as rewards, at least one; "
                f"got {len(self.rewards)} rewards and {len(self.weights)} weights"
            )

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        total = images.new_zeros(images.shape[:2], dtype=torch.float32)
        for reward, weight in zip(self.rewards, self.weights):
            scores = reward(images, prompts)
            total = total + weight * (standardised(scores) if self.standardise else scores)
        return total


@dataclass(frozen=True, eq=False)
class Minimum:
    """The smallest of several rewards, standardised as in `WeightedSum`: a candidate is as good as its weakest side."""

    rewards: Sequence[Reward]
    standardise: bool = True

    def __post_init__(self) -> None:
        if not self.rewards:
            raise ValueError("the minimum needs at least one reward")

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        scores = [reward(images, prompts) for reward in self.rewards]
        return torch.stack([standardised(one) if self.standardise else one for one in scores]).amin(dim=0)
