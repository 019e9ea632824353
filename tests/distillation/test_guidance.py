"""The step as `RewardSDS` runs it, on a prior whose score is known in closed form."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from oracles import GaussianMixturePrior, Mixture, two_colours
from rewardsds.distillation.candidates import Candidates, draw_noise
from rewardsds.distillation.guidance import RewardSDS
from rewardsds.distillation.losses import SDS, Recon
from rewardsds.distillation.schedules import FixedRange
from rewardsds.distillation.weighting import (
    Advantage,
    Best,
    BestWorst,
    Random,
    Softmax,
    Uniform,
    Weighting,
)
from rewardsds.priors.diffusion import DiffusionPrior
from rewardsds.prompts import Texts

SCORES = torch.tensor([[0.3, 1.0], [0.9, -2.0], [0.1, 0.5], [0.4, 4.0]])  # (N=4, B=2)
AT_400 = FixedRange(0.4, 0.4)


class KnownScores:
    """A reward that gives fixed scores and remembers the pictures that it was shown."""

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores
        self.shown: list[tuple[Tensor, tuple[str, ...]]] = []

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        self.shown.append((images, tuple(prompts)))
        return self.scores


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images.mean(dim=(2, 3, 4, 5))


def no_reward(images: Tensor, prompts: Sequence[str]) -> Tensor:
    raise AssertionError("plain SDS asks no reward")


def latents(batch: int, views: int = 1, seed: int = 3) -> Tensor:
    values = torch.randn(batch, views, 3, 2, 2, generator=torch.Generator().manual_seed(seed)).double()
    return values.requires_grad_()


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def gradient(guidance: RewardSDS, z: Tensor, prompt: str | list[str], **arguments: Any) -> Tensor:
    (g,) = torch.autograd.grad(guidance(latents=z, prompt=prompt, **arguments), z)
    return g


def drawn_noise(prior: GaussianMixturePrior, z: Tensor, timesteps: Tensor) -> Tensor:
    """ε of the last call at t, recovered from z_t: the step does not show it."""
    noisy = prior.calls[-1][0]
    levels = [prior.levels(t) for t in timesteps]
    return torch.stack(
        [(noisy[:, b] - alpha * z[b].detach()) / sigma for b, (alpha, sigma) in enumerate(levels)], dim=1
    )


def guided_noise(
    prior: GaussianMixturePrior, noisy: Tensor, prompt: str, timestep: Tensor, scale: float
) -> Tensor:
    """Classifier-free guidance by automatic differentiation of the oracle's log densities."""
    alpha, sigma = prior.levels(timestep)
    noisy = noisy.clone().requires_grad_()
    branches = []
    for text in ("", prompt):
        density = prior.mixtures[text].log_density(noisy, alpha, sigma).sum()
        branches.append(-sigma * torch.autograd.grad(density, noisy)[0])
    return branches[0] + scale * (branches[1] - branches[0])


# --- the gradient against closed forms


@pytest.mark.parametrize("prompt", ["dark", "either"])
def test_plain_sds_gradient(prompt: str):
    prior = two_colours()
    guidance = RewardSDS(prior, weighting=Uniform(), guidance_scale=30.0)
    z = latents(2, views=3)
    g = gradient(guidance, z, prompt)
    timesteps = guidance.record.timesteps
    noise = drawn_noise(prior, z, timesteps)
    assert noise.shape == (1, 2, 3, 3, 2, 2)
    for b, t in enumerate(timesteps):
        _, sigma = prior.levels(t)
        predicted = guided_noise(prior, prior.calls[-1][0][0, b], prompt, t, 30.0)
        torch.testing.assert_close(g[b], sigma**2 * (predicted - noise[0, b]))


