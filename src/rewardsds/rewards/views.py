"""How a reward looks at an item of several views, and at views that have prompts of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from rewardsds.memory import move
from rewardsds.prompts import OfViews, Texts, per_view
from rewardsds.rewards.base import Reward, RewardError, in_own_units, scores_of


@dataclass(frozen=True, eq=False)
class OverViews:
    """A reward asked about every view by itself, and how its answers become one: their mean, their minimum.

    how: "together" asks it as `score` does, about all of the views that are looked at.
    views: which of an item's views are looked at, by index; None is all of them.

    Where views have prompts of their own, "the back of a penguin" for one, each is scored with its own.
    """

    takes_texts_of_views: ClassVar[bool] = True
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
        texts = [[text] * images.shape[2] if isinstance(text, str) else text for text in prompts]
        if any(len(own) != images.shape[2] for own in texts):
            raise ValueError(
                f"{images.shape[2]} views need as many prompts, got {', '.join(str(len(own)) for own in texts)}"
            )
        if self.views is not None:
            beyond = [view for view in self.views if not 0 <= view < images.shape[2]]
            if beyond:
                raise ValueError(f"there are {images.shape[2]} views, counted from 0; asked for {beyond}")
            images = images[:, :, list(self.views)]
            texts = [_chosen(own, self.views) for own in texts]
        if self.how == "together":
            return score(self.reward, images, texts if per_view(prompts) else [own[0] for own in texts])
        alone = images.flatten(1, 2)[:, :, None]
        scores = scores_of(self.reward, alone, [text for own in texts for text in own]).reshape(
            images.shape[:3]
        )
        return scores.amin(dim=2) if self.how == "min" else scores.mean(dim=2)

    def in_own_units(self) -> OverViews:
        return replace(self, reward=in_own_units(self.reward))

    def to(self, device: torch.device | str) -> None:
        move(self.reward, device)


def score(reward: Reward, images: Tensor, prompts: Texts) -> Tensor:
    """The reward (N, B) of previews, as `scores_of` has it.

    Where views have prompts of their own, each is scored with its own, and their mean counts. Rewards that take the
    texts of views (`takes_texts_of_views`, as `OverViews` has it) say themselves how these become one score; those that
    need an item's views together (`needs_views_together`, as Reward3D) get the text that those of its views come from.
    """
    if not per_view(prompts) or getattr(reward, "takes_texts_of_views", False):
        return scores_of(reward, images, prompts)
    if getattr(reward, "needs_views_together", False):
        return scores_of(reward, images, [_of_item(reward, own) for own in prompts])
    return OverViews(reward)(images, prompts)


def _of_item(reward: Reward, texts: str | Sequence[str]) -> str:
    if isinstance(texts, str):
        return texts
    if not isinstance(texts, OfViews):
        raise RewardError(
            f"the reward {type(reward).__name__} looks at an item's views together, with one prompt, and these views "
            "have prompts of their own: give one prompt for each item, or another reward"
        )
    return texts.item


def _chosen(texts: Sequence[str], views: Sequence[int]) -> Sequence[str]:
    chosen = [texts[view] for view in views]
    return OfViews(texts.item, chosen) if isinstance(texts, OfViews) else chosen
