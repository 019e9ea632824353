"""The judge: says which coloured toys a picture shows, and nothing else. It measures, it never steers.

A convolutional network of another architecture than the reward models, trained from another seed on scenes
of its own. It is deliberately not a `Reward`: it takes scene specifications instead of prompts, its methods
are named otherwise, and it lends no gradient. Whatever is optimised against the judge can no longer be
measured by it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewardsds.pretrained import embedded_weights
from rewardsds.toybox.specification import COLOURS, KINDS, SceneSpec

IMAGE_SIZE = 64


class Probabilities(NamedTuple):
    """kinds: (..., K) that a toy of the kind shows; pairs: (..., K, C) that one of the kind in the colour
    does.
    """

    kinds: Tensor
    pairs: Tensor


class Residual(nn.Module):
    """Two convolutions beside a skip: (M, width, H, W) → (M, out, H / stride, W / stride)."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(8, out)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(8, out)
        self.skip = (
            nn.Conv2d(width, out, 1, stride, bias=False) if (width, stride) != (out, 1) else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(inner)) + self.skip(x))


class Trunk(nn.Module):
    """ResNet-style, GroupNorm: images (M, 3, 64, 64) in [0, 1] → features (M, channels, 8, 8)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.stem = nn.Conv2d(3, width, 5, 2, 2)
        stages, before = [], width
        for out, stride in ((2 * width, 1), (4 * width, 2), (4 * width, 1), (8 * width, 2), (8 * width, 1)):
            stages.append(Residual(before, out, stride))
            before = out
        self.stages = nn.Sequential(*stages)
        self.channels = before

    def features(self, images: Tensor) -> Tensor:
        return self.stages(F.relu(self.stem(images * 4 - 2)))


class JudgeNetwork(Trunk):
    """ResNet-style, GroupNorm, with an 8×8 map of votes at the end: images (M, 3, 64, 64) in [0, 1] → logits.

    A place of the map votes for a kind and for a colour; a pair's logit is the soft maximum over places of
    the sum of the two votes, so that a colour counts for the toy that stands in the same place.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__(width)
        self.kind = nn.Conv2d(self.channels, len(KINDS), 1)
        self.colour = nn.Conv2d(self.channels, len(COLOURS), 1)
        self.kind_bias = nn.Parameter(torch.full((len(KINDS),), -7.0))
        self.pair_bias = nn.Parameter(torch.full((len(KINDS), len(COLOURS)), -9.0))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Kind logits (M, K) and pair logits (M, K, C)."""
        features = self.features(images)
        kind, colour = self.kind(features).flatten(2), self.colour(features).flatten(2)
        top_kind, top_colour = kind.amax(-1, keepdim=True), colour.amax(-1, keepdim=True)
        votes = torch.einsum("mkl,mcl->mkc", (kind - top_kind).exp(), (colour - top_colour).exp())
        pairs = votes.clamp_min(1e-12).log() + top_kind + top_colour.transpose(1, 2) + self.pair_bias
        return kind.logsumexp(-1) + self.kind_bias, pairs


class Judge:
    """A trained judge. Not a `Reward`, and not to be made one: see the module's text."""

    def __init__(self, network: nn.Module, device: str | torch.device = "cpu") -> None:
        self.network = network.to(device).eval().requires_grad_(False)
        self.device = torch.device(device)

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Probabilities:
        """(..., 3, H, W) in [0, 1] → probabilities with the same leading axes. Other sizes are resized to 64
        px.
        """
        leading = images.shape[:-3]
        parts = [self.network(part) for part in as_seen(images, self.device, "the judge").split(128)]
        kinds = torch.cat([part[0] for part in parts]).sigmoid().cpu()
        pairs = torch.cat([part[1] for part in parts]).sigmoid().cpu()
        return Probabilities(
            kinds.reshape(*leading, *kinds.shape[1:]), pairs.reshape(*leading, *pairs.shape[1:])
        )

    def asked(self, images: Tensor, specs: Sequence[SceneSpec]) -> list[Tensor]:
        """For each picture the probabilities, one a group of its scene, that the group shows.

        images: (M, 3, H, W), or (M, V, 3, H, W), whose views are averaged. A group without a colour asks for
        its kind alone. Counts, relations and grounds are not judged.
        """
        if images.ndim not in (4, 5) or len(images) != len(specs):
            raise ValueError(
                f"expected as many pictures as scenes, (M, 3, H, W) or (M, V, 3, H, W); "
                f"got {tuple(images.shape)} for {len(specs)} scenes"
            )
        found = self.probabilities(images)
        kinds, pairs = (
            (found.kinds, found.pairs) if images.ndim == 4 else (found.kinds.mean(1), found.pairs.mean(1))
        )
        answers = []
        for row, spec in enumerate(specs):
            values = []
            for group in spec.groups:
                kind = KINDS.index(group.kind)
                values.append(
                    kinds[row, kind]
                    if group.colour is None
                    else pairs[row, kind, COLOURS.index(group.colour)]
                )
            answers.append(torch.stack(values))
        return answers

    def score(self, images: Tensor, specs: Sequence[SceneSpec]) -> Tensor:
        """(M,) mean probability of the asked toys; arguments as `asked` takes them."""
        return torch.stack([answer.mean() for answer in self.asked(images, specs)])

    def finds(self, images: Tensor, specs: Sequence[SceneSpec]) -> Tensor:
        """(M,) share of the asked toys that are more likely there than not."""
        return torch.stack([(answer > 0.5).float().mean() for answer in self.asked(images, specs)])

    def all_right(self, images: Tensor, specs: Sequence[SceneSpec]) -> Tensor:
        """(M,) 1 where every asked toy is found, else 0. Its mean is the share of pictures that are right."""
        return (self.finds(images, specs) == 1).float()


