"""CLIP reward on a random checkpoint, against transformers' own forward pass and image processor."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPModel, SiglipConfig, SiglipModel

import tiny_models
from rewardsds.rewards.clip import CLIP_MEAN, CLIP_STD, CLIPReward
from rewardsds.rewards.load import load_reward
from rewardsds.rewards.pictures import square

PROMPTS = ["a red apple", "the black backpack on a car"]


@pytest.fixture(scope="module")
def reward(tiny_clip_folder: Path) -> CLIPReward:
    return CLIPReward.from_pretrained(tiny_clip_folder, device="cpu")


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_scores_are_the_models_logits_without_their_scale(reward: CLIPReward, tiny_clip_folder: Path):
    model = CLIPModel.from_pretrained(tiny_clip_folder)
    tokens = AutoTokenizer.from_pretrained(tiny_clip_folder)(
        PROMPTS, padding="max_length", max_length=12, return_tensors="pt"
    )
    images = pictures(3, 2, 4, 3, 16, 16)
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (CLIP_MEAN, CLIP_STD))
    with torch.no_grad():
        logits = model(
            input_ids=tokens["input_ids"], pixel_values=((images - mean) / std).flatten(0, 2)
        ).logits_per_image.reshape(3, 2, 4, 2)
        scale = model.logit_scale.exp()
    by_hand = torch.stack([logits[:, b, :, b].mean(dim=1) / scale for b in range(2)], dim=1)
    scores = reward(images, PROMPTS)
    assert scores.shape == (3, 2)
    torch.testing.assert_close(scores, by_hand, rtol=1e-4, atol=1e-6)


def test_resizing_is_that_of_pillow(reward: CLIPReward):
    """Features of a 64² picture equal those of Pillow's bicubic reduction, up to its rounding to 8 bits."""
    smooth = torch.nn.functional.interpolate(pictures(1, 3, 8, 8), (64, 64), mode="bilinear")
    bytes_ = (smooth[0] * 255).round().to(torch.uint8)
    resized = Image.fromarray(bytes_.permute(1, 2, 0).numpy()).resize((16, 16), Image.Resampling.BICUBIC)
    reduced = torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(
        reward.image_features(bytes_[None] / 255), reward.image_features(reduced), rtol=0, atol=2e-3
    )


def test_chunks_change_nothing(reward: CLIPReward):
    chunked = CLIPReward(reward.model, reward.tokenizer)
    chunked.in_chunks(5)
    images = pictures(3, 2, 2, 3, 16, 16)
    torch.testing.assert_close(chunked(images, PROMPTS), reward(images, PROMPTS))
    with pytest.raises(ValueError, match="at least 1 row"):
        chunked.in_chunks(0)


def test_a_gradient_in_chunks_is_the_same_and_keeps_little(reward: CLIPReward):
    """Each chunk is run again in the backward pass, in place of all that every one of them computed."""
    images = pictures(3, 2, 2, 3, 16, 16)
    gradients: list[torch.Tensor] = []
    kept: list[int] = []
    for size in (None, 2):
        chunked = CLIPReward(reward.model, reward.tokenizer)
        chunked.in_chunks(size)
        seen, sizes = images.clone().requires_grad_(), list[int]()

        def keep(saved: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(saved.nbytes)
            return saved

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
            scores = chunked(seen, PROMPTS)
        gradients.append(torch.autograd.grad(scores.sum(), seen)[0])
        kept.append(sum(sizes))
    torch.testing.assert_close(gradients[1], gradients[0])
    assert gradients[0].abs().max() > 0
    assert kept[1] < kept[0] / 10


def test_each_item_is_scored_against_its_own_prompt(reward: CLIPReward):
    images = pictures(2, 2, 1, 3, 16, 16)
    swapped = reward(images.flip(1), PROMPTS[::-1])
    torch.testing.assert_close(swapped.flip(1), reward(images, PROMPTS))
    assert reward(images, PROMPTS).abs().max() <= 1
    with pytest.raises(ValueError, match=r"2 prompts, got \(2, 1, 1, 3, 16, 16\)"):
        reward(images[:, :1], PROMPTS)


def test_texts_are_encoded_once(reward: CLIPReward, monkeypatch: pytest.MonkeyPatch):
    first = reward.text_features("a green car")
    torch.testing.assert_close(first.norm(), torch.tensor(1.0))

    def forbidden(*arguments: object, **keywords: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(reward.model, "get_text_features", forbidden)
    assert torch.equal(reward.text_features("a green car"), first)


def test_gradient_reaches_the_pictures_and_not_the_weights(reward: CLIPReward):
    images = pictures(1, 1, 1, 3, 24, 24).requires_grad_()
    reward(images, ["a red apple"]).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in reward.model.parameters())


def test_normalisation_of_the_checkpoint_is_used(tiny_clip_folder: Path, tmp_path: Path, reward: CLIPReward):
    folder = tmp_path / "clip"
    shutil.copytree(tiny_clip_folder, folder)
    config = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    own = CLIPReward.from_pretrained(folder, device="cpu")
    # The picture that each normalisation turns into zeros.
    grey = torch.tensor(config["image_mean"]).reshape(3, 1, 1).expand(1, 3, 16, 16)
    published = torch.tensor(CLIP_MEAN).reshape(3, 1, 1).expand(1, 3, 16, 16)
    torch.testing.assert_close(own.image_features(grey), reward.image_features(published))


def test_load_reward_takes_a_folder_and_a_function(tiny_clip_folder: Path):
    assert isinstance(load_reward(tiny_clip_folder, device="cpu"), CLIPReward)
    assert isinstance(load_reward(str(tiny_clip_folder), device="cpu"), CLIPReward)

    def mine(images: torch.Tensor, prompts: object) -> torch.Tensor:
        return images.mean(dim=(2, 3, 4, 5))

    assert load_reward(mine) is mine


def test_what_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"no reward at /.*give 'clip'"):
        load_reward("nowhere")
    for told in (
        "'clip-l'",
        "'grader:MODEL'",
        "spaces around a plus: 'clip [+] 0.5 [*] aesthetic'",
        "'min[(]clip, ",
    ):
        with pytest.raises(ValueError, match=told):
            load_reward("clip+aesthetic")
    with pytest.raises(ValueError, match="no reward 'nobody/nothing-here'"):
        load_reward("nobody/nothing-here")
    with pytest.raises(ValueError, match="is no reward that is known"):
        load_reward(tmp_path)
    with pytest.raises(ValueError, match="got float"):
        load_reward(math.pi)  # pyright: ignore[reportArgumentType]
    monkeypatch.setenv("REWARDSDS_TOYBOX", str(tmp_path))
    with pytest.raises(ValueError, match=r"not installed.*rewardsds toybox train"):
        load_reward("clip")