def test_expected_sds_gradient_of_a_gaussian():
    """For N(μ, s² I) without guidance, E_ε[ε̂ − ε] = σ α (z − μ) / (α² s² + σ²)."""
    prior = two_colours()
    guidance = RewardSDS(prior, weighting=Uniform(), guidance_scale=1.0, timesteps=AT_400)
    items = 400
    one = latents(1)
    z = one.detach().expand(items, -1, -1, -1, -1).clone().requires_grad_()
    g = gradient(guidance, z, "light")
    mixture = prior.mixtures["light"]
    alpha, sigma = prior.levels(400)
    variance = alpha**2 * mixture.stds[0] ** 2 + sigma**2
    expected = sigma**2 * sigma * alpha * (one[0, 0] - mixture.means[0]) / variance
    # ε̂ − ε = (σ² / v − 1) ε + its mean.
    standard_error = sigma**2 * (1 - sigma**2 / variance) / items**0.5
    assert ((g[:, 0].mean(dim=0) - expected).abs() < 4.5 * standard_error).all()
    torch.testing.assert_close(g[:, 0].std(dim=0).mean(), standard_error * items**0.5, rtol=0.1, atol=0)


@pytest.mark.parametrize(
    "weighting, expected",
    [
        (BestWorst(k=1), [[0, 0], [0.9, -0.1], [-0.1, 0], [0, 0.9]]),
        (BestWorst(k=2), [[-0.05, 0.45], [0.45, -0.05], [-0.05, -0.05], [0.45, 0.45]]),
        (Best(k=2), [[0, 0.5], [0.5, 0], [0, 0], [0.5, 0.5]]),
        (Softmax(0.7), torch.softmax(SCORES / 0.7, dim=0).tolist()),
    ],
)
def test_reward_sds_gradient_for_weights_by_hand(weighting: Weighting, expected: list[list[float]]):
    prior = two_colours()
    guidance = RewardSDS(prior, KnownScores(SCORES), weighting=weighting, guidance_scale=20.0)
    z, prompts = latents(2, views=2), ["dark", "either"]
    g = gradient(guidance, z, prompts)
    weights = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(guidance.record.weights.double(), weights)
    timesteps = guidance.record.timesteps
    noise, noisy = drawn_noise(prior, z, timesteps), prior.calls[-1][0]
    for b, t in enumerate(timesteps):
        _, sigma = prior.levels(t)
        by_hand = sum(
            weights[n, b] * (guided_noise(prior, noisy[n, b], prompts[b], t, 20.0) - noise[n, b])
            for n in range(4)
        )
        torch.testing.assert_close(g[b], sigma**2 * by_hand, rtol=1e-5, atol=1e-6)


def test_recon_gradient_pulls_to_the_posterior_mean():
    """Without guidance x̂0 is E[x0 | z_t]: the gradient is z minus it, not multiplied by ω(t)."""
    prior = two_colours()
    guidance = RewardSDS(prior, weighting=Uniform(), loss=Recon(guidance_scale=1.0), timesteps=AT_400)
    z = latents(1)
    g = gradient(guidance, z, "dark")
    mixture = prior.mixtures["dark"]
    alpha, sigma = prior.levels(400)
    s2, n2 = mixture.stds[0] ** 2, (sigma / alpha) ** 2
    mean = (n2 * mixture.means[0] + s2 * prior.calls[-1][0][0, 0, 0] / alpha) / (s2 + n2)
    torch.testing.assert_close(g[0, 0], z[0, 0].detach() - mean)


def test_the_reward_sees_the_posterior_mean_of_each_candidate():
    prior, reward = two_colours(), KnownScores(SCORES)
    guidance = RewardSDS(prior, reward, rollout_guidance_scale=1.0, timesteps=AT_400)
    guidance(latents=latents(2, views=2), prompt=["dark", "light"])
    images, prompts = reward.shown[0]
    assert prompts == ("dark", "light")
    assert images.shape == (4, 2, 2, 3, 2, 2)
    alpha, sigma = prior.levels(400)
    for b, prompt in enumerate(prompts):
        mixture = prior.mixtures[prompt]
        s2, n2 = mixture.stds[0] ** 2, (sigma / alpha) ** 2
        mean = (n2 * mixture.means[0] + s2 * prior.calls[0][0][:, b] / alpha) / (s2 + n2)
        torch.testing.assert_close(images[:, b], (0.5 * mean + 0.5).clamp(0, 1))


