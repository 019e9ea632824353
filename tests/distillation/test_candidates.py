"""Noises and rollouts against closed forms."""

import itertools

import torch

from oracles import GaussianMixturePrior, two_colours
from rewardsds.distillation.candidates import Candidates, draw_noise, rollout
from rewardsds.distillation.noising import noise_levels


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def candidates_at(
    prior: GaussianMixturePrior, prompts: list[str], timesteps: list[int], count: int
) -> Candidates:
    t = torch.tensor(timesteps)
    clean = torch.randn(len(prompts), 2, *prior.latent_shape, generator=generators(7)[0]).double()
    noise = draw_noise(clean, count, generators(*range(len(prompts))))
    alpha, sigma = noise_levels(prior, t)
    noisy = alpha * clean + sigma * noise
    condition = prior.condition(prompts)
    prediction = prior.predict(noisy, t, condition)
    return Candidates(prior, clean, noise, noisy, t, alpha, sigma, prediction, condition)


def test_noise_is_standard_normal_and_each_item_has_its_own():
    noise = draw_noise(torch.zeros(2, 4, 3, 8, 8), 20, generators(0, 1))
    assert noise.shape == (20, 2, 4, 3, 8, 8)
    samples = noise[:, 0].numel()
    for item in (0, 1):
        # Five standard errors of the mean and of the variance.
        assert noise[:, item].mean().abs() < 5 / samples**0.5
        assert (noise[:, item].var() - 1).abs() < 5 * (2 / samples) ** 0.5
    assert not torch.equal(noise[:, 0], noise[:, 1])


def test_an_items_noise_does_not_depend_on_its_companions():
    like = torch.zeros(3, 1, 3, 4, 4)
    together = draw_noise(like, 5, generators(4, 5, 6))
    alone = draw_noise(like[1:2], 5, generators(5))
    assert torch.equal(together[:, 1:2], alone)


def test_antithetic_noises_sum_to_zero():
    noise = draw_noise(torch.zeros(2, 1, 3, 4, 4), 6, generators(0, 1), "antithetic")
    assert noise.shape == (6, 2, 1, 3, 4, 4)
    assert torch.equal(noise[0::2], -noise[1::2])
    assert torch.equal((noise[0::2] + noise[1::2]).sum(dim=0), torch.zeros(2, 1, 3, 4, 4))
    assert not torch.equal(noise[0], noise[2])


def test_the_last_of_an_odd_number_of_antithetic_noises_is_single():
    noise = draw_noise(torch.zeros(1, 1, 3, 4, 4), 5, generators(0), "antithetic")
    assert len(noise) == 5
    assert torch.equal(noise[:4].view(2, 2, 1, 1, 3, 4, 4).sum(dim=1), torch.zeros(2, 1, 1, 3, 4, 4))
    assert all(not torch.equal(noise[4].abs(), other.abs()) for other in noise[:4])


def test_one_step_is_the_predicted_clean_latent_and_costs_no_call():
    prior = two_colours()
    candidates = candidates_at(prior, ["dark", "light"], [300, 700], count=3)
    calls = len(prior.calls)
    previews = rollout(prior, candidates, steps=1, guidance_scale=1.0)
    assert len(prior.calls) == calls
    for item, (prompt, t) in enumerate([("dark", 300), ("light", 700)]):
        # E[x0 | z_t] of a Gaussian: the precision-weighted mean of the prior's μ and z_t / α.
        alpha, sigma = prior.levels(t)
        mixture = prior.mixtures[prompt]
        s2, n2 = mixture.stds[0] ** 2, (sigma / alpha) ** 2
        expected = (n2 * mixture.means[0] + s2 * candidates.noisy[:, item] / alpha) / (s2 + n2)
        torch.testing.assert_close(previews[:, item], expected)


def test_many_steps_converge_to_the_probability_flow_solution():
    """For N(μ, s² I) the flow ODE from z_t ends at μ + (z_t/α − μ) · s / √(s² + (σ/α)²)."""
    prior = two_colours()
    prompts, timesteps = ["dark", "light"], [480, 800]
    candidates = candidates_at(prior, prompts, timesteps, count=2)
    exact = torch.empty_like(candidates.noisy)
    for item, (prompt, t) in enumerate(zip(prompts, timesteps, strict=True)):
        alpha, sigma = prior.levels(t)
        mean, std = prior.mixtures[prompt].means[0], prior.mixtures[prompt].stds[0]
        shrink = std / (std**2 + (sigma / alpha) ** 2).sqrt()
        exact[:, item] = mean + (candidates.noisy[:, item] / alpha - mean) * shrink

    errors = [
        (rollout(prior, candidates, steps, guidance_scale=1.0) - exact).abs().max().item()
        for steps in (1, 15, 60, 240)
    ]
    assert errors[0] > 0.7
    assert all(finer < 0.5 * coarser for coarser, finer in itertools.pairwise(errors))
    assert errors[-1] < 0.03


def test_steps_descend_evenly_from_each_items_timestep_and_cost_one_call_less():
    prior = two_colours()
    candidates = candidates_at(prior, ["dark", "light"], [300, 700], count=2)
    prior.calls.clear()
    rollout(prior, candidates, steps=4, guidance_scale=7.5)
    assert [timesteps.tolist() for _, timesteps, _ in prior.calls] == [[225, 525], [150, 350], [75, 175]]
    assert all(unconditional for _, _, unconditional in prior.calls)


def test_guidance_scale_one_does_without_the_unconditional_branch():
    prior = two_colours()
    candidates = candidates_at(prior, ["dark"], [300], count=1)
    prior.calls.clear()
    rollout(prior, candidates, steps=3, guidance_scale=1.0)
    assert [unconditional for _, _, unconditional in prior.calls] == [False, False]


def test_select_takes_for_each_item_its_own_candidates():
    prior = two_colours()
    candidates = candidates_at(prior, ["dark", "light"], [300, 700], count=3)
    chosen = candidates.select(torch.tensor([[2, 0], [1, 2]]))
    assert torch.equal(chosen.noise[0, 0], candidates.noise[2, 0])
    assert torch.equal(chosen.noise[0, 1], candidates.noise[0, 1])
    assert torch.equal(chosen.noisy[1, 1], candidates.noisy[2, 1])
    assert torch.equal(chosen.prediction.conditional[1, 0], candidates.prediction.conditional[1, 0])
    assert chosen.prediction.unconditional is not None
    assert candidates.prediction.unconditional is not None
    assert torch.equal(chosen.prediction.unconditional[1, 1], candidates.prediction.unconditional[2, 1])
