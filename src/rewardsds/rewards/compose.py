"""Rewards made of rewards: weighted sums, and the weakest of several."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from rewardsds.memory import move
from rewardsds.prompts import Texts
from rewardsds.rewards.base import Reward, RewardError, in_own_units, standardised
from rewardsds.rewards.grader import GraderReward
from rewardsds.rewards.views import OverViews, score


@dataclass(frozen=True, eq=False)
class WeightedSum:
    """Σ_i weight_i · r_i, each reward first standardised over an item's candidates unless `standardise` is False.

    Rewards come in scales of their own (a cosine in hundredths, an aesthetic score from 1 to 10): weights of raw
    values would say little. Standardised, a reward that is the same for all candidates of an item has no say.

    skip_failures: go on with the others, with a warning, where one fails or gives no finite scores; a RewardError comes
        where all of them do.
    """

    takes_texts_of_views: ClassVar[bool] = True
    rewards: Sequence[Reward]
    weights: Sequence[float]
    standardise: bool = True
    skip_failures: bool = False

    def __post_init__(self) -> None:
        if not self.rewards or len(self.rewards) != len(self.weights):
            raise ValueError(
                f"a weighted sum needs as many weights as rewards, at least one; "
                f"got {len(self.rewards)} rewards and {len(self.weights)} weights"
            )

    def __call__(self, images: Tensor, prompts: Texts) -> Tensor:
        total = images.new_zeros(images.shape[:2], dtype=torch.float32)
        for index, scores in _scores(self.rewards, images, prompts, self.skip_failures):
            total = total + self.weights[index] * (standardised(scores) if self.standardise else scores)
        return total

    def in_own_units(self) -> Self:
        return replace(self, rewards=[in_own_units(one) for one in self.rewards], standardise=False)

    def to(self, device: torch.device | str) -> None:
        for reward in self.rewards:
            move(reward, device)


@dataclass(frozen=True, eq=False)
class Minimum:
    """The smallest of several rewards, standardised as in `WeightedSum`: a candidate is as good as its weakest side."""

    takes_texts_of_views: ClassVar[bool] = True
    rewards: Sequence[Reward]
    standardise: bool = True
    skip_failures: bool = False

    def __post_init__(self) -> None:
        if not self.rewards:
            raise ValueError("the minimum needs at least one reward")

    def __call__(self, images: Tensor, prompts: Texts) -> Tensor:
        scores = [one for _, one in _scores(self.rewards, images, prompts, self.skip_failures)]
        return torch.stack([standardised(one) if self.standardise else one for one in scores]).amin(dim=0)

    def in_own_units(self) -> Self:
        return replace(self, rewards=[in_own_units(one) for one in self.rewards], standardise=False)

    def to(self, device: torch.device | str) -> None:
        for reward in self.rewards:
            move(reward, device)


def without_graders(reward: Reward) -> Reward:
    """The same reward with zeros in place of what graders say, who are paid: to try what a step takes."""
    if isinstance(reward, GraderReward):
        return lambda images, prompts: images.new_zeros(images.shape[:2])
    if isinstance(reward, OverViews):
        return replace(reward, reward=without_graders(reward.reward))
    if isinstance(reward, (WeightedSum, Minimum)):
        return replace(reward, rewards=[without_graders(one) for one in reward.rewards])
    return reward


def _scores(
    rewards: Sequence[Reward], images: Tensor, prompts: Texts, skip_failures: bool
) -> list[tuple[int, Tensor]]:
    """What each reward says, with its number; those that fail are left out where that is allowed."""
    found: list[tuple[int, Tensor]] = []
    failure: RewardError | None = None
    for index, reward in enumerate(rewards):
        try:
            found.append((index, score(reward, images, prompts)))
        except RewardError as error:
            if not skip_failures:
                raise
            failure = error
            name = getattr(reward, "__name__", type(reward).__name__)
            warnings.warn(f"going on without the reward {name}: {error}", stacklevel=4)
    if not found:
        raise RewardError(f"all of the rewards failed, the last: {failure}") from failure
    return found
