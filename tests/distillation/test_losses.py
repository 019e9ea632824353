"""Residuals by hand."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from oracles import GaussianMixturePrior, Mixture, two_colours
from rewardsds.distillation.candidates import Candidates
from rewardsds.distillation.guidance import RewardSDS
from rewardsds.distillation.losses import (
    CSD,
    DDS,
    ISM,
    NFSD,
    SDI,
    SDS,
    Bridge,
    Loss,
    Recon,
    Refine,
    TimestepWeighted,
    TwoStageBridge,
    WithRewardGradient,
)
from rewardsds.distillation.noising import Interval, Inversion, invert, noise_levels
from rewardsds.distillation.weighting import BestWorst, Uniform
from rewardsds.priors.base import Prediction
from rewardsds.rewards.base import Reward, RewardError
from rewardsds.rewards.compose import Minimum, WeightedSum
from rewardsds.rewards.views import OverViews


def some_candidates() -> Candidates:
    """N=3, B=2, V=2 with arbitrary predictions."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shape = (3, 2, 2, 3, 4, 4)
    alpha = torch.tensor([0.8, 0.28], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    sigma = torch.tensor([0.6, 0.96], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    clean, noise = draw(*shape[1:]), draw(*shape)
    prior = two_colours(size=4)
    return Candidates(
        prior=prior,
        clean=clean,
        noise=noise,
        noisy=alpha * clean + sigma * noise,
        timesteps=torch.tensor([100, 800]),
        alpha=alpha,
        sigma=sigma,
        prediction=Prediction(draw(*shape), draw(*shape)),
        condition=prior.condition(["dark", "light"]),
    )


def test_sds_by_hand():
    c = some_candidates()
    assert c.prediction.unconditional is not None
    u, p, e = (x.numpy() for x in (c.prediction.unconditional, c.prediction.conditional, c.noise))
    residual = SDS(guidance_scale=50.0).residual(c)
    np.testing.assert_allclose(residual.numpy(), u + 50.0 * (p - u) - e)
    np.testing.assert_allclose(SDS().timestep_weight(c).flatten().numpy(), [0.36, 0.9216])


@pytest.mark.parametrize(
    "name, weights",
    [("variance", [0.36, 0.9216]), ("uniform", [1.0, 1.0]), ("fantasia3d", [0.288, 0.258048])],
)
def test_other_timestep_weights_by_hand(name: Any, weights: list[float]):
    """α = 0.8 and 0.28; the residual stays."""
    c = some_candidates()
    weighted = TimestepWeighted(SDS(50.0), name)
    np.testing.assert_allclose(weighted.timestep_weight(c).flatten().numpy(), weights)
    assert torch.equal(weighted.residual(c), SDS(50.0).residual(c))
    staged = TimestepWeighted(TwoStageBridge(5, SDS(2.0), SDS(3.0)), name)
    np.testing.assert_allclose(staged.at(5).timestep_weight(c).flatten().numpy(), weights)
    assert torch.equal(staged.at(5).residual(c), SDS(3.0).residual(c))


def test_the_rewards_gradient_does_not_depend_on_the_timestep_weight():
    """Divided by ω(t) as the residual has it, so that all of it is λ."""
    c = some_candidates()

    def reward(images: torch.Tensor, prompts: Any) -> torch.Tensor:
        return images.mean(dim=(2, 3, 4, 5))

    def steered(loss: Loss) -> torch.Tensor:
        whole = WithRewardGradient(loss, reward, 2.0)
        return loss.timestep_weight(c) * (whole.residual(c) - loss.residual(c))

    torch.testing.assert_close(steered(TimestepWeighted(SDS(7.5), "uniform")), steered(SDS(7.5)))


def test_an_unknown_timestep_weight_is_refused():
    with pytest.raises(ValueError, match="'sigma': expected one of variance, uniform, fantasia3d"):
        TimestepWeighted(SDS(), "sigma")  # pyright: ignore[reportArgumentType]


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


def test_csd_by_hand():
    c = some_candidates()
    assert c.prediction.unconditional is not None
    expected = 30.0 * (c.prediction.conditional - c.prediction.unconditional)
    torch.testing.assert_close(CSD(30.0).residual(c), expected)


def test_sds_at_high_guidance_is_led_by_csd():
    c = some_candidates()
    torch.testing.assert_close(SDS(1e7).residual(c) / 1e7, CSD(1.0).residual(c), atol=1e-5, rtol=1e-5)


def test_nfsd_by_hand():
    """Item 0 is at 10% of the timesteps, where the unconditional prediction stands alone; item 1 at 80%."""
    c = some_candidates()
    assert c.prediction.unconditional is not None
    u, p = c.prediction.unconditional, c.prediction.conditional
    bad = c.prior.predict(
        c.noisy, c.timesteps, c.prior.condition(["either", "either"]), unconditional=False
    ).conditional
    residual = NFSD(guidance_scale=7.5, bad_quality="either").residual(c)
    torch.testing.assert_close(residual[:, 0], (u + 7.5 * (p - u))[:, 0])
    torch.testing.assert_close(residual[:, 1], (u - bad + 7.5 * (p - u))[:, 1])


def captioned() -> GaussianMixturePrior:
    """Prompts with additions: "dark?" is anything at all, as "" is; "dark!" is light."""
    prior = two_colours(size=4)
    prior.mixtures |= {
        "dark?": prior.mixtures[""],
        "light?": prior.mixtures[""],
        "dark!": prior.mixtures["light"],
        "light!": prior.mixtures["light"],
    }
    return prior


def step_of(prior: GaussianMixturePrior, loss: Loss, prompts: list[str], candidates: int = 3) -> Candidates:
    """Candidates as the step makes them for a loss, at 10% and 60% of the timesteps."""
    generator = torch.Generator().manual_seed(1)
    clean = torch.randn(2, 1, 3, 4, 4, generator=generator, dtype=torch.float64)
    drawn = torch.randn(candidates, 2, 1, 3, 4, 4, generator=generator, dtype=torch.float64)
    timesteps = torch.tensor([100, 600])
    condition = prior.condition(prompts)
    alpha, sigma = noise_levels(prior, timesteps)
    noise, noisy = loss.noising(prior, clean, drawn, timesteps, condition)
    prediction = prior.predict(noisy, timesteps, condition)
    return Candidates(prior, clean, noise, noisy, timesteps, alpha, sigma, prediction, condition)


def test_a_bridge_from_anything_is_csd():
    prior = captioned()
    c = step_of(prior, Bridge(), ["dark", "light"])
    bridge = Bridge(guidance_scale=20.0, source="?", target="")
    torch.testing.assert_close(bridge.residual(c), CSD(20.0).residual(c))


def test_a_bridge_to_where_one_is_has_no_force():
    prior = captioned()
    c = step_of(prior, Bridge(), ["dark", "light"])
    assert torch.equal(Bridge(source="!", target="!").residual(c), torch.zeros_like(c.noise))
    one_way, back = (Bridge(source=s, target=t).residual(c) for s, t in (("?", "!"), ("!", "?")))
    torch.testing.assert_close(one_way, -back)


def test_the_bridge_has_two_stages():
    loss = TwoStageBridge(second_stage_from=5, first=SDS(30.0), second=Bridge(40.0))
    assert loss.at(4) == SDS(30.0)
    assert loss.at(5) == Bridge(40.0)
    assert SDS().at(7) == SDS()


def test_dds_is_the_difference_of_two_sds_residuals():
    prior = two_colours(size=4)
    c = step_of(prior, SDS(), ["dark", "dark"])
    reference = torch.randn_like(c.clean)
    source = prior.condition(["light", "either"])
    other = Candidates(
        prior,
        reference,
        c.noise,
        c.alpha * reference + c.sigma * c.noise,
        c.timesteps,
        c.alpha,
        c.sigma,
        prior.predict(c.alpha * reference + c.sigma * c.noise, c.timesteps, source),
        source,
    )
    expected = SDS(7.5).residual(c) - SDS(7.5).residual(other)
    torch.testing.assert_close(DDS(reference, source, 7.5).residual(c), expected)


def test_dds_of_equal_pairs_is_zero():
    prior = two_colours(size=4)
    c = step_of(prior, SDS(), ["dark", "light"])
    residual = DDS(c.clean, prior.condition(["dark", "light"]), 7.5).residual(c)
    torch.testing.assert_close(residual, torch.zeros_like(residual))


def test_inversion_finds_the_noise_that_the_sampler_would_start_from():
    """For one Gaussian N(μ, s²) the flow that DDIM follows is known: (z − α μ) / √(α² s² + σ²) is constant."""
    prior = GaussianMixturePrior({"": Mixture.single(torch.full((3, 2, 2), 0.4), 0.5)})
    clean = torch.randn(1, 1, 3, 2, 2, dtype=torch.float64)
    timesteps = torch.tensor([700])
    noise = invert(prior, clean, timesteps, prior.condition([""]), steps=350, guidance_scale=1.0)
    alpha, sigma = noise_levels(prior, timesteps)
    alpha_0, sigma_0 = noise_levels(prior, torch.tensor([0]))

    def spread(a: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return (a.square() * 0.25 + s.square()).sqrt()

    standard = (clean - alpha_0 * 0.4) / spread(alpha_0, sigma_0)
    expected = (alpha * 0.4 + standard * spread(alpha, sigma) - alpha * clean) / sigma
    torch.testing.assert_close(noise[0], expected, atol=0.02, rtol=0.02)


def test_sdi_with_drawn_noise_alone_is_sds():
    prior = two_colours(size=4)
    c = step_of(prior, SDI(7.5, Inversion(eta=1.0)), ["dark", "light"])
    d = step_of(prior, SDS(7.5), ["dark", "light"])
    torch.testing.assert_close(SDI(7.5).residual(c), SDS(7.5).residual(d))


def test_without_drawn_noise_all_inverted_candidates_are_one():
    prior = two_colours(size=4)
    for loss in (SDI(inversion=Inversion(steps=3, eta=0.0)), ISM(interval=Interval(eta=0.0))):
        c = step_of(prior, loss, ["dark", "light"])
        residual = loss.residual(c)
        assert torch.equal(residual[0], residual[2])
        mixed = step_of(prior, type(loss)(), ["dark", "light"])
        assert not torch.equal(mixed.noise[0], mixed.noise[2])


def test_inversion_is_made_once_for_all_candidates():
    prior = two_colours(size=4)
    before = prior.network_evaluations
    step_of(prior, SDI(inversion=Inversion(steps=4)), ["dark", "light"], candidates=5)
    # 4 calls of 2 items in both branches, then 5 candidates of 2 items in both
    assert prior.network_evaluations - before == 4 * 2 * 2 + 5 * 2 * 2


def test_ism_compares_the_ends_of_an_interval():
    prior = two_colours(size=4)
    loss = ISM(7.5, Interval(interval=0.05, eta=1.0))
    c = step_of(prior, loss, ["dark", "light"])
    d = step_of(prior, SDS(), ["dark", "light"])  # the same draws
    start = torch.tensor([50, 550])
    alpha, sigma = noise_levels(prior, start)
    lower = alpha * d.clean + sigma * d.noise
    empty = prior.condition(["", ""])
    below = prior.predict(lower, start, empty, unconditional=False).conditional
    upper = c.alpha * (lower - sigma * below) / alpha + c.sigma * below
    torch.testing.assert_close(c.noisy, upper)
    expected = prior.predict(upper, c.timesteps, c.condition).guided(7.5) - below
    torch.testing.assert_close(loss.residual(c), expected)


def test_settings_of_inversions_are_checked():
    with pytest.raises(ValueError, match="between 0 and 1, got 2"):
        Inversion(eta=2)
    with pytest.raises(ValueError, match="at least 1 step"):
        Inversion(steps=0)
    with pytest.raises(ValueError, match="fractions"):
        Interval(interval=50)


def brightness(images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
    return images.mean(dim=(2, 3, 4, 5))


def test_the_rewards_gradient_is_added_at_the_preview():
    """Brightness of 48 values of a picture that is z / 2 + 1 / 2: its gradient is 1 / 96 where nothing is clamped."""
    prior = two_colours(size=4)
    c = step_of(prior, SDS(), ["dark", "light"])
    loss = WithRewardGradient(SDS(7.5), brightness, scale=10.0, preview_guidance_scale=1.0)
    difference = (SDS(7.5).residual(c) - loss.residual(c)) * loss.timestep_weight(c)
    inside = c.predicted_clean(1.0).abs() < 1
    assert 0.2 < inside.double().mean() <= 1
    torch.testing.assert_close(difference, 10.0 / 96 * inside.double())


def gamma(images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
    return 3 * images.square().mean(dim=(2, 3, 4, 5))


@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize("make", [lambda sum_: sum_, OverViews], ids=["sum", "sum over views"])
def test_the_gradient_of_a_sum_is_the_sum_of_the_rewards_own(
    make: Callable[[Reward], Reward], candidates: int
) -> None:
    """Standardised over candidates a sum never moves: what it is made of counts in its own units."""
    c = step_of(two_colours(size=4), SDS(), ["dark", "light"])
    c = c.select(torch.arange(candidates)[:, None].expand(-1, 2))

    def climbed(reward: Reward) -> torch.Tensor:
        loss = WithRewardGradient(SDS(7.5), reward, scale=10.0, preview_guidance_scale=1.0)
        return SDS(7.5).residual(c) - loss.residual(c)

    both = climbed(make(WeightedSum([brightness, gamma], [1.0, 0.5])))
    assert both.abs().max() > 0
    torch.testing.assert_close(both, climbed(brightness) + 0.5 * climbed(gamma))
    weakest = Minimum([brightness, Minimum([gamma])])  # of each candidate one side counts alone
    expected = torch.where(shown(c, brightness) < shown(c, gamma), climbed(brightness), climbed(gamma))
    torch.testing.assert_close(climbed(weakest), expected)


def shown(c: Candidates, reward: Reward) -> torch.Tensor:
    """What a reward says of the candidates' one-step previews, as it broadcasts over their latents."""
    return reward(c.prior.decode(c.predicted_clean(1.0)), ["dark", "light"])[:, :, None, None, None, None]


def test_a_reference_for_each_item_is_asked_for() -> None:
    c = some_candidates()
    loss = DDS(c.clean[:1], c.prior.condition(["dark"], ""))
    with pytest.raises(ValueError, match="each item needs its own reference"):
        loss.residual(c)


def test_a_bridge_keeps_what_its_stages_have_learned() -> None:
    class Learned(SDS):
        value: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            object.__setattr__(self, "value", torch.zeros(2))

        def state_dict(self) -> dict[str, torch.Tensor]:
            return {"a.b": self.value}

        def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
            self.value.copy_(state["a.b"])

    first, second = Learned(), Learned()
    first.value.fill_(1)
    second.value.fill_(2)
    stages = Learned(), Learned()
    TwoStageBridge(3, *stages).load_state_dict(TwoStageBridge(3, first, second).state_dict())
    assert [stage.value.tolist() for stage in stages] == [[1, 1], [2, 2]]


def test_a_reward_without_gradient_is_refused():
    c = step_of(two_colours(size=4), SDS(), ["dark", "light"])

    def counted(images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        return brightness(images, prompts).detach()

    with pytest.raises(RewardError, match="counted has no gradient"):
        WithRewardGradient(SDS(), counted, scale=1.0).residual(c)


@pytest.mark.parametrize("loss", [CSD(), NFSD(bad_quality="either"), SDI(), ISM(), SDS(), Recon()], ids=repr)
def test_every_loss_takes_weights_and_leads_to_the_prompt(loss: Loss):
    """From mid-grey, Adam with any of the losses makes the picture that is asked for: -0.6 for "dark"."""
    guidance = RewardSDS(two_colours(), brightness, candidates=4, weighting=BestWorst(1), loss=loss)
    latents = torch.zeros(1, 1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([latents], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        guidance(latents=latents, prompt="dark").backward()
        optimizer.step()
    assert guidance.record.rewards is not None
    assert latents.detach().mean().item() < -0.3


def guided_gradient(loss: Loss, **options) -> torch.Tensor:
    latents = torch.randn((2, 3, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    latents.requires_grad_()
    guidance = RewardSDS(two_colours(size=4), loss=loss, candidates=1, weighting=Uniform(), seed=3, **options)
    guidance(latents=latents, prompt=["dark", "light"]).backward()
    assert latents.grad is not None
    return latents.grad


def test_refinement_of_one_step_is_reconstruction():
    """The preview after one step is x̂0 of the prediction itself."""
    refined = guided_gradient(Refine(), rollout_steps=1, rollout_guidance_scale=4.0)
    torch.testing.assert_close(refined, guided_gradient(Recon(4.0, rescale=0.0)))


def test_refinement_follows_the_previews_of_several_steps():
    """Its target is what a step keeps as preview, here that of one candidate without a reward."""
    prior = two_colours(size=4)
    latents = torch.zeros((1, 3, 4, 4), dtype=torch.float64, requires_grad=True)
    guidance = RewardSDS(
        prior, loss=Refine(), candidates=1, weighting=Uniform(), rollout_steps=6, rollout_guidance_scale=1.0
    )
    guidance(latents=latents, prompt="dark", previews=True).backward()
    assert latents.grad is not None
    assert guidance.record.previews is not None
    target = (latents - latents.grad).detach()
    torch.testing.assert_close(
        prior.decode(target[None, None])[0, 0], guidance.record.previews[0, 0, 0][None]
    )
    assert guidance.record.network_evaluations == 6
