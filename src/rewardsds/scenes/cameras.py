"""Cameras: one convention, stated here and used everywhere.

World: right-handed, +Z up, metres. Azimuth 0 looks at the front of an object from +X; azimuth grows
counter-clockwise seen from above, so the camera of azimuth 90° stands on +Y. Elevation grows upwards.
Camera: OpenGL axes (x right, y up, looking along −z). A pose is the 4×4 camera-to-world matrix.
This is the convention of threestudio and of MVDream's training cameras (arXiv 2308.16512).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """A group of pinhole cameras with square pixels and the principal point in the middle.

    camera_to_world: (..., 4, 4), OpenGL axes.
    field_of_view: (...,) vertical field of view in radians.
    """

    camera_to_world: Tensor
    field_of_view: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        return self.camera_to_world.shape[:-2]

    def world_to_camera(self) -> Tensor:
        """(..., 4, 4), OpenGL axes."""
        rotation = self.camera_to_world[..., :3, :3].transpose(-1, -2)
        translation = -(rotation @ self.camera_to_world[..., :3, 3:])
        matrix = torch.zeros_like(self.camera_to_world)
        matrix[..., :3, :3] = rotation
        matrix[..., :3, 3:] = translation
        matrix[..., 3, 3] = 1.0
        return matrix

    def opencv_world_to_camera(self) -> Tensor:
        """(..., 4, 4) with OpenCV axes (x right, y down, z forward), as gsplat's `viewmats`."""
        flip = torch.diag(self.camera_to_world.new_tensor([1.0, -1.0, -1.0, 1.0]))
        return flip @ self.world_to_camera()

    def intrinsics(self, width: int, height: int) -> Tensor:
        """(..., 3, 3) in pixels, as gsplat's `Ks`."""
        focal = 0.5 * height / torch.tan(0.5 * self.field_of_view)
        matrix = focal.new_zeros((*focal.shape, 3, 3))
        matrix[..., 0, 0] = focal
        matrix[..., 1, 1] = focal
        matrix[..., 0, 2] = 0.5 * width
        matrix[..., 1, 2] = 0.5 * height
        matrix[..., 2, 2] = 1.0
        return matrix


def orbit(azimuth: Tensor, elevation: Tensor, distance: Tensor, field_of_view: Tensor) -> Cameras:
    """Cameras that look at the origin. Angles in radians, all arguments broadcast to one shape (...)."""
    azimuth, elevation, distance, field_of_view = torch.broadcast_tensors(
        azimuth, elevation, distance, field_of_view
    )
    outward = torch.stack(
        [elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()], dim=-1
    )
    right = torch.stack([-azimuth.sin(), azimuth.cos(), torch.zeros_like(azimuth)], dim=-1)
    up = torch.linalg.cross(outward, right)
    matrix = outward.new_zeros((*azimuth.shape, 4, 4))
    matrix[..., :3, 0] = right
    matrix[..., :3, 1] = up
    matrix[..., :3, 2] = outward
    matrix[..., :3, 3] = outward * distance[..., None]
    matrix[..., 3, 3] = 1.0
    return Cameras(matrix, field_of_view.clone())


def sample_orbit_group(
    generator: torch.Generator,
    views: int = 4,
    batch: int = 1,
    elevation: tuple[float, float] = (0.0, 30.0),
    field_of_view: tuple[float, float] = (15.0, 60.0),
    relative_distance: tuple[float, float] = (0.8, 1.0),
) -> Cameras:
    """MVDream's camera sampling: `views` cameras spread evenly around, one random start (arXiv 2308.16512, A.2).

    Elevation, field of view (degrees) and distance are drawn once a group and shared by its views. The
    distance is `relative_distance / tan(field_of_view / 2)`: an object at the origin keeps its size in the
    picture whatever the field of view. Returns cameras of batch shape (batch, views).
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand((batch, 1), generator=generator)

    start = uniform(0.0, 2 * math.pi)
    azimuth = start + torch.arange(views) * (2 * math.pi / views)
    elevation_angle = torch.deg2rad(uniform(*elevation))
    fov = torch.deg2rad(uniform(*field_of_view))
    distance = uniform(*relative_distance) / torch.tan(0.5 * fov)
    return orbit(azimuth, elevation_angle, distance, fov)
