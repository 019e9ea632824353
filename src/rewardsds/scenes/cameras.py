"""Cameras: one convention, stated here and used everywhere.

World: right-handed, +Z up, metres. Azimuth 0 looks at the front of an object from +X; azimuth grows
counter-clockwise seen from above, so the camera of azimuth 90° stands on +Y. Elevation grows upwards.
Camera: OpenGL axes (x right, y up, looking along −z). A pose is the 4×4 camera-to-world matrix.
This is the convention of threestudio and of MVDream's training cameras (arXiv 2308.16512).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rewardsds.scenes.settings import CameraSettings


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

    def to(self, device: torch.device | str) -> Cameras:
        return Cameras(self.camera_to_world.to(device), self.field_of_view.to(device))

    def __getitem__(self, index: Any) -> Cameras:
        """Some of the cameras; `index` is into the batch shape."""
        return Cameras(self.camera_to_world[index], self.field_of_view[index])

    def relative_distance(self) -> Tensor:
        """(...,) distance from the origin × tan(field of view / 2)."""
        return self.camera_to_world[..., :3, 3].norm(dim=-1) * torch.tan(0.5 * self.field_of_view)

    def rays(self, width: int, height: int) -> tuple[Tensor, Tensor]:
        """Origins and unit directions (..., height, width, 3) in the world, through pixel centres, top row first."""
        half = torch.tan(0.5 * self.field_of_view)[..., None, None]
        y, x = torch.meshgrid(
            torch.arange(height, device=half.device), torch.arange(width, device=half.device), indexing="ij"
        )
        right = (2 * x + 1 - width) / height * half
        up = (height - 2 * y - 1) / height * half
        local = torch.stack([right, up, -torch.ones_like(right)], dim=-1)
        directions = (self.camera_to_world[..., None, None, :3, :3] @ local[..., None]).squeeze(-1)
        origins = self.camera_to_world[..., None, None, :3, 3].expand_as(directions)
        return origins, torch.nn.functional.normalize(directions, dim=-1)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where the square picture of one camera shows points (P, 3) of the world.

        uvs (P, 2) are 0 at its top left and 1 at its bottom right; depth (P,) is along the optical axis, and half the
        picture's height (P,) at that depth, in world units.
        """
        local = (points - self.camera_to_world[:3, 3]) @ self.camera_to_world[:3, :3]
        depth = -local[:, 2]
        half = depth * torch.tan(0.5 * self.field_of_view)
        return 0.5 + 0.5 * torch.stack([local[:, 0] / half, -local[:, 1] / half], dim=-1), depth, half

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
    mixed: bool = False,
) -> Cameras:
    """MVDream's camera sampling: `views` cameras spread evenly around, one random start (arXiv 2308.16512, A.2).

    Elevation, field of view (degrees) and distance are drawn once a group and shared by its views. The
    distance is `relative_distance / tan(field_of_view / 2)`: an object at the origin keeps its size in the
    picture whatever the field of view. mixed: half of the elevations are uniform on the sphere's surface, not in
    degrees, as in MVDream's public code (random_multiview.py). Returns cameras of batch shape (batch, views).
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand((batch, 1), generator=generator)

    start = uniform(0.0, 2 * math.pi)
    azimuth = start + torch.arange(views) * (2 * math.pi / views)
    elevation_angle = torch.deg2rad(uniform(*elevation))
    fov = torch.deg2rad(uniform(*field_of_view))
    distance = uniform(*relative_distance) / torch.tan(0.5 * fov)
    if mixed:
        low, high = (math.sin(math.radians(angle)) for angle in elevation)
        by_height = torch.asin(uniform(low, high).clamp(-1, 1))
        elevation_angle = torch.where(uniform(0.0, 1.0) < 0.5, elevation_angle, by_height)
    return orbit(azimuth, elevation_angle, distance, fov)


def look_at(position: Tensor, target: Tensor, up: Tensor, field_of_view: Tensor) -> Cameras:
    """Cameras at `position` (..., 3) that see `target` (..., 3) in the middle; `up` (..., 3) need not be exact."""
    outward = torch.nn.functional.normalize(position - target, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(up.expand_as(outward), outward), dim=-1)
    matrix = outward.new_zeros((*outward.shape[:-1], 4, 4))
    matrix[..., :3, 0] = right
    matrix[..., :3, 1] = torch.linalg.cross(outward, right)
    matrix[..., :3, 2] = outward
    matrix[..., :3, 3] = position
    matrix[..., 3, 3] = 1.0
    return Cameras(matrix, field_of_view.clone())


def sample_single_views(
    generator: torch.Generator,
    views: int = 1,
    batch: int = 1,
    elevation: tuple[float, float] = (-10.0, 90.0),
    field_of_view: tuple[float, float] = (40.0, 70.0),
    relative_distance: tuple[float, float] = (0.8, 1.0),
) -> Cameras:
    """DreamFusion's camera sampling: each view anywhere around, by itself (arXiv 2209.14988, section 3.1).

    Half of the elevations are uniform in degrees, half on the sphere's surface, as threestudio has them: views from
    above are seen often enough, and do not crowd at the pole. Returns cameras of batch shape (batch, views).
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand((batch, views), generator=generator)

    low, high = (math.radians(angle) for angle in elevation)
    azimuth = uniform(0.0, 2 * math.pi)
    by_angle, by_height = uniform(low, high), torch.asin(uniform(math.sin(low), math.sin(high)).clamp(-1, 1))
    angle = torch.where(uniform(0.0, 1.0) < 0.5, by_angle, by_height)
    fov = torch.deg2rad(uniform(*field_of_view))
    distance = uniform(*relative_distance) / torch.tan(0.5 * fov)
    return orbit(azimuth, angle, distance, fov)


