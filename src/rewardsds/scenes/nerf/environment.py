"""What is infinitely far behind the object, by direction: MVDream's neural environment map."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Module

from rewardsds.scenes.nerf.field import MLP

_BAND1 = math.sqrt(3 / (4 * math.pi))
_BAND2 = math.sqrt(15 / (4 * math.pi))


def spherical_harmonics(directions: Tensor) -> Tensor:
    """The nine real spherical harmonics of degrees 0 to 2 of unit directions (R, 3), orthonormal on the sphere."""
    x, y, z = directions.unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, 0.5 / math.sqrt(math.pi)),
            _BAND1 * y,
            _BAND1 * z,
            _BAND1 * x,
            _BAND2 * x * y,
            _BAND2 * y * z,
            _BAND2 * (3 * z**2 - 1) / math.sqrt(12),
            _BAND2 * x * z,
            _BAND2 * 0.5 * (x**2 - y**2),
        ],
        dim=-1,
    )


class Environment(Module):
    """A colour for every direction."""

    def __init__(self, hidden_layers: int, neurons: int, generator: torch.Generator) -> None:
        super().__init__()
        self.network = MLP(9, hidden_layers, neurons, 3, generator)

    def forward(self, directions: Tensor) -> Tensor:
        """(R, 3) in [0, 1] of unit directions (R, 3)."""
        return self.network(spherical_harmonics(directions)).sigmoid()
