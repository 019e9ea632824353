"""Density and colour of Gaussians at points in space, for meshes.

A Gaussian is taken to end where it adds CUTOFF to the density. Points are put in order along a space-filling curve;
a job is a run of neighbours, whose box tells quickly which Gaussians reach it. Memory is proportional to the number
of points plus that of Gaussians.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from rewardsds.scenes.gaussians.numba_kernels import exp_minus
from rewardsds.scenes.gaussians.reference import quaternion_to_matrix
from rewardsds.scenes.parallel import kernel, run_jobs, threads

CUTOFF = 1e-5
"""Each Gaussian is left out where opacity · exp(−½ d²) is below this: the density is too low by at most CUTOFF × their
number, and by far less in practice. d² is at most −2 ln CUTOFF = 23, and `exp_minus` holds up to 6 > 23 / 4."""
_BLOCK = 256  # points of a job


@kernel
def blend(
    start, stop, points, means, inverse, half, reach, opacities, colours, with_colour, density, colour,
):  # fmt: skip
    """Jobs are blocks of points (M, 3). Fills density (M,), and colour (M, 3) with the weighted sum of colours.

    inverse (N, 3, 3): S⁻¹ Rᵀ; half (N, 3): half extents of the box outside of which a Gaussian is left out; reach (N,):
    the squared Mahalanobis distance at which it ends. The inner loops have no branch, for vector instructions."""
    x, y, z = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    weight, total = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    red, green, blue = (
        np.empty(_BLOCK, np.float32),
        np.empty(_BLOCK, np.float32),
        np.empty(_BLOCK, np.float32),
    )
    for job in range(start, stop):
        first = job * _BLOCK
        count = min(_BLOCK, points.shape[0] - first)
        x0, y0, z0 = points[first, 0], points[first, 1], points[first, 2]
        x1, y1, z1 = x0, y0, z0
        for p in range(count):
            x[p], y[p], z[p] = points[first + p, 0], points[first + p, 1], points[first + p, 2]
            x0, x1 = min(x0, x[p]), max(x1, x[p])
            y0, y1 = min(y0, y[p]), max(y1, y[p])
            z0, z1 = min(z0, z[p]), max(z1, z[p])
            total[p] = red[p] = green[p] = blue[p] = np.float32(0.0)
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
            opacity, end = opacities[n], reach[n]
            for p in range(count):
                dx, dy, dz = x[p] - mx, y[p] - my, z[p] - mz
                u = a00 * dx + a01 * dy + a02 * dz
                v = a10 * dx + a11 * dy + a12 * dz
                w = a20 * dx + a21 * dy + a22 * dz
                distance = u * u + v * v + w * w
                root = exp_minus(np.float32(0.25) * distance)  # exp(−½ d²) is its square, see CUTOFF
                weight[p] = opacity * root * root if distance < end else np.float32(0.0)
                total[p] += weight[p]
            if with_colour:
                r, g, b = colours[n, 0], colours[n, 1], colours[n, 2]
                for p in range(count):
                    red[p] += weight[p] * r
                    green[p] += weight[p] * g
                    blue[p] += weight[p] * b
        for p in range(count):
            density[first + p] = total[p]
            if with_colour:
                colour[first + p, 0] = red[p]
                colour[first + p, 1] = green[p]
                colour[first + p, 2] = blue[p]


def squared_ends(opacities: Tensor) -> Tensor:
    """(N,) squared Mahalanobis distances at which Gaussians of opacities (N,) are taken to end, see CUTOFF."""
    return 2 * torch.log((opacities / CUTOFF).clamp(min=1.0))


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
    reach = squared_ends(o)
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
        _, nearest = KDTree(m.numpy()).query(where[outside].numpy(), workers=threads())
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
