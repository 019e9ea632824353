"""`DiffusionPrior` on a random checkpoint in the diffusers layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel

import tiny_models
from rewardsds.priors.diffusion import DiffusionPrior
from rewardsds.priors.load import load_prior
from rewardsds.scenes.cameras import orbit


@pytest.fixture(scope="module")
def prior(tiny_prior_folder: Path) -> DiffusionPrior:
    return DiffusionPrior.from_pretrained(tiny_prior_folder, "cpu")


@pytest.fixture(scope="module")
def single_view_prior(tiny_single_view_prior_folder: Path) -> DiffusionPrior:
    return DiffusionPrior.from_pretrained(tiny_single_view_prior_folder, "cpu")


def noisy(candidates: int, items: int, views: int, seed: int = 0) -> Tensor:
    return torch.randn(candidates, items, views, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def poses(items: int, views: int = 4) -> Tensor:
    azimuth = torch.arange(views) * (2 * torch.pi / views) + 0.3 * torch.arange(items)[:, None]
    return orbit(azimuth, torch.tensor(0.2), torch.tensor(3.0), torch.tensor(0.7)).camera_to_world


def test_what_the_prior_says_of_itself(prior: DiffusionPrior, single_view_prior: DiffusionPrior):
    assert prior.latent_shape == (4, 8, 8)
    assert prior.image_size == 16
    assert prior.views == 4
    assert single_view_prior.views == 1
    # scaled_linear betas: √β runs evenly from √0.00085 to √0.012.
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2
    torch.testing.assert_close(prior.alphas_cumprod.double(), (1 - betas).cumprod(0), rtol=1e-4, atol=1e-6)


def test_encode_and_decode_are_the_autoencoders_own(prior: DiffusionPrior, tiny_prior_folder: Path):
    vae = AutoencoderTiny.from_pretrained(tiny_prior_folder / "vae")
    assert isinstance(vae, AutoencoderTiny)
    images = torch.rand(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = 0.7 * vae.encode(2 * images[1] - 1).latents  # pyright: ignore[reportAttributeAccessIssue]
        decoded = vae.decode(expected / 0.7).sample  # pyright: ignore[reportAttributeAccessIssue]
    latents = prior.encode(images)
    assert latents.shape == (2, 3, 4, 8, 8)
    torch.testing.assert_close(latents[1], expected)
    torch.testing.assert_close(prior.decode(latents)[1], ((decoded + 1) / 2).clamp(0, 1))


def test_decoded_pictures_lie_between_zero_and_one(prior: DiffusionPrior):
    pictures = prior.decode(100 * noisy(3, 2, 1))
    assert pictures.shape == (3, 2, 1, 3, 16, 16)
    assert pictures.min() >= 0
    assert pictures.max() <= 1


def test_encode_carries_gradient_through_resizing_and_weights_never_get_any(prior: DiffusionPrior):
    images = torch.rand(1, 2, 3, 24, 20, requires_grad=True, generator=torch.Generator().manual_seed(0))
    prior.encode(images).square().sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).float().mean() > 0.9
    for part in (prior.network, prior.vae, prior.text_encoder):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_encode_resizes_a_plain_picture_to_a_plain_picture(prior: DiffusionPrior):
    level = torch.tensor([0.2, 0.5, 0.8]).reshape(3, 1, 1)
    torch.testing.assert_close(
        prior.encode(level.expand(1, 1, 3, 64, 64)), prior.encode(level.expand(1, 1, 3, 16, 16))
    )


def test_text_states_are_the_text_encoders_own(prior: DiffusionPrior, tiny_prior_folder: Path):
    encoder = CLIPTextModel.from_pretrained(tiny_prior_folder / "text_encoder")
    tokenizer = AutoTokenizer.from_pretrained(tiny_prior_folder / "tokenizer")
    tokens = tokenizer("a red apple", padding="max_length", max_length=12, return_tensors="pt")
    assert tokens["input_ids"].tolist() == [[1, 4, 10, 6, 2, 0, 0, 0, 0, 0, 0, 0]]
    with torch.no_grad():
        expected = encoder(tokens["input_ids"]).last_hidden_state[0]
    condition = prior.condition(["the car", "a red apple"], negative_prompt="black")
    torch.testing.assert_close(condition.embeddings[1], expected)
    assert condition.embeddings.shape == condition.negative_embeddings.shape == (2, 12, 32)
    torch.testing.assert_close(condition.negative_embeddings[0], prior.condition(["black"]).embeddings[0])


def test_texts_are_encoded_once(prior: DiffusionPrior, monkeypatch: pytest.MonkeyPatch):
    first = prior.condition(["a green backpack"], "red")

    def forbidden(*arguments: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(prior.text_encoder, "forward", forbidden)
    again = prior.condition(["a green backpack", "a green backpack"], "red")
    assert torch.equal(again.embeddings[1], first.embeddings[0])


def test_both_branches_of_one_call_are_two_separate_calls_of_the_unet(
    prior: DiffusionPrior, tiny_prior_folder: Path
):
    """Against the stock UNet, one candidate, item and view at a time (V = 1: the stock attention)."""
    unet = UNet2DConditionModel.from_pretrained(tiny_prior_folder / "unet")
    assert isinstance(unet, UNet2DConditionModel)
    z, camera = noisy(2, 3, 1), poses(3, 1)
    condition = prior.condition(["a car", "the red apple", "black"], "green", camera)
    prediction = prior.predict(z, torch.tensor([10, 400, 900]), condition)
    assert prediction.unconditional is not None
    labels = camera.clone()
    labels[..., :3, 3] /= 3.0  # every camera stands 3 away: brought to the unit sphere
    for n in range(2):
        for b, t in enumerate((10, 400, 900)):
            for text, branch in (
                (condition.embeddings, prediction.conditional),
                (condition.negative_embeddings, prediction.unconditional),
            ):
                with torch.no_grad():
                    expected = unet(z[n, b], t, text[b : b + 1], class_labels=labels[b].reshape(1, 16)).sample
                torch.testing.assert_close(branch[n, b], expected, rtol=1e-4, atol=1e-5)


def test_views_see_each_other_in_a_multi_view_prior(prior: DiffusionPrior):
    z, condition = noisy(2, 2, 4), prior.condition(["a car", "red"], camera_to_world=poses(2))
    t = torch.tensor([300, 300])
    before = prior.predict(z, t, condition).conditional
    changed = z.clone()
    changed[0, 1, 2] += 1.0
    difference = (prior.predict(changed, t, condition).conditional - before).abs().amax(dim=(3, 4, 5))
    # All views of that candidate and item, and nothing else.
    assert (difference[0, 1] > 1e-5).all()
    difference[0, 1] = 0
    assert difference.max() < 1e-5


def test_views_are_pictures_apart_in_a_single_view_prior(single_view_prior: DiffusionPrior):
    z, condition = noisy(1, 1, 4), single_view_prior.condition(["a car"], camera_to_world=poses(1))
    t = torch.tensor([300])
    together = single_view_prior.predict(z, t, condition).conditional
    alone = [single_view_prior.predict(z[:, :, v : v + 1], t, condition).conditional for v in range(4)]
    torch.testing.assert_close(together, torch.cat(alone, dim=2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("negative", ["", [["ugly", "dark"], ["dim", ""]]])
def test_views_may_have_texts_of_their_own(single_view_prior: DiffusionPrior, negative: Any):
    prior = single_view_prior
    z, t = noisy(3, 2, 2), torch.tensor([100, 900])
    texts = [["a red cube", "the back of a red cube"], ["a blue ball", "a ball"]]
    together = prior.predict(z, t, prior.condition(texts, negative))
    assert together.unconditional is not None
    for view in range(2):
        own = [text[view] for text in negative] if negative else ""
        alone = prior.predict(z[:, :, [view]], t, prior.condition([text[view] for text in texts], own))
        assert alone.unconditional is not None
        torch.testing.assert_close(together.conditional[:, :, [view]], alone.conditional)
        torch.testing.assert_close(together.unconditional[:, :, [view]], alone.unconditional)


def test_the_same_text_for_every_view_is_the_text_of_the_item(prior: DiffusionPrior):
    z, t = noisy(2, 1, 4), torch.tensor([500])
    once = prior.predict(z, t, prior.condition(["a red cube"], "", poses(1)))
    each = prior.predict(z, t, prior.condition([["a red cube"] * 4], "", poses(1)))
    assert torch.equal(once.conditional, each.conditional)


def test_more_views_are_seen_in_groups(prior: DiffusionPrior):
    z, camera, t = noisy(1, 1, 8), poses(1, 8), torch.tensor([500])
    together = prior.predict(z, t, prior.condition(["a car"], camera_to_world=camera)).conditional
    halves = [
        prior.predict(
            z[:, :, part], t, prior.condition(["a car"], camera_to_world=camera[:, part])
        ).conditional
        for part in (slice(0, 4), slice(4, 8))
    ]
    torch.testing.assert_close(together, torch.cat(halves, dim=2), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="multiple of 4; got 6"):
        prior.predict(noisy(1, 1, 6), t, prior.condition(["a car"], camera_to_world=poses(1, 6)))


def test_cameras_matter_and_a_picture_without_pose_has_zeros(prior: DiffusionPrior):
    z, t = noisy(1, 1, 1), torch.tensor([500])
    without = prior.predict(z, t, prior.condition(["a car"])).conditional
    zeros = prior.predict(z, t, prior.condition(["a car"], camera_to_world=torch.zeros(1, 1, 4, 4)))
    posed = prior.predict(z, t, prior.condition(["a car"], camera_to_world=poses(1, 1))).conditional
    torch.testing.assert_close(without, zeros.conditional)
    assert (posed - without).abs().max() > 1e-4


def test_network_evaluations_are_counted(tiny_prior_folder: Path):
    prior = DiffusionPrior.from_pretrained(tiny_prior_folder, "cpu")
    condition = prior.condition(["a", "the"], camera_to_world=poses(2))
    both = prior.predict(noisy(3, 2, 4), torch.tensor([1, 2]), condition)
    assert prior.network_evaluations == 2 * 3 * 2 * 4
    one = prior.predict(noisy(3, 2, 4), torch.tensor([1, 2]), condition, unconditional=False)
    assert prior.network_evaluations == 3 * 3 * 2 * 4
    assert one.unconditional is None
    torch.testing.assert_close(one.conditional, both.conditional, rtol=1e-4, atol=1e-5)


def test_each_candidate_may_have_its_own_timestep(prior: DiffusionPrior):
    z, condition = noisy(2, 2, 1), prior.condition(["a", "the"])
    together = prior.predict(z, torch.tensor([[10, 20], [700, 800]]), condition).conditional
    for n, timesteps in enumerate(([10, 20], [700, 800])):
        alone = prior.predict(z[n : n + 1], torch.tensor(timesteps), condition).conditional
        torch.testing.assert_close(together[n : n + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_other_parametrisations_become_noise(prediction_type: Any, tiny_prior_folder: Path, tmp_path: Path):
    """The same UNet read as ε, v or x0: against diffusers' own conversion in DDIMScheduler."""
    prior = load_prior(
        tiny_models.save_prior(tmp_path / "other", prediction_type=prediction_type), device="cpu"
    )
    as_noise = DiffusionPrior.from_pretrained(tiny_prior_folder, "cpu")
    z, t = noisy(1, 1, 1), torch.tensor([600])
    raw = as_noise.predict(z, t, as_noise.condition(["a car"])).conditional
    noise = prior.predict(z, t, prior.condition(["a car"])).conditional
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        clip_sample=False,
    )
    scheduler.set_timesteps(1000)
    clean = scheduler.step(raw, 600, z, return_dict=True).pred_original_sample  # pyright: ignore
    cumulative = scheduler.alphas_cumprod[600]
    torch.testing.assert_close(
        (z - (1 - cumulative).sqrt() * noise) / cumulative.sqrt(), clean, rtol=1e-3, atol=1e-4
    )


