"""Samples of a prior whose distribution is known."""

from __future__ import annotations

import pytest
import torch

from oracles import two_colours
from rewardsds.priors.sampling import sample


@pytest.mark.parametrize("prompt, mean, std", [("dark", -0.6, 0.2), ("light", 0.5, 0.3)])
def test_samples_are_distributed_as_the_prior_says(prompt: str, mean: float, std: float):
    prior = two_colours(size=4)
    drawn = sample(prior, [prompt] * 64, torch.Generator().manual_seed(0), steps=500, guidance_scale=1.0)
    assert drawn.shape == (64, 1, 3, 4, 4)
    values = drawn.flatten()
    error = std / len(values) ** 0.5
    assert values.mean().item() == pytest.approx(mean, abs=4 * error + 0.01)
    assert values.std().item() == pytest.approx(std, rel=0.05)


def test_guidance_leads_away_from_the_negative_prompt():
    prior = two_colours()

    def mean(guidance_scale: float) -> float:
        drawn = sample(
            prior,
            ["light"] * 16,
            torch.Generator().manual_seed(0),
            guidance_scale=guidance_scale,
            negative_prompt="dark",
        )
        return drawn.mean().item()

    assert mean(1.0) < mean(2.0) < mean(4.0)


def test_one_call_a_step_and_the_generator_decides():
    prior = two_colours()
    poses = torch.eye(4).expand(3, 2, 4, 4)

    def draw(seed: int) -> torch.Tensor:
        return sample(prior, ["dark", "light", "either"], torch.Generator().manual_seed(seed), poses, steps=7)

    first = draw(1)
    assert len(prior.calls) == 7
    assert prior.calls[0][1].tolist() == [999] * 3
    assert first.shape == (3, 2, 3, 2, 2)
    assert torch.equal(first, draw(1))
    assert not torch.equal(first, draw(2))
