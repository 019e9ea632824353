"""Multi-view consistency: does an object look the same in neighbouring views?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rewardsds.scenes.cameras import Cameras
from rewardsds.scenes.export import turntable_cameras
from rewardsds.scenes.object3d import Object3D


@dataclass(frozen=True)
class Consistency:
    """error: root mean square difference of colours, 0 to 1, over pixels of the object that both of two views show.
    shared: share of the object's pixels that were compared; the others are hidden in the neighbouring view.
    contrast: root mean square difference of the compared colours from their mean, 0 to 1."""

    error: float
    shared: float
    contrast: float

    @property
    def relative_error(self) -> float:
        """error / contrast: a grey lump looks the same from everywhere, which is no merit. NaN without contrast."""
        return self.error / self.contrast if self.contrast else math.nan


@torch.no_grad()
def reprojection_error(
    one: Object3D,
    frames: int = 36,
    size: int = 128,
    elevation: float = 15.0,
    field_of_view: float = 40.0,
    depth_tolerance: float = 0.02,
) -> Consistency:
    """Pixels of each turntable frame, carried by their depth into the next frame, against what is there.

    Compared are pixels of alpha above 0.9 whose point lies within `depth_tolerance` (world units) of the surface that
    the next frame shows there. Raises ValueError for an object of which nothing can be compared.
    """
    cameras = turntable_cameras(frames, elevation, field_of_view).to(one.device)
    shown = [_frame(one, cameras[:, index : index + 1], size) for index in range(frames)]
    squares, compared, seen = 0.0, 0, 0
    colours: list[Tensor] = []
    for first, second in zip(shown, [*shown[1:], shown[0]], strict=True):
        difference, both, solid = compare(first, second, depth_tolerance)
        squares += float(difference[both].square().mean(-1).sum())
        compared += int(both.sum())
        colours.append(first.image.permute(1, 2, 0)[both])
        seen += int(solid.sum())
    if not compared:
        raise ValueError(
            "no two neighbouring views show the same surface: the object is empty or transparent"
        )
    contrast = float(torch.cat(colours).std(0, correction=0).square().mean().sqrt())
    return Consistency(error=(squares / compared) ** 0.5, shared=compared / seen, contrast=contrast)


@dataclass(frozen=True)
class _Frame:
    """image (3, H, W); depth along the optical axis and alpha (H, W)."""

    camera: Cameras
    image: Tensor
    depth: Tensor
    alpha: Tensor


def _frame(one: Object3D, camera: Cameras, size: int) -> _Frame:
    """What a camera (1, 1) shows of an object."""
    rendering = one.render(camera, size=size)
    assert rendering.images is not None
    assert rendering.depth is not None
    assert rendering.alpha is not None
    image = rendering.images[0, 0].clamp(0, 1)
    return _Frame(camera[0, 0], image, rendering.depth[0, 0, 0], rendering.alpha[0, 0, 0])


def compare(one: _Frame, other: _Frame, depth_tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels of `one` in `other`: differences of colour (H, W, 3), which are shown by both, and which are solid."""
    height, width = one.depth.shape
    points = unproject(one.camera, one.depth)
    to_other = other.camera.opencv_world_to_camera()
    viewed = points @ to_other[:3, :3].T + to_other[:3, 3]
    K = other.camera.intrinsics(width, height)
    depth = viewed[..., 2]
    x = K[0, 0] * viewed[..., 0] / depth + K[0, 2]
    y = K[1, 1] * viewed[..., 1] / depth + K[1, 2]
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], dim=-1)[None]
    there = torch.cat([other.image, other.depth[None], other.alpha[None]])[None]
    sampled = F.grid_sample(there, grid, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    solid = one.alpha > 0.9
    both = solid & (sampled[..., 4] > 0.9) & ((sampled[..., 3] - depth).abs() < depth_tolerance)
    return sampled[..., :3] - one.image.permute(1, 2, 0), both, solid


def unproject(camera: Cameras, depth: Tensor) -> Tensor:
    """The points (H, W, 3) in the world at a depth (H, W) along the optical axis."""
    height, width = depth.shape
    origins, directions = camera.rays(width, height)
    forward = -camera.camera_to_world[:3, 2]
    return origins + directions * (depth / (directions @ forward))[..., None]
