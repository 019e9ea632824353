"""A reward from the single file that its authors publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rewardsds.catalogue import BERT, CLIP_H, CLIP_L, Recipe
from rewardsds.foreign import read_checkpoint, recipe_of
from rewardsds.pretrained import load_tokenizer
from rewardsds.rewards.aesthetic import AestheticReward
from rewardsds.rewards.base import ModelReward
from rewardsds.rewards.clip import CLIPReward
from rewardsds.rewards.image_reward import LENGTH, ImageReward, ImageRewardNetwork
from rewardsds.rewards.original import clip_from_open_clip, image_reward_network
from rewardsds.rewards.reward3d import Reward3D, reward3d_network


def reward_from_file(
    path: Path, device: torch.device, dtype: torch.dtype, companion: str | None = None
) -> ModelReward:
    """A reward from its authors' file. companion: folder or hub id of what it lacks, see `COMPANIONS`.

    Raises ValueError in one line for what is no reward.
    """
    state = read_checkpoint(path)
    recipe = recipe_of(state)
    if recipe not in COMPANIONS:
        shown = ", ".join(sorted(state)[:3])
        raise ValueError(f"{path.absolute()} is no reward that is known: its weights are {shown}, …")
    companion = companion or COMPANIONS[recipe]
    if recipe == "aesthetic":
        return AestheticReward.from_file(CLIPReward.from_pretrained(companion, device, dtype), path)
    if recipe == "hps":
        model: Any = clip_from_open_clip(state)
        return CLIPReward(model.to(device, dtype), load_tokenizer(companion), fit="pad")
    if recipe == "reward3d":
        network = reward3d_network(state)
        return Reward3D(network.to(device, dtype), _bert(companion), _length(network.views))
    views = image_reward_network(state)
    return ImageReward(views.to(device, dtype), _bert(companion), length=_length(views))


COMPANIONS: dict[Recipe | None, str] = {
    "image-reward": BERT,
    "reward3d": BERT,
    "hps": CLIP_H,
    "aesthetic": CLIP_L,
}
"""Whose tokenizer a reward from a file gets; of aesthetic, the CLIP whose features the head reads."""


def _length(network: ImageRewardNetwork) -> int:
    """Of captions in tokens: ImageReward's 35, or what the text encoder has positions for."""
    longest: Any = network.text.config.max_position_embeddings
    return min(LENGTH, longest)


def _bert(companion: str) -> Any:
    """BERT's tokenizer with BLIP's two additional tokens, so that numbers stay within its 30,524 embeddings."""
    tokenizer = load_tokenizer(companion)
    tokenizer.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
    return tokenizer
