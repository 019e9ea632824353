"""`load_reward`: a reward from the package, a folder, the Hugging Face hub, or the user's own function."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path

import torch

from rewardsds.pretrained import default_device_and_dtype, installed_weights, load_from
from rewardsds.rewards.base import Reward
from rewardsds.rewards.clip import CLIPReward


def load_reward(
    source: str | PathLike[str] | Reward = "clip",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Reward:
    """Load a reward.

    source: "clip", the toybox's CLIP; a folder of a CLIPModel; the hub id of one, such as
        "openai/clip-vit-large-patch14"; or a function (images (N, B, V, 3, H, W), prompts) → (N, B), which is
        returned as it is.
    device: CUDA where it is available unless said otherwise. dtype: float32 on the CPU, float16 on CUDA.

    Raises ValueError when there is no such reward, saying where it was looked for.
    """
    if not isinstance(source, (str, PathLike)):
        if callable(source):
            return source
        raise ValueError(
            "a reward is 'clip', a folder, a hub id or a function (images, prompts) -> scores, "
            f"got {type(source).__name__}"
        )
    device, dtype = default_device_and_dtype(device, dtype)
    if str(source) == "clip":
        source = installed_weights("clip", "config.json", "CLIP", "a folder, a hub id or a function")

    def load(found: str | Path) -> CLIPReward:
        if isinstance(found, Path):
            config = found / "config.json"
            kind = (
                json.loads(config.read_text(encoding="utf-8")).get("model_type") if config.is_file() else None
            )
            if kind != "clip":
                raise ValueError(
                    f"{found.absolute()} is not a CLIP model: its config.json should say model_type 'clip'"
                )
        return CLIPReward.from_pretrained(found, device, dtype)

    examples = (
        "'clip', a folder of a CLIP model, a hub id such as 'openai/clip-vit-large-patch14', or a function"
    )
    return load_from(source, "reward", examples, load)
