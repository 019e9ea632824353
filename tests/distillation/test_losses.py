"""Residuals by hand."""

import numpy as np
import pytest
import torch

from oracles import two_colours
from rewardsds.distillation.candidates import Candidates
from rewardsds.distillation.losses import SDS, Recon
from rewardsds.priors.base import Prediction


def some_candidates() -> Candidates:
    """N=3, B=2, V=2 with arbitrary predictions."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shape = (3, 2, 2, 3, 4, 4)
    alpha = torch.tensor([0.8, 0.28], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    sigma = torch.tensor([0.6, 0.96], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    clean, noise = draw(*shape[1:]), draw(*shape)
    return Candidates(
        clean=clean,
        noise=noise,
        noisy=alpha * clean + sigma * noise,
        timesteps=torch.tensor([100, 800]),
        alpha=alpha,
        sigma=sigma,
        prediction=Prediction(draw(*shape), draw(*shape)),
        condition=two_colours().condition(["dark", "light"]),
    )


def test_sds_by_hand():
    c = some_candidates()
    assert c.prediction.unconditional is not None
    u, p, e = (x.numpy() for x in (c.prediction.unconditional, c.prediction.conditional, c.noise))
    residual = SDS(guidance_scale=50.0).residual(c)
    np.testing.assert_allclose(residual.numpy(), u + 50.0 * (p - u) - e)
    np.testing.assert_allclose(SDS().timestep_weight(c).flatten().numpy(), [0.36, 0.9216])


@pytest.mark.parametrize("rescale", [0.0, 0.5, 1.0])
def test_recon_by_hand(rescale: float):
    """Arithmetic of arXiv 2305.08891, eq. 15-16, written out for each candidate and item."""
    c = some_candidates()
    assert c.prediction.unconditional is not None
    u, p, zt, z = (
        x.numpy() for x in (c.prediction.unconditional, c.prediction.conditional, c.noisy, c.clean)
    )
    residual = Recon(guidance_scale=30.0, rescale=rescale).residual(c).numpy()
    for n in range(3):
        for b, (alpha, sigma) in enumerate([(0.8, 0.6), (0.28, 0.96)]):
            positive = (zt[n, b] - sigma * p[n, b]) / alpha
            guided = (zt[n, b] - sigma * (u[n, b] + 30.0 * (p[n, b] - u[n, b]))) / alpha
            rescaled = guided * positive.std() / guided.std()
            final = rescale * rescaled + (1 - rescale) * guided
            np.testing.assert_allclose(residual[n, b], z[b] - final, rtol=1e-6)
    assert torch.equal(Recon().timestep_weight(c), torch.ones(2, 1, 1, 1, 1))


def test_fully_rescaled_reconstruction_has_the_spread_of_the_unguided_one():
    c = some_candidates()
    guided = c.clean - Recon(guidance_scale=30.0, rescale=1.0).residual(c)
    spread = guided.std(dim=(2, 3, 4, 5))
    torch.testing.assert_close(spread, c.predicted_clean(1.0).std(dim=(2, 3, 4, 5)))


def test_rescale_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
        Recon(rescale=1.5)


def test_only_guidance_needs_the_unconditional_branch():
    assert SDS(7.5).needs_unconditional
    assert Recon(7.5).needs_unconditional
    assert not SDS(1.0).needs_unconditional
    assert not Recon(1.0).needs_unconditional
