"""Rewards made of rewards: weighted sums, the weakest of several, and ways to look at several views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True, eq=False)
class OverViews:
    """A reward asked about every view by itself, and how its answers become one: their mean, their minimum.

    how: "together" asks it once about all of the views that are looked at, as it does alone.
    views: which of an item's views are looked at, by index; None is all of them.
    """

    reward: Reward
    how: Literal["together", "mean", "min"] = "mean"
    views: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.how not in ("together", "mean", "min"):
            raise ValueError(
                f"views are scored 'together', or their scores joined by 'mean' or 'min', got {self.how!r}"
            )
        if self.views is not None and not self.views:
            raise ValueError("at least one view has to be looked at")

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        if self.views is not None:
            beyond = [view for view in self.views if not 0 <= view < images.shape[2]]
            if beyond:
                raise ValueError(f"there are {images.shape[2]} views, counted from 0; asked for {beyond}")
            images = images[:, :, list(self.views)]
        if self.how == "together":
            return self.reward(images, prompts)
        candidates, items, views = images.shape[:3]
        alone = images.flatten(1, 2)[:, :, None]
        scores = self.reward(alone, [prompt for prompt in prompts for _ in range(views)])
        scores = scores.reshape(candidates, items, views)
        return scores.mean(dim=2) if self.how == "mean" else scores.amin(dim=2)
