"""Regularisers and the environment map, by hand and by numerical integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rewardsds.scenes.nerf.environment import Environment, spherical_harmonics
from rewardsds.scenes.nerf.regularisers import opacity_entropy, orientation, sparsity, z_variance


def test_entropy_by_hand():
    found = opacity_entropy(torch.tensor([0.5, 0.25, 0.0, 1.0]))
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    edge = -(0.001 * math.log(0.001) + 0.999 * math.log(0.999))
    torch.testing.assert_close(found, torch.tensor([math.log(2), quarter, edge, edge]))


def test_entropy_has_a_finite_slope_everywhere():
    alpha = torch.tensor([0.0, 1e-8, 0.3, 1.0], requires_grad=True)
    (slope,) = torch.autograd.grad(opacity_entropy(alpha).sum(), alpha)
    assert slope.isfinite().all()
    assert slope[2].item() == pytest.approx(math.log(0.7 / 0.3))


def test_sparsity_by_hand():
    torch.testing.assert_close(sparsity(torch.tensor([0.0, 1.0])), torch.tensor([0.1, math.sqrt(1.01)]))


def test_only_surfaces_that_face_away_count():
    normals = torch.nn.functional.normalize(torch.tensor([[0.0, 0, 1], [0, 0, -1], [0, 1, 1]]), dim=-1)
    directions = torch.tensor([[0.0, 0, 1]] * 3)
    torch.testing.assert_close(orientation(normals, directions), torch.tensor([1.0, 0.0, 0.5]))


def test_z_variance_by_hand():
    """Weights 0.3 and 0.5 at distances 1 and 3 have mean 2.25 and variance 0.9375; a thin ray does not count."""
    weights = torch.tensor([0.3, 0.5, 0.2, 0.2])
    distance, ray = torch.tensor([1.0, 3.0, 1.0, 9.0]), torch.tensor([0, 0, 1, 1])
    found = z_variance(weights, distance, torch.tensor([2.25, 5.0]), torch.tensor([0.8, 0.4]), ray)
    torch.testing.assert_close(found, torch.tensor([0.9375, 0.0]))


def test_spherical_harmonics_are_orthonormal():
    """By Gauss quadrature in z and even steps around, which is exact for these."""
    z, weight = np.polynomial.legendre.leggauss(6)
    angle = np.arange(12) * 2 * np.pi / 12
    radius = np.sqrt(1 - z**2)
    directions = np.stack(
        [np.outer(radius, np.cos(angle)), np.outer(radius, np.sin(angle)), np.outer(z, np.ones(12))], axis=-1
    )
    values = spherical_harmonics(torch.tensor(directions.reshape(-1, 3))).numpy()
    area = np.repeat(weight, 12) * 2 * np.pi / 12
    np.testing.assert_allclose(values.T @ (area[:, None] * values), np.eye(9), atol=1e-6)


def test_an_environment_is_a_function_of_the_direction():
    environment = Environment(2, 16, torch.Generator().manual_seed(0))
    directions = torch.nn.functional.normalize(
        torch.randn(50, 3, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    colours = environment(directions)
    assert colours.shape == (50, 3)
    assert ((colours > 0) & (colours < 1)).all()
    assert colours.std(0).max() > 0.001
    torch.testing.assert_close(environment(directions[7:8]), colours[7:8])
