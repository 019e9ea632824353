"""From where an object is looked at when it is measured."""

from __future__ import annotations

import math

import torch

from rewardsds.evaluation.settings import VIEWS, ViewKind
from rewardsds.scenes.cameras import Cameras, orbit
from rewardsds.scenes.export import turntable_cameras

FIELD_OF_VIEW = 40.0
HIGHEST = 30.0
"""Degrees: the vertical field of view of all views, and the highest elevation of random ones."""


def cameras_of(kind: ViewKind, views: int, seed: int) -> Cameras:
    """Cameras (1, views): random ones, which the seed decides, or evenly around at an elevation of 15°."""
    return held_out_views(seed, views) if kind == "random" else turntable_cameras(views)


def held_out_views(seed: int, views: int = VIEWS) -> Cameras:
    """(1, views) random cameras, the same for everything that is measured with this seed.

    Azimuths are uniform in 360°, elevations in 0 to 30°; the field of view is 40°, the distance 1 / tan(20°).
    """
    g = torch.Generator().manual_seed(1_000_003 + seed)
    azimuth = 2 * math.pi * torch.rand((1, views), generator=g)
    elevation = torch.deg2rad(HIGHEST * torch.rand((1, views), generator=g))
    fov = torch.tensor(math.radians(FIELD_OF_VIEW))
    return orbit(azimuth, elevation, 1 / torch.tan(0.5 * fov), fov)
