"""Volume rendering against integrals that are known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rewardsds.scenes.nerf.volume import (
    accumulate,
    intersect_ball,
    look_up,
    render_weights,
    sample_rays,
    sample_rays_plain,
)

EVERYWHERE = torch.ones(4, 4, 4, dtype=torch.bool)


def random_rays(count: int, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    origins = 3 * torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1)
    targets = 1.5 * (2 * torch.rand(count, 3, generator=g) - 1)
    return origins, torch.nn.functional.normalize(targets - origins, dim=-1), torch.rand(count, generator=g)


def test_weights_by_hand():
    """Densities ln 2 halve the light; a second ray begins anew; the ray in between has no samples."""
    ray = torch.tensor([0, 0, 0, 2, 2])
    density = math.log(2) * torch.tensor([1.0, 1.0, 1.0, 2.0, 1.0])
    weights, transmittance = render_weights(density, 1.0, ray, 3)
    torch.testing.assert_close(transmittance, torch.tensor([1, 0.5, 0.25, 1, 0.25]))
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.25, 0.125, 0.75, 0.125]))
    torch.testing.assert_close(accumulate(weights, None, ray, 3), torch.tensor([0.875, 0, 0.875]))
    values = torch.tensor([[1.0, 0], [2, 0], [4, 0], [1, 1], [0, 8]])
    expected = torch.tensor([[1.5, 0], [0, 0], [0.75, 1.75]])
    torch.testing.assert_close(accumulate(weights, values, ray, 3), expected)


@given(
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
    step=st.floats(0.01, 2),
)
def test_weights_are_the_products_ray_by_ray(counts: list[int], seed: int, step: float):
    ray = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    density = 5 * torch.rand(len(ray), generator=torch.Generator().manual_seed(seed))
    weights, _ = render_weights(density, step, ray, len(counts))
    for index in range(len(counts)):
        alpha = 1 - torch.exp(-density[ray == index] * step)
        light = torch.cat([torch.ones(1), torch.cumprod(1 - alpha, 0)])[: len(alpha)]
        torch.testing.assert_close(weights[ray == index], light * alpha, atol=1e-6, rtol=1e-4)


def test_weights_behind_opaque_rays_are_exact():
    """The running sum over all rays grows to 1e9 here; float32 would lose the last ray's in it."""
    density = torch.cat([torch.full((1000,), 1e6), torch.tensor([0.1])])
    ray = torch.cat([torch.zeros(1000, dtype=torch.long), torch.ones(1, dtype=torch.long)])
    weights, _ = render_weights(density, 1.0, ray, 2)
    assert weights[-1].item() == pytest.approx(1 - math.exp(-0.1), rel=1e-5)


def test_gradients_of_weights():
    ray = torch.tensor([0, 0, 0, 1, 1, 3])
    density = torch.rand(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda d: render_weights(d, 0.3, ray, 4)[0], density)


def test_rays_and_the_ball():
    origins = torch.tensor([[3.0, 0, 0], [3, 0.6, 0], [3, 2, 0], [0, 0, 0], [-3, 0, 0]])
    directions = torch.tensor([[-1.0, 0, 0]] * 5)
    near, far = intersect_ball(origins, directions)
    torch.testing.assert_close(near, torch.tensor([2, 2.2, 3, 0, 0]))
    torch.testing.assert_close(far, torch.tensor([4, 3.8, 3, 1, 0]))


