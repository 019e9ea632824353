"""The multi-resolution hash grid: trainable features at the vertices of ever finer grids (arXiv 2201.05989)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import Module, Parameter

from rewardsds.scenes.nerf import numba_kernels as kernels
from rewardsds.scenes.parallel import run_jobs

PRIMES = (1, 2_654_435_761, 805_459_861)  # arXiv 2201.05989, equation 4
INITIAL_FEATURE = 1e-4  # features start uniformly within ± this (arXiv 2201.05989, section 4)


class HashGrid(Module):
    """L levels of F features; level l has ⌊base · growthˡ⌋ cells along an axis (arXiv 2201.05989, equation 2).

    A level whose vertices fit into 2^log2_table rows has one row for each of them, a finer one shares rows by hashing.

    table: (rows, F), the levels one behind the other.
    """

    table: Parameter

    def __init__(
        self,
        levels: int,
        features: int,
        log2_table: int,
        base_resolution: int,
        growth: float,
        generator: torch.Generator,
    ) -> None:
        """generator: a CPU generator that the features are drawn from."""
        super().__init__()
        most = 2**log2_table
        # a whole number that the power misses by rounding (16 · 2^⅓ cubed) is meant to be whole
        self.resolutions = [math.floor(base_resolution * growth**level + 1e-6) for level in range(levels)]
        self.dense = [(cells + 1) ** 3 <= most for cells in self.resolutions]
        self.offsets = [0]
        for cells, dense in zip(self.resolutions, self.dense):
            self.offsets.append(self.offsets[-1] + ((cells + 1) ** 3 if dense else most))
        self.features = features
        start = 2 * torch.rand((self.offsets[-1], features), generator=generator) - 1
        self.table = Parameter(INITIAL_FEATURE * start)

    @property
    def width(self) -> int:
        """L · F, the length of an encoding."""
        return len(self.resolutions) * self.features

    def layout(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """resolutions (L,), offsets (L + 1,) and dense (L,), as the kernels take them."""
        return np.array(self.resolutions), np.array(self.offsets), np.array(self.dense)

    def forward(self, points: Tensor, known: Tensor | None = None) -> Tensor:
        """(M, L · F) of points (M, 3) in [0, 1]; points outside count as on the border.

        known: the result, where it was computed before without gradient, and only that is wanted now. Carries gradient
        to the table, and to points that require it (by the plain version, which is slower).
        """
        if points.requires_grad or self.table.dtype != torch.float32:
            return encode_plain(points, self)
        encoded = _Encode.apply(points, self.table, self, known)
        assert isinstance(encoded, Tensor)
        return encoded


def corners(points: Tensor, grid: HashGrid, level: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Of the eight corners of each point's cell: the row in the table (M,), and its trilinear weight (M,)."""
    cells, size = grid.resolutions[level], grid.offsets[level + 1] - grid.offsets[level]
    scaled = points.clamp(0, 1) * cells
    cell = scaled.detach().floor().clamp(max=cells - 1)
    inside = scaled - cell
    low = cell.long()
    for corner in range(8):
        step = [corner & 1, corner >> 1 & 1, corner >> 2 & 1]
        x, y, z = (low[:, axis] + step[axis] for axis in range(3))
        if grid.dense[level]:
            row = x + (cells + 1) * (y + (cells + 1) * z)
        else:
            row = (x ^ (y * PRIMES[1]) ^ (z * PRIMES[2])) & (size - 1)
        weight = torch.stack(
            [inside[:, axis] if step[axis] else 1 - inside[:, axis] for axis in range(3)]
        ).prod(0)
        yield grid.offsets[level] + row, weight


def encode_plain(points: Tensor, grid: HashGrid) -> Tensor:
    """As `HashGrid.forward`, in plain torch on any device and in any precision; differentiable twice."""
    levels = []
    for level in range(len(grid.resolutions)):
        parts = [grid.table[row] * weight[:, None] for row, weight in corners(points, grid, level)]
        levels.append(torch.stack(parts).sum(0))
    return torch.cat(levels, dim=-1)


class _Encode(Function):
    """(points, table) → encodings. Neither pass keeps the eight rows and weights of each point and level."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, grid: HashGrid, known: Tensor | None) -> Tensor:
        ctx.save_for_backward(points)
        ctx.grid = grid
        if known is not None:
            return known.clone()
        if table.device.type != "cpu":
            return encode_plain(points, grid)  # autograd records nothing in here
        encoded = torch.empty(len(points), grid.width)
        arrays = points.contiguous().numpy(), table.detach().numpy()
        run_jobs(kernels.encode_forward, len(points), *arrays, *grid.layout(), encoded.numpy())
        return encoded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (g_encoded,) = gradients
        (points,) = ctx.saved_tensors
        grid: HashGrid = ctx.grid
        g_table = torch.zeros_like(grid.table)
        if g_table.device.type == "cpu":
            arrays = points.contiguous().numpy(), g_encoded.contiguous().numpy()
            run_jobs(kernels.encode_backward, len(grid.resolutions), *arrays, *grid.layout(), g_table.numpy())
            return None, g_table, None, None
        for level, g_level in enumerate(g_encoded.split(grid.features, dim=-1)):
            for row, weight in corners(points, grid, level):
                g_table.index_add_(0, row, g_level * weight[:, None])
        return None, g_table, None, None
