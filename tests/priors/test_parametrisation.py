"""Conversions, each against the definition of what is predicted."""

from __future__ import annotations

import pytest
import torch

from rewardsds.priors.parametrisation import (
    PARAMETRISATIONS,
    flow_alphas_cumprod,
    flow_time,
    network_input,
    to_noise,
)

GENERATOR = torch.Generator().manual_seed(0)
X, NOISE = torch.randn(2, 5, 7, generator=GENERATOR, dtype=torch.float64)
ALPHA = torch.rand(5, 1, generator=GENERATOR, dtype=torch.float64) * 0.98 + 0.01
SIGMA = (1 - ALPHA**2).sqrt()
Z = ALPHA * X + SIGMA * NOISE


@pytest.mark.parametrize("kind", PARAMETRISATIONS)
def test_a_perfect_prediction_of_any_kind_is_the_noise(kind: str):
    perfect = {
        "epsilon": NOISE,
        "v_prediction": ALPHA * NOISE - SIGMA * X,
        "sample": X,
        "flow_prediction": NOISE - X,
    }[kind]
    torch.testing.assert_close(to_noise(perfect, Z, ALPHA, SIGMA, kind), NOISE)  # pyright: ignore


def test_a_flow_sees_its_own_latents_at_its_own_time():
    s = flow_time(ALPHA, SIGMA)
    torch.testing.assert_close(network_input(Z, ALPHA, SIGMA, "flow_prediction"), (1 - s) * X + s * NOISE)
    assert network_input(Z, ALPHA, SIGMA, "epsilon") is Z


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_flows_schedule(shift: float):
    alphas_cumprod = flow_alphas_cumprod(shift)
    assert (alphas_cumprod.diff() < 0).all()
    assert 0 < alphas_cumprod[-1] < 1e-5
    alpha, sigma = alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()
    half = 0.5 * shift / (1 + (shift - 1) * 0.5)
    assert float(flow_time(alpha, sigma)[499]) == pytest.approx(half, abs=1e-4)