def jittered(
    cameras: Cameras,
    generator: torch.Generator,
    position: float = 0.0,
    target: float = 0.0,
    up: float = 0.0,
    *,
    alike: bool = False,
) -> Cameras:
    """Cameras that look at the origin, moved a little (arXiv 2209.14988, section 3.1).

    position: at most this far along each axis. target, up: standard deviations of where they look, and of the upward
    direction around +Z. alike: the views (last axis) of a group are moved alike, as MVDream's (random_multiview.py of
    its public code), so that they stay views from all sides of one place.
    """
    if position == target == up == 0:
        return cameras
    shape = (*cameras.batch_shape[:-1], 1, 3) if alike else (*cameras.batch_shape, 3)
    moved = cameras.camera_to_world[..., :3, 3] + position * (2 * torch.rand(shape, generator=generator) - 1)
    seen = target * torch.randn(shape, generator=generator)
    upward = torch.tensor([0.0, 0.0, 1.0]) + up * torch.randn(shape, generator=generator)
    return look_at(moved, seen, upward, cameras.field_of_view)


def by_sets(views: int, together: int) -> Tensor:
    """Indices (views,) of evenly spaced views, in the order in which each run of `together` is evenly spaced itself:
    of 8 in fours 0 2 4 6, 1 3 5 7. As they were, where that does not go."""
    index = torch.arange(views)
    if together < 1 or views % together:
        return index
    return index.reshape(together, -1).T.flatten()


def sample_from(trajectory: Cameras, generator: torch.Generator, views: int, batch: int) -> Cameras:
    """(batch, views) of the cameras (T,): evenly spaced along them, from a random start."""
    count = trajectory.batch_shape[0]
    start = torch.randint(count, (batch, 1), generator=generator)
    index = (start + (torch.arange(views) * count) // views) % count
    return trajectory[index]


def sample_cameras(
    settings: CameraSettings, generator: torch.Generator, step: int, trajectory: Cameras | None = None
) -> Cameras:
    """The cameras (G, V) of a step, as the settings say. trajectory: the cameras (T,) of the settings' file."""
    views, groups = settings.views, settings.groups_at(step)
    order = by_sets(views, settings.together or views)
    if trajectory is not None:
        return sample_from(trajectory, generator, views, groups)[:, order]
    seen = settings.resolved_elevation, settings.resolved_field_of_view, settings.relative_distance
    jitters = settings.position_jitter, settings.target_jitter, settings.up_jitter
    if settings.sampling == "single":
        return jittered(sample_single_views(generator, views, groups, *seen), generator, *jitters)
    mixed = settings.elevation_draw == "mixed"
    cameras = sample_orbit_group(generator, views, groups, *seen, mixed)[:, order]
    return jittered(cameras, generator, *jitters, alike=True)
