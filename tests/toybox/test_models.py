"""The networks keep to their budgets, and what is exported is what is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rewardsds.priors.multiview import enable_multiview_attention
from rewardsds.toybox import models
from rewardsds.toybox.judge import Judge, JudgeNetwork, load_judge, save_judge
from rewardsds.toybox.specification import COLOURS, KINDS, Group, SceneSpec
from rewardsds.toybox.tokenizer import build_tokenizer


def test_autoencoder_shapes_and_budget():
    autoencoder = models.build_autoencoder()
    images = torch.rand(2, 3, 64, 64)
    latents = models.encode_images(autoencoder, images)
    assert latents.shape == (2, *models.LATENT_SHAPE)
    decoded = models.decode_latents(autoencoder, latents)
    assert decoded.shape == images.shape
    assert decoded.min() >= 0
    assert decoded.max() <= 1
    one = torch.zeros(1, 3, 64, 64)
    assert models.count_flops(lambda: autoencoder.encode(one)) <= 0.25e9
    assert models.count_flops(lambda: autoencoder.decode(latents[:1].detach())) <= 0.25e9


def test_unet_budget_with_four_views_together():
    unet = models.build_unet()
    enable_multiview_attention(unet)

    def call() -> Any:
        return unet(
            torch.randn(4, *models.LATENT_SHAPE),
            torch.zeros(4, dtype=torch.long),
            torch.randn(4, models.TEXT_LENGTH, models.TEXT_WIDTH),
            class_labels=torch.randn(4, 16),
            cross_attention_kwargs={"views": 4},
        ).sample

    assert call().shape == (4, *models.LATENT_SHAPE)
    assert models.count_flops(call) / 4 <= 0.8e9


def test_flops_of_a_convolution_are_two_a_multiply_add():
    layer = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
    assert models.count_flops(lambda: layer(torch.zeros(1, 3, 10, 10))) == 2 * 10 * 10 * 3 * 8 * 9


def test_everything_in_half_precision_stays_below_forty_megabytes():
    clip = models.build_clip(build_tokenizer())
    counts = [
        models.count_parameters(model)
        for model in (models.build_autoencoder(), models.build_unet(), clip, clip.text_model, JudgeNetwork())
    ]
    assert 2 * sum(counts) / 1e6 < 39.5  # half a megabyte is left for configurations and tokenizers


def test_export_and_load_agree_to_half_precision(tmp_path: Path):
    tokenizer = build_tokenizer()
    clip: Any = models.build_clip(tokenizer).eval()
    autoencoder = models.build_autoencoder().eval()
    models.export_clip(clip, tokenizer, tmp_path)
    autoencoder.register_to_config(scaling_factor=0.5)
    models.export_autoencoder(autoencoder, tmp_path)
    loaded = models.load_clip(tmp_path)
    tokens = tokenizer(
        ["a red cube", "two dogs in the snow"],
        padding="max_length",
        max_length=models.TEXT_LENGTH,
        return_tensors="pt",
    ).input_ids
    images = models.normalise(torch.rand(2, 3, 64, 64))
    with torch.no_grad():
        towers = {"text_model": {"input_ids": tokens}, "vision_model": {"pixel_values": images}}
        for tower, given in towers.items():
            wanted = getattr(clip, tower)(**given).pooler_output
            found = getattr(loaded, tower)(**given).pooler_output
            torch.testing.assert_close(found, wanted, atol=2e-2, rtol=2e-2)
        alone = models.load_text_encoder(tmp_path)(tokens).last_hidden_state
        torch.testing.assert_close(alone, loaded.text_model(input_ids=tokens).last_hidden_state)
    assert clip.dtype == torch.float32  # exporting leaves the model as it was
    assert models.load_autoencoder(tmp_path).config.scaling_factor == 0.5
    preprocessor = json.loads((tmp_path / "clip" / "preprocessor_config.json").read_text())
    assert preprocessor["size"] == {"shortest_edge": 64}


def test_a_trained_prior_keeps_its_text_tower(tmp_path: Path):
    tokenizer = build_tokenizer()
    models.export_clip(models.build_clip(tokenizer), tokenizer, tmp_path)
    models.export_unet(models.build_unet(), tmp_path)
    towers = (
        tmp_path / "prior" / "text_encoder" / "model.safetensors",
        tmp_path / "clip" / "model.safetensors",
    )
    before = [path.read_bytes() for path in towers]
    models.export_clip(models.build_clip(tokenizer), tokenizer, tmp_path)
    assert towers[0].read_bytes() == before[0]
    assert towers[1].read_bytes() != before[1]


def test_exported_clip_is_read_by_the_ordinary_classes(tmp_path: Path):
    from transformers import AutoTokenizer, CLIPModel

    tokenizer = build_tokenizer()
    models.export_clip(models.build_clip(tokenizer), tokenizer, tmp_path)
    read = AutoTokenizer.from_pretrained(tmp_path / "clip")
    assert read("a red cube").input_ids == tokenizer("a red cube").input_ids
    clip: Any = CLIPModel.from_pretrained(tmp_path / "clip")
    assert clip.config.text_config.eos_token_id == tokenizer.eos_token_id


def test_the_caption_is_pooled_at_its_end():
    """What stands after the end token must not matter."""
    tokenizer = build_tokenizer()
    clip = models.build_clip(tokenizer).eval()
    short = tokenizer(["a red cube"], return_tensors="pt").input_ids
    padded = tokenizer(["a red cube"], padding="max_length", max_length=24, return_tensors="pt").input_ids
    with torch.no_grad():
        torch.testing.assert_close(
            clip.text_model(input_ids=padded).pooler_output, clip.text_model(input_ids=short).pooler_output
        )


def test_clip_refuses_a_tokenizer_that_it_would_misread():
    class Misread:
        eos_token_id = 2

    with pytest.raises(ValueError, match="id 2"):
        models.build_clip(Misread())


def test_loading_what_was_never_trained_says_what_to_do(tmp_path: Path):
    with pytest.raises(ValueError, match="run the training stage"):
        models.load_unet(tmp_path)
    with pytest.raises(ValueError, match="train one"):
        load_judge(tmp_path)


def test_judge_survives_saving(tmp_path: Path):
    network = JudgeNetwork().eval()
    save_judge(network, tmp_path)
    images = torch.rand(3, 3, 64, 64)
    found = load_judge(tmp_path).probabilities(images)
    wanted = Judge(network).probabilities(images)
    torch.testing.assert_close(found.pairs, wanted.pairs, atol=5e-3, rtol=2e-2)
    torch.testing.assert_close(found.kinds, wanted.kinds, atol=5e-3, rtol=2e-2)


def test_judge_of_another_world_is_refused(tmp_path: Path):
    save_judge(JudgeNetwork(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "kinds": ["unicorn"]}))
    with pytest.raises(ValueError, match="other kinds"):
        load_judge(tmp_path)


def test_pair_votes_are_joined_by_a_soft_maximum_over_places():
    network = JudgeNetwork().eval()
    with torch.no_grad():
        images = torch.rand(1, 3, 64, 64)
        features = network.stages(torch.relu(network.stem(images * 4 - 2)))
        kind, colour = network.kind(features).flatten(2), network.colour(features).flatten(2)
        wanted = (kind[:, :, None] + colour[:, None]).logsumexp(-1) + network.pair_bias
        torch.testing.assert_close(network(images)[1], wanted, atol=1e-4, rtol=1e-4)


class Stub(torch.nn.Module):
    """Reads the answer off the picture: the red channel's mean picks the row of hand-made logits."""

    def __init__(self, kinds: torch.Tensor, pairs: torch.Tensor) -> None:
        super().__init__()
        self.kinds, self.pairs = kinds, pairs

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = (images[:, 0].mean(dim=(1, 2)) * 10).round().long()
        return self.kinds[rows], self.pairs[rows]