def test_descending_the_gradient_finds_the_gaussian():
    mean = torch.linspace(-0.8, 0.8, 12, dtype=torch.float64).reshape(3, 2, 2)
    prior = GaussianMixturePrior({"it": Mixture.single(mean, 0.1), "": Mixture.single(0 * mean, 1.0)})
    guidance = RewardSDS(prior, weighting=Uniform(), guidance_scale=1.0)
    z = latents(1)
    for _ in range(300):
        z = (z - 0.1 * gradient(guidance, z, "it")).detach().requires_grad_()
    assert (z[0, 0] - mean).abs().max() < 0.05


# --- the loss as a scalar


def test_gradient_through_images_is_that_of_the_latents_times_the_encoder():
    prior = two_colours()
    reward = KnownScores(SCORES)
    images = torch.rand(2, 2, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    loss = RewardSDS(prior, reward)(images, "dark")
    loss.backward()
    z = (2 * images.detach() - 1).requires_grad_()
    g = gradient(RewardSDS(prior, reward), z, "dark")
    torch.testing.assert_close(images.grad, 2 * g)  # encode is 2 x − 1


def test_the_value_is_half_the_squared_gradient_and_the_record_agrees():
    guidance = RewardSDS(two_colours(), brightness)
    z = latents(2, views=2)
    loss = guidance(latents=z, prompt="light")
    (g,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(loss.detach(), 0.5 * g.square().sum())
    torch.testing.assert_close(guidance.record.loss, 0.5 * g.square().sum(dim=(1, 2, 3, 4)))
    torch.testing.assert_close(guidance.record.gradient_norm, g.flatten(1).norm(dim=1))


@pytest.mark.parametrize("shape", [(3, 2, 2), (1, 3, 2, 2), (1, 1, 3, 2, 2)])
def test_items_and_views_may_be_left_out(shape: tuple[int, ...]):
    values = latents(1)
    expected = gradient(RewardSDS(two_colours(), brightness), values, "dark")
    short = values.detach().reshape(shape).requires_grad_()
    g = gradient(RewardSDS(two_colours(), brightness), short, "dark")
    assert torch.equal(g, expected.reshape(shape))


# --- invariants


def test_one_candidate_is_plain_sds_exactly():
    plain = RewardSDS(two_colours(), weighting=Uniform(), seed=5)
    one = RewardSDS(two_colours(), brightness, candidates=1, weighting=Best(k=1), seed=5)
    also = RewardSDS(two_colours(), brightness, candidates=1, weighting=Softmax(), seed=5)
    z = latents(2)
    for _ in range(3):
        expected = gradient(plain, z, "either")
        assert torch.equal(gradient(one, z, "either"), expected)
        assert torch.equal(gradient(also, z, "either"), expected)


@pytest.mark.parametrize("weighting", [BestWorst(k=2), Softmax(0.1)])
def test_permuting_candidates_changes_nothing(weighting: Weighting):
    z = latents(2)
    results = []
    for order in ([0, 1, 2, 3, 4, 5], [3, 0, 5, 1, 4, 2]):

        def permuted(*arguments: Any, order: list[int] = order) -> Tensor:
            return draw_noise(*arguments)[order]

        guidance = RewardSDS(two_colours(), brightness, candidates=6, weighting=weighting, noise=permuted)
        results.append(gradient(guidance, z, ["dark", "light"]))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("weighting", [BestWorst(k=1), Softmax(0.1), Random(), Uniform()])
@pytest.mark.parametrize("noise", ["iid", "antithetic"])
def test_a_batch_of_items_is_as_many_single_runs(weighting: Weighting, noise: Any):
    prompts = ["dark", "light", "either"]

    def make() -> RewardSDS:
        return RewardSDS(two_colours(), brightness, weighting=weighting, rollout_steps=2, noise=noise)

    z = latents(3, views=2)
    guidance = make()
    drawing = generators(10, 11, 12)
    together = [gradient(guidance, z, prompts, generators=drawing) for _ in range(2)]
    for b in range(3):
        single = make()
        drawing = generators(10 + b)
        part = z[b : b + 1].detach().requires_grad_()
        alone = [gradient(single, part, prompts[b], generators=drawing) for _ in range(2)]
        assert torch.equal(single.record.timesteps, guidance.record.timesteps[b : b + 1])
        assert torch.equal(single.record.weights, guidance.record.weights[:, b : b + 1])
        for step in range(2):
            torch.testing.assert_close(alone[step], together[step][b : b + 1], rtol=1e-10, atol=1e-12)


def test_same_seed_same_gradient_and_global_randomness_is_neither_read_nor_moved():
    z = latents(2)
    first = gradient(RewardSDS(two_colours(), brightness, seed=4), z, "dark")
    state = torch.get_rng_state()
    torch.manual_seed(99)
    second = gradient(RewardSDS(two_colours(), brightness, seed=4), z, "dark")
    assert torch.equal(first, second)
    torch.set_rng_state(state)
    gradient(RewardSDS(two_colours(), brightness, seed=4), z, "dark")
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(gradient(RewardSDS(two_colours(), brightness, seed=5), z, "dark"), first)


def test_candidates_without_weight_do_not_touch_the_gradient():
    class Garbled(GaussianMixturePrior):
        """Predicts garbage for the candidates that will get no weight."""

        def predict(self, *arguments: Any, **keywords: Any):
            prediction = super().predict(*arguments, **keywords)
            for branch in (prediction.conditional, prediction.unconditional):
                assert branch is not None
                branch[0, 0] = branch[3, 0] = torch.inf
                branch[0, 1] = branch[2, 1] = torch.nan
            return prediction

    z = latents(2)
    clean = two_colours()
    expected = gradient(RewardSDS(clean, KnownScores(SCORES)), z, "dark")
    g = gradient(RewardSDS(Garbled(clean.mixtures), KnownScores(SCORES)), z, "dark")
    assert torch.equal(g, expected)


def test_the_loss_is_asked_only_for_candidates_that_count():
    @dataclass(frozen=True)
    class Counting(SDS):
        asked: tuple[list[int], ...] = ([],)

        def residual(self, candidates: Candidates) -> Tensor:
            residual = super().residual(candidates)
            self.asked[0].append(len(residual))
            return residual

    loss = Counting()
    RewardSDS(two_colours(), KnownScores(SCORES), loss=loss)(latents=latents(2), prompt="dark")
    assert loss.asked[0] == [2]


# --- what it costs


def evaluations(guidance: RewardSDS, **arguments: Any) -> int:
    guidance(latents=latents(2, views=3), prompt="dark", **arguments)
    return guidance.record.network_evaluations


def test_network_evaluations():
    """B = 2 items of V = 3 views, both branches: 2·N·B·V at t, and as many for each further rollout step."""
    plain = two_colours()
    assert evaluations(RewardSDS(plain, no_reward, weighting=Uniform())) == 2 * 1 * 2 * 3
    assert len(plain.calls) == 1
    rewarded = two_colours()
    assert evaluations(RewardSDS(rewarded, brightness, candidates=4)) == 2 * 4 * 2 * 3
    assert len(rewarded.calls) == 1
    rolled = two_colours()
    assert evaluations(RewardSDS(rolled, brightness, candidates=4, rollout_steps=3)) == 3 * 2 * 4 * 2 * 3
    assert len(rolled.calls) == 3
    unguided = two_colours()
    assert evaluations(RewardSDS(unguided, weighting=Uniform(), guidance_scale=1.0)) == 1 * 2 * 3


def test_plain_sds_neither_decodes_nor_rewards():
    guidance = RewardSDS(two_colours(), no_reward, weighting=Uniform())
    guidance(latents=latents(2), prompt="dark")
    assert guidance.record.rewards is None
    assert guidance.record.previews is None
    assert torch.equal(guidance.record.weights, torch.ones(1, 2).double())
    assert set(guidance.record.seconds) == {"encode", "predict", "loss"}


def test_after_k_steps_no_reward_is_asked():
    reward = KnownScores(SCORES)
    guidance = RewardSDS(two_colours(), reward, reward_steps=2)
    shapes = []
    for _ in range(4):
        guidance(latents=latents(2), prompt="dark")
        shapes.append(tuple(guidance.record.weights.shape))
    assert shapes == [(4, 2), (4, 2), (1, 2), (1, 2)]
    assert len(reward.shown) == 2
    guidance(latents=latents(2), prompt="dark", step=0)
    assert len(reward.shown) == 3
    guidance(latents=latents(2), prompt="dark", step=7)
    assert len(reward.shown) == 3


def test_the_schedule_is_asked_for_the_step():
    asked: list[int] = []

    def schedule(step: int) -> tuple[float, float]:
        asked.append(step)
        return 0.1 * step, 0.1 * step

    guidance = RewardSDS(two_colours(), weighting=Uniform(), timesteps=schedule)
    for step in (None, None, 6, None):
        guidance(latents=latents(1), prompt="dark", step=step)
        assert guidance.record.timesteps.tolist() == [100 * asked[-1]]
    assert asked == [0, 1, 6, 7]


def test_previews_on_request_also_of_plain_sds():
    guidance = RewardSDS(two_colours(), brightness)
    guidance(latents=latents(2, views=2), prompt="dark")
    assert guidance.record.previews is None
    guidance(latents=latents(2, views=2), prompt="dark", previews=True)
    assert guidance.record.previews is not None
    assert guidance.record.previews.shape == (4, 2, 2, 3, 2, 2)
    assert guidance.record.rewards is not None
    torch.testing.assert_close(guidance.record.rewards, brightness(guidance.record.previews, []).float())
    plain = RewardSDS(two_colours(), weighting=Uniform())
    plain(latents=latents(2, views=2), prompt="dark", previews=True)
    assert plain.record.previews is not None
    assert plain.record.previews.shape == (1, 2, 2, 3, 2, 2)


def test_views_with_prompts_of_their_own_are_guided_and_scored_by_them(tiny_single_view_prior_folder: Path):
    prior = DiffusionPrior.from_pretrained(tiny_single_view_prior_folder, "cpu")
    reward = KnownScores(torch.arange(8.0).reshape(2, 4))
    loss = SDS(guidance_scale=2.0)
    guidance = RewardSDS(prior, reward, candidates=2, weighting=Best(), loss=loss, timesteps=AT_400)
    prompts = [["a red car", "a black car"], ["the apple", "the green apple"]]
    z = torch.randn(2, 2, *prior.latent_shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    given = gradient(guidance, z, prompts, generators=generators(0, 1))  # pyright: ignore[reportArgumentType]
    ((pictures, texts),) = reward.shown
    assert pictures.shape[:3] == (2, 4, 1)
    assert list(texts) == [text for own in prompts for text in own]
    assert guidance.record.rewards is not None
    torch.testing.assert_close(guidance.record.rewards, torch.tensor([[0.5, 2.5], [4.5, 6.5]]))
    swapped = [own[::-1] for own in prompts]
    assert not torch.equal(given, gradient(guidance, z, swapped, generators=generators(0, 1)))  # pyright: ignore[reportArgumentType]


# --- bad input


def with_reward(reward: Any) -> Callable[[], Tensor]:
    return lambda: RewardSDS(two_colours(), reward)(latents=latents(2), prompt="dark")


def nan_reward(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return torch.tensor([[1.0, 2.0], [float("nan"), 1.0], [0.0, 0.0], [0.0, 0.0]])


def item_reward(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return torch.zeros(2)


def listing_reward(images: Tensor, prompts: Sequence[str]) -> Any:
    return [[1.0, 2.0]] * 4


def with_prior(prior: Any) -> Callable[[], RewardSDS]:
    return lambda: RewardSDS(prior, brightness)


def guided(**settings: Any) -> Callable[[], RewardSDS]:
    return lambda: RewardSDS(two_colours(), brightness, **settings)


def called(**arguments: Any) -> Callable[[], Tensor]:
    return lambda: RewardSDS(two_colours(), brightness)(**arguments)


def guided_call(**settings: Any) -> Callable[[], Tensor]:
    return lambda: guided(**settings)()(latents=latents(1), prompt="dark")


class Nowhere(Weighting):
    def __call__(self, rewards: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        return rewards / 0


class Fewer(Weighting):
    def __call__(self, rewards: Tensor, generators: Sequence[torch.Generator] | None = None) -> Tensor:
        return rewards[1:]


@pytest.mark.parametrize(
    "act, message",
    [
        (with_prior("toybox"), r"prior is 'toybox', a name: .* load_prior\('toybox'\)"),
        (with_prior(Path("models/sd")), r"load_prior\('models/sd'\)"),
        (with_prior(torch.nn.Identity()), "prior is an object of Identity: it has no alphas_cumprod"),
        (with_prior(type(two_colours())), "prior is the class .*: give what load_prior returns"),
        (with_reward(KnownScores), "reward is the class KnownScores: give what load_reward returns"),
        (guided(negative_prompt=None), "negative_prompt is None: expected a text, empty for none"),
        (with_reward("clip"), r"reward is 'clip', a name: .* load_reward\('clip'\)"),
        (with_reward(0.5), r"reward is 0.5: give what load_reward returns, a function"),
        (
            guided(weighting="best-worst"),
            r"weighting is 'best-worst': give an object such as BestWorst\(k=1\)",
        ),
        (guided(weighting=BestWorst), "weighting is the class BestWorst: give an object"),
        (guided(loss="vsd"), "loss is 'vsd': give an object such as SDS"),
        (guided(timesteps=(0.02, 0.98)), r"timesteps is \(0.02, 0.98\): give FixedRange\(0.02, 0.98\)"),
        (guided(candidates=0), "candidates is 0: expected a whole number, at least 1"),
        (guided(candidates=2.5), "candidates is 2.5: expected a whole number"),
        (guided(seed="now"), "seed is 'now': expected a whole number"),
        (guided(guidance_scale=float("nan")), "guidance_scale is nan: expected a finite number"),
        (guided(rollout_guidance_scale="7.5"), "rollout_guidance_scale is '7.5': expected a finite number"),
        (
            guided(candidates=3, weighting=BestWorst(k=2)),
            r"BestWorst\(k=2\) needs at least 4 candidates, got 3",
        ),
        (guided(rollout_steps=0), "rollout_steps is 0: expected a whole number, at least 1"),
        (guided(reward_steps=-1), "reward_steps is -1: expected a whole number, at least 0"),
        (
            guided_call(timesteps=lambda step: (0.9, 0.1)),
            "0 <= t_min <= t_max <= 1 .* got t_min=0.9, t_max=0.1",
        ),
        (guided_call(timesteps=lambda step: (20, 980)), "fractions of the prior's timesteps.*, got t_min=20"),
        (
            guided_call(noise=lambda like, n, generators: torch.zeros(n + 1, *like.shape)),
            r"the noise source gave shape \(5, 1, 1, 3, 2, 2\).* = \(4, 1, 1, 3, 2, 2\)",
        ),
        (guided_call(noise=lambda like, n, generators: None), "the noise source gave NoneType"),
        (guided_call(weighting=Nowhere()), r"Nowhere\(\) gave NaN or infinity, of rewards \(4, 1\)"),
        (guided_call(weighting=Fewer()), r"Fewer\(\) gave shape \(3, 1\), of rewards \(4, 1\)"),
        (guided_call(weighting=Softmax(1e-42)), "NaN or infinity"),
        (guided(noise="pink"), "noise is 'pink': expected 'iid' or 'antithetic', or a function"),
        (lambda: RewardSDS(two_colours()), r"BestWorst\(k=1\) needs a reward, and none was given"),
        (with_reward(nan_reward), "nan_reward returned NaN or infinity for 1 of 8 previews"),
        (with_reward(item_reward), r"item_reward returned shape \(2,\).*\(candidates, items\) = \(4, 2\)"),
        (with_reward(listing_reward), r"listing_reward returned list.*\(candidates, items\) = \(4, 2\)"),
        (with_reward(KnownScores(SCORES.T)), r"KnownScores returned shape \(2, 4\)"),
        (called(prompt="dark"), "either images or latents"),
        (called(images=latents(1), latents=latents(1), prompt="dark"), "either images or latents"),
        (called(latents=latents(1)), "a prompt is needed"),
        (called(latents=latents(2), prompt=["dark"] * 3), "2 items need 2 prompts .* got 3"),
        (
            called(latents=latents(1, views=2), prompt=[["dark"] * 3]),
            r"need 2 texts for every item, got \[3\]",
        ),
        (called(latents=torch.zeros(4, 4), prompt="dark"), r"latents must have shape .* got \(4, 4\)"),
        (
            called(latents=latents(2), prompt="dark", generators=generators(1)),
            "2 items need 2 generators, got 1",
        ),
        (
            called(images=torch.zeros(4, 3, 2, 2), prompt="dark", cameras=torch.eye(4).expand(4, 4, 4)),
            r"= \(4, 1, 4, 4\).*got \(4, 4, 4, 4\); several views of one item",
        ),
        (called(images=torch.zeros(3, 2, 2).numpy(), prompt="dark"), "images must be a tensor .* of ndarray"),
        (
            called(images=torch.zeros(3, 2, 2).byte(), prompt="dark"),
            "floating-point numbers, got one of torch.uint8",
        ),
        (
            called(images=torch.zeros(2, 2, 3), prompt="dark"),
            r"images must have shape .* got \(2, 2, 3\); channels come",
        ),
        (called(images=torch.zeros(4, 2, 2), prompt="dark"), r"\(items, 3, H, W\) .* got \(4, 2, 2\)"),
        (
            called(images=torch.zeros(0, 3, 2, 2), prompt="dark"),
            r"images must have shape .* got \(0, 3, 2, 2\)",
        ),
        (
            called(images=torch.zeros(3, 2, 2, device="meta"), prompt="dark"),
            "images are on meta, the prior is on cpu",
        ),
        (
            called(latents=torch.zeros(4, 2, 2), prompt="dark"),
            r"latents must have shape \(3, h, w\).*got \(4, 2, 2\)",
        ),
        (called(latents=latents(1), prompt=7), "prompts are texts, got 7"),
        (called(latents=latents(2), prompt=["dark", None]), "prompts are texts, got None"),
        (called(latents=latents(1), prompt=[[b"dark"]]), "prompts are texts, got b'dark'"),
        (called(latents=latents(1), prompt=b"dark"), "prompts are texts, got b'dark'"),
        (
            called(latents=latents(1), prompt="dark", step=-1),
            "step is -1: expected a whole number, at least 0",
        ),
        (
            called(latents=latents(1), prompt="dark", generators=[3]),
            "one of the generators is 3: expected torch.Generator",
        ),
        (
            called(images=torch.full((3, 2, 2), torch.nan), prompt="dark"),
            "images hold NaN or infinity: look at what makes them",
        ),
        (called(latents=latents(1) * torch.inf, prompt="dark"), "latents hold NaN or infinity"),
        (
            called(images=torch.linspace(-1, 1, 12).reshape(3, 2, 2), prompt="dark"),
            r"values from -1 to 1: expected 0 to 1; give \(images \+ 1\) / 2",
        ),
        (
            called(images=torch.full((3, 2, 2), 255.0), prompt="dark"),
            "values from 255 to 255: .* images / 255",
        ),
    ],
)
def test_bad_input_is_named(act: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=message) as error:
        act()
    assert "\n" not in str(error.value)


def test_rounding_at_the_ends_of_the_range_is_no_mistake():
    images = torch.tensor([-1e-6, 0.5, 1 + 1e-6]).reshape(3, 1, 1).expand(3, 2, 2).clone().requires_grad_()
    RewardSDS(two_colours(), brightness)(images, "dark").backward()
    assert images.grad is not None


def test_values_are_looked_at_in_the_first_call_alone():
    """They have to be waited for on a GPU; shapes are looked at always."""
    guidance = RewardSDS(two_colours(), brightness)
    guidance(torch.full((3, 2, 2), 0.5), "dark")
    guidance(torch.full((3, 2, 2), 7.0), "dark")
    with pytest.raises(ValueError, match="images must have shape"):
        guidance(torch.full((4, 2, 2), 0.5), "dark")


def test_a_call_that_is_refused_counts_as_no_step():
    asked: list[int] = []

    def schedule(step: int) -> tuple[float, float]:
        asked.append(step)
        return 0.4, 0.4

    guidance = RewardSDS(two_colours(), brightness, timesteps=schedule)
    for images in (torch.full((3, 2, 2), 7.0), torch.full((3, 2, 2), torch.nan)):
        with pytest.raises(ValueError, match="images"):
            guidance(images, "dark")
    guidance(torch.full((3, 2, 2), 0.5), "dark")
    assert asked == [0]


def test_words_that_the_prior_does_not_know_are_named_once_a_prompt():
    class Vague(GaussianMixturePrior):
        def predict(self, noisy: Tensor, timesteps: Tensor, condition: Any, unconditional: bool = True):
            vague = replace(condition, prompts=["dark"] * len(condition.prompts))
            return super().predict(noisy, timesteps, vague, unconditional)

    guidance = RewardSDS(Vague(two_colours().mixtures), brightness)
    with pytest.warns(UserWarning, match="the prior does not know: blue, dragon; ") as said:
        guidance(latents=latents(2), prompt=["dark blue dragon", "dark"])
    assert [warning.filename for warning in said] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guidance(latents=latents(2), prompt=["dark", "dark blue dragon"])
    with pytest.warns(UserWarning, match="does not know: castle"):
        guidance(latents=latents(1, views=2), prompt=[["dark", "dark castle"]])


def steered_by(rewards: list[float], weighting: Weighting, steps: int = 25) -> list[str]:
    """What is warned of in so many steps with candidates of these rewards."""
    scores = KnownScores(torch.tensor(rewards)[:, None])
    guidance = RewardSDS(two_colours(), scores, candidates=len(rewards), weighting=weighting)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(steps):
            guidance(latents=latents(1).requires_grad_(), prompt="dark")
    return [str(one.message) for one in told if "steer next to nothing" in str(one.message)]


def test_a_reward_that_steers_nothing_is_told_once():
    close = [0.28, 0.29, 0.30, 0.31]
    (told,) = steered_by(close, Softmax())
    assert (
        "weights of 4 candidates have been all but equal (now 0.246 to 0.254, of rewards that differ by 0.01)"
        in told
    )
    assert steered_by(close, Softmax(temperature=0.02)) == []
    assert steered_by(close, BestWorst()) == []
    assert steered_by([0.0, 1.0], Advantage(factor=20.0)) == []  # −0.48 and 0.53
    assert steered_by([0.0, 1.0, 2.0, 3.0], Softmax()) == []
    assert steered_by(close, Softmax(), steps=9) == []


def test_no_reward_is_needed_when_no_step_uses_it():
    guidance = RewardSDS(two_colours(), reward_steps=0)
    guidance(latents=latents(1), prompt="dark")
    assert guidance.record.rewards is None


def test_cameras_may_be_shared_by_items_and_come_from_an_object():
    @dataclass
    class Rig:
        camera_to_world: Tensor

    class Noting(GaussianMixturePrior):
        seen: Tensor | None = None

        def condition(
            self,
            prompts: Texts,
            negative_prompt: str | Texts = "",
            camera_to_world: Tensor | None = None,
        ):
            self.seen = camera_to_world
            return super().condition(prompts, negative_prompt, camera_to_world)

    poses = torch.arange(3 * 16.0).reshape(3, 4, 4)
    for cameras in (poses, Rig(poses), Rig(poses.expand(2, 3, 4, 4))):
        prior = Noting(two_colours().mixtures)
        RewardSDS(prior, brightness)(latents=latents(2, views=3), prompt="dark", cameras=cameras)
        assert prior.seen is not None
        assert torch.equal(prior.seen, poses.expand(2, 3, 4, 4))


def test_the_reward_rests_after_its_steps_and_comes_back():
    class Model:
        def __init__(self) -> None:
            self.moves: list[str] = []

        def __call__(self, images: Tensor, prompts: Any) -> Tensor:
            return images.mean(dim=(2, 3, 4, 5))

        def to(self, device: Any) -> None:
            self.moves.append(str(device))

    z = latents(1)
    for rests in (True, False):
        model = Model()
        guidance = RewardSDS(two_colours(), model, reward_steps=2, rest_reward=rests)
        for step in (0, 1, 2, 3, 0, 1, 5):
            guidance(latents=z, prompt="dark", step=step)
        assert model.moves == (["cpu", "cpu", "cpu"] if rests else [])
