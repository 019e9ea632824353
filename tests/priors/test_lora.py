"""The estimator that shares the prior's network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rewardsds.distillation.guidance import RewardSDS
from rewardsds.distillation.losses import VSD
from rewardsds.distillation.weighting import Uniform
from rewardsds.priors.diffusion import DiffusionPrior
from rewardsds.priors.load import load_prior
from rewardsds.priors.lora import LoRAEstimator
from rewardsds.scenes.cameras import sample_orbit_group

NOISY = torch.randn(2, 1, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
AT = torch.tensor([300])


@pytest.fixture
def prior(tiny_prior_folder: Path) -> DiffusionPrior:
    return DiffusionPrior.from_pretrained(tiny_prior_folder, "cpu")


def predictions(prior: DiffusionPrior) -> torch.Tensor:
    with torch.no_grad():
        prediction = prior.predict(NOISY, AT, prior.condition(["a red car"]))
    assert prediction.unconditional is not None
    return torch.stack([prediction.conditional, prediction.unconditional])


def shake(estimator: LoRAEstimator) -> None:
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter.add_(0.3)


@pytest.mark.parametrize("convolutions", [False, True])
def test_switched_off_the_prior_is_what_it_was_to_the_bit(prior: DiffusionPrior, convolutions: bool):
    before = predictions(prior)
    estimator = LoRAEstimator(prior, convolutions=convolutions)
    assert torch.equal(predictions(prior), before)
    shake(estimator)
    estimator.predict(NOISY, AT, prior.condition(["a red car"]))
    assert torch.equal(predictions(prior), before)


@pytest.mark.parametrize("convolutions", [False, True])
def test_a_new_estimator_predicts_what_the_prior_does_and_learns_to_differ(
    prior: DiffusionPrior, convolutions: bool
):
    estimator = LoRAEstimator(prior, convolutions=convolutions)
    condition = prior.condition(["a red car"])
    torch.testing.assert_close(estimator.predict(NOISY, AT, condition), predictions(prior)[0])
    shake(estimator)
    assert not torch.allclose(estimator.predict(NOISY, AT, condition), predictions(prior)[0])


def test_only_adapters_are_added(prior: DiffusionPrior):
    before = sum(parameter.numel() for parameter in prior.network.parameters())
    estimator = LoRAEstimator(prior, rank=2)
    own = sum(parameter.numel() for parameter in estimator.parameters())
    assert sum(parameter.numel() for parameter in prior.network.parameters()) == before + own
    assert own < before / 5


def test_adapters_in_convolutions_are_asked_for(prior: DiffusionPrior):
    plain = LoRAEstimator(prior, name="plain").state_dict()
    wider = LoRAEstimator(prior, name="wider", convolutions=True).state_dict()
    assert not any(".conv" in key for key in plain)
    more = {key for key in wider if ".conv1." in key or ".conv2." in key}
    assert more
    assert {key.replace("wider", "plain") for key in set(wider) - more} == set(plain)


@pytest.mark.parametrize("convolutions", [False, True])
def test_gradient_reaches_the_adapters_and_nothing_else(prior: DiffusionPrior, convolutions: bool):
    estimator = LoRAEstimator(prior, convolutions=convolutions)
    shake(estimator)
    estimator.predict(NOISY, AT, prior.condition(["a red car"])).square().sum().backward()
    assert all(parameter.grad is not None for parameter in estimator.parameters())
    own = {id(parameter) for parameter in estimator.parameters()}
    assert all(p.grad is None for p in prior.network.parameters() if id(p) not in own)


def test_the_seed_makes_the_adapters(prior: DiffusionPrior):
    first = LoRAEstimator(prior, name="first", seed=1).state_dict()
    again = LoRAEstimator(prior, name="again", seed=1).state_dict()
    other = LoRAEstimator(prior, name="other", seed=2).state_dict()
    same = [torch.equal(a, b) for a, b in zip(first.values(), again.values())]
    assert all(same)
    assert not all(torch.equal(a, b) for a, b in zip(first.values(), other.values()))
    with pytest.raises(ValueError, match="has an adapter 'first' already"):
        LoRAEstimator(prior, name="first")


def test_a_prior_without_cameras_gets_a_camera_condition(tiny_single_view_prior_folder: Path):
    prior = DiffusionPrior.from_pretrained(tiny_single_view_prior_folder, "cpu")
    estimator = LoRAEstimator(prior)
    poses = sample_orbit_group(torch.Generator().manual_seed(0), views=2).camera_to_world.reshape(2, 1, 4, 4)
    noisy = NOISY[:1].expand(1, 2, 1, 4, 8, 8).contiguous()
    seen = prior.condition(["a red car"] * 2, camera_to_world=poses)
    at = AT.expand(2)
    first = estimator.predict(noisy, at, seen)
    torch.testing.assert_close(first[:, 0], first[:, 1])  # it starts at zero
    shake(estimator)
    turned = estimator.predict(noisy, at, seen)
    assert not torch.allclose(turned[:, 0], turned[:, 1])
    plain = prior.predict(noisy, at, seen, unconditional=False).conditional
    assert torch.equal(plain[:, 0], plain[:, 1])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_cameras_are_seen_whatever_the_chunk(tiny_single_view_prior_folder: Path, size: int):
    prior = DiffusionPrior.from_pretrained(tiny_single_view_prior_folder, "cpu")
    estimator = LoRAEstimator(prior)
    shake(estimator)
    poses = sample_orbit_group(torch.Generator().manual_seed(0), views=4).camera_to_world.reshape(1, 4, 4, 4)
    noisy = NOISY[:1].expand(2, 1, 4, 4, 8, 8).contiguous()
    seen = prior.condition(["a red car"], camera_to_world=poses)
    whole = estimator.predict(noisy, AT, seen)
    prior.in_chunks(size)
    torch.testing.assert_close(estimator.predict(noisy, AT, seen), whole, rtol=1e-4, atol=1e-4)
    for view in range(4):  # each row has its own camera
        alone = prior.condition(["a red car"], camera_to_world=poses[:, view : view + 1])
        found = estimator.predict(noisy[:, :, view : view + 1], AT, alone)
        torch.testing.assert_close(found, whole[:, :, view : view + 1], rtol=1e-4, atol=1e-4)


def vsd(prior: DiffusionPrior, guidance_scale: float = 1.0, learning_rate: float = 1e-2) -> RewardSDS:
    loss = VSD(LoRAEstimator(prior), guidance_scale, learning_rate)
    return RewardSDS(prior, None, weighting=Uniform(), loss=loss)


def steps(guidance: RewardSDS, latents: torch.Tensor, count: int) -> list[torch.Tensor]:
    gradients = []
    for _ in range(count):
        z = latents.clone().requires_grad_()
        guidance(latents=z, prompt="a red car").backward()
        assert z.grad is not None
        gradients.append(z.grad)
    return gradients


def test_no_force_while_the_estimator_is_the_prior(prior: DiffusionPrior):
    """At guidance 1 the first step has no gradient; the estimator then learns the particles, and has."""
    first, second = steps(vsd(prior), torch.randn(2, 1, 4, 8, 8), 2)
    assert first.abs().max() < 1e-5
    assert second.abs().max() > 1e-4


def test_the_estimator_learns_its_particles(prior: DiffusionPrior):
    """It becomes the better denoiser of the latents that it is trained on."""
    latents = torch.full((4, 1, 4, 8, 8), 0.7)
    guidance = vsd(prior, learning_rate=3e-3)
    steps(guidance, latents, 60)
    loss = guidance.settings.loss
    assert isinstance(loss, VSD)
    noise = torch.randn(1, 4, 1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    t = torch.full((4,), 500)
    kept = prior.alphas_cumprod[500]
    noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    condition = prior.condition(["a red car"] * 4)
    with torch.no_grad():
        own = (loss.estimator.predict(noisy, t, condition) - noise).square().mean()
        prior_error = (prior.predict(noisy, t, condition).conditional - noise).square().mean()
    assert own < 0.9 * prior_error


@pytest.mark.slow
def test_on_the_toybox_convolutions_learn_the_detail_that_attention_does_not():
    """Its network attends at 8 × 8 and 4 × 4 only."""

    def learned(convolutions: bool) -> float:
        """By how much the estimator's error on its own particle is below the prior's."""
        prior = load_prior("toybox", "cpu")
        loss = VSD(LoRAEstimator(prior, convolutions=convolutions), 1.0, learning_rate=3e-3)
        guidance = RewardSDS(prior, None, weighting=Uniform(), loss=loss)
        draws = [torch.Generator().manual_seed(seed) for seed in range(3)]
        latents = torch.randn(1, 1, *prior.latent_shape, generator=draws[0])
        for _ in range(40):
            z = latents.clone().requires_grad_()
            guidance(latents=z, prompt="a red car", generators=draws[1:2]).backward()
        noise = torch.randn(16, 1, 1, *prior.latent_shape, generator=draws[2])
        t, kept = torch.tensor([300]), prior.alphas_cumprod[300]
        noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
        condition = prior.condition(["a red car"])
        with torch.no_grad():
            own = (loss.estimator.predict(noisy, t, condition) - noise).square().mean()
            prior_error = (prior.predict(noisy, t, condition).conditional - noise).square().mean()
        return float(prior_error - own)

    both = learned(True), learned(False)
    assert both[0] > 1.5 * both[1] > 0, both


def test_what_it_learned_is_restored(prior: DiffusionPrior, tiny_prior_folder: Path):
    latents = torch.randn(1, 1, 4, 8, 8)
    guidance = vsd(prior)
    steps(guidance, latents, 3)
    state = {key: value.clone() for key, value in guidance.state_dict().items()}
    restored = vsd(DiffusionPrior.from_pretrained(tiny_prior_folder, "cpu"))
    restored.load_state_dict(state)
    generators = [[torch.Generator().manual_seed(9)] for _ in range(2)]
    for _ in range(2):
        z = [latents.clone().requires_grad_() for _ in range(2)]
        for one, own, latent in zip((guidance, restored), generators, z):
            one(latents=latent, prompt="a red car", generators=own).backward()
        assert torch.equal(z[0].grad, z[1].grad)  # pyright: ignore[reportArgumentType]
