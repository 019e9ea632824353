"""Paired differences with bootstrap intervals, for the benchmarks that compare methods."""

from __future__ import annotations

import numpy as np
from scipy.stats import bootstrap

from rewardsds.evaluation.statistics import RESAMPLES, interval_of_mean


def compare(rival: np.ndarray, ours: np.ndarray) -> dict:
    """Means of both, and of the difference with its 95% interval, bootstrapped over groups (first axis).

    rival, ours: (groups, seeds), paired. Values of a group are averaged first.
    """
    difference = interval_of_mean((ours - rival).mean(axis=1))
    return {
        "rival": float(rival.mean()),
        "ours": float(ours.mean()),
        "difference": difference.value,
        "interval": [difference.low, difference.high],
    }


def compare_at_equal(rival: np.ndarray, ours: np.ndarray, of_rival: np.ndarray, of_ours: np.ndarray) -> dict:
    """As `compare`, of pairs that are alike in something else, of_rival and of_ours (groups, seeds).

    The difference is the intercept of a line through the groups' differences over those of the other (least squares).
    """
    difference, other = (ours - rival).mean(axis=1), (of_ours - of_rival).mean(axis=1)

    def intercept(y: np.ndarray, x: np.ndarray) -> float:
        return float(np.linalg.lstsq(np.stack([np.ones_like(x), x], axis=1), y, rcond=None)[0][0])

    value, rng = intercept(difference, other), np.random.default_rng(0)
    found = bootstrap(
        (difference, other), intercept, paired=True, vectorized=False, n_resamples=RESAMPLES, rng=rng
    ).confidence_interval
    mean = float(rival.mean())
    interval = [float(found.low), float(found.high)]
    return {"rival": mean, "ours": mean + value, "difference": value, "interval": interval}


def table(name: str, measures: dict[str, dict]) -> str:
    """Lines of text, one a measure."""
    lines = [f"{'measure':32} {name:>12} {'weighted':>9} {'difference':>11}   95% interval"]
    for measure, row in measures.items():
        low, high = row["interval"]
        lines.append(
            f"{measure:32} {row['rival']:12.3f} {row['ours']:9.3f} {row['difference']:+11.3f}   "
            f"[{low:+.3f}, {high:+.3f}]"
        )
    return "\n".join(lines)