def test_unknown_parametrisation_is_refused(tmp_path: Path):
    folder = tiny_models.save_prior(tmp_path / "score")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace('"epsilon"', '"score"'))
    with pytest.raises(ValueError, match="'score', it must be one of epsilon"):
        load_prior(folder)


def test_unknown_words_are_named_once_in_order(prior: DiffusionPrior):
    assert prior.unknown_words("A Green DRAGON and a red unicorn, on the dragon.") == ["dragon", "unicorn"]
    assert prior.unknown_words("a red apple") == []
    assert prior.unknown_words("") == []
    assert prior.unknown_words("!?") == []


def test_a_prompt_too_long_warns_and_goes_on(prior: DiffusionPrior):
    with pytest.warns(UserWarning, match="13 tokens and the prior reads 12"):
        condition = prior.condition(["a " * 11])
    assert condition.embeddings.shape == (1, 12, 32)


def test_mismatched_cameras_are_named(prior: DiffusionPrior):
    with pytest.raises(ValueError, match=r"2 items, got \(1, 4, 4, 4\)"):
        prior.condition(["a", "the"], camera_to_world=poses(1))
    with pytest.raises(ValueError, match="4 views of an item need cameras"):
        prior.predict(noisy(1, 1, 4), torch.tensor([1]), prior.condition(["a"]))
    with pytest.raises(ValueError, match="1 items of 2 views, the cameras"):
        prior.predict(noisy(1, 1, 2), torch.tensor([1]), prior.condition(["a"], camera_to_world=poses(1)))


def test_a_schedule_that_ends_in_pure_noise_still_has_previews(tmp_path: Path):
    folder = tiny_models.save_prior(tmp_path / "prior", multiview=False, prediction_type="v_prediction")
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler", rescale_betas_zero_snr=True)
    assert isinstance(scheduler, DDIMScheduler)
    assert scheduler.alphas_cumprod[-1] == 0
    scheduler.save_pretrained(folder / "scheduler")
    prior = DiffusionPrior.from_pretrained(folder, "cpu")
    z = noisy(1, 1, 1)
    t = torch.tensor([999])
    with torch.no_grad():
        condition = prior.condition(["a red car"])
        noise = prior.predict(z, t, condition, unconditional=False).conditional
        said = prior.network(z[0, 0], t, condition.embeddings).sample
    alpha, sigma = prior.alphas_cumprod[999].sqrt(), (1 - prior.alphas_cumprod[999]).sqrt()
    # x̂0 = α z − σ v, by way of the noise
    torch.testing.assert_close(
        ((z - sigma * noise) / alpha)[0, 0], alpha * z[0, 0] - sigma * said, rtol=0, atol=0.02
    )