def as_seen(images: Tensor, device: torch.device, who: str) -> Tensor:
    """(..., 3, H, W) → (M, 3, 64, 64) on a device, as judges take them. Raises ValueError for other shapes."""
    if images.ndim < 3 or images.shape[-3] != 3:
        raise ValueError(f"{who} takes images (..., 3, H, W), got {tuple(images.shape)}")
    flat = images.detach().reshape(-1, *images.shape[-3:]).to(device, torch.float32)
    if flat.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
        flat = F.interpolate(flat, (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", antialias=True).clamp(0, 1)
    return flat


def save_judge(network: JudgeNetwork, folder: Path) -> None:
    """config.json and model.safetensors in half precision."""
    config = {
        "width": network.width,
        "kinds": list(KINDS),
        "colours": list(COLOURS),
        "image_size": IMAGE_SIZE,
    }
    save_network(network, config, folder)


def save_network(network: nn.Module, config: Mapping[str, Any], folder: Path) -> None:
    """config.json and model.safetensors in half precision."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {
        name: value.detach().cpu().to(torch.float16).contiguous()
        for name, value in network.state_dict().items()
    }
    save_file(state, folder / "model.safetensors")


def load_weights(network: nn.Module, folder: Path) -> None:
    """Takes back what `save_network` wrote, in single precision."""
    from safetensors.torch import load_file

    state = load_file(folder / "model.safetensors")
    network.load_state_dict({name: value.float() for name, value in state.items()})


def load_judge(folder: Path | None = None, device: str | torch.device = "cpu") -> Judge:
    """The packaged judge, or one that training has written. Raises ValueError where there is none, or
    another's.
    """
    folder = folder or embedded_weights("judge")
    if not (folder / "config.json").exists():
        raise ValueError(f"no judge in {folder}: train one with `rewardsds toybox train --stage judge`")
    config = json.loads((folder / "config.json").read_text())
    if (config["kinds"], config["colours"]) != (list(KINDS), list(COLOURS)):
        raise ValueError(
            f"the judge in {folder} knows other kinds or colours than this toybox: train it anew"
        )
    network = JudgeNetwork(config["width"])
    load_weights(network, folder)
    return Judge(network, device)
