"""What every reward is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Reward(Protocol):
    """Scores previews against prompts, all candidates and items in one batch, on their device."""

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """images (N, B, V, 3, H, W) in [0, 1], B prompts → rewards (N, B), higher is better.

        The views of one item share one score (their mean unless the reward says otherwise).
        """
        ...


class RewardError(ValueError):
    """A reward that failed, or answered what is no score; the message names it."""


def standardised(scores: Tensor) -> Tensor:
    """(N, B) with mean 0 and deviation 1 over the candidates of each item; 0 where all are equal."""
    deviation, mean = torch.std_mean(scores, dim=0, correction=0, keepdim=True)
    return (scores - mean) / torch.where(deviation > 1e-8 * (1 + mean.abs()), deviation, torch.inf)
