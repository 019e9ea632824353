"""Density, colour and normals of the field, where they are known in closed form; settings that are refused."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from rewardsds.scenes.nerf.field import EXPONENT_LIMIT, Field, straight, truncated_exp
from rewardsds.scenes.nerf.settings import NeRFSettings, scheduled


def make(seed: int = 0, **settings) -> Field:
    own = NeRFSettings.model_validate({"levels": 3, **settings})
    return Field(own, torch.Generator().manual_seed(seed))


def only_the_blob(**settings) -> Field:
    """A field whose networks give 0."""
    field = make(**settings)
    with torch.no_grad():
        for weight in field.density_network.parameters():
            weight.zero_()
    return field


POINTS = torch.tensor([[0.0, 0, 0], [0.3, 0, 0.4], [0, -0.8, 0.6], [0.1, 0.2, 0.2]])
RADII = [0.0, 0.5, 1.0, 0.3]


@pytest.mark.parametrize(
    "settings, density",
    [
        ({"blob": "linear", "density_activation": "exp"}, lambda r: math.exp(4 * (1 - r / 0.5))),
        (
            {"blob": "linear", "density_activation": "softplus"},
            lambda r: math.log1p(math.exp(4 * (1 - 2 * r))),
        ),
        ({"blob": "gaussian", "density_activation": "exp"}, lambda r: math.exp(4 * math.exp(-2 * r * r))),
    ],
)
def test_blobs(settings, density):
    field = only_the_blob(blob_scale=4, blob_radius=0.5, **settings)
    expected = torch.tensor([density(r) for r in RADII])
    torch.testing.assert_close(field.density(POINTS), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normals, tolerance", [("differences", 2e-3), ("analytic", 1e-5)])
def test_normals_of_a_blob_point_outwards(normals: str, tolerance: float):
    field = only_the_blob(normals=normals, normals_step=0.01)
    found = field.normals(POINTS[1:])
    expected = torch.nn.functional.normalize(POINTS[1:], dim=-1)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_both_kinds_of_normals_and_their_gradients_agree():
    """In double precision, where a difference can be so short that hardly any crosses a kink of the field."""
    points = 0.2 * torch.randn(200, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slopes = []
    for normals in ("differences", "analytic"):
        field = make(normals=normals, normals_step=1e-6).double()
        with torch.no_grad():
            field.grid.table.mul_(1e4)
        found = field.normals(points)
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(200, dtype=torch.float64))
        (slope,) = torch.autograd.grad(
            (found @ torch.tensor([0.3, -0.5, 0.7]).double()).sum(), field.grid.table
        )
        slopes.append((found.detach(), slope))
    (a, slope_a), (b, slope_b) = slopes
    torch.testing.assert_close(a, b, atol=1e-4, rtol=0)
    torch.testing.assert_close(slope_a, slope_b, atol=1e-3 * float(slope_b.abs().max()), rtol=1e-3)


def test_normals_without_gradient():
    field = make(normals="analytic")
    with torch.no_grad():
        assert not field.normals(POINTS).requires_grad


def test_truncated_exp_grows_and_its_gradient_stops_growing():
    raw = torch.tensor([-2.0, 3.0, EXPONENT_LIMIT + 5], requires_grad=True)
    value = truncated_exp(raw)
    torch.testing.assert_close(value, raw.exp())
    (slope,) = torch.autograd.grad(value.sum(), raw)
    torch.testing.assert_close(slope, raw.detach().clamp(max=EXPONENT_LIMIT).exp())


def test_truncated_exp_can_be_derived_twice():
    raw = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(truncated_exp, raw)


def test_colours_are_colours_and_networks_have_the_sizes_asked_for():
    field = make(neurons=20, hidden_layers=2)
    colours = field.colour(POINTS)
    assert colours.shape == (4, 3)
    assert ((colours > 0) & (colours < 1)).all()
    shapes = [tuple(weight.shape) for weight in field.colour_network.parameters()]
    assert shapes == [(20, 6), (20, 20), (3, 20)]


def test_straight_colours_are_the_tangent_of_the_sigmoid_cut_off():
    raw = torch.tensor([0.0, 1.0, -1.0, 2.0, 3.0, -9.0])
    torch.testing.assert_close(straight(raw), torch.tensor([0.5, 0.75, 0.25, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(straight(0.01 * raw), (0.01 * raw).sigmoid(), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    "at, wanted, passes",
    [(0.5, 1.0, True), (9.0, 1.0, False), (9.0, -1.0, True), (-9.0, -1.0, False), (-9.0, 1.0, True)],
)
def test_beyond_black_and_white_gradient_passes_only_back(at: float, wanted: float, passes: bool):
    """wanted: 1 where a descent step would make the colour lighter, −1 darker."""
    raw = torch.tensor([at], requires_grad=True)
    (-wanted * straight(raw)).sum().backward()
    assert raw.grad is not None
    assert raw.grad.item() == (-0.25 * wanted if passes else 0.0)


def test_a_known_encoding_gives_the_same():
    field = make()
    encoded = field.encode(POINTS)
    assert torch.equal(field.density(POINTS, encoded), field.density(POINTS))
    assert torch.equal(field.colour(POINTS, encoded), field.colour(POINTS))


def test_drawn_from_its_generator_alone():
    torch.manual_seed(1)
    a = make(seed=3)
    torch.manual_seed(2)
    b = make(seed=3)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))


@pytest.mark.parametrize("step, expected", [(0, 1.0), (100, 1.0), (150, 2.0), (200, 3.0), (10_000, 3.0)])
def test_schedules(step: int, expected: float):
    assert scheduled((100, 1.0, 3.0, 200), step) == pytest.approx(expected)
    assert scheduled(0.25, step) == 0.25


@pytest.mark.parametrize(
    "wrong, told",
    [
        ({"opacity_weight": -1.0}, "must not be negative"),
        ({"sparsity_weight": (0, 1.0, -1.0, 10)}, "must not be negative"),
        ({"z_variance_weight": (10, 1.0, 2.0, 10)}, "rising steps"),
        ({"orientation_weight": [0.5, 0.1, 0.2, 10]}, "expected a number, or .* with whole steps"),
        ({"orientation_weight": [0.5]}, "with whole steps"),
        ({"orientation_weight": "much"}, "expected a number, or"),
        ({"levels": 32, "growth": 4.0}, "cells an axis"),
        ({"unknown": 1}, "Extra inputs"),
        ({"samples_per_ray": 1}, "greater than or equal to 2"),
    ],
)
def test_impossible_settings(wrong, told: str):
    with pytest.raises(ValidationError, match=told):
        NeRFSettings.model_validate(wrong)
