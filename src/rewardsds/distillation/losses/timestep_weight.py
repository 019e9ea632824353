"""ω(t), by which steps at different timesteps count, for losses that are differences of noises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from rewardsds.distillation.candidates import Candidates
from rewardsds.distillation.losses.wrapped import Wrapped

TimestepWeight = Literal["variance", "uniform", "fantasia3d"]
TIMESTEP_WEIGHTS: tuple[TimestepWeight, ...] = get_args(TimestepWeight)

_OMEGA: Mapping[TimestepWeight, Callable[[Tensor, Tensor], Tensor]] = {
    "variance": lambda alpha, sigma: sigma.square(),
    "uniform": lambda alpha, sigma: torch.ones_like(sigma),
    "fantasia3d": lambda alpha, sigma: alpha * sigma.square(),
}


@dataclass(frozen=True, eq=False)
class TimestepWeighted(Wrapped):
    """The residual of `base` with another ω(t), where α² = ᾱ_t and σ² = 1 − ᾱ_t.

    variance: σ², DreamFusion's (arXiv 2209.14988). uniform: 1, as in the public code of DreamGaussian. fantasia3d:
    α σ², which is little at low timesteps and at high ones, as in the public code of Fantasia3D (arXiv 2303.13873).

    Raises ValueError for another name.
    """

    weight: TimestepWeight

    def __post_init__(self) -> None:
        if self.weight not in _OMEGA:
            raise ValueError(
                f"no timestep weight {self.weight!r}: expected one of {', '.join(TIMESTEP_WEIGHTS)}"
            )

    def timestep_weight(self, candidates: Candidates) -> Tensor:
        return _OMEGA[self.weight](candidates.alpha, candidates.sigma)
