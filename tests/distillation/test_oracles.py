"""The oracle itself, against automatic differentiation of its log density."""

import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from oracles import two_colours


def test_closed_form_noise_is_the_gradient_of_the_log_density():
    prior = two_colours()
    mixture = prior.mixtures["either"]
    for timestep in (20, 400, 900):
        alpha, sigma = prior.levels(timestep)
        noisy = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(timestep)).double()
        noisy.requires_grad_()
        (score,) = torch.autograd.grad(mixture.log_density(noisy, alpha, sigma).sum(), noisy)
        torch.testing.assert_close(mixture.noise(noisy, alpha, sigma), -sigma * score)


def test_log_density_is_that_of_torch_distributions():
    prior = two_colours()
    mixture = prior.mixtures["either"]
    alpha, sigma = prior.levels(300)
    std = (alpha**2 * mixture.stds**2 + sigma**2).sqrt()[:, None, None, None].expand_as(mixture.means)
    independent = MixtureSameFamily(
        Categorical(probs=mixture.weights), Independent(Normal(alpha * mixture.means, std), 3)
    )
    noisy = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(mixture.log_density(noisy, alpha, sigma), independent.log_prob(noisy))
