"""What speaks against a rendering: sums over pixels, as threestudio and HiFA have them as means."""

from __future__ import annotations

import torch
from torch import Tensor


def opacity_entropy(alpha: Tensor) -> Tensor:
    """(R,) binary entropy of alpha (R,) in [0, 1], highest at ½. Clamped, as its slope has no end at 0 and 1."""
    alpha = alpha.clamp(1e-3, 1 - 1e-3)
    return -(alpha * alpha.log() + (1 - alpha) * (1 - alpha).log())


def sparsity(alpha: Tensor) -> Tensor:
    """(R,) √(alpha² + 0.01) of alpha (R,), smooth at 0."""
    return (alpha.square() + 0.01).sqrt()


def orientation(normals: Tensor, directions: Tensor) -> Tensor:
    """(M,) max(0, normal · direction)² of unit normals and ray directions (M, 3) (arXiv 2209.14988, appendix A)."""
    return (normals * directions).sum(-1).clamp(min=0).square()


def z_variance(weights: Tensor, distance: Tensor, mean: Tensor, alpha: Tensor, ray: Tensor) -> Tensor:
    """(R,) variance of the distance along each ray where alpha exceeds ½, else 0 (arXiv 2305.18766, equation 10).

    weights, distance, ray: (M,) of samples. mean, alpha: (R,) of rays; mean is the expected distance.
    """
    deviation = weights * (distance - mean[ray]).square()
    spread = torch.zeros_like(alpha).index_add(0, ray, deviation)
    seen = alpha > 0.5
    return torch.where(
        seen, spread / torch.where(seen, alpha, torch.ones_like(alpha)), torch.zeros_like(alpha)
    )
