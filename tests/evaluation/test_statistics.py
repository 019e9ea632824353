"""Intervals against their definition, and against how often they must hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsds.evaluation import statistics
from rewardsds.evaluation.statistics import by_prompt, compare, interval_of_mean


def test_an_interval_holds_the_mean_and_is_that_of_the_normal_law_for_many_samples():
    samples = np.random.default_rng(1).normal(3.0, 2.0, 400)
    estimate = interval_of_mean(samples)
    half = 1.96 * samples.std(ddof=1) / np.sqrt(400)
    assert estimate.value == pytest.approx(samples.mean())
    assert estimate.low == pytest.approx(samples.mean() - half, abs=0.1 * half)
    assert estimate.high == pytest.approx(samples.mean() + half, abs=0.1 * half)


def test_intervals_hold_the_truth_as_often_as_they_say(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(120):
        estimate = interval_of_mean(rng.normal(0.5, 1.0, 25))
        held += estimate.low <= 0.5 <= estimate.high
    assert 0.86 <= held / 120 <= 1.0  # 95% of 120, give or take four standard errors


def test_one_sample_and_equal_samples_have_no_width():
    assert interval_of_mean([2.0]) == (2.0, 2.0, 2.0)
    assert interval_of_mean([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("samples", [[], [[1.0]], [1.0, float("nan")]])
def test_what_has_no_mean(samples):
    with pytest.raises(ValueError, match="sample"):
        interval_of_mean(samples)


def test_seeds_are_averaged_first_and_gaps_left_out():
    prompts = ["a", "a", "b", "b", "c"]
    assert by_prompt(prompts, [1.0, 3.0, None, 5.0, None]) == {"a": 2.0, "b": 5.0}


def test_a_comparison_by_hand():
    found = compare([1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 4.0, 1.0])
    assert (found.ours, found.rival, found.n) == (2.5, 1.75, 4)
    assert found.difference.value == 0.75
    assert found.wins == 0.625  # two wins, one tie, one loss
    assert compare([1.0, 2.0], [0.0, 0.0], higher_is_better=False).wins == 0.0


def test_pairs_need_partners():
    with pytest.raises(ValueError, match="paired"):
        compare([1.0], [1.0, 2.0])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=12), st.floats(-5, 5))
def test_a_common_shift_moves_nothing_but_the_means(values: list[float], shift: float):
    first, second = np.array(values), np.array(values[::-1])
    before, after = (
        compare(first.tolist(), second.tolist()),
        compare((first + shift).tolist(), (second + shift).tolist()),
    )
    assert after.difference.value == pytest.approx(before.difference.value, abs=1e-9)
    assert after.ours == pytest.approx(before.ours + shift)