def test_alpha_and_depth_of_a_homogeneous_ball():
    """alpha = 1 − exp(−σ chord), and the mean distance of the light is that of a cut-off exponential."""
    origins, directions, _ = random_rays(400)
    sigma, step = 2.0, 0.002
    shift = torch.full((400,), 0.5)
    samples = sample_rays(origins, directions, step, shift, EVERYWHERE)
    weights, _ = render_weights(torch.full((len(samples),), sigma), step, samples.ray, 400)
    alpha = accumulate(weights, None, samples.ray, 400)
    near, far = intersect_ball(origins, directions)
    chord = far - near
    torch.testing.assert_close(alpha, 1 - torch.exp(-sigma * chord), atol=3e-3, rtol=0)
    seen = chord > 0.1
    assert 100 < int(seen.sum()) < 400
    distance = accumulate(weights, samples.distance[:, None], samples.ray, 400)[:, 0]
    expected = 1 / sigma - chord / torch.expm1(sigma * chord)  # of exp(−σ s) on [0, chord]
    torch.testing.assert_close((distance / alpha - near)[seen], expected[seen], atol=3e-3, rtol=0)


def test_density_that_varies_along_the_ray():
    """Through the middle, density 3 |x|² gives an optical depth of 3 · 2/3."""
    origins, directions = torch.tensor([[0.0, 0, 5]]), torch.tensor([[0.0, 0, -1]])
    samples = sample_rays(origins, directions, 0.01, torch.tensor([0.5]), EVERYWHERE)
    density = 3 * samples.points.square().sum(-1)
    weights, _ = render_weights(density, 0.01, samples.ray, 1)
    assert weights.sum().item() == pytest.approx(1 - math.exp(-2), abs=1e-4)


@pytest.mark.parametrize("at_once", [64, 2**21])
def test_kernel_and_plain_version_find_the_same_samples(at_once: int):
    origins, directions, shift = random_rays(500, 1)
    occupied = torch.rand((8, 8, 8), generator=torch.Generator().manual_seed(2)) < 0.4
    fast = sample_rays(origins, directions, 0.05, shift, occupied)
    plain = sample_rays_plain(origins, directions, 0.05, shift, occupied, at_once)

    def bins(samples) -> set[tuple[int, int]]:
        near, _ = intersect_ball(origins, directions)
        place = ((samples.distance - near[samples.ray]) / 0.05 - shift[samples.ray]).round().long()
        return set(zip(samples.ray.tolist(), place.tolist()))

    both = bins(fast) & bins(plain)
    # samples on the border of two cells may fall on either side of it
    assert len(both) > 2000
    assert max(len(fast), len(plain)) - len(both) <= 3
    assert (fast.ray.diff() >= 0).all()
    torch.testing.assert_close(fast.points, origins[fast.ray] + fast.distance[:, None] * directions[fast.ray])


def test_samples_lie_in_the_ball_in_occupied_cells_and_in_their_bins():
    origins, directions, shift = random_rays(300, 3)
    occupied = torch.rand((8, 8, 8), generator=torch.Generator().manual_seed(4)) < 0.4
    samples = sample_rays(origins, directions, 0.05, shift, occupied)
    assert (samples.points.norm(dim=-1) < 1 + 1e-4).all()
    inside = samples.points * (1 - 1e-6)
    assert look_up(occupied, inside).float().mean() > 0.999
    near, _ = intersect_ball(origins, directions)
    bins = (samples.distance - near[samples.ray]) / 0.05
    torch.testing.assert_close(bins - bins.floor(), shift[samples.ray], atol=1e-4, rtol=0)


def test_what_is_looked_up_is_the_cell():
    occupied = torch.zeros(2, 2, 2, dtype=torch.bool)
    occupied[1, 0, 1] = True
    points = torch.tensor([[0.5, -0.5, 0.5], [-0.5, -0.5, 0.5], [0.5, 0.5, 0.5], [1.0, -1.0, 1.0]])
    assert look_up(occupied, points).tolist() == [True, False, False, True]


def test_rays_that_miss():
    samples = sample_rays(
        torch.tensor([[3.0, 0, 0]]), torch.tensor([[1.0, 0, 0]]), 0.1, torch.zeros(1), EVERYWHERE
    )
    assert len(samples) == 0
    weights, _ = render_weights(torch.zeros(0), 0.1, samples.ray, 1)
    assert accumulate(weights, torch.zeros(0, 3), samples.ray, 1).tolist() == [[0, 0, 0]]
