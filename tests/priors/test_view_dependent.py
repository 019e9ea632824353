"""View-dependent prompts and Perp-Neg, against values by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rewardsds.distillation.guidance import RewardSDS
from rewardsds.distillation.losses import NFSD, SDS, Bridge
from rewardsds.distillation.weighting import BestWorst, Uniform
from rewardsds.priors.latent import LatentPrior
from rewardsds.priors.load import load_prior
from rewardsds.priors.view_dependent import PerpNeg, ViewDependentPrior, ViewWords, perpendicular
from rewardsds.scenes.cameras import orbit

AROUND = [0.0, 40.0, 90.0, 180.0, -140.0, -100.0, 359.0]


@pytest.fixture(scope="module")
def prior(tiny_single_view_prior_folder: Path) -> LatentPrior:
    return load_prior(tiny_single_view_prior_folder, "cpu")


def poses(azimuths: list[float], elevation: float = 10.0) -> Tensor:
    at = torch.deg2rad(torch.tensor([azimuths]))
    return orbit(
        at, torch.tensor(math.radians(elevation)), torch.tensor(2.0), torch.tensor(0.7)
    ).camera_to_world


def test_words_by_where_the_camera_stands(prior: LatentPrior):
    seen = ViewDependentPrior(prior).condition(["a car"], "", poses(AROUND)).prompts[0]
    sides = ["front", "front", "side", "back", "back", "side", "front"]
    assert seen == [f"a car, {side} view" for side in sides]
    above = ViewDependentPrior(prior).condition(["a car"], "", poses(AROUND, 70.0)).prompts[0]
    assert set(above) == {"a car, overhead view"}


def test_the_prior_reads_those_words(prior: LatentPrior):
    mine = ViewDependentPrior(prior, ViewWords(front=" red", side=" green", back=" black"))
    cameras = poses([0.0, 90.0, 180.0])
    condition = mine.condition(["a car"], "apple", cameras)
    said = prior.condition([["a car red", "a car green", "a car black"]], "apple", cameras)
    assert torch.equal(condition.embeddings, said.embeddings)
    assert torch.equal(condition.negative_embeddings, said.negative_embeddings)
    noisy = torch.randn(2, 1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ours, theirs = (one.predict(noisy, torch.tensor([300]), condition) for one in (mine, prior))
    assert torch.equal(ours.conditional, theirs.conditional)


@pytest.mark.parametrize("perp_neg", [None, PerpNeg()])
def test_texts_of_views_and_empty_ones_stay_as_they_are(prior: LatentPrior, perp_neg: PerpNeg | None):
    mine = ViewDependentPrior(prior, perp_neg=perp_neg)
    assert mine.condition([""], "", poses(AROUND)).prompts == [""]
    two = mine.condition(["a car", ""], "", poses(AROUND).expand(2, -1, -1, -1)).prompts
    assert [*two[0]] == [*mine.condition(["a car"], "", poses(AROUND)).prompts[0]]
    assert [*two[1]] == [""] * len(AROUND)
    own = [["a car", "a red car"]]
    assert mine.condition(own, "", poses([0.0, 90.0])).prompts == own
    assert mine.condition(["a car"]).prompts == ["a car"]  # nowhere is seen from nowhere


def test_a_long_prompt_leaves_room_for_the_view(prior: LatentPrior):
    """Of 12 tokens two are of the frame and one is the view's."""
    words = ViewWords(front=" red", side=" green", back=" black", overhead=" apple")
    long = "a car and the backpack on a car and the backpack on a car"
    for perp_neg in (None, PerpNeg()):
        mine = ViewDependentPrior(prior, words, perp_neg)
        cameras = poses([0.0, 180.0])
        with pytest.warns(UserWarning, match=r"too long .*'red'.*its end, 'the backpack on a car'") as warned:
            condition = mine.condition([long], "", cameras)
        assert len(warned) == 1
        told = [[f"a car and the backpack on a car and {word}" for word in ("red", "black")]]
        torch.testing.assert_close(condition.embeddings, prior.condition(told, "", cameras).embeddings)
        # rewards may read more
        assert [*condition.prompts[0]] == [f"{long} red", f"{long} black"]
    with pytest.warns(UserWarning, match="16 tokens and the prior reads 12: its end is not seen"):
        prior.condition([long])


