"""The hash grid against a slow one that was written from the paper alone (arXiv 2201.05989, section 3)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rewardsds.scenes.nerf.encoding import HashGrid, encode_plain


def make(seed: int = 0, **changes) -> HashGrid:
    values = {"levels": 5, "features": 2, "log2_table": 9, "base_resolution": 3, "growth": 1.7, **changes}
    grid = HashGrid(**values, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        grid.table.mul_(1e4)  # to within ± 1
    return grid


def slow(
    point: list[float], table: np.ndarray, base: int, growth: float, levels: int, rows: int
) -> list[float]:
    """One point's encoding, vertex after vertex, with the paper's own 32-bit hash."""
    found: list[float] = []
    offset = 0
    for level in range(levels):
        cells = int(base * growth**level)
        vertices = (cells + 1) ** 3
        size = min(vertices, rows)
        value = np.zeros(table.shape[1])
        scaled = [min(max(x, 0.0), 1.0) * cells for x in point]
        low = [min(math.floor(x), cells - 1) for x in scaled]
        for step in itertools.product((0, 1), repeat=3):
            corner = [a + b for a, b in zip(low, step)]
            weight = math.prod(1 - abs(x - c) for x, c in zip(scaled, corner))
            if vertices <= rows:
                row = corner[0] + (cells + 1) * corner[1] + (cells + 1) ** 2 * corner[2]
            else:
                row = 0
                for c, prime in zip(corner, (1, 2654435761, 805459861)):
                    row ^= c * prime % 2**32
                row %= rows
            value += weight * table[offset + row]
        found += list(value)
        offset += size
    assert offset == len(table)
    return found


@given(
    points=st.lists(st.tuples(*[st.floats(-0.25, 1.25, width=32)] * 3), min_size=1, max_size=5),
    features=st.integers(1, 4),
    log2_table=st.integers(5, 12),
)
def test_values_are_those_of_the_paper(points, features: int, log2_table: int):
    grid = make(features=features, log2_table=log2_table)
    table = grid.table.detach().double().numpy()
    expected = [slow(list(point), table, 3, 1.7, 5, 2**log2_table) for point in points]
    given_points = torch.tensor(points, dtype=torch.float32)
    for found in (grid(given_points), encode_plain(given_points, grid)):
        # a finest cell is 1/25 wide: float32 places a point in it to some 1e-6
        np.testing.assert_allclose(found.detach().numpy(), expected, atol=2e-5)


def test_coarse_levels_are_dense_and_fine_ones_hashed():
    grid = make(levels=3, log2_table=9, base_resolution=4, growth=2.0)
    assert (grid.resolutions, grid.dense) == ([4, 8, 16], [True, False, False])
    assert grid.offsets == [0, 125, 125 + 512, 125 + 1024]


def test_mvdreams_grid():
    grid = HashGrid(16, 2, 19, 16, 1.447269237440378, torch.Generator())
    assert (grid.resolutions[0], grid.resolutions[-1], grid.width) == (16, 4096, 32)
    assert [bool(dense) for dense in grid.dense[:6]] == [True] * 5 + [False]
    points = torch.rand(64, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(grid(points), encode_plain(points, grid))
    assert grid.table.abs().max() <= 1e-4


def test_a_linear_function_on_the_vertices_is_interpolated_exactly():
    grid = make(levels=1, features=1, log2_table=12, base_resolution=7)
    z, y, x = torch.meshgrid(*[torch.arange(8) / 7] * 3, indexing="ij")
    with torch.no_grad():
        grid.table.copy_((1 + 2 * x - 3 * y + 5 * z).reshape(-1, 1))
    points = torch.rand(100, 3, generator=torch.Generator().manual_seed(1))
    expected = 1 + points @ torch.tensor([2.0, -3.0, 5.0])
    torch.testing.assert_close(grid(points)[:, 0], expected, atol=1e-5, rtol=1e-5)


def gradients(grid: HashGrid, points: Tensor, plain: bool, known: Tensor | None = None) -> Tensor:
    weights = torch.randn(len(points), grid.width, generator=torch.Generator().manual_seed(3))
    encoded = encode_plain(points, grid) if plain else grid(points, known)
    (found,) = torch.autograd.grad((encoded * weights).sum(), grid.table)
    return found


@pytest.mark.parametrize("features", [1, 2, 4])
def test_kernels_and_plain_version_agree_in_value_and_gradient(features: int):
    grid = make(features=features)
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(grid(points), encode_plain(points, grid), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        gradients(grid, points, False), gradients(grid, points, True), atol=1e-4, rtol=1e-4
    )


def test_known_values_are_taken_as_they_are_and_get_the_same_gradient():
    grid = make()
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(2))
    known = grid(points).detach()
    assert torch.equal(grid(points, known), known)
    assert torch.equal(gradients(grid, points, False, known), gradients(grid, points, False))


def test_the_plain_versions_gradients_are_the_slopes():
    """In double precision, of the table and of the points, once and twice."""
    grid = make(levels=2, log2_table=5, base_resolution=2).double()
    points = torch.rand(4, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    points.requires_grad_()

    def encode(points: Tensor, table: Tensor) -> Tensor:
        del grid.table
        grid.table = table  # pyright: ignore[reportAttributeAccessIssue]
        return grid(points)

    inputs = (points, grid.table.detach().clone().requires_grad_())
    assert torch.autograd.gradcheck(encode, inputs)
    assert torch.autograd.gradgradcheck(encode, inputs)


def test_equal_to_the_bit_with_any_number_of_threads():
    grid = make(levels=8, log2_table=8)
    points = torch.rand(5000, 3, generator=torch.Generator().manual_seed(5))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append((grid(points).detach(), gradients(grid, points, False)))
    finally:
        torch.set_num_threads(before)
    for values, slopes in results[1:]:
        assert torch.equal(values, results[0][0])
        assert torch.equal(slopes, results[0][1])


def test_no_points():
    grid = make()
    encoded = grid(torch.zeros(0, 3))
    assert encoded.shape == (0, grid.width)
    (slope,) = torch.autograd.grad(encoded.sum(), grid.table)
    assert not slope.any()


@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu():
    grid = make()
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(2))
    expected, slope = grid(points), gradients(grid, points, False)
    on_gpu = make().cuda()
    torch.testing.assert_close(on_gpu(points.cuda()).cpu(), expected, atol=1e-6, rtol=1e-5)
    weights = torch.randn(len(points), grid.width, generator=torch.Generator().manual_seed(3))
    (found,) = torch.autograd.grad((on_gpu(points.cuda()) * weights.cuda()).sum(), on_gpu.table)
    torch.testing.assert_close(found.cpu(), slope, atol=1e-4, rtol=1e-4)
