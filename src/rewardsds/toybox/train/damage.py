"""Pictures made worse on purpose: what the rewards of quality learn to rank."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rewardsds.toybox.train.common import Draws

Damage = Callable[[Tensor, Tensor, Draws], Tensor]
"""(pictures (M, 3, H, W) in [0, 1], severities (M, 1, 1, 1) in [0, 1], draws) → damaged pictures, in [0, 1]."""


def blur(images: Tensor, severity: Tensor, draws: Draws) -> Tensor:
    """Box blurs of growing width, mixed so that severity is continuous: up to 11 pixels wide."""
    widths = (3, 5, 7, 11)
    levels = [images]
    for width in widths:
        pad = (width // 2,) * 4
        levels.append(F.avg_pool2d(F.pad(images, pad, mode="replicate"), width, stride=1))
    stack = torch.stack(levels)
    place = severity * len(widths)
    weights = [(1 - (place - index).abs()).clamp_min(0) for index in range(len(levels))]
    return (torch.stack(weights) * stack).sum(0)


def noise(images: Tensor, severity: Tensor, draws: Draws) -> Tensor:
    """Normal noise of deviation up to 0.25, in grains of one or of two pixels."""
    count, channels, height, width = images.shape
    fine = draws.normal(*images.shape)
    coarse = draws.normal(count, channels, height // 2, width // 2)
    coarse = F.interpolate(coarse, (height, width), mode="nearest")
    share = (draws.uniform(count, 1, 1, 1) < 0.5).float()
    return images + 0.25 * severity * (share * fine + (1 - share) * coarse)


def oversaturation(images: Tensor, severity: Tensor, draws: Draws) -> Tensor:
    """Colours away from grey and values away from the middle, both up to fourfold: the look of large guidance."""
    grey = images.mean(dim=1, keepdim=True)
    vivid = grey + (1 + 3 * severity) * (images - grey)
    return 0.5 + (1 + severity) * (vivid - 0.5)


def floaters(images: Tensor, severity: Tensor, draws: Draws) -> Tensor:
    """Up to ten soft spots of random colours at random places: loose Gaussians."""
    count, _, height, width = images.shape
    y = torch.linspace(-1, 1, height, device=images.device)[:, None]
    x = torch.linspace(-1, 1, width, device=images.device)[None, :]
    result, most = images, 10
    for index in range(most):
        draw = draws.uniform(count, 8, 1, 1)
        angle = draw[:, 0] * torch.pi
        across = torch.cos(angle) * (x - 2 * draw[:, 1] + 1) + torch.sin(angle) * (y - 2 * draw[:, 2] + 1)
        along = torch.cos(angle) * (y - 2 * draw[:, 2] + 1) - torch.sin(angle) * (x - 2 * draw[:, 1] + 1)
        radius = 0.04 + 0.12 * draw[:, 3]
        spot = torch.exp(-((across / radius).square() + (along / (2.5 * radius)).square()))
        there = (severity * most > index).float()
        spot = spot[:, None] * (there * (0.5 + 0.5 * draw[:, 4:5]))
        result = result + spot * (draw[:, 5:8] - result)
    return result


DAMAGES: dict[str, Damage] = {
    "blur": blur,
    "noise": noise,
    "oversaturation": oversaturation,
    "floaters": floaters,
}


def damage(images: Tensor, severity: Tensor, kinds: Tensor, draws: Draws) -> Tensor:
    """Each picture (M, 3, H, W) with the damage that `kinds` (M,), an index into DAMAGES, names for it.

    severity: (M,) from 0, as it was, to 1. Everything on the device of the draws.
    """
    result = images
    amount = severity[:, None, None, None]
    for index, apply in enumerate(DAMAGES.values()):
        chosen = (kinds == index)[:, None, None, None]
        result = torch.where(chosen, apply(images, amount, draws).clamp(0, 1), result)
    return result


def draw_damage(count: int, draws: Draws, least: float = 0.15) -> tuple[Tensor, Tensor]:
    """Severities (M,) between `least` and 1, and kinds (M,)."""
    severity = least + (1 - least) * draws.uniform(count)
    return severity, torch.randint(len(DAMAGES), (count,), generator=draws.torch, device=draws.torch.device)
