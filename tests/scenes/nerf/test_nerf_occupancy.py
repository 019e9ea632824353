"""The occupancy grid: which cells it takes for empty, and that skipping them changes no picture."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rewardsds.errors import NotFiniteError
from rewardsds.scenes.nerf.occupancy import OccupancyGrid


def ball(radius: float, density: float = 50.0):
    return lambda points: density * (points.norm(dim=-1) < radius).float()


def make(resolution: int = 16, decay: float = 0.5, threshold: float = 0.01) -> OccupancyGrid:
    return OccupancyGrid(resolution, decay, threshold)


def middles(resolution: int) -> Tensor:
    axis = (torch.arange(resolution) + 0.5) * 2 / resolution - 1
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)


def test_a_ball_occupies_its_cells_and_their_neighbours():
    grid = make()
    grid.update(ball(0.5), 0.05)
    expected = torch.zeros(18, 18, 18, dtype=torch.bool)
    core = middles(16).norm(dim=-1) < 0.5
    for x in range(3):
        for y in range(3):
            for z in range(3):
                expected[x : x + 16, y : y + 16, z : z + 16] |= core
    assert torch.equal(grid.occupied, expected[1:-1, 1:-1, 1:-1])
    assert 0 < int(grid.occupied.sum()) < 16**3


def test_x_comes_first():
    grid = make(resolution=4)
    grid.update(lambda points: 50 * (points[:, 0] > 0.5).float() * (points.norm(dim=-1) < 0.9), 0.05)
    assert grid.values[3].any()
    assert not grid.values[:3].any()


def test_old_densities_fade():
    grid = make(decay=0.5)
    grid.update(ball(0.5, 40.0), 0.05)
    grid.update(ball(0.5, 30.0), 0.05)
    assert grid.values.max().item() == 30
    grid.update(ball(0.2, 1.0), 0.05)
    assert grid.values.max().item() == 15
    grid.update(ball(0.2, 1.0), 0.05, fresh=True)
    assert grid.values.max().item() == 1


@pytest.mark.parametrize("factor, seen", [(0.98, False), (1.02, True)])
def test_the_threshold_is_an_alpha(factor: float, seen: bool):
    """Beside something opaque, a cell counts where a sample's alpha exceeds the threshold."""
    limit = -math.log(1 - 0.01) / 0.05
    grid = make(threshold=0.01)

    def density(points: Tensor) -> Tensor:
        return torch.where(points[:, 0] < -0.2, 100.0, torch.where(points[:, 0] > 0.3, factor * limit, 0.0))

    grid.update(density, 0.05)
    assert bool(grid.occupied[-3, 8, 8]) == seen


def test_thin_fog_is_seen():
    grid = make()
    grid.update(lambda points: torch.full((len(points),), 1e-4), 0.05)
    assert grid.occupied[8, 8].any()


def test_random_points_find_what_middles_miss():
    grid = make(resolution=4, decay=1.0)
    thin = lambda points: 50.0 * (points[:, 2].abs() < 0.06).float() + 1e-9  # noqa: E731
    grid.update(thin, 0.05)
    assert grid.values.max() < 1
    g = torch.Generator().manual_seed(0)
    for _ in range(10):
        grid.update(thin, 0.05, g)
    assert grid.values.max() > 1
    again = make(resolution=4, decay=1.0)
    again.update(thin, 0.05)
    g = torch.Generator().manual_seed(0)
    for _ in range(10):
        again.update(thin, 0.05, g)
    assert torch.equal(again.values, grid.values)


def test_nothing_at_all_is_told():
    with pytest.raises(ValueError, match="has become empty"):
        make().update(lambda points: torch.zeros(len(points)), 0.05)


def test_an_exploded_field_is_told():
    with pytest.raises(NotFiniteError, match="NaN or infinite"):
        make().update(lambda points: torch.full((len(points),), math.nan), 0.05)
