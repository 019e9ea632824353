"""Statistics of the benchmarks."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
paired = import_module("paired")


def test_a_difference_that_another_one_explains():
    """Errors are a tenth of the contrast, ours 0.5 less: where ours has more contrast they look larger."""
    rng = np.random.default_rng(1)
    of_rival, of_ours = rng.uniform(10, 20, (40, 2)), rng.uniform(20, 40, (40, 2))
    rival = 0.1 * of_rival + 0.01 * rng.standard_normal((40, 2))
    ours = 0.1 * of_ours - 0.5 + 0.01 * rng.standard_normal((40, 2))
    raw, fair = paired.compare(rival, ours), paired.compare_at_equal(rival, ours, of_rival, of_ours)
    assert raw["difference"] > 0.5
    assert fair["difference"] == pytest.approx(-0.5, abs=0.02)
    low, high = fair["interval"]
    assert -0.53 < low < -0.5 < high < -0.47
    assert fair["ours"] - fair["rival"] == pytest.approx(fair["difference"])


def test_what_is_noise_alone_is_not_told_from_none():
    rng = np.random.default_rng(2)
    rival, ours, of_rival, of_ours = rng.standard_normal((4, 30, 1))
    low, high = paired.compare_at_equal(rival, ours, of_rival, of_ours)["interval"]
    assert low < 0 < high
