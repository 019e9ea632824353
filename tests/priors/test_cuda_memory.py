"""Precision and memory on a GPU, with priors of true size and random weights (`pytest -m cuda`)."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rewardsds.models import sizes
from rewardsds.priors.latent import LatentPrior
from rewardsds.priors.load import load_prior
from rewardsds.rewards.load import load_reward

pytestmark = pytest.mark.cuda
CANDIDATES = 12


@pytest.fixture
def prior() -> Iterator[LatentPrior]:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA GPU")
    yield sizes.make("sd-2.1-base", "cuda", torch.bfloat16)
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@torch.no_grad()
def step(prior: LatentPrior) -> torch.Tensor:
    """Predictions and previews of twelve candidates."""
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn((CANDIDATES, 1, 1, *prior.latent_shape), generator=generator).cuda()
    given = sizes.condition("sd-2.1-base", 1, 1, "cuda")
    prediction = prior.predict(noisy, torch.tensor([500], device="cuda"), given)
    return prior.decode(prediction.guided(7.5))


def test_auto_finds_a_chunk_that_fits(prior: LatentPrior):
    whole = step(prior)
    torch.cuda.empty_cache()
    held = torch.cuda.memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((held + 1.6 * 2**30) / total)
    with pytest.raises(torch.OutOfMemoryError):
        step(prior)
    gc.collect()
    torch.cuda.empty_cache()
    prior.in_chunks("auto")
    found = step(prior)
    assert (found - whole).abs().mean() < 0.02  # bf16's rounding in other orders, times the guidance


def test_the_plan_bounds_what_a_step_takes(prior: LatentPrior):
    """The estimate of `doctor` against the GPU's own count."""
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    step(prior)
    taken = torch.cuda.max_memory_allocated() - held
    planned = sizes.step_bytes("sd-2.1-base", CANDIDATES)
    assert 0.5 * planned < taken < 1.3 * planned


def test_text_encoders_and_rewards_leave_the_gpu(tiny_prior_folder: Path, tiny_clip_folder: Path):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA GPU")
    prior = load_prior(tiny_prior_folder, "cuda")
    expected = prior.condition(["a red car"]).embeddings
    resting = load_prior(tiny_prior_folder, "cuda", offload=True)
    assert resting.text_encoders[0].device.type == "cpu"
    torch.testing.assert_close(resting.condition(["a red car"]).embeddings, expected)
    assert resting.text_encoders[0].device.type == "cpu"
    reward = load_reward(tiny_clip_folder, "cuda", torch.float32)
    images = torch.rand(2, 1, 1, 3, 16, 16, device="cuda")
    scores = reward(images, ["a red car"])
    reward.to("cpu")  # pyright: ignore[reportAttributeAccessIssue]
    away = reward(images, ["a red car"])
    assert away.device.type == "cuda"
    torch.testing.assert_close(away, scores, rtol=2e-3, atol=2e-3)  # convolutions there are in TF32
