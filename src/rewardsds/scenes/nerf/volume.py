"""Volume rendering of packed samples: R rays, M samples that all rays share out, nearest first on each ray.

A ray's samples have one length. With σ a sample's density and δ its length (arXiv 2003.08934, equation 3)

    alpha = 1 − exp(−σ δ)      T = Π (1 − alpha) over the samples in front      weight = T · alpha
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rewardsds.scenes.nerf import numba_kernels as kernels
from rewardsds.scenes.object3d import RADIUS
from rewardsds.scenes.parallel import run_jobs


@dataclass(frozen=True)
class Samples:
    """ray: (M,) int64, rising. distance: (M,) along the ray, of the samples' middles. points: (M, 3)."""

    ray: Tensor
    distance: Tensor
    points: Tensor

    def __len__(self) -> int:
        return len(self.ray)

    def __getitem__(self, chosen: Tensor) -> Samples:
        return Samples(self.ray[chosen], self.distance[chosen], self.points[chosen])


def intersect_ball(origins: Tensor, directions: Tensor, radius: float = RADIUS) -> tuple[Tensor, Tensor]:
    """Where rays (R, 3) with unit directions enter and leave the ball around the origin: (R,) distances ≥ 0 each.

    A ray that misses it leaves where it enters.
    """
    middle = -(origins * directions).sum(-1)
    # the distance of the line from the origin, by a difference of points: differences of squares would cancel
    offset = (origins + middle[:, None] * directions).square().sum(-1)
    half = (radius**2 - offset).clamp(min=0).sqrt()
    return (middle - half).clamp(min=0), (middle + half).clamp(min=0)


@torch.no_grad()
def sample_rays(
    origins: Tensor, directions: Tensor, step: float, shift: Tensor, occupied: Tensor, at_once: int = 2**21
) -> Samples:
    """The occupied samples of rays (R, 3): the way through the ball is cut into bins of length `step`.

    shift: (R,) in [0, 1), where in its bins a ray is sampled; ½ is their middle. occupied: (C, C, C) bool, cells that
    fill the cube around the ball, x first. at_once: how many bins are looked at together (not on the CPU).
    """
    if origins.device.type != "cpu" or origins.dtype != torch.float32:
        return sample_rays_plain(origins, directions, step, shift, occupied, at_once)
    near, far = intersect_ball(origins, directions)
    bins = int(((far - near).max() / step).ceil()) if len(near) else 0
    origin, direction, first, last, shifts = (
        one.contiguous().numpy() for one in (origins, directions, near, far, shift)
    )
    length, cells = np.float32(step), occupied.contiguous().numpy()
    chosen, counts = np.zeros((len(near), bins), dtype=np.bool_), np.empty(len(near), dtype=np.int64)
    look = (origin, direction, first, last, shifts, length, cells)
    run_jobs(kernels.march_look, len(near), *look, chosen, counts)
    total = int(counts.sum())
    samples = Samples(torch.empty(total, dtype=torch.int64), torch.empty(total), torch.empty(total, 3))
    outputs = [one.numpy() for one in (samples.ray, samples.distance, samples.points)]
    offsets = counts.cumsum() - counts
    run_jobs(
        kernels.march_fill, len(near), origin, direction, first, shifts, length, chosen, offsets, *outputs
    )
    return samples


@torch.no_grad()
def sample_rays_plain(
    origins: Tensor, directions: Tensor, step: float, shift: Tensor, occupied: Tensor, at_once: int = 2**21
) -> Samples:
    """As `sample_rays`, in plain torch on any device."""
    near, far = intersect_ball(origins, directions)
    bins = int(((far - near).max() / step).ceil()) if len(near) else 0
    hit = (far > near).nonzero()[:, 0]
    parts = [Samples(hit[:0], near[:0], origins[:0])]
    for rays in hit.split(max(1, at_once // max(bins, 1))):
        distance = near[rays, None] + (torch.arange(bins, device=near.device) + shift[rays, None]) * step
        points = origins[rays, None] + distance[..., None] * directions[rays, None]
        row, column = (look_up(occupied, points) & (distance < far[rays, None])).nonzero(as_tuple=True)
        parts.append(Samples(rays[row], distance[row, column], points[row, column]))
    return Samples(
        *(torch.cat([getattr(part, name) for part in parts]) for name in ("ray", "distance", "points"))
    )


def look_up(occupied: Tensor, points: Tensor) -> Tensor:
    """(...) bool of points (..., 3), from the cells (C, C, C)."""
    cells = len(occupied)
    cell = ((points + RADIUS) * (0.5 * cells / RADIUS)).long().clamp_(0, cells - 1)
    return occupied.reshape(-1)[(cell[..., 0] * cells + cell[..., 1]) * cells + cell[..., 2]]


def render_weights(density: Tensor, step: float, ray: Tensor, rays: int) -> tuple[Tensor, Tensor]:
    """Weights and transmittances T (M,) of samples of `density` (M,) and length `step`; carries gradient.

    ray: (M,) int64, rising, which of `rays` rays a sample lies on. By hand: densities ln 2 of length 1 on one ray
    have T = 1, ½, ¼ and weights ½, ¼, ⅛.
    """
    # T is exp of minus a sum, the difference of two running sums over all rays: in double, as those grow long
    if not len(ray):
        return density, density
    depth = density.double() * step
    before = depth.cumsum(0) - depth
    counts = torch.bincount(ray, minlength=rays)
    first = (counts.cumsum(0) - counts).clamp(max=len(ray) - 1)
    transmittance = torch.exp(before.index_select(0, first).index_select(0, ray) - before)
    return (-transmittance * torch.expm1(-depth)).to(density), transmittance.to(density)


def accumulate(weights: Tensor, values: Tensor | None, ray: Tensor, rays: int) -> Tensor:
    """Σ weight · value over each ray's samples: (rays, C) of values (M, C), or (rays,) of None, which stands for 1."""
    if values is None:
        return weights.new_zeros(rays).index_add(0, ray, weights)
    weighted = weights[:, None] * values
    return weighted.new_zeros((rays, values.shape[1])).index_add(0, ray, weighted)
