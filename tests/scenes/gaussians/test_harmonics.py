"""Spherical harmonics against closed forms, scipy's, gsplat's, and what characterises them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gaussian_steps import generator, images_of, make, step
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import eval_legendre, sph_harm_y
from torch import Tensor

from rewardsds.runs.loop import make_optimizer
from rewardsds.scenes.cameras import orbit
from rewardsds.scenes.gaussians.harmonics import (
    C0,
    basis,
    count,
    degree_of,
    directions_of_view,
    view_colours,
)

angles = st.tuples(st.floats(0, math.pi), st.floats(0, 2 * math.pi))


def unit(theta: float, phi: float) -> list[float]:
    return [math.sin(theta) * math.cos(phi), math.sin(theta) * math.sin(phi), math.cos(theta)]


def random_directions(number: int) -> Tensor:
    g = generator(5)
    return torch.nn.functional.normalize(torch.randn(number, 3, generator=g, dtype=torch.float64), dim=-1)


@given(angles)
def test_they_are_the_real_and_imaginary_parts_of_scipys(direction: tuple[float, float]) -> None:
    theta, phi = direction
    expected = []
    for degree in (1, 2, 3):
        for order in range(-degree, degree + 1):
            value = sph_harm_y(degree, abs(order), theta, phi)
            part = value.imag if order < 0 else value.real
            expected.append(part if order == 0 else math.sqrt(2) * part)
    found = basis(torch.tensor(unit(theta, phi), dtype=torch.float64), 3)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_the_constants_are_those_of_3dgs() -> None:
    """At (2, 3, 6)/7, with the constants that 3DGS and its viewers print."""
    x, y, z = 2 / 7, 3 / 7, 6 / 7
    expected = [
        -0.4886025119029199 * y,
        0.4886025119029199 * z,
        -0.4886025119029199 * x,
        1.0925484305920792 * x * y,
        -1.0925484305920792 * y * z,
        0.31539156525252005 * (2 * z * z - x * x - y * y),
        -1.0925484305920792 * x * z,
        0.5462742152960396 * (x * x - y * y),
        -0.5900435899266435 * y * (3 * x * x - y * y),
        2.890611442640554 * x * y * z,
        -0.4570457994644658 * y * (4 * z * z - x * x - y * y),
        0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y),
        -0.4570457994644658 * x * (4 * z * z - x * x - y * y),
        1.445305721320277 * z * (x * x - y * y),
        -0.5900435899266435 * x * (x * x - 3 * y * y),
    ]
    found = basis(torch.tensor([x, y, z], dtype=torch.float64), 3)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert pytest.approx(0.28209479177387814) == C0


def test_they_are_orthonormal_and_have_no_mean() -> None:
    """Integrated over the sphere by a rule that is exact for polynomials of degree 7."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    phi = np.arange(16) * 2 * math.pi / 16
    z, azimuth = np.meshgrid(nodes, phi, indexing="ij")
    radius = np.sqrt(1 - z**2)
    points = torch.from_numpy(
        np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], -1).reshape(-1, 3)
    )
    area = torch.from_numpy(np.repeat(weights, 16) * 2 * math.pi / 16)
    values = basis(points, 3)  # P 15
    torch.testing.assert_close((values.T * area) @ values, torch.eye(15, dtype=torch.float64))
    torch.testing.assert_close(area @ values, torch.zeros(15, dtype=torch.float64))


@given(angles, angles)
def test_addition_theorem(first: tuple[float, float], second: tuple[float, float]) -> None:
    """Σ over orders of Y(a) Y(b) depends on the angle between a and b alone: rotations keep each degree to itself."""
    a, b = (torch.tensor(unit(*angle), dtype=torch.float64) for angle in (first, second))
    products = basis(a, 3) * basis(b, 3)
    cosine = float((a * b).sum())
    for degree in (1, 2, 3):
        found = float(products[count(degree - 1) : count(degree)].sum())
        expected = (2 * degree + 1) / (4 * math.pi) * eval_legendre(degree, cosine)
        assert found == pytest.approx(expected, abs=1e-12)


def test_rotated_functions_are_combinations_of_the_same_degree() -> None:
    """Functions of degree l of turned directions are spanned by those of degree l, by an orthogonal matrix."""
    directions = random_directions(400)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator(1), dtype=torch.float64)).Q
    turn = turn * torch.linalg.det(turn)
    before, after = basis(directions, 3), basis(directions @ turn.T, 3)
    for degree in (1, 2, 3):
        own = slice(count(degree - 1), count(degree))
        mixing = torch.linalg.lstsq(before[:, own], after[:, own]).solution
        torch.testing.assert_close(before[:, own] @ mixing, after[:, own])
        torch.testing.assert_close(mixing @ mixing.T, torch.eye(2 * degree + 1, dtype=torch.float64))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_lower_degrees_are_a_part_of_higher_ones(degree: int) -> None:
    directions = random_directions(10)
    assert basis(directions, degree).shape == (10, count(degree))
    assert torch.equal(basis(directions, degree), basis(directions, 3)[:, : count(degree)])
    assert degree_of(count(degree)) == degree


def test_other_degrees_and_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="0 to 3"):
        basis(random_directions(1), 4)
    with pytest.raises(ValueError, match="0, 3, 8 or 15"):
        degree_of(9)


