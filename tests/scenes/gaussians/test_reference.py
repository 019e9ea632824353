"""The plain rasteriser against numbers worked out by hand and against finite differences."""

import math

import pytest
import torch
from torch import Tensor

from rewardsds.scenes.gaussians.reference import quaternion_to_matrix, rasterization

IDENTITY = torch.eye(4)[None]
K = torch.tensor([[[10.0, 0.0, 4.0], [0.0, 10.0, 4.0], [0.0, 0.0, 1.0]]])  # focal 10 px, centre (4, 4)


def test_quaternion_of_a_quarter_turn_about_z():
    half = math.sqrt(0.5)
    matrix = quaternion_to_matrix(torch.tensor([[3 * half, 0.0, 0.0, 3 * half]]))  # norm 3
    torch.testing.assert_close(
        matrix[0], torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), atol=1e-6, rtol=0
    )


def test_pixel_of_one_gaussian_by_hand():
    """At depth 2 a focal length of 10 makes 5 px per unit: σ = 0.2 is 1 px, variance 1 + 0.3 of blur."""
    renders, alphas, info = rasterization(
        torch.tensor([[0.1, -0.1, 2.0]]),  # → pixel (4.5, 3.5), the centre of column 4, row 3
        torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        torch.tensor([[0.2, 0.2, 1e-6]]),
        torch.tensor([0.5]),
        torch.tensor([[1.0, 0.5, 0.25]]),
        IDENTITY,
        K,
        8,
        8,
        backgrounds=torch.tensor([[0.0, 0.0, 1.0]]),
        render_mode="RGB+D",
    )
    torch.testing.assert_close(info["means2d"][0, 0], torch.tensor([4.5, 3.5]))
    # J also carries the depth term −f x / z² = ∓0.25, harmless here because the Gaussian is flat
    torch.testing.assert_close(info["conics"][0, 0], torch.tensor([1 / 1.3, 0.0, 1 / 1.3]), atol=1e-6, rtol=0)
    assert alphas[0, 3, 4, 0].item() == pytest.approx(0.5, abs=1e-6)
    two_right = 0.5 * math.exp(-0.5 * 4 / 1.3)
    diagonal = 0.5 * math.exp(-0.5 * 2 / 1.3)
    assert alphas[0, 3, 6, 0].item() == pytest.approx(two_right, abs=1e-6)
    assert alphas[0, 2, 5, 0].item() == pytest.approx(diagonal, abs=1e-6)
    expected = [two_right, 0.5 * two_right, 0.25 * two_right + (1 - two_right), 2 * two_right]
    assert renders[0, 3, 6].tolist() == pytest.approx(expected, abs=1e-6)
    assert info["radii"][0, 0].tolist() == [math.ceil(math.sqrt(2 * math.log(127.5) * 1.3))] * 2


def test_two_gaussians_composite_nearest_first():
    means = torch.tensor([[0.2, 0.2, 4.0], [0.1, 0.1, 2.0]])  # both on pixel (4, 4), the second is nearer
    renders, alphas, _ = rasterization(
        means,
        torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 2),
        torch.full((2, 3), 0.2),
        torch.tensor([0.6, 0.3]),
        torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
        IDENTITY,
        K,
        8,
        8,
        render_mode="RGB+ED",
    )
    green, red = 0.3, 0.7 * 0.6
    assert alphas[0, 4, 4, 0].item() == pytest.approx(1 - 0.7 * 0.4, abs=1e-6)
    depth = (green * 2 + red * 4) / (green + red)
    assert renders[0, 4, 4].tolist() == pytest.approx([red, green, 0.0, depth], abs=1e-5)


def test_gradient_against_finite_differences(random_scene):
    """Smooth parts only: every alpha lies above 1/255 and below 0.999, and no pixel finishes early."""
    scene = random_scene(3, seed=4, views=2, ball=0.2, scale=0.6, opacity=(0.3, 0.6)).copy(torch.float64)

    def render(*parameters: Tensor):
        renders, alphas, _ = rasterization(
            *parameters, viewmats=scene.viewmats, Ks=scene.Ks * 0.1, width=4, height=4, render_mode="RGB+D"
        )
        return renders, alphas

    with torch.no_grad():
        _, alphas = render(*scene.parameters)
        assert alphas.min() > 3 / 255
    assert torch.autograd.gradcheck(render, scene.parameters, eps=1e-6, atol=1e-5)