def test_a_logit_scale_multiplies_the_cosine(reward: CLIPReward, tiny_clip_folder: Path):
    images = pictures(2, 2, 1, 3, 16, 16)
    scaled = CLIPReward.from_pretrained(tiny_clip_folder, device="cpu", scaled=True)
    factor = math.exp(2.6592)  # CLIPConfig's initial logit scale
    torch.testing.assert_close(
        scaled(images, PROMPTS), factor * reward(images, PROMPTS), rtol=1e-4, atol=1e-6
    )


def test_a_siglip_gives_its_own_cosines(tmp_path: Path):
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**vision, "vocab_size": 152, "max_position_embeddings": 12}
    torch.manual_seed(0)
    config = SiglipConfig(text_config=text, vision_config={**vision, "image_size": 16, "patch_size": 8})
    model = SiglipModel(config).eval()
    model.save_pretrained(tmp_path)
    tiny_models.tokenizer().save_pretrained(tmp_path)
    reward = load_reward(tmp_path, "cpu")
    images = pictures(2, 2, 1, 3, 16, 16)
    tokens = tiny_models.tokenizer()(PROMPTS, padding="max_length", max_length=12, return_tensors="pt")
    with torch.no_grad():
        output = model(input_ids=tokens["input_ids"], pixel_values=2 * images[:, :, 0].flatten(0, 1) - 1)
    logits = (output.logits_per_image - model.logit_bias.detach()) / model.logit_scale.detach().exp()
    expected = torch.stack([logits[0::2, 0], logits[1::2, 1]], dim=1)
    torch.testing.assert_close(reward(images, PROMPTS), expected, rtol=1e-4, atol=1e-5)

    wide = pictures(1, 3, 24, 48)
    whole, middle = square(wide, 16, "stretch"), square(wide, 16, "crop")
    assert isinstance(reward, CLIPReward)
    torch.testing.assert_close(reward.image_features(wide), reward.image_features(whole))
    (tmp_path / "reward.json").write_text('{"fit": "crop"}')
    cropped = load_reward(tmp_path, "cpu")
    assert isinstance(cropped, CLIPReward)
    torch.testing.assert_close(cropped.image_features(wide), cropped.image_features(middle))


def test_a_model_without_a_tokenizer_takes_that_of_another(
    tiny_clip_folder: Path, tmp_path: Path, reward: CLIPReward
) -> None:
    """PickScore's repository holds the model, and CLIP-H's the rest."""
    reward.model.save_pretrained(tmp_path)
    found = CLIPReward.from_pretrained(tmp_path, "cpu", processor=str(tiny_clip_folder))
    images = pictures(2, 2, 1, 3, 16, 16)
    torch.testing.assert_close(found(images, PROMPTS), reward(images, PROMPTS))
    (tmp_path / "reward.json").write_text(json.dumps({"scaled": True, "processor": str(tiny_clip_folder)}))
    scale = float(reward.model.logit_scale.exp())
    torch.testing.assert_close(load_reward(tmp_path, "cpu")(images, PROMPTS), scale * reward(images, PROMPTS))
