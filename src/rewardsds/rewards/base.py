"""What every reward is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from rewardsds.memory import Chunks


class Reward(Protocol):
    """Scores previews against prompts, all candidates and items in one batch, on their device."""

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """images (N, B, V, 3, H, W) in [0, 1], B prompts → rewards (N, B), higher is better.

        The views of one item share one score (their mean unless the reward says otherwise).
        """
        ...


class ModelReward(ABC):
    """A reward that is a model on a device, which looks at pictures in slices."""

    def __init__(self) -> None:
        self.in_chunks(None)

    def in_chunks(self, size: int | Literal["auto"] | None) -> None:
        """At most so many pictures in a call of the model; see `Chunks`."""
        self.chunks = Chunks(size)

    @abstractmethod
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """As in `Reward`."""

    @abstractmethod
    def to(self, device: torch.device | str) -> None:
        """Moves all of it. Pictures are scored where the model is, and scores come back to where the pictures are."""


class RewardError(ValueError):
    """A reward that failed, or answered what is no score; the message names it."""


def standardised(scores: Tensor) -> Tensor:
    """(N, B) with mean 0 and deviation 1 over the candidates of each item; 0 where all are equal."""
    deviation, mean = torch.std_mean(scores, dim=0, correction=0, keepdim=True)
    return (scores - mean) / torch.where(deviation > 1e-8 * (1 + mean.abs()), deviation, torch.inf)
