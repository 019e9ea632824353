"""Density and colour of Gaussians at points in space, for meshes.

A Gaussian is taken to end where it adds CUTOFF to the density. Points are put in order along a space-filling curve;
a job is a run of neighbours, whose box tells quickly which Gaussians reach it. Memory is proportional to the number
of points plus that of Gaussians.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from rewardsds.scenes.gaussians.numba_kernels import kernel
from rewardsds.scenes.gaussians.reference import quaternion_to_matrix
from rewardsds.scenes.parallel import run_jobs

CUTOFF = 1e-5
"""Each Gaussian is left out where opacity · exp(−½ d²) is below this: the density is too low by at most CUTOFF × their
number, and by far less in practice."""
_BLOCK = 256  # points of a job


@kernel
def blend(
    start, stop, points, means, inverse, half, reach, opacities, colours, with_colour, density, colour,
):  # fmt: skip
    """Jobs are blocks of points (M, 3). Fills density (M,), and colour (M, 3) with the weighted sum of colours.

    inverse (N, 3, 3): S⁻¹ Rᵀ; half (N, 3): half extents of the box outside of which a Gaussian is left out; reach (N,):
    the squared Mahalanobis distance at which it ends."""
    for job in range(start, stop):
        first = job * _BLOCK
        last = min(first + _BLOCK, points.shape[0])
        x0, y0, z0 = points[first, 0], points[first, 1], points[first, 2]
        x1, y1, z1 = x0, y0, z0
        for p in range(first, last):
            density[p] = np.float32(0.0)
            x0, x1 = min(x0, points[p, 0]), max(x1, points[p, 0])
            y0, y1 = min(y0, points[p, 1]), max(y1, points[p, 1])
            z0, z1 = min(z0, points[p, 2]), max(z1, points[p, 2])
            if with_colour:
                colour[p, 0] = np.float32(0.0)
                colour[p, 1] = np.float32(0.0)
                colour[p, 2] = np.float32(0.0)
        for n in range(means.shape[0]):
            mx, my, mz = means[n, 0], means[n, 1], means[n, 2]
            if mx + half[n, 0] < x0 or mx - half[n, 0] > x1:
                continue
            if my + half[n, 1] < y0 or my - half[n, 1] > y1:
                continue
            if mz + half[n, 2] < z0 or mz - half[n, 2] > z1:
                continue
            a00, a01, a02 = inverse[n, 0, 0], inverse[n, 0, 1], inverse[n, 0, 2]
            a10, a11, a12 = inverse[n, 1, 0], inverse[n, 1, 1], inverse[n, 1, 2]
            a20, a21, a22 = inverse[n, 2, 0], inverse[n, 2, 1], inverse[n, 2, 2]
            red, green, blue = colours[n, 0], colours[n, 1], colours[n, 2]
            opacity, end = opacities[n], reach[n]
            for p in range(first, last):
                dx, dy, dz = points[p, 0] - mx, points[p, 1] - my, points[p, 2] - mz
                u = a00 * dx + a01 * dy + a02 * dz
                v = a10 * dx + a11 * dy + a12 * dz
                w = a20 * dx + a21 * dy + a22 * dz
                distance = u * u + v * v + w * w
                if distance < end:
                    weight = opacity * math.exp(np.float32(-0.5) * distance)
                    density[p] += weight
                    if with_colour:
                        colour[p, 0] += weight * red
                        colour[p, 1] += weight * green
                        colour[p, 2] += weight * blue


@torch.no_grad()
def evaluate(
    points: Tensor,
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colours: Tensor,
    with_colour: bool = True,
) -> tuple[Tensor, Tensor]:
    """Density (M,) and colour (M, 3) at points (M, 3), on the CPU; Gaussians as the rasteriser takes them.

    The density is Σ opacity · exp(−½ d²) over Gaussians, d their Mahalanobis distance (arXiv 2309.16653, section 3.2);
    the colour is their mean colour, weighted by what they add to it, and that of the nearest one where none reaches.
    Without `with_colour` the colours are empty, (0, 3).
    """
    where = points.detach().float().cpu().contiguous()
    if where.ndim != 2 or where.shape[1] != 3:
        raise ValueError(f"points have shape {tuple(points.shape)}, expected (M, 3)")
    m, q, s, o, c = (
        x.detach().float().cpu().contiguous() for x in (means, quats, scales, opacities, colours)
    )
    rotation = quaternion_to_matrix(q)  # N 3 3
    inverse = (rotation / s[:, None, :]).transpose(1, 2).contiguous()  # N 3 3
    reach = 2 * torch.log((o / CUTOFF).clamp(min=1.0))  # N
    deviation = (rotation * s[:, None, :]).square().sum(-1).sqrt()  # N 3, along the world's axes
    half = 1.0001 * reach.sqrt()[:, None] * deviation  # N 3, a little more than rounding may cost

    order = torch.from_numpy(np.argsort(_along_curve(where.numpy()), kind="stable"))
    density = torch.empty(len(where))
    colour = torch.empty((len(where) if with_colour else 0, 3))
    inputs = [x.numpy() for x in (where[order], m, inverse, half, reach, o, c)]
    jobs = -(-len(where) // _BLOCK)
    run_jobs(blend, jobs, *inputs, with_colour, density.numpy(), colour.numpy())

    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    density = density[back]
    if not with_colour:
        return density, colour
    colour = colour[back] / density.clamp(min=1e-12)[:, None]
    outside = (density <= 0).nonzero().squeeze(-1)
    if len(outside):
        _, nearest = KDTree(m.numpy()).query(where[outside].numpy())
        colour[outside] = c[torch.from_numpy(nearest)]
    return density, colour.clamp(0, 1)


def _along_curve(points: np.ndarray) -> np.ndarray:
    """Places (M,) of points (M, 3) along a Morton curve of 1024³ cells."""
    if len(points) == 0:
        return np.zeros(0, np.uint32)
    low = points.min(0)
    extent = float((points.max(0) - low).max())
    cells = ((points - low) * (1023.0 / max(extent, 1e-30))).astype(np.uint32)
    code = np.zeros(len(points), np.uint32)
    for axis in range(3):
        bits = cells[:, axis]
        for shift, mask in ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
            bits = (bits | (bits << np.uint32(shift))) & np.uint32(mask)
        code |= bits << np.uint32(axis)
    return code
