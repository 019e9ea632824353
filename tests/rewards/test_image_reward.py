"""ImageReward against a BLIP written out here from its papers (arXiv 2201.12086, 2304.05977)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BlipTextConfig, BlipVisionConfig

import tiny_models
from rewardsds.rewards.image_reward import ImageReward, ImageRewardNetwork
from rewardsds.rewards.load import load_reward

HEADS, EPS = 2, 1e-5


def network(widths: tuple[int, ...] = (8, 4, 1)) -> ImageRewardNetwork:
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": HEADS, "num_hidden_layers": 2}
    made = ImageRewardNetwork(
        BlipVisionConfig(**size, image_size=16, patch_size=4, layer_norm_eps=EPS),  # pyright: ignore
        BlipTextConfig(  # pyright: ignore[reportArgumentType]
            **size,  # pyright: ignore[reportArgumentType]
            encoder_hidden_size=16,
            vocab_size=tiny_models.TEXT["vocab_size"],
            max_position_embeddings=12,
            layer_norm_eps=EPS,
        ),
        widths,
    )
    for parameter in made.parameters():  # none of them zero or one, so that each has its effect
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention in heads: (T, C), (P, C), (P, C) → (T, C)."""
    parts = [x.reshape(len(x), HEADS, -1).transpose(0, 1) for x in (queries, keys, values)]
    scores = parts[0] @ parts[1].transpose(1, 2) / parts[0].shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask.bool(), float("-inf"))
    return (scores.softmax(-1) @ parts[2]).transpose(0, 1).flatten(1)


def by_hand(w: dict[str, Tensor], picture: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """One raw score: (3, 16, 16), (T,), (T,)."""

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], EPS)

    patches = picture.unfold(1, 4, 4).unfold(2, 4, 4).permute(1, 2, 0, 3, 4).reshape(16, -1)
    kernel = w["vision.embeddings.patch_embedding.weight"].flatten(1)
    x = patches @ kernel.T + w["vision.embeddings.patch_embedding.bias"]
    x = (
        torch.cat([w["vision.embeddings.class_embedding"][0], x])
        + w["vision.embeddings.position_embedding"][0]
    )
    for layer in range(2):
        at = f"vision.encoder.layers.{layer}"
        q, k, v = linear(norm(x, f"{at}.layer_norm1"), f"{at}.self_attn.qkv").chunk(3, -1)
        x = x + linear(attend(q, k, v), f"{at}.self_attn.projection")
        x = x + linear(F.gelu(linear(norm(x, f"{at}.layer_norm2"), f"{at}.mlp.fc1")), f"{at}.mlp.fc2")
    seen = norm(x, "vision.post_layernorm")

    at = "text.embeddings"
    x = w[f"{at}.word_embeddings.weight"][ids] + w[f"{at}.position_embeddings.weight"][: len(ids)]
    x = norm(x, f"{at}.LayerNorm")
    for layer in range(2):
        at = f"text.encoder.layer.{layer}"
        for name, source, hidden in (("attention", x, mask), ("crossattention", seen, None)):
            source = x if name == "attention" else seen
            q = linear(x, f"{at}.{name}.self.query")
            k, v = (linear(source, f"{at}.{name}.self.{part}") for part in ("key", "value"))
            said = linear(attend(q, k, v, hidden), f"{at}.{name}.output.dense")
            x = norm(said + x, f"{at}.{name}.output.LayerNorm")
        inner = F.gelu(linear(x, f"{at}.intermediate.dense"))
        x = norm(linear(inner, f"{at}.output.dense") + x, f"{at}.output.LayerNorm")
    x = x[0]
    for layer in range(3):
        x = linear(x, f"mlp.{layer}")
    return x[0]