@pytest.mark.parametrize(
    "azimuth, shares, pushed",
    [
        (0.0, (1, 0, 0), (0.0, -2.0)),
        (45.0, (0.5, 0.5, 0), (-2 * math.exp(-1), -2 * math.exp(-5))),
        (-45.0, (0.5, 0.5, 0), (-2 * math.exp(-1), -2 * math.exp(-5))),
        (81.0, (0.1, 0.9, 0), (-2 * math.exp(-0.2), 0.0)),
        (90.0, (0, 1, 0), (-2.0, 0.0)),
        (135.0, (0, 0.5, 0.5), (-2.0, -math.exp(-5))),
        (180.0, (0, 0, 1), (-2.0, -1.0)),
    ],
)
def test_perp_negs_shares_and_weights(azimuth: float, shares: Any, pushed: Any):
    found = PerpNeg().of(azimuth)
    assert found[0] == pytest.approx(shares)
    assert found[1] == pytest.approx(pushed)


@given(azimuth=st.floats(-720, 720, allow_nan=False))
def test_shares_sum_to_one_and_nothing_is_pulled(azimuth: float):
    shares, pushed = PerpNeg().of(azimuth)
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) >= -1e-9
    assert max(pushed) <= 0.0


def test_perpendicular_is_orthogonal_and_leaves_the_rest():
    generator = torch.Generator().manual_seed(0)
    values, to = torch.randn(2, 3, 2, 4, 5, 5, generator=generator).double().unbind(0)
    left = perpendicular(values, to)
    torch.testing.assert_close((left * to).sum((-3, -2, -1)), torch.zeros(3, 2).double())
    torch.testing.assert_close(perpendicular(left, to), left)
    torch.testing.assert_close(perpendicular(values + 7 * to, to), left)
    assert perpendicular(values, torch.zeros_like(to)).equal(values)


def test_the_prediction_is_perp_negs(prior: LatentPrior):
    """Written out for one view halfway between front and side."""
    words = ViewWords(front=" red", side=" green", back=" black")
    mine = ViewDependentPrior(prior, words, PerpNeg())
    camera = poses([45.0])
    noisy = torch.randn(1, 1, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([500])
    before = prior.network_evaluations
    found = mine.predict(noisy, t, mine.condition(["a car"], "", camera)).guided(7.5)
    assert prior.network_evaluations - before == 4  # both branches and two that are pushed off

    front, side = (prior.condition([f"a car {word}"]) for word in ("red", "green"))
    between = prior.condition(["a car"])
    object.__setattr__(between, "embeddings", 0.5 * (front.embeddings + side.embeddings))
    base = prior.predict(noisy, t, between)
    assert base.unconditional is not None
    main = base.conditional - base.unconditional
    moved = main.clone()
    for other, weight in ((front, -2 * math.exp(-1)), (side, -2 * math.exp(-5))):
        away = prior.predict(noisy, t, other, unconditional=False).conditional - base.unconditional
        moved += weight * (away - (away * main).sum() / (main * main).sum() * main)
    torch.testing.assert_close(found, base.unconditional + 7.5 * moved, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("perp_neg", [None, PerpNeg()])
@pytest.mark.parametrize("loss", [SDS(7.5), Bridge(7.5)])
def test_the_reward_is_told_the_same_words(prior: LatentPrior, perp_neg: PerpNeg | None, loss: Any):
    told: list[Any] = []

    def reward(images: Tensor, prompts: Any) -> Tensor:
        told.extend(prompts)
        return images.mean(dim=(2, 3, 4, 5))

    mine = ViewDependentPrior(prior, perp_neg=perp_neg)
    guidance = RewardSDS(mine, reward, candidates=3, weighting=BestWorst(1), loss=loss)
    images = torch.rand(1, 3, 3, 16, 16, requires_grad=True, generator=torch.Generator().manual_seed(0))
    guidance(images, "a car", cameras=poses([0.0, 90.0, 180.0])).backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert told == ["a car, front view", "a car, side view", "a car, back view"]


@pytest.mark.parametrize("perp_neg", [None, PerpNeg()])
def test_what_nfsd_moves_off_is_told_without_the_words_of_sides(
    prior: LatentPrior, perp_neg: PerpNeg | None
) -> None:
    asked: list[Any] = []

    class Asked(ViewDependentPrior):
        def condition(self, prompts: Any, *args: Any, **kwargs: Any) -> Any:
            condition = super().condition(prompts, *args, **kwargs)
            asked.append(condition.prompts)
            return condition

    mine = Asked(prior, perp_neg=perp_neg)
    guidance = RewardSDS(mine, candidates=1, weighting=Uniform(), loss=NFSD(bad_quality="green"))
    latents = torch.zeros(1, 2, *prior.latent_shape, requires_grad=True)
    guidance(latents=latents, prompt="a car", cameras=poses([0.0, 180.0])).backward()
    assert [*asked[0][0]] == ["a car, front view", "a car, back view"]
    assert [*asked[1][0]] == ["green", "green"]