@pytest.fixture
def stub() -> Judge:
    """Picture 0 shows nothing; 1 a red cube for certain (0.9) and a dog (0.8) of no colour; 2 a blue ball
    (0.6).
    """
    kinds = torch.full((3, len(KINDS)), -20.0)
    pairs = torch.full((3, len(KINDS), len(COLOURS)), -20.0)

    def logit(probability: float) -> float:
        return float(torch.tensor(probability).logit())

    pairs[1, KINDS.index("cube"), COLOURS.index("red")] = logit(0.9)
    kinds[1, KINDS.index("cube")] = logit(0.9)
    kinds[1, KINDS.index("dog")] = logit(0.8)
    pairs[2, KINDS.index("ball"), COLOURS.index("blue")] = logit(0.6)
    return Judge(Stub(kinds, pairs))


def picture(row: int) -> torch.Tensor:
    return torch.full((3, 64, 64), row / 10)


CUBE_AND_DOG = SceneSpec((Group("cube", "red"), Group("dog")), ("and",))
CUBE_AND_BALL = SceneSpec((Group("cube", "red"), Group("ball", "blue")), ("and",))


def test_judge_scores_are_means_over_the_asked_toys(stub: Judge):
    images = torch.stack([picture(1), picture(1), picture(0)])
    specs = [CUBE_AND_DOG, CUBE_AND_BALL, CUBE_AND_BALL]
    torch.testing.assert_close(stub.score(images, specs), torch.tensor([0.85, 0.45, 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(stub.finds(images, specs), torch.tensor([1.0, 0.5, 0.0]))
    torch.testing.assert_close(stub.all_right(images, specs), torch.tensor([1.0, 0.0, 0.0]))


def test_judge_averages_views(stub: Judge):
    views = torch.stack([picture(1), picture(1), picture(2), picture(0)])[None]
    scores = stub.score(views, [CUBE_AND_BALL])  # cube (0.9 + 0.9) / 4, ball 0.6 / 4
    torch.testing.assert_close(scores, torch.tensor([(0.45 + 0.15) / 2]), atol=1e-5, rtol=0)


def test_judge_keeps_leading_axes_and_resizes(stub: Judge):
    images = torch.stack([picture(1), picture(2)]).reshape(1, 2, 3, 64, 64)
    large = torch.nn.functional.interpolate(images[0], scale_factor=2)[None]
    for given in (images, large):
        found = stub.probabilities(given)
        assert found.kinds.shape == (1, 2, len(KINDS))
        assert found.pairs.shape == (1, 2, len(KINDS), len(COLOURS))
        assert found.pairs[0, 1, KINDS.index("ball"), COLOURS.index("blue")] == pytest.approx(0.6, abs=1e-5)


def test_judge_lends_no_gradient_and_is_no_reward(stub: Judge):
    image = picture(1)[None].requires_grad_()
    assert not stub.score(image, [CUBE_AND_DOG]).requires_grad
    assert not callable(stub)
    with pytest.raises(ValueError, match="as many pictures as scenes"):
        stub.score(image, [CUBE_AND_DOG, CUBE_AND_DOG])
