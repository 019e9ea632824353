"""Density and colour at every point: a hash grid and two small networks, as MVDream's (arXiv 2308.16512)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.nn import Module, Parameter, ParameterList

from rewardsds.scenes.nerf.encoding import HashGrid
from rewardsds.scenes.nerf.settings import NeRFSettings
from rewardsds.scenes.object3d import RADIUS

EXPONENT_LIMIT = (
    15.0  # beyond, the gradient of an exponential density grows no more (arXiv 2201.05989's code)
)


class MLP(Module):
    """Linear layers without biases, ReLU in between."""

    def __init__(
        self, width: int, hidden_layers: int, neurons: int, out: int, generator: torch.Generator
    ) -> None:
        """Weights are uniform within ± 1/√inputs, drawn from a CPU generator."""
        super().__init__()
        widths = [width, *[neurons] * hidden_layers, out]
        self.layers = ParameterList(
            Parameter((2 * torch.rand((after, before), generator=generator) - 1) / math.sqrt(before))
            for before, after in pairwise(widths)
        )

    def forward(self, values: Tensor) -> Tensor:
        """(M, width) → (M, out)."""
        for index, weight in enumerate(self.layers):
            values = F.linear(values.relu() if index else values, weight)
        return values


class Field(Module):
    """density ≥ 0 and colour in [0, 1] of points in world units, inside the ball of radius `RADIUS`."""

    def __init__(self, settings: NeRFSettings, generator: torch.Generator) -> None:
        super().__init__()
        s = self.settings = settings
        self.grid = HashGrid(s.levels, s.features, s.log2_table, s.base_resolution, s.growth, generator)
        self.density_network = MLP(self.grid.width, s.hidden_layers, s.neurons, 1, generator)
        self.colour_network = MLP(self.grid.width, s.hidden_layers, s.neurons, 3, generator)

    def encode(self, points: Tensor, known: Tensor | None = None) -> Tensor:
        """(M, width) of points (M, 3). known: their values, where they were computed before without gradient."""
        return self.grid(points * (0.5 / RADIUS) + 0.5, known)

    def density(self, points: Tensor, encoded: Tensor | None = None) -> Tensor:
        """(M,) per world unit of length, of points (M, 3); encoded: their encodings, where they are known."""
        raw = self.density_network(self.encode(points) if encoded is None else encoded)[:, 0]
        raw = raw + self.blob(points)
        return F.softplus(raw) if self.settings.density_activation == "softplus" else truncated_exp(raw)

    def colour(self, points: Tensor, encoded: Tensor | None = None) -> Tensor:
        """(M, 3) in [0, 1]."""
        raw = self.colour_network(self.encode(points) if encoded is None else encoded)
        return raw.sigmoid() if self.settings.colour_activation == "sigmoid" else straight(raw)

    def blob(self, points: Tensor) -> Tensor:
        """What the density starts from, before its activation: arXiv 2211.10440 (linear), 2209.14988 (Gaussian)."""
        s = self.settings
        x, y, z = (points / s.blob_radius).unbind(-1)
        squared = x * x + y * y + z * z
        if s.blob == "linear":
            # the square root has no gradient at the origin; a normal that is asked for there is any
            return s.blob_scale * (1 - squared.clamp(min=1e-12).sqrt())
        return s.blob_scale * torch.exp(-0.5 * squared)

    def normals(self, points: Tensor) -> Tensor:
        """Unit normals (M, 3): where the density falls fastest. Carries gradient to the field."""
        slope = self._slope_by_derivation if self.settings.normals == "analytic" else self._slope
        return -F.normalize(slope(points), dim=-1, eps=1e-8)

    def _slope(self, points: Tensor) -> Tensor:
        """The gradient of the density (M, 3), by central differences."""
        step = 0.5 * self.settings.normals_step
        moved = [points + side * step * axis for axis in torch.eye(3).to(points) for side in (1, -1)]
        x1, x0, y1, y0, z1, z0 = self.density(torch.cat(moved)).chunk(6)
        return torch.stack([x1 - x0, y1 - y0, z1 - z0], dim=-1) / (2 * step)

    def _slope_by_derivation(self, points: Tensor) -> Tensor:
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.density(points).sum(), points, create_graph=keep)
        return slope


class _Bounded(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (values,) = ctx.saved_tensors
        (gradient,) = gradients
        outwards = ((values < 0) & (gradient > 0)) | ((values > 1) & (gradient < 0))
        return gradient.masked_fill(outwards, 0.0)


def straight(raw: Tensor) -> Tensor:
    """½ + raw / 4, cut off at 0 and 1: the sigmoid's tangent at mid-grey, which does not flatten.

    A descent step passes where it leads back to [0, 1], however far off a value is. In score distillation a sigmoid is
    driven to its ends by the first, noisiest steps, and what it no longer passes back is what the last steps would
    have drawn: the white belly of a penguin that has become black.
    """
    result = _Bounded.apply(0.5 + 0.25 * raw)
    assert isinstance(result, Tensor)
    return result


class _TruncatedExp(Function):
    @staticmethod
    def forward(ctx: Any, raw: Tensor) -> Tensor:
        ctx.save_for_backward(raw)
        return raw.exp()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (raw,) = ctx.saved_tensors
        return gradients[0] * raw.clamp(max=EXPONENT_LIMIT).exp()


def truncated_exp(raw: Tensor) -> Tensor:
    """exp, whose gradient is that of an argument of at most `EXPONENT_LIMIT`: one large density explodes nothing."""
    result = _TruncatedExp.apply(raw)
    assert isinstance(result, Tensor)
    return result
