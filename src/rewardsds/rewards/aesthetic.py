"""Aesthetic score: a small head on CLIP's image features, as LAION's predictors are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rewardsds.rewards.base import ModelReward
from rewardsds.rewards.clip import CLIPReward


class AestheticReward(ModelReward):
    """What a head makes of normalised image features, meaned over the views of an item; the prompt is not read.

    Heads: LAION's linear v1 (`sa_0_4_vit_l_14_linear.pth`), its MLP v2 (`sac+logos+ava1-l14-linearMSE.pth`), whose
    layers have no activations between them, or the toybox's, linear, as safetensors. Carries gradient.
    """

    def __init__(self, clip: CLIPReward, head: nn.Module) -> None:
        self.clip = clip
        super().__init__()
        self.head = head.eval().requires_grad_(False)

    @classmethod
    def from_file(cls, clip: CLIPReward, path: str | PathLike[str]) -> AestheticReward:
        """Raises ValueError where the file is no head, or one for features of another width."""
        head = load_head(path)
        width = clip.model.config.projection_dim
        takes = next(module for module in head.modules() if isinstance(module, nn.Linear)).in_features
        if takes != width:
            raise ValueError(
                f"the aesthetic head in {path} takes {takes} features, this CLIP gives {width}: load the CLIP "
                "that the head was trained on"
            )
        return cls(clip, head.to(clip.model.device))

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """images (N, B, V, 3, H, W) in [0, 1] → scores (N, B)."""
        features = self.clip.image_features(images.flatten(0, 2))
        scores = self.head(features).squeeze(-1)
        return scores.unflatten(0, images.shape[:3]).mean(dim=2).to(images.device)

    def in_chunks(self, size: int | Literal["auto"] | None) -> None:
        self.clip.in_chunks(size)

    def to(self, device: torch.device | str) -> None:
        self.clip.to(device)
        self.head.to(device)


def load_head(path: str | PathLike[str]) -> nn.Module:
    """A linear head or an MLP without activations, from `.safetensors` or a `.pth` (read without pickle's code)."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"no aesthetic head at {file.absolute()}")
    try:
        state: Mapping[str, Tensor] = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
        weights = {key: value.float() for key, value in state.items()}
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(f"the aesthetic head in {file.absolute()} cannot be read: {reason}") from error
    if set(weights) == {"weight", "bias"}:
        return _linear(weights["weight"], weights["bias"])
    layers = sorted({int(key.split(".")[1]) for key in weights if key.startswith("layers.")})
    wanted = {f"layers.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    if not layers or set(weights) != wanted:
        raise ValueError(
            f"{file.absolute()} is no aesthetic head: expected weight and bias, or layers.N.weight and layers.N.bias, "
            f"got {', '.join(sorted(weights)[:6]) or 'nothing'}"
        )
    return nn.Sequential(
        *[_linear(weights[f"layers.{layer}.weight"], weights[f"layers.{layer}.bias"]) for layer in layers]
    )


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
