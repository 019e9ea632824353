"""A field that starts from a known shape: regression on points in and around it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import KDTree
from torch import Tensor

from rewardsds.scenes.nerf.field import Field
from rewardsds.scenes.object3d import RADIUS
from rewardsds.scenes.parallel import threads

BATCH = 8192  # points of each kind in a step
POOL = 2**19  # points of each kind that are told apart beforehand, at most
CELLS = 128  # an axis, of the grid that a cloud is closed in
CLOSING = 1.75  # radius of what cannot pass between a cloud's points, in distances to their third neighbours
NEIGHBOURS = 3


def enclosed(points: Tensor) -> Callable[[Tensor], Tensor]:
    """A test whether points (K, 3) lie in what a cloud (M, 3) encloses: where no ball can get to from outside.

    The ball has a radius that just does not pass between neighbours (a morphological closing). Sheets enclose nothing.
    """
    reach = max(CLOSING * spacing(points), 2.0 * RADIUS / CELLS)
    margin = math.ceil(reach * CELLS / (2 * RADIUS)) + 2
    cell = 2 * RADIUS / CELLS
    count = CELLS + 2 * margin
    tree = KDTree(points.double().cpu().numpy())
    axis = (np.arange(count) + 0.5 - margin) * cell - RADIUS
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    far = (
        tree.query(grid, distance_upper_bound=reach, workers=threads())[0].reshape(count, count, count)
        > reach
    )
    labels = np.empty(far.shape, dtype=np.int32)
    ndimage.label(far, output=labels)
    enclosing = labels != labels[0, 0, 0]  # a corner of the grid is outside, and what is connected to it
    # distances are those to the middle of a cell, of which the border is on average a quarter nearer
    depth = cell * (np.asarray(ndimage.distance_transform_edt(enclosing)) - 0.25) - reach

    def within(of: Tensor) -> Tensor:
        places = ((of.double().cpu().numpy() + RADIUS) / cell - 0.5 + margin).T
        return torch.from_numpy(ndimage.map_coordinates(depth, places, order=1) > 0).to(of.device)

    return within


def spacing(points: Tensor) -> float:
    """The distance within which nearly all points (M, 3) have a third neighbour at another place."""
    places = np.unique(points.double().cpu().numpy(), axis=0)
    neighbours = min(NEIGHBOURS, len(places) - 1)
    if neighbours == 0:
        return 0.0
    distances, _ = KDTree(places).query(places, k=neighbours + 1, workers=threads())
    return float(np.quantile(distances[:, -1], 0.95))


def told_apart(
    points: Tensor, inside: Callable[[Tensor], Tensor] | None, step_length: float
) -> Callable[[Tensor], Tensor]:
    """A test whether points (K, 3) lie in a shape of which points (M, 3) of the surface are known.

    That is inside, and next to those parts of the surface beside which nothing is inside: a sheet is as thick as a
    sample is long, or as its points need to touch each other.
    """
    within = inside or enclosed(points)
    corners = torch.tensor([[x, y, z] for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)])
    offsets = 0.5 * step_length * torch.nn.functional.normalize(corners.to(points), dim=-1)
    sheet = torch.ones(len(points), dtype=torch.bool, device=points.device)
    for offset in offsets:
        left = sheet.nonzero()[:, 0]
        sheet[left] = ~within(points[left] + offset).to(points.device)
    if not bool(sheet.any()):
        return within
    tree = KDTree(points[sheet].double().cpu().numpy())
    half = 0.5 * max(step_length, spacing(points))

    def test(of: Tensor) -> Tensor:
        near = tree.query(of.double().cpu().numpy(), distance_upper_bound=half, workers=threads())[0] <= half
        return within(of).to(of.device) | torch.from_numpy(near).to(of.device)

    return test


def fit_shape(
    field: Field,
    points: Tensor,
    colours: Tensor,
    inside: Callable[[Tensor], Tensor] | None,
    generator: torch.Generator,
    steps: int,
    step_length: float,
) -> None:
    """Makes the field opaque inside a shape and empty outside, with its colours at the surface.

    Arguments as of `NeRFScene.start_from`. What is compared is the alpha of a sample of `step_length`, by its cross
    entropy, at points all over the ball and near the surface; near the surface each has the colour of the nearest of
    `points`, on both sides of it, since what is seen of a soft surface lies in front of it.
    """
    device = field.grid.table.device
    points, colours = points.to(device, torch.float32), colours.to(device, torch.float32)
    if points.ndim != 2 or points.shape[1:] != (3,) or points.shape != colours.shape or not len(points):
        raise ValueError(
            f"a shape is given as points (M, 3) with colours (M, 3), got {tuple(points.shape)} and "
            f"{tuple(colours.shape)}"
        )
    if not bool(points.isfinite().all() and colours.isfinite().all()):
        raise ValueError("the points of a shape, or their colours, are NaN or infinite")
    if bool((points.norm(dim=-1) > RADIUS * 1.001).any()):
        raise ValueError(
            f"the points of a shape must lie in the ball of radius {RADIUS:g}: scale it to fit, the farthest is at "
            f"{float(points.norm(dim=-1).max()):.3g}"
        )
    if steps < 1:
        raise ValueError(f"fitting a shape takes at least one step, got {steps}")
    within = told_apart(points, inside, step_length)
    pool = min(POOL, steps * BATCH)
    chosen = torch.randint(len(points), (pool,), generator=generator).to(device)
    spread = torch.tensor([0.5, 2.0]).repeat(pool // 2)[:, None]  # at the surface, and on both sides of it
    jitter = step_length * spread * torch.randn((pool, 3), generator=generator)
    near = points[chosen] + jitter.to(device)
    around = torch.nn.functional.normalize(torch.randn((pool, 3), generator=generator), dim=-1)
    around = (RADIUS * around * torch.rand((pool, 1), generator=generator) ** (1 / 3)).to(device)
    full = [torch.cat([within(part) for part in of.split(2**17)]).to(device).float() for of in (near, around)]
    _, nearest = KDTree(points.cpu().numpy()).query(near.cpu().numpy(), workers=threads())
    painted = colours[torch.from_numpy(nearest).to(device)]
    s = field.settings
    networks = [*field.density_network.parameters(), *field.colour_network.parameters()]
    optimizer = torch.optim.Adam(
        [
            {"params": [field.grid.table], "lr": 0.02},
            {"params": networks, "lr": 0.005},
        ],
        betas=(0.9, 0.99),
        eps=s.epsilon,
    )
    for _ in range(steps):
        here, there = torch.randint(pool, (2, BATCH), generator=generator).to(device)
        asked = torch.cat([near[here], around[there]])
        encoded = field.encode(asked)
        wanted = torch.cat([full[0][here], full[1][there]])
        alpha = -torch.expm1(-field.density(asked, encoded) * step_length)
        shape = torch.nn.functional.binary_cross_entropy(alpha.clamp(1e-4, 1 - 1e-4), wanted)
        seen = field.colour(near[here], encoded[:BATCH])
        loss = shape + (seen - painted[here]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        alpha = -torch.expm1(-field.density(points[:BATCH]) * step_length)
    if not bool(alpha.isfinite().all()) or float(alpha.max()) < 0.1:
        raise ValueError(
            "the shape that was given left the NeRF empty: its surface encloses nothing that could be seen"
        )
