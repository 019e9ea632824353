"""Reward3D (DreamReward, arXiv 2403.14613): ImageReward's towers on four views of an object, and a head over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from rewardsds.foreign import load_strictly, reading, shape_of, split_off
from rewardsds.rewards.image_reward import LENGTH, MEAN, STD, ImageReward, ImageRewardNetwork, TowersFile
from rewardsds.rewards.original import image_reward_network
from rewardsds.rewards.stored import Count

VIEWS = 4
FEATURES = 1
"""Index of the MLP's layer whose output is what the scorer reads of a view (128 wide)."""
FUSION_STD = 5.0
"""What the published model with fusion divides by, in place of ImageReward's deviation."""
FUSION_HEADS = 12


class Reward3DFile(TowersFile):
    """The `config.json` that `Reward3D.save_pretrained` writes. scorer: see `Scorer`; None: the fusion."""

    scorer: tuple[Count, Count, Count, Count] | None


class Scorer(nn.Module):
    """Three linear layers on the concatenated features of four views, without activations."""

    def __init__(self, widths: Sequence[int]) -> None:
        """widths: input and outputs of the layers; published 512, 256, 64, 1."""
        super().__init__()
        if widths[-1] != 1:
            raise ValueError(f"the scorer's last layer gives {widths[-1]} numbers, and a score is one")
        self.fc1, self.fc2, self.fc3 = (nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, features: Tensor) -> Tensor:
        """(M, 4 · C) → (M,)"""
        return self.fc3(self.fc2(self.fc1(features))).squeeze(-1)


class CrossViewFusion(nn.Module):
    """Views attend to each other; a gate mixes what they saw into what they were; their mean goes on."""

    def __init__(self, width: int, heads: int = FUSION_HEADS) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.fusion_gate = nn.Sequential(nn.Linear(2 * width, width), nn.Sigmoid())

    def forward(self, views: Tensor) -> Tensor:
        """(M, 4, C) → (M, C)"""
        attended, _ = self.self_attn(views, views, views, need_weights=False)
        gate = self.fusion_gate(torch.cat([views, attended], dim=-1))
        return (gate * attended + (1 - gate) * views).mean(dim=1)


class Reward3DNetwork(nn.Module):
    """Both published models: `Scorer` on the MLP's features of each view, or the MLP on `CrossViewFusion`'s."""

    def __init__(self, views: ImageRewardNetwork, head: Scorer | CrossViewFusion) -> None:
        super().__init__()
        if isinstance(head, Scorer):
            given = views.widths[FEATURES] if len(views.widths) > FEATURES else 0
            if head.fc1.in_features != VIEWS * given:
                raise ValueError(
                    f"the scorer takes {head.fc1.in_features} features, and {VIEWS} views have {VIEWS * given}"
                )
        self.views = views
        self.head = head

    @property
    def vision(self) -> Any:
        return self.views.vision

    def config(self) -> dict[str, Any]:
        """What `from_config` takes; scorer: its widths, or None of the fusion."""
        scorer = None
        if isinstance(self.head, Scorer):
            layers = (self.head.fc1, self.head.fc2, self.head.fc3)
            scorer = [self.head.fc1.in_features, *(layer.out_features for layer in layers)]
        return {**self.views.config(), "scorer": scorer}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Reward3DNetwork:
        """With random weights."""
        views = ImageRewardNetwork.from_config(config)
        return cls(views, Scorer(config["scorer"]) if config["scorer"] else _fusion(views))

    def forward(self, pixels: Tensor, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """(M · 4, 3, S, S) normalised, (M · 4, T) twice → (M,); the views of an object follow each other."""
        read = self.views.read(
            self.views.vision(pixel_values=pixels).last_hidden_state, tokens, attention_mask
        )
        read = read.unflatten(0, (-1, VIEWS))
        if isinstance(self.head, CrossViewFusion):
            return self.views.mlp(self.head(read)).squeeze(-1)
        return self.head(self.views.mlp[: FEATURES + 1](read).flatten(1))


class Reward3D(ImageReward):
    """Standardised scores of four views of an object together, which the method's authors trained on 3D results."""

    needs_views_together: ClassVar[bool] = True
    network: Reward3DNetwork  # pyright: ignore[reportIncompatibleVariableOverride]
    network_class = Reward3DNetwork
    file_class = Reward3DFile

    def __init__(self, network: Reward3DNetwork, tokenizer: Any, length: int = LENGTH) -> None:
        std = FUSION_STD if isinstance(network.head, CrossViewFusion) else STD
        super().__init__(network, tokenizer, MEAN, std, length=length)  # pyright: ignore

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """images (N, B, 4, 3, H, W) in [0, 1], B prompts → (N, B)."""
        if images.ndim != 6 or images.shape[1] != len(prompts) or images.shape[2] != VIEWS:
            raise ValueError(
                f"Reward3D looks at {VIEWS} views of an object: images must have shape (candidates, {len(prompts)}, "
                f"{VIEWS}, 3, H, W), got {tuple(images.shape)}; it scores 3D runs with --camera.views {VIEWS} and "
                "--reward-over-views together"
            )
        candidates, items = images.shape[:2]
        flat = images.flatten(0, 2)
        tokens, mask = self._tokens_of(prompts)
        each = torch.arange(items, device=tokens.device).repeat_interleave(VIEWS).repeat(candidates)

        def look(rows: slice) -> Tensor:
            return self.network(self._pixels(flat[rows]), tokens[each[rows]], mask[each[rows]])

        scores = self.chunks(look, len(flat), unit=VIEWS)  # the views of an object stay together
        return ((scores.float() - self.mean) / self.std).reshape(candidates, items).to(images.device)

    def _config(self) -> dict[str, Any]:
        return {"model_type": "reward3d", **self.network.config(), "length": self.length}

    @classmethod
    def _made(cls, config: Mapping[str, Any], network: Any, tokenizer: Any) -> Self:
        return cls(network, tokenizer, config["length"])


def _fusion(views: ImageRewardNetwork) -> CrossViewFusion:
    width: Any = views.text.config.hidden_size
    return CrossViewFusion(width, FUSION_HEADS if width % FUSION_HEADS == 0 else 1)


def reward3d_network(state: Mapping[str, Tensor]) -> Reward3DNetwork:
    """DreamReward's checkpoint: ImageReward's names, and `Scorer.fc1` … or `cross_view_adapter`."""
    heads = ("Scorer.", "cross_view_adapter.")
    views = image_reward_network({n: v for n, v in state.items() if not n.startswith(heads)})
    scorer, fusion = (
        {name: value.float() for name, value in split_off(state, prefix).items()} for prefix in heads
    )
    head: Scorer | CrossViewFusion
    if scorer and not fusion:
        with reading("Reward3D's scorer"):
            first, *others = (shape_of(scorer, f"fc{i}.weight", 2) for i in (1, 2, 3))
            head = Scorer([first[1], first[0], *(outputs for outputs, _ in others)])
        load_strictly(head, scorer, "Reward3D's scorer")
    elif fusion and not scorer:
        head = _fusion(views)
        load_strictly(head, fusion, "Reward3D's fusion")
    else:
        raise ValueError(
            "this is no checkpoint of Reward3D: besides ImageReward's weights it holds "
            f"{'both' if scorer else 'neither'} Scorer and cross_view_adapter"
        )
    with reading("Reward3D"):
        return Reward3DNetwork(views, head).eval()
