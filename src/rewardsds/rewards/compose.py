"""Rewards made of rewards: weighted sums, and the weakest of several."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from rewardsds.memory import move
from rewardsds.prompts import Texts
from rewardsds.rewards.base import (
    Reward,
    RewardError,
    in_own_units,
    is_unreachable,
    name_of,
    note_left_out,
    standardised,
)
from rewardsds.rewards.grader import GraderReward
from rewardsds.rewards.views import OverViews, score

LOST_AFTER = 3
"""Each time takes as long as an endpoint's retries do."""


@dataclass(frozen=True, eq=False)
class WeightedSum:
    """Σ_i weight_i · r_i, each reward first standardised over an item's candidates unless `standardise` is False.

    Rewards come in scales of their own (a cosine in hundredths, an aesthetic score from 1 to 10): weights of raw
    values would say little. Standardised, a reward that is the same for all candidates of an item has no say.

    skip_failures: go on with the others, with a warning, where one fails or gives no finite scores; a RewardError comes
        where all of them do. One that cannot be reached LOST_AFTER times in a row is given up, and not asked again.
    """

    takes_texts_of_views: ClassVar[bool] = True
    rewards: Sequence[Reward]
    weights: Sequence[float]
    standardise: bool = True
    skip_failures: bool = False
    _lost: dict[int, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.rewards or len(self.rewards) != len(self.weights):
            raise ValueError(
                f"a weighted sum needs as many weights as rewards, at least one; "
                f"got {len(self.rewards)} rewards and {len(self.weights)} weights"
            )

    def __call__(self, images: Tensor, prompts: Texts) -> Tensor:
        total = images.new_zeros(images.shape[:2], dtype=torch.float32)
        for index, scores in _scores(self.rewards, images, prompts, self.skip_failures, self._lost):
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
    _lost: dict[int, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.rewards:
            raise ValueError("the minimum needs at least one reward")

    def __call__(self, images: Tensor, prompts: Texts) -> Tensor:
        scores = [one for _, one in _scores(self.rewards, images, prompts, self.skip_failures, self._lost)]
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
    rewards: Sequence[Reward], images: Tensor, prompts: Texts, skip_failures: bool, lost: dict[int, int]
) -> list[tuple[int, Tensor]]:
    """What each reward says, with its number; those that fail are left out where that is allowed.

    lost: how many times in a row a reward could not be reached, by its number; kept up to date here.
    """
    found: list[tuple[int, Tensor]] = []
    failure: RewardError | None = None
    for index, reward in enumerate(rewards):
        times, name = lost.get(index, 0), name_of(reward)
        if times >= LOST_AFTER:
            note_left_out(name)
            continue
        try:
            found.append((index, score(reward, images, prompts)))
            lost[index] = 0
        except RewardError as error:
            if not skip_failures:
                raise
            failure = error
            lost[index] = times + 1 if is_unreachable(error) else 0
            note_left_out(name)
            told = f"going on without the reward {name}"
            if lost[index] == LOST_AFTER:
                told += f" for good, {LOST_AFTER} times in a row it could not be reached"
            warnings.warn(f"{told}: {error}", stacklevel=4)
    if not found:
        last = failure or f"none could be reached {LOST_AFTER} times in a row"
        raise RewardError(f"all of the rewards failed, the last: {last}") from failure
    return found
