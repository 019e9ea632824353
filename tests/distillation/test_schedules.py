"""Timestep ranges by hand."""

import pytest
import torch

from rewardsds.distillation.schedules import AnnealedRange, FixedRange, draw_timesteps

CPU = torch.device("cpu")


def test_fixed_range_is_the_same_at_every_step():
    schedule = FixedRange(0.1, 0.6)
    assert schedule(0) == schedule(10_000) == (0.1, 0.6)


@pytest.mark.parametrize(
    "step, expected",
    [
        (0, (0.98, 0.98)),
        (2000, (0.74, 0.86)),
        (4000, (0.50, 0.74)),
        (8000, (0.02, 0.50)),
        (9999, (0.02, 0.50)),
    ],
)
def test_mvdream_annealing_by_hand(step: int, expected: tuple[float, float]):
    assert AnnealedRange()(step) == pytest.approx(expected)


def test_annealing_over_given_steps():
    schedule = AnnealedRange(t_min=(0.5, 0.1), t_max=(0.9, 0.5), steps=4)
    assert schedule(1) == pytest.approx((0.4, 0.8))
    assert schedule(3) == pytest.approx((0.2, 0.6))


@pytest.mark.parametrize("t_min, t_max", [(-0.1, 0.5), (0.5, 1.1), (0.6, 0.5), (float("nan"), 0.5)])
def test_impossible_ranges_are_refused(t_min: float, t_max: float):
    with pytest.raises(ValueError, match="0 <= t_min <= t_max <= 1"):
        FixedRange(t_min, t_max)
    with pytest.raises(ValueError, match="0 <= t_min <= t_max <= 1"):
        AnnealedRange(t_min=(0.5, t_min), t_max=(0.5, t_max))


def test_annealing_over_no_steps_is_refused():
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        AnnealedRange(steps=0)


def test_drawn_timesteps_fill_the_range_and_stay_in_it():
    generators = [torch.Generator().manual_seed(item) for item in range(500)]
    drawn = draw_timesteps((0.29, 0.31), 100, generators, CPU)
    assert drawn.dtype == torch.long
    assert set(drawn.tolist()) == {29, 30, 31}


def test_the_whole_range_never_leaves_the_prior():
    generators = [torch.Generator().manual_seed(item) for item in range(200)]
    drawn = draw_timesteps((0.0, 1.0), 5, generators, CPU)
    assert set(drawn.tolist()) == {0, 1, 2, 3, 4}
    assert draw_timesteps((1.0, 1.0), 5, generators[:1], CPU).tolist() == [4]
