"""Objects whose pictures, shape and colours are known in closed form; no code of the meshes is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rewardsds.scenes.base import Rendering
from rewardsds.scenes.cameras import Cameras
from rewardsds.scenes.object3d import Colour, Object3D
from rewardsds.scenes.settings import CameraSettings


class AnalyticObject(Object3D):
    """A solid that rays are intersected with. scale and shift: of its density, which may be of any scale."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__(CameraSettings(resolution=(32,), elevation=(-90.0, 90.0)))
        self.scale, self.shift = scale, shift

    def nearest(self, origins: Tensor, directions: Tensor) -> Tensor:
        """Distances (...) along unit directions (..., 3); infinite where nothing is hit."""
        raise NotImplementedError

    def depth_inside(self, points: Tensor) -> Tensor:
        raise NotImplementedError

    def render(
        self,
        cameras: Cameras | None,
        generators: Sequence[torch.Generator] | None = None,
        size: int | None = None,
        background: Colour | None = None,
    ) -> Rendering:
        assert cameras is not None
        size, fine = size or self.resolution, 3
        behind = self.plain_background(generators, background)
        origins, directions = cameras.rays(fine * size, fine * size)
        distance = self.nearest(origins, directions)
        hit = distance.isfinite()
        places = origins + torch.where(hit, distance, 1.0)[..., None] * directions
        colours = torch.where(
            hit[..., None], self.colour(places.reshape(-1, 3)).reshape(places.shape), behind
        )
        shape = cameras.batch_shape

        def averaged(values: Tensor) -> Tensor:
            flat = values.movedim(-1, -3).flatten(0, 1).float()
            return torch.nn.functional.avg_pool2d(flat, fine).unflatten(0, shape)

        return Rendering(images=averaged(colours), alpha=averaged(hit[..., None]))

    def density(self, points: Tensor) -> Tensor:
        return self.scale * self.depth_inside(points) + self.shift

    def parameter_groups(self) -> list[dict[str, Any]]:
        return []

    def state_dict(self) -> Mapping[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


class Sphere(AnalyticObject):
    """Of radius 0.6 around (0.1, −0.05, 0.1): red grows with x, green with y, blue with z."""

    radius = 0.6
    centre = torch.tensor([0.1, -0.05, 0.1])

    def nearest(self, origins: Tensor, directions: Tensor) -> Tensor:
        offset = origins - self.centre
        b = (offset * directions).sum(-1)
        root = b * b - (offset.square().sum(-1) - self.radius**2)
        return torch.where(root > 0, -b - root.clamp(min=0).sqrt(), torch.inf)

    def depth_inside(self, points: Tensor) -> Tensor:
        return self.radius - (points - self.centre).norm(dim=-1)

    def colour(self, points: Tensor) -> Tensor:
        return (0.5 + 0.6 * (points - self.centre)).clamp(0, 1)


class TwoColouredBox(AnalyticObject):
    """|x| ≤ 0.5, |y| ≤ 0.3, |z| ≤ 0.4: its front half (x > 0) orange, its back blue."""

    half = torch.tensor([0.5, 0.3, 0.4])

    def nearest(self, origins: Tensor, directions: Tensor) -> Tensor:
        one = (-self.half - origins) / directions
        other = (self.half - origins) / directions
        enters, leaves = torch.minimum(one, other).amax(-1), torch.maximum(one, other).amin(-1)
        return torch.where((enters < leaves) & (enters > 0), enters, torch.inf)

    def depth_inside(self, points: Tensor) -> Tensor:
        return (self.half - points.abs()).amin(-1)

    def colour(self, points: Tensor) -> Tensor:
        orange, blue = points.new_tensor([0.9, 0.5, 0.1]), points.new_tensor([0.1, 0.3, 0.8])
        return torch.where(points[..., :1] > 0, orange, blue)
