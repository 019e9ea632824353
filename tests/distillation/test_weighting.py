"""Weights by hand, and the properties that hold for every scheme."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rewardsds.distillation.weighting import (
    Advantage,
    Best,
    BestWorst,
    Random,
    Rank,
    Softmax,
    Uniform,
    Weighting,
)

REWARDS = torch.tensor([[0.1, 5.0], [0.4, -1.0], [-0.2, 2.0], [0.3, 3.0]])  # (N=4, B=2)


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(item) for item in range(count)]


@pytest.mark.parametrize(
    "weighting, expected",
    [
        (Uniform(), [[0.25, 0.25]] * 4),
        (Best(1), [[0, 1], [1, 0], [0, 0], [0, 0]]),
        (Best(2), [[0, 0.5], [0.5, 0], [0, 0], [0.5, 0.5]]),
        (BestWorst(1), [[0, 0.9], [0.9, -0.1], [-0.1, 0], [0, 0]]),
        (BestWorst(2), [[-0.05, 0.45], [0.45, -0.05], [-0.05, -0.05], [0.45, 0.45]]),
    ],
)
def test_weights_by_hand(weighting: Weighting, expected: list[list[float]]):
    torch.testing.assert_close(weighting(REWARDS), torch.tensor(expected, dtype=torch.float32))


def test_softmax_by_hand():
    rewards = torch.tensor([[0.0], [math.log(3.0)]])
    torch.testing.assert_close(Softmax()(rewards), torch.tensor([[0.25], [0.75]]))
    # At half the temperature the odds are squared: 1 to 9.
    torch.testing.assert_close(Softmax(temperature=0.5)(rewards), torch.tensor([[0.1], [0.9]]))


def test_random_chooses_one_candidate_uniformly_and_ignores_the_rewards():
    draws = 4000
    weights = Random()(torch.arange(4.0)[:, None].expand(4, draws), generators(draws))
    assert ((weights == 1).sum(dim=0) == 1).all()
    assert ((weights == 0).sum(dim=0) == 3).all()
    # Five standard deviations of a binomial share with p = 1/4.
    tolerance = 5 * math.sqrt(0.25 * 0.75 / draws)
    assert (weights.mean(dim=1) - 0.25).abs().max() < tolerance


def test_random_draws_for_an_item_from_its_own_generator_alone():
    both = Random()(REWARDS, generators(2))
    second = Random()(REWARDS[:, 1:], generators(2)[1:])
    assert torch.equal(both[:, 1:], second)


def test_random_without_generators_says_so():
    with pytest.raises(ValueError, match="one generator for each of 2 items, got 0"):
        Random()(REWARDS)


@st.composite
def distinct_rewards(draw: st.DrawFn) -> torch.Tensor:
    """(N, B) without ties inside an item; eighths, so that adding integers is exact."""
    candidates, items = draw(st.integers(4, 9)), draw(st.integers(1, 3))
    columns = [
        draw(st.lists(st.integers(-200, 200), min_size=candidates, max_size=candidates, unique=True))
        for _ in range(items)
    ]
    return torch.tensor(columns, dtype=torch.float64).T / 8


ANY = st.one_of(
    st.just(Uniform()),
    st.builds(Softmax, temperature=st.floats(0.05, 20.0)),
    st.builds(Best, k=st.integers(1, 4)),
    st.builds(BestWorst, k=st.integers(1, 2)),
    st.just(Rank()),
    st.builds(Advantage, factor=st.floats(0, 10)),
)


@given(rewards=distinct_rewards(), weighting=st.one_of(ANY, st.just(Random())))
def test_absolute_weights_sum_to_one(rewards: torch.Tensor, weighting: Weighting):
    weights = weighting(rewards, generators(rewards.shape[1]))
    assert weights.shape == rewards.shape
    torch.testing.assert_close(weights.abs().sum(dim=0), torch.ones(rewards.shape[1], dtype=torch.float64))


@given(rewards=distinct_rewards(), weighting=ANY, shift=st.integers(-50, 50))
def test_adding_a_constant_to_the_rewards_changes_nothing(
    rewards: torch.Tensor, weighting: Weighting, shift: int
):
    torch.testing.assert_close(weighting(rewards + shift), weighting(rewards))


@given(rewards=distinct_rewards(), weighting=ANY, random=st.randoms(use_true_random=False))
def test_permuting_candidates_permutes_weights(rewards: torch.Tensor, weighting: Weighting, random):
    order = list(range(len(rewards)))
    random.shuffle(order)
    torch.testing.assert_close(weighting(rewards[order]), weighting(rewards)[order])


@given(rewards=distinct_rewards(), weighting=ANY)
def test_items_do_not_mix(rewards: torch.Tensor, weighting: Weighting):
    together = weighting(rewards)
    alone = torch.cat([weighting(column[:, None]) for column in rewards.unbind(dim=1)], dim=1)
    torch.testing.assert_close(together, alone)


@given(rewards=distinct_rewards(), weighting=ANY)
def test_a_better_candidate_never_weighs_less(rewards: torch.Tensor, weighting: Weighting):
    for item in range(rewards.shape[1]):
        ascending = weighting(rewards)[rewards[:, item].argsort(), item]
        assert (ascending.diff() >= 0).all()


@pytest.mark.parametrize("weighting", [Best(3), BestWorst(2)])
def test_too_few_candidates_are_refused(weighting: Weighting):
    too_few = weighting.minimum_candidates - 1
    with pytest.raises(
        ValueError, match=f"at least {weighting.minimum_candidates} candidates, got {too_few}"
    ):
        weighting(REWARDS[:too_few])


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(k: int):
    with pytest.raises(ValueError, match="at least 1"):
        Best(k)
    with pytest.raises(ValueError, match="at least 1"):
        BestWorst(k)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_must_be_positive(temperature: float):
    with pytest.raises(ValueError, match="above 0"):
        Softmax(temperature)


def test_equal_rewards_still_give_a_best_and_a_worst():
    weights = BestWorst(1)(torch.zeros(4, 1))
    torch.testing.assert_close(weights, torch.tensor([[0.9], [0.0], [0.0], [-0.1]]))


def test_rank_weights_are_those_of_cma_es():
    """N = 4: ln 2.5 − ln 1, ln 2.5 − ln 2, none for ranks 3 and 4, normalised."""
    rewards = torch.tensor([[0.1], [3.0], [-2.0], [0.2]])
    first, second = np.log(2.5), np.log(2.5 / 2)
    expected = np.array([0, first, 0, second]) / (first + second)
    np.testing.assert_allclose(Rank()(rewards)[:, 0].numpy(), expected, rtol=1e-6)
    torch.testing.assert_close(Rank()(rewards.exp()), Rank()(rewards))


def test_advantage_by_hand():
    rewards = torch.tensor([[1.0], [2.0], [3.0], [6.0]])  # mean 3, deviation sqrt(3.5)
    raw = 1 + 3 * np.array([-2, -1, 0, 3]) / np.sqrt(3.5)
    expected = raw / np.abs(raw).sum()
    np.testing.assert_allclose(Advantage(3.0)(rewards)[:, 0].numpy(), expected, rtol=1e-6)


def test_advantage_of_equal_rewards_is_uniform():
    rewards = torch.full((4, 2), 0.3)
    torch.testing.assert_close(Advantage()(rewards), torch.full((4, 2), 0.25))
    with pytest.raises(ValueError, match="0 or more"):
        Advantage(-1.0)
