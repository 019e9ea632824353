"""Density and colour in space against the plain sum over all Gaussians."""

from __future__ import annotations

import math

import pytest
import torch
from gaussian_steps import generator, make
from torch import Tensor

from rewardsds.scenes.gaussians.field import CUTOFF, evaluate
from rewardsds.scenes.gaussians.reference import quaternion_to_matrix

Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def some_gaussians(count: int, seed: int = 0) -> Five:
    g = generator(seed)
    return (
        0.5 * torch.randn(count, 3, generator=g),
        torch.randn(count, 4, generator=g),
        0.06 * torch.exp(0.7 * torch.randn(count, 3, generator=g)),
        torch.rand(count, generator=g),
        torch.rand(count, 3, generator=g),
    )


def plain(points: Tensor, gaussians: Five) -> tuple[Tensor, Tensor]:
    """All Gaussians at all points, in double precision."""
    means, quats, scales, opacities, colours = (x.double() for x in gaussians)
    rotation = quaternion_to_matrix(quats)
    covariance = rotation @ torch.diag_embed(scales**2) @ rotation.transpose(1, 2)
    delta = points.double()[:, None] - means
    distance = (delta * torch.linalg.solve(covariance, delta[..., None]).squeeze(-1)).sum(-1)
    weights = opacities * torch.exp(-0.5 * distance)
    density = weights.sum(-1)
    return density, weights @ colours / density[:, None].clamp(min=1e-300)


@pytest.mark.parametrize("count", [1, 300])
def test_it_is_the_plain_sum_up_to_the_stated_tolerance(count: int) -> None:
    gaussians = some_gaussians(count)
    points = 1.2 * (2 * torch.rand(3000, 3, generator=generator(1)) - 1)
    density, colour = evaluate(points, *gaussians)
    expected, expected_colour = plain(points, gaussians)
    assert ((density - expected).abs() <= count * CUTOFF + 1e-5 * expected).all()
    assert density.max() > 0.1
    dense = expected > 0.01
    torch.testing.assert_close(colour[dense], expected_colour[dense].float(), atol=0.02, rtol=0)


def test_one_gaussian_by_hand() -> None:
    """Standard deviations 0.1, 0.2, 0.3, turned by 90° about z; a point one deviation away along each axis."""
    half = math.sqrt(0.5)
    density, colour = evaluate(
        torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.0, 0.0], [0.0, 0.1, 0.0], [0.2, 0.1, 0.3]]),
        torch.zeros(1, 3),
        torch.tensor([[half, 0.0, 0.0, half]]),
        torch.tensor([[0.1, 0.2, 0.3]]),
        torch.tensor([0.8]),
        torch.tensor([[0.1, 0.5, 0.9]]),
    )
    expected = 0.8 * torch.exp(-0.5 * torch.tensor([0.0, 1.0, 1.0, 3.0]))
    torch.testing.assert_close(density, expected)
    torch.testing.assert_close(colour, torch.tensor([0.1, 0.5, 0.9]).expand(4, 3))


def test_points_are_told_in_their_own_order_and_by_themselves() -> None:
    gaussians = some_gaussians(200)
    points = 2 * torch.rand(2000, 3, generator=generator(1)) - 1
    density, colour = evaluate(points, *gaussians)
    some = torch.randperm(2000, generator=generator(2))[:50]
    alone, alone_colour = evaluate(points[some], *gaussians)
    torch.testing.assert_close(alone, density[some])
    torch.testing.assert_close(alone_colour, colour[some])
    only, empty = evaluate(points, *gaussians, with_colour=False)
    assert torch.equal(only, density)
    assert empty.shape == (0, 3)


def test_same_bits_with_any_number_of_threads() -> None:
    gaussians = some_gaussians(300)
    points = 2 * torch.rand(5000, 3, generator=generator(1)) - 1
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(evaluate(points, *gaussians))
    finally:
        torch.set_num_threads(before)
    for density, colour in results[1:]:
        assert torch.equal(density, results[0][0])
        assert torch.equal(colour, results[0][1])


def test_far_from_everything_the_nearest_colour_counts() -> None:
    gaussians = (
        torch.tensor([[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0]]),
        torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(2, 1),
        torch.full((2, 3), 0.01),
        torch.full((2,), 0.9),
        torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    )
    density, colour = evaluate(torch.tensor([[-0.9, 0.0, 0.3], [0.1, 0.0, 0.0]]), *gaussians)
    assert density.tolist() == [0.0, 0.0]
    assert colour.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def test_no_points_one_point_and_points_of_one_place() -> None:
    gaussians = some_gaussians(20)
    density, colour = evaluate(torch.zeros(0, 3), *gaussians)
    assert density.shape == (0,)
    assert colour.shape == (0, 3)
    once, _ = evaluate(torch.zeros(1, 3), *gaussians)
    often, _ = evaluate(torch.zeros(700, 3), *gaussians)
    torch.testing.assert_close(often, once.expand(700))
    with pytest.raises(ValueError, match=r"\(M, 3\)"):
        evaluate(torch.zeros(3), *gaussians)


def test_a_scene_tells_its_density_and_its_mean_colour() -> None:
    scene = make(sh_degree=1, sh_degree_every=0, initial_opacity=0.4)
    with torch.no_grad():
        scene.harmonics.normal_(generator=generator(3))  # adds nothing to the mean over directions
    g = scene.gaussians()
    points = 0.3 * torch.randn(100, 3, generator=generator(4))
    expected, expected_colour = plain(
        points,
        (g.means.detach(), g.quats.detach(), g.scales.detach(), g.opacities.detach(), g.colours.detach()),
    )
    torch.testing.assert_close(scene.density(points).double(), expected, atol=200 * CUTOFF, rtol=1e-5)
    dense = expected > 0.1
    assert dense.any()
    torch.testing.assert_close(
        scene.colour(points).double()[dense], expected_colour[dense], atol=1e-3, rtol=0
    )
    assert not scene.density(points).requires_grad


def test_an_exploded_scene_is_said_to_be_one() -> None:
    scene = make()
    with torch.no_grad():
        scene.means[3, 0] = math.nan
        scene.opacity_logits[5] = math.nan
    with pytest.raises(ValueError, match="exploded: 2 of its 200 Gaussians"):
        scene.density(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="exploded"):
        scene.colour(torch.zeros(1, 3))
