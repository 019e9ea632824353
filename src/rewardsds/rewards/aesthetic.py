"""Aesthetic score: a small head on CLIP's image features, as LAION's predictors are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from rewardsds.foreign import load_strictly, numbers_in, read_checkpoint, reading, shape_of
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
    """A linear head or an MLP without activations, see `read_checkpoint`. Raises ValueError where the file is none."""
    file = Path(path).expanduser()
    state = {name: value.float() for name, value in read_checkpoint(file).items()}
    linear = set(state) == {"weight", "bias"}
    layers = [""] if linear else [f"layers.{layer}." for layer in numbers_in(state, r"layers\.")]
    if not layers or set(state) != {layer + kind for layer in layers for kind in ("weight", "bias")}:
        raise ValueError(
            f"{file.absolute()} is no aesthetic head: expected weight and bias, or layers.N.weight and layers.N.bias, "
            f"got {', '.join(sorted(state)[:6])}"
        )
    what = f"an aesthetic head ({file.absolute()})"
    with reading(what):
        shapes = [shape_of(state, f"{layer}weight", 2) for layer in layers]
        for (outputs, _), (_, inputs) in pairwise(shapes):
            if outputs != inputs:
                raise ValueError(f"a layer takes {inputs} numbers, and the one before it gives {outputs}")
        if shapes[-1][0] != 1:
            raise ValueError(f"its last layer gives {shapes[-1][0]} numbers, and a score is one")
    head = nn.Sequential(*[nn.Linear(inputs, outputs) for outputs, inputs in shapes])
    own = {
        f"{i}.{kind}": state[layer + kind] for i, layer in enumerate(layers) for kind in ("weight", "bias")
    }
    load_strictly(head, own, what)
    return head
