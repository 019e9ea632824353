"""A field that starts from a known shape: regression on points in and around it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rewardsds.scenes.nerf.field import Field
from rewardsds.scenes.object3d import RADIUS

BATCH = 8192  # points of each kind in a step
SHELL_CELLS = 64  # an axis, of the grid that a shell is drawn into


def shell(points: Tensor, cells: int = SHELL_CELLS) -> Callable[[Tensor], Tensor]:
    """A test whether points (K, 3) lie in, or next to, a cell of the cube that holds one of `points` (M, 3)."""

    def cell(of: Tensor) -> Tensor:
        index = ((of + RADIUS) * (0.5 * cells / RADIUS)).long().clamp(0, cells - 1)
        return (index[:, 0] * cells + index[:, 1]) * cells + index[:, 2]

    full = torch.zeros(cells**3, device=points.device)
    full[cell(points)] = 1
    cube = full.reshape(1, 1, cells, cells, cells)
    widened = torch.nn.functional.max_pool3d(cube, 3, stride=1, padding=1).reshape(-1) > 0
    return lambda of: widened[cell(of)]


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
    entropy, at points all over the ball and near the surface.
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
    within = inside or shell(points)
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
        chosen = torch.randint(len(points), (BATCH,), generator=generator).to(device)
        jitter = step_length * torch.randn((2, BATCH, 3), generator=generator).to(device)
        around = torch.randn((BATCH, 3), generator=generator)
        around = torch.nn.functional.normalize(around, dim=-1)
        around = RADIUS * around * torch.rand((BATCH, 1), generator=generator) ** (1 / 3)
        asked = torch.cat([around.to(device), points[chosen] + 2 * jitter[0]])
        wanted = within(asked).to(device).float()
        alpha = -torch.expm1(-field.density(asked) * step_length)
        shape = torch.nn.functional.binary_cross_entropy(alpha.clamp(1e-4, 1 - 1e-4), wanted)
        seen = field.colour(points[chosen] + 0.5 * jitter[1])
        loss = shape + (seen - colours[chosen]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        alpha = -torch.expm1(-field.density(points[:BATCH]) * step_length)
    if not bool(alpha.isfinite().all()) or float(alpha.max()) < 0.1:
        raise ValueError(
            "the shape that was given left the NeRF empty: its surface encloses nothing that could be seen"
        )
