"""Pictures of any shape as the square that a reward model was trained on, on their device and with gradient."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Fit = Literal["crop", "pad"]


def square(images: Tensor, size: int, fit: Fit = "crop") -> Tensor:
    """(M, 3, H, W) in [0, 1] → (M, 3, size, size), bicubic with antialiasing.

    crop: the shorter side becomes `size`, and the middle is kept, as CLIP and ImageReward have it. pad: the longer side
    becomes `size`, and what lacks is black on both sides, as HPS has it.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    scale = size / (min if fit == "crop" else max)(height, width)
    limit = max if fit == "crop" else min
    resized = limit(size, round(height * scale)), limit(size, round(width * scale))
    images = F.interpolate(
        images, (max(1, resized[0]), max(1, resized[1])), mode="bicubic", antialias=True, align_corners=False
    ).clamp(0.0, 1.0)  # bicubic overshoots
    if fit == "crop":
        top, left = (images.shape[-2] - size) // 2, (images.shape[-1] - size) // 2
        return images[..., top : top + size, left : left + size]
    down, right = size - images.shape[-2], size - images.shape[-1]
    return F.pad(images, (right // 2, right - right // 2, down // 2, down - down // 2))
