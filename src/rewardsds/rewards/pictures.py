"""Pictures of any shape as the square that a reward model was trained on, on their device and with gradient."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Fit = Literal["crop", "pad", "stretch"]


def square(images: Tensor, size: int, fit: Fit = "crop") -> Tensor:
    """(M, 3, H, W) in [0, 1] → (M, 3, size, size), bicubic with antialiasing.

    crop: the shorter side becomes `size`, and the middle is kept, as CLIP and ImageReward have it. pad: the longer side
    becomes `size`, and what lacks is black on both sides, as HPS has it. stretch: both sides become `size`, as SigLIP
    has it.
    """
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    resized = size, size
    if fit != "stretch":
        scale = size / (min if fit == "crop" else max)(height, width)
        limit = max if fit == "crop" else min
        resized = limit(size, round(height * scale)), limit(size, round(width * scale))
    images = _along_height(images, max(1, resized[0]))
    images = _along_height(images.mT, max(1, resized[1])).mT.clamp(0.0, 1.0)  # bicubic overshoots
    if fit == "stretch":
        return images
    if fit == "crop":
        top, left = (images.shape[-2] - size) // 2, (images.shape[-1] - size) // 2
        return images[..., top : top + size, left : left + size]
    down, right = size - images.shape[-2], size - images.shape[-1]
    return F.pad(images, (right // 2, right - right // 2, down // 2, down - down // 2))


def _along_height(images: Tensor, size: int) -> Tensor:
    """(…, H, W) → (…, size, W) in float32, by products with bands of a matrix: twice as fast on a CPU as torch's own
    kernel where pictures shrink much, and with a gradient that is deterministic on CUDA."""
    images = images.float()
    if images.shape[-2] == size:
        return images
    bands = _bands(images.shape[-2], size, images.device)
    return torch.cat([torch.matmul(weights, images[..., rows, :]) for rows, weights in bands], dim=-2)


@lru_cache(maxsize=32)
def _bands(given: int, size: int, device: torch.device) -> tuple[tuple[slice, Tensor], ...]:
    """For each band of resized rows the rows of the picture that they are made of, and by which weights, on the device.

    A GPU makes all rows by one product: more would cost it more than zeros do.
    """
    band = 8 if device.type == "cpu" else size
    with torch.inference_mode(False), torch.no_grad():
        # what torch makes of unit vectors: the matrix of its bicubic resizing with antialiasing
        whole = F.interpolate(
            torch.eye(given)[None, None], (size, given), mode="bicubic", antialias=True, align_corners=False
        )[0, 0]
        found = []
        for first in range(0, size, band):
            weights = whole[first : first + band]
            used = weights.any(dim=0).nonzero().flatten()
            rows = slice(int(used[0]), int(used[-1]) + 1)
            found.append((rows, weights[:, rows].clone().to(device)))
        return tuple(found)
