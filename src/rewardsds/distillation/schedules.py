"""Which timesteps a step may draw: fixed and annealed ranges, as fractions of the prior's T timesteps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class TimestepSchedule(Protocol):
    def __call__(self, step: int) -> tuple[float, float]:
        """(t_min, t_max) at a step of the optimisation, fractions with 0 ≤ t_min ≤ t_max ≤ 1."""
        ...


@dataclass(frozen=True)
class FixedRange:
    """The same range at every step; 2% to 98% as in DreamFusion (arXiv 2209.14988)."""

    t_min: float = 0.02
    t_max: float = 0.98

    def __post_init__(self) -> None:
        _check_range(self.t_min, self.t_max)

    def __call__(self, step: int) -> tuple[float, float]:
        return self.t_min, self.t_max


@dataclass(frozen=True)
class AnnealedRange:
    """Both ends move linearly from their first value to their second over `steps` steps, then stay.

    The defaults are MVDream's (arXiv 2308.16512, section 3.3): the range opens from 98% alone to 2%–50%.
    """

    t_min: tuple[float, float] = (0.98, 0.02)
    t_max: tuple[float, float] = (0.98, 0.50)
    steps: int = 8000

    def __post_init__(self) -> None:
        _check_range(self.t_min[0], self.t_max[0])
        _check_range(self.t_min[1], self.t_max[1])
        if self.steps < 1:
            raise ValueError(f"an annealed timestep range needs at least 1 step, got {self.steps}")

    def __call__(self, step: int) -> tuple[float, float]:
        progress = min(max(step / self.steps, 0.0), 1.0)

        def between(ends: tuple[float, float]) -> float:
            return ends[0] + progress * (ends[1] - ends[0])

        return between(self.t_min), between(self.t_max)


def draw_timesteps(
    t_range: tuple[float, float], timesteps: int, generators: Sequence[torch.Generator], device: torch.device
) -> Tensor:
    """One timestep per item (B,), long, uniform over the range, both ends included.

    Item b draws from `generators[b]`.
    t_range: fractions (t_min, t_max) of the prior's `timesteps` T; the result lies in 0 … T−1. Raises ValueError for
    what is no range of fractions, such as timesteps themselves.
    """
    _check_range(*t_range)
    low = min(round(t_range[0] * timesteps), timesteps - 1)
    high = min(round(t_range[1] * timesteps), timesteps - 1)
    drawn = [torch.randint(low, high + 1, (), generator=g) for g in generators]
    return torch.stack(drawn).to(device)


def _check_range(t_min: float, t_max: float) -> None:
    if not 0.0 <= t_min <= t_max <= 1.0:
        raise ValueError(
            f"a timestep range needs 0 <= t_min <= t_max <= 1 (fractions of the prior's timesteps), "
            f"got t_min={t_min}, t_max={t_max}"
        )