def test_gsplats_plain_version_agrees() -> None:
    plain = pytest.importorskip("gsplat.cuda._torch_impl")
    g = generator(2)
    directions = torch.nn.functional.normalize(torch.randn(2, 30, 3, generator=g), dim=-1)
    base = 0.5 + 0.1 * torch.rand(30, 3, generator=g)
    coefficients = 0.02 * torch.randn(30, 15, 3, generator=g)
    dc = (base - 0.5) / C0
    both = torch.cat([dc[:, None], coefficients], dim=1).expand(2, -1, -1, -1)
    for degree in range(4):
        expected = 0.5 + plain._spherical_harmonics(degree, directions, both)
        torch.testing.assert_close(view_colours(base, coefficients, directions, degree), expected)


def test_colours_by_hand_and_their_limits() -> None:
    directions = torch.tensor([[[1.0, 0.0, 0.0]], [[-1.0, 0.0, 0.0]]])  # two cameras, one Gaussian
    coefficients = torch.zeros(1, 3, 3)
    coefficients[0, 2] = torch.tensor([0.2, -2.0, 2.0])  # −C₁ x
    found = view_colours(torch.full((1, 3), 0.5), coefficients, directions, 1)
    c1 = 0.4886025
    torch.testing.assert_close(found[0, 0], torch.tensor([0.5 - 0.2 * c1, 1.0, 0.0]))
    torch.testing.assert_close(found[1, 0], torch.tensor([0.5 + 0.2 * c1, 0.0, 1.0]))


def test_gradients_reach_colours_coefficients_and_directions() -> None:
    g = generator(3)
    base = (0.4 + 0.2 * torch.rand(4, 3, generator=g, dtype=torch.float64)).requires_grad_()
    coefficients = (0.05 * torch.randn(4, 15, 3, generator=g, dtype=torch.float64)).requires_grad_()
    means = torch.randn(4, 3, generator=g, dtype=torch.float64).requires_grad_()
    viewmats = orbit(*(torch.tensor([value], dtype=torch.float64) for value in (0.3, 0.2, 3.0, 0.7)))
    matrices = viewmats.opencv_world_to_camera()

    def colours(b: Tensor, k: Tensor, m: Tensor) -> Tensor:
        return view_colours(b, k, directions_of_view(m, matrices), 3)

    assert torch.autograd.gradcheck(colours, (base, coefficients, means))


def test_directions_lead_from_the_camera_to_the_gaussian() -> None:
    camera = orbit(*(torch.tensor([value]) for value in (0.0, 0.0, 2.0, 0.7)))  # on +X
    found = directions_of_view(
        torch.tensor([[0.0, 0.0, 0.0], [2.0, 3.0, 0.0]]), camera.opencv_world_to_camera()
    )
    torch.testing.assert_close(found, torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]))


# --- in a scene ---------------------------------------------------------------------------------------------


def test_an_object_that_is_red_in_front_and_blue_behind() -> None:
    scene = make(sh_degree=1, sh_degree_every=0, initial_opacity=0.9, initial_colour_spread=0)
    with torch.no_grad():
        scene.harmonics[:, 2] = torch.tensor([0.8, 0.0, -0.8])  # −C₁ x; in front one looks along −x
    azimuth = torch.tensor([[0.0, math.pi]])
    cameras = orbit(azimuth, torch.tensor(0.0), torch.tensor(3.0), torch.tensor(0.7))
    middle = scene.render_images(cameras, 32)[0, :, :, 16, 16]  # 2 3
    opaque = 0.5 + torch.tensor([[0.8, 0.0, -0.8], [-0.8, 0.0, 0.8]]) * 0.4886025
    torch.testing.assert_close(middle, opaque, atol=0.03, rtol=0)


def test_degrees_come_one_after_the_other() -> None:
    scene = make(sh_degree=2, sh_degree_every=3)
    optimizer, g = make_optimizer(scene), generator(1)
    reached, moved = [], []
    for number in range(8):
        step(scene, optimizer, g, number)
        reached.append(scene.degree)
        moved.append([bool(part.any()) for part in (scene.harmonics[:, :3], scene.harmonics[:, 3:])])
    assert reached == [0, 0, 0, 1, 1, 1, 2, 2]
    assert moved[2] == [False, False]
    assert moved[5] == [True, False]
    assert moved[7] == [True, True]


def test_harmonics_learn_what_depends_on_the_view() -> None:
    """One Gaussian that should be white from one side and black from the other."""
    azimuth = torch.tensor([[0.0, math.pi]])
    cameras = orbit(azimuth, torch.tensor(0.0), torch.tensor(3.0), torch.tensor(0.7))
    target = torch.tensor([1.0, 0.0])[None, :, None, None, None]
    errors = {}
    for degree in (0, 1):
        scene = make(
            initial_gaussians=1, initial_radius=0.5, initial_opacity=0.95, sh_degree=degree,
            sh_degree_every=0, harmonics_learning_rate=0.05,
        )  # fmt: skip
        with torch.no_grad():
            scene.means.zero_()
        groups = [g for g in scene.parameter_groups() if g["name"] in ("colour_logits", "harmonics")]
        optimizer = torch.optim.Adam(groups)
        for _ in range(40):
            loss = (images_of(scene.render(cameras)) - target)[..., 14:18, 14:18].square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            errors[degree] = float(loss.detach())
    assert errors[0] > 0.2  # grey is the best that it can do
    assert errors[1] < 0.02
