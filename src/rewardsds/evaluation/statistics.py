"""Means and paired differences with bootstrap intervals: what may be said of one method against another.

Everywhere the unit is the prompt: the seeds of a prompt are averaged first, since they are not independent samples of
"a prompt", and intervals are bootstrapped over prompts (BCa, 10,000 resamples, 95%), the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap

RESAMPLES = 10_000


class Estimate(NamedTuple):
    """value: a mean. low, high: its 95% interval; all three are equal where nothing varies, or of one sample."""

    value: float
    low: float
    high: float

    @property
    def leaves_out_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def interval_of_mean(samples: ArrayLike) -> Estimate:
    """The mean of independent samples (n,), n ≥ 1, and its interval. Raises ValueError for none, and for NaN."""
    values = np.asarray(samples, dtype=float)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"expected samples (n,), at least one, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("a sample is NaN or infinite")
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return Estimate(mean, mean, mean)
    rng = np.random.default_rng(0)
    interval = bootstrap((values,), np.mean, n_resamples=RESAMPLES, rng=rng).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high))


def by_prompt(prompts: Sequence[str], values: Sequence[float | None]) -> dict[str, float]:
    """The mean of each prompt's values, those that are None left out; prompts without any are not there."""
    kept: dict[str, list[float]] = {}
    for prompt, value in zip(prompts, values, strict=True):
        if value is not None:
            kept.setdefault(prompt, []).append(value)
    return {prompt: float(np.mean(own)) for prompt, own in kept.items()}


class Comparison(NamedTuple):
    """ours, rival: means over the prompts that both have, n of them. difference: ours − rival, paired by prompt.
    wins: share of prompts in which ours is better, ties count half."""

    ours: float
    rival: float
    difference: Estimate
    wins: float
    n: int


def compare(ours: Sequence[float], rival: Sequence[float], *, higher_is_better: bool = True) -> Comparison:
    """Two methods on the same prompts, in the same order: (n,) each, the means over a prompt's seeds."""
    first, second = np.asarray(ours, dtype=float), np.asarray(rival, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"paired values are needed, got {first.shape} and {second.shape}")
    difference = interval_of_mean(first - second)
    better = np.sign(first - second) * (1 if higher_is_better else -1)
    return Comparison(
        float(first.mean()), float(second.mean()), difference, float((0.5 * better + 0.5).mean()), len(first)
    )
