"""How a reward looks at an item of several views, and at views that have prompts of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rewardsds.memory import move
from rewardsds.prompts import Texts, per_view
from rewardsds.rewards.base import Reward


@dataclass(frozen=True, eq=False)
class OverViews:
    """A reward asked about every view by itself, and how its answers become one: their mean, their minimum.

    how: "together" asks it once about all of the views that are looked at, as it does alone.
    views: which of an item's views are looked at, by index; None is all of them.

    Where views have prompts of their own, "the back of a penguin" for one, each is scored with its own, and
    "together" means the mean.
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

    def __call__(self, images: Tensor, prompts: Texts) -> Tensor:
        """prompts: B texts, or B times V."""
        texts = [[text] * images.shape[2] if isinstance(text, str) else list(text) for text in prompts]
        if any(len(own) != images.shape[2] for own in texts):
            raise ValueError(
                f"{images.shape[2]} views need as many prompts, got {', '.join(str(len(own)) for own in texts)}"
            )
        if self.views is not None:
            beyond = [view for view in self.views if not 0 <= view < images.shape[2]]
            if beyond:
                raise ValueError(f"there are {images.shape[2]} views, counted from 0; asked for {beyond}")
            images = images[:, :, list(self.views)]
            texts = [[own[view] for view in self.views] for own in texts]
        if self.how == "together" and not per_view(prompts):
            return self.reward(images, [own[0] for own in texts])
        alone = images.flatten(1, 2)[:, :, None]
        scores = self.reward(alone, [text for own in texts for text in own]).reshape(images.shape[:3])
        return scores.amin(dim=2) if self.how == "min" else scores.mean(dim=2)

    def to(self, device: torch.device | str) -> None:
        move(self.reward, device)


def score(reward: Reward, images: Tensor, prompts: Texts) -> Tensor:
    """The reward (N, B) of previews; where views have prompts of their own, each is scored with its own.

    That is the mean over views, unless the reward says otherwise (`OverViews`).
    """
    if isinstance(reward, OverViews):
        return reward(images, prompts)
    if per_view(prompts):
        return OverViews(reward)(images, prompts)
    return reward(images, prompts)  # pyright: ignore[reportArgumentType]
