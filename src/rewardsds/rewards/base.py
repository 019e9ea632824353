"""What every reward is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

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
