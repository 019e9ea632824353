"""Paired differences with bootstrap intervals, for the benchmarks that compare methods."""

from __future__ import annotations

import numpy as np

from rewardsds.evaluation.statistics import interval_of_mean


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
