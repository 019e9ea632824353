"""Reprojection on a ball whose depth and colours are known in closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from rewardsds.evaluation.consistency import reprojection_error, unproject
from rewardsds.scenes.base import Rendering
from rewardsds.scenes.cameras import Cameras
from rewardsds.scenes.export import turntable_cameras
from rewardsds.scenes.object3d import Colour, Object3D

RADIUS = 0.7


class Ball(Object3D):
    """A ball of RADIUS, coloured smoothly by place; `glow` adds that much red in every second view that is rendered."""

    def __init__(self, glow: float = 0.0, alpha: float = 1.0, amplitude: float = 0.3):
        super().__init__()
        self.glow, self.alpha, self.amplitude, self.renders = glow, alpha, amplitude, 0

    def render(
        self,
        cameras: Cameras | None,
        generators: Sequence[torch.Generator] | None = None,
        size: int | None = None,
        background: Colour | None = None,
    ) -> Rendering:
        assert cameras is not None
        origins, directions = cameras.rays(size or 64, size or 64)
        along = (origins * directions).sum(-1)
        inner = along.square() - origins.square().sum(-1) + RADIUS**2
        hit = inner > 0
        distance = -along - inner.clamp(min=0).sqrt()
        points = origins + distance[..., None] * directions
        colours = 0.5 + self.amplitude * torch.sin(3 * points)
        colours[..., 0] += self.glow * (self.renders % 2)
        self.renders += 1
        forward = -cameras.camera_to_world[..., None, None, :3, 2]
        depth = distance * (directions * forward).sum(-1)
        images = torch.where(hit[..., None], colours, torch.ones(3)).movedim(-1, -3)
        return Rendering(
            images=images, depth=depth[..., None, :, :], alpha=self.alpha * hit[..., None, :, :].float()
        )

    def density(self, points: Tensor) -> Tensor:
        return RADIUS - points.norm(dim=-1)

    def colour(self, points: Tensor) -> Tensor:
        return 0.5 + self.amplitude * torch.sin(3 * points)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return []

    def state_dict(self) -> Mapping[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


def test_unprojected_points_lie_on_the_surface():
    camera = turntable_cameras(1, elevation=25.0)
    depth = Ball().render(camera, size=64).depth
    assert depth is not None
    points = unproject(camera[0, 0], depth[0, 0, 0])
    middle = points[24:40, 24:40].norm(dim=-1)
    torch.testing.assert_close(middle, torch.full_like(middle, RADIUS), atol=1e-5, rtol=0)


def test_one_surface_looks_the_same_from_its_neighbour():
    found = reprojection_error(Ball(), frames=24, size=96)
    assert found.error < 0.006  # bilinear sampling, which mixes in the background at the rim
    assert 0.8 < found.shared < 1.0  # a rim turns away


def test_what_changes_from_view_to_view_is_measured():
    """With 24 frames every neighbour differs in red by the glow: root mean square over three channels glow / √3."""
    found = reprojection_error(Ball(glow=0.15), frames=24, size=96)
    assert found.error == pytest.approx(0.15 / 3**0.5, abs=0.004)


def test_the_error_beside_the_contrast():
    """A grey ball that is redder in half of the views: colours differ from their mean by half of what views differ."""
    found = reprojection_error(Ball(glow=0.15, amplitude=0), frames=24, size=96)
    assert found.contrast == pytest.approx(0.15 / 2 / 3**0.5, rel=1e-3)
    assert found.relative_error == pytest.approx(2.0, rel=0.02)
    assert math.isnan(reprojection_error(Ball(amplitude=0), frames=4, size=32).relative_error)


def test_nothing_to_compare_is_told():
    with pytest.raises(ValueError, match="empty or transparent"):
        reprojection_error(Ball(alpha=0.5), frames=4, size=32)
