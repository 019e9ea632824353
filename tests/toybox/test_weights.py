"""The models that come with the package, looked at again on scenes that no training has seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rewardsds.priors.latent import LatentPrior
from rewardsds.priors.load import load_prior
from rewardsds.priors.sampling import sample
from rewardsds.toybox import captions
from rewardsds.toybox.data import ToyboxData, generate
from rewardsds.toybox.judge import Judge, load_judge
from rewardsds.toybox.models import LATENT_SHAPE, count_flops, folder_megabytes, load_autoencoder, load_clip
from rewardsds.toybox.train.card import (
    measure_aesthetic,
    measure_autoencoder,
    measure_clip,
    measure_image_reward,
    measure_judge,
)

WEIGHTS = Path(__file__).parents[2] / "src" / "rewardsds" / "toybox" / "weights"


@pytest.fixture(scope="module", autouse=True)
def packaged():
    """Whatever the environment says: these tests are about the package's own weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("REWARDSDS_TOYBOX", raising=False)
        yield


@pytest.fixture(scope="module")
def prior() -> LatentPrior:
    return load_prior("toybox", device="cpu")


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory, prior: LatentPrior) -> ToyboxData:
    folder = tmp_path_factory.mktemp("scenes")
    return generate(folder, 256, seed=77, split="validation", kinds=captions.known_kinds(prior))


def test_they_are_small():
    assert folder_megabytes(WEIGHTS) <= 40
    kinds = {path.suffix for path in WEIGHTS.rglob("*") if path.is_file()}
    assert kinds <= {".safetensors", ".json", ".md"}


def test_a_call_of_the_network_is_cheap(prior: LatentPrior):
    condition = prior.condition(["a red apple"], camera_to_world=torch.eye(4).expand(1, 4, 4, 4))
    noisy, timesteps = torch.zeros(1, 1, 4, *LATENT_SHAPE), torch.zeros(1, dtype=torch.long)
    flops = count_flops(lambda: prior.predict(noisy, timesteps, condition, unconditional=False))
    assert flops / 4 <= 0.8e9


def test_the_card_says_what_was_measured(scenes: ToyboxData, judge: Judge):
    """Figures of the model card against those on other scenes, within what so few scenes can say."""
    metrics = json.loads((WEIGHTS / "metrics.json").read_text())
    autoencoder = load_autoencoder(WEIGHTS)
    psnr = measure_autoencoder(autoencoder, scenes, "cpu", most=128)["psnr"]
    assert psnr == pytest.approx(metrics["autoencoder"]["psnr"], abs=1.0)
    clip = measure_clip(load_clip(WEIGHTS), scenes, 32, "cpu")
    assert clip["image_to_text_top1"] > 0.8
    assert clip["colour_swap_accuracy"] == pytest.approx(metrics["clip"]["colour_swap_accuracy"], abs=0.2)
    judged = measure_judge(judge, scenes, autoencoder, "cpu")
    assert metrics["judge"]["single_accuracy"] >= 0.95
    assert judged["single_accuracy"] >= 0.9
    card = (WEIGHTS / "MODEL_CARD.md").read_text()
    assert f"{metrics['autoencoder']['psnr']:.1f}" in card


def test_the_rewards_of_quality_rank_fresh_pairs(scenes: ToyboxData):
    metrics = json.loads((WEIGHTS / "metrics.json").read_text())
    autoencoder = load_autoencoder(WEIGHTS)
    aesthetic = measure_aesthetic(WEIGHTS / "aesthetic", scenes, autoencoder, 32, "cpu", batches=4)
    assert aesthetic["true_above_damaged"] == pytest.approx(
        metrics["aesthetic"]["true_above_damaged"], abs=0.08
    )
    assert metrics["aesthetic"]["true_above_damaged"] > 0.9
    ours = measure_image_reward(WEIGHTS / "image-reward", scenes, autoencoder, 32, "cpu", batches=4)
    assert ours["pairs_accuracy"] == pytest.approx(metrics["image-reward"]["pairs_accuracy"], abs=0.08)
    assert metrics["image-reward"]["pairs_accuracy"] > 0.9


def test_samples_show_what_was_asked_for(prior: LatentPrior, judge: Judge):
    prompts = [
        "a red apple",
        "a yellow banana",
        "a green car",
        "a blue backpack",
        "a white sheep",
        "a red cube",
    ]
    specs = [captions.parse(prompt).spec for prompt in prompts]
    latents = sample(prior, prompts * 2, torch.Generator().manual_seed(0), steps=15)
    images = prior.decode(latents)[:, 0]
    right = judge.score(images, [spec for spec in specs * 2 if spec is not None])
    others = specs[3:] + specs[:3]
    wrong = judge.score(images, [spec for spec in others * 2 if spec is not None])
    assert right.mean() > 0.5
    assert wrong.mean() < 0.1


def test_cameras_turn_the_object(prior: LatentPrior, scenes: ToyboxData):
    """Four views of one object differ, and show the same object: their mean colours agree, their pixels do not."""
    poses = torch.from_numpy(np.array(scenes.poses[:4, :4]))
    latents = sample(prior, ["a red car"] * 4, torch.Generator().manual_seed(0), poses, steps=15)
    images = prior.decode(latents)
    within = images.mean(dim=(-1, -2)).std(dim=1).mean()
    assert within < 0.1
    assert (images[:, 0] - images[:, 1]).abs().mean() > 0.02