def test_scores_are_those_of_the_architecture_written_out() -> None:
    own = network()
    reward = ImageReward(own, tiny_models.tokenizer(), mean=0.2, std=1.5, length=9)
    images = torch.rand(3, 2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    prompts = ["a red apple", "the car on a green backpack"]
    scores = reward(images, prompts)
    mean, std = torch.tensor(reward_mean()), torch.tensor(reward_std())
    weights = dict(own.state_dict())
    for b, prompt in enumerate(prompts):
        read = tiny_models.tokenizer()(prompt, padding="max_length", max_length=9, return_tensors="pt")
        ids, mask = read["input_ids"][0], read["attention_mask"][0]
        assert mask.sum() < 9  # what pads must not be read
        for n in range(3):
            raw = [
                by_hand(weights, (images[n, b, v] - mean[:, None, None]) / std[:, None, None], ids, mask)
                for v in range(2)
            ]
            expected = ((torch.stack(raw) - 0.2) / 1.5).mean()
            torch.testing.assert_close(scores[n, b], expected, atol=1e-5, rtol=1e-5)


def reward_mean() -> tuple[float, ...]:
    """CLIP's, as published with it."""
    return (0.48145466, 0.4578275, 0.40821073)


def reward_std() -> tuple[float, ...]:
    return (0.26862954, 0.26130258, 0.27577711)


def test_a_saved_reward_comes_back(tmp_path: Path) -> None:
    reward = ImageReward(network(), tiny_models.tokenizer(), mean=0.2, std=1.5, length=9)
    reward.save_pretrained(tmp_path / "reward")
    again = load_reward(tmp_path / "reward", "cpu")
    assert isinstance(again, ImageReward)
    images = torch.rand(2, 1, 1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    # Half precision on disk.
    torch.testing.assert_close(again(images, ["a car"]), reward(images, ["a car"]), atol=2e-2, rtol=2e-2)
    assert json.loads((tmp_path / "reward" / "config.json").read_text())["model_type"] == "image-reward"


def test_chunks_give_what_one_call_gives() -> None:
    images = torch.rand(3, 2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    whole = ImageReward(network(), tiny_models.tokenizer(), length=9)
    parts = ImageReward(network(), tiny_models.tokenizer(), length=9)
    parts.in_chunks(5)
    prompts = ["a red apple", "the car"]
    torch.testing.assert_close(parts(images, prompts), whole(images, prompts), atol=1e-5, rtol=1e-5)


def test_large_pictures_are_brought_to_size_and_carry_gradient() -> None:
    reward = ImageReward(network(), tiny_models.tokenizer(), length=9)
    images = torch.rand(1, 1, 1, 3, 24, 40, requires_grad=True)
    (gradient,) = torch.autograd.grad(reward(images, ["a car"]).sum(), images)
    assert gradient.isfinite().all()
    assert gradient[..., 12, 20].abs().sum() > 0
    assert (gradient[..., 0] == 0).all()  # left of the middle square


def test_a_caption_that_is_cut_is_told_once(tiny_clip_folder: Path) -> None:
    images = torch.rand(2, 1, 1, 3, 16, 16)
    long = "a red apple and a green car on the black backpack"
    rewards = {
        9: ImageReward(network(), tiny_models.tokenizer(), length=9),
        12: load_reward(tiny_clip_folder, "cpu"),
    }
    for length, reward in rewards.items():
        name = type(reward).__name__
        with pytest.warns(
            UserWarning, match=f"has 13 tokens and {name} reads {length}: its end is not scored"
        ) as told:
            scores = [reward(images, [text]) for text in (long, "a red apple", long)]
        assert len(told) == 1
        torch.testing.assert_close(scores[0], scores[2])
        assert not torch.equal(scores[0], scores[1])


def test_wrong_shapes_are_refused() -> None:
    reward = ImageReward(network(), tiny_models.tokenizer())
    with pytest.raises(ValueError, match="one item for each of 2 prompts"):
        reward(torch.rand(1, 1, 1, 3, 16, 16), ["a car", "an apple"])


def test_what_is_padded_is_not_computed_and_changes_nothing() -> None:
    own = network()
    reward = ImageReward(own, tiny_models.tokenizer(), length=9)
    read: list[int] = []
    own.text.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    images = torch.rand(2, 2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    together = reward(images, ["a car", "the car on a green backpack"])
    short = reward(images[:, :1], ["a car"])
    tokenizer = tiny_models.tokenizer()
    expected = [len(tokenizer(text)["input_ids"]) for text in ("the car on a green backpack", "a car")]
    assert read == expected
    assert expected[1] < expected[0] < 9
    torch.testing.assert_close(short[:, 0], together[:, 0], atol=1e-6, rtol=1e-5)
