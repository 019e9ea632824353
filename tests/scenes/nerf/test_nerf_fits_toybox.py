"""A NeRF that is fitted to pictures of known toys shows them from sides that it has not seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from rewardsds.scenes.cameras import Cameras, orbit
from rewardsds.scenes.nerf.scene import NeRFScene
from rewardsds.scenes.nerf.settings import NeRFSettings
from rewardsds.scenes.settings import BackgroundSettings, CameraSettings
from rewardsds.toybox import captions
from rewardsds.toybox.render import render
from rewardsds.toybox.world import build


def around(count: int, start: float, elevations: tuple[float, ...]) -> Cameras:
    """(1, count) cameras, evenly around, at elevations in turn; degrees."""
    azimuth = torch.deg2rad(start + torch.arange(count) * 360.0 / count)
    elevation = torch.deg2rad(torch.tensor([elevations[index % len(elevations)] for index in range(count)]))
    fov = torch.tensor(math.radians(40.0))
    cameras = orbit(azimuth, elevation, 1.0 / torch.tan(0.5 * fov), fov)
    return Cameras(cameras.camera_to_world[None], cameras.field_of_view[None])


def pictures(prompt: str, cameras: Cameras, size: int) -> tuple[Tensor, tuple[float, float, float]]:
    """(V, 3, size, size) of the toybox's own renderer, and their background."""
    spec = captions.parse(prompt).spec
    assert spec is not None
    world = build(spec, np.random.default_rng(0))
    poses, fov = cameras.camera_to_world[0].numpy(), cameras.field_of_view[0].numpy()
    found = render([world], np.zeros(len(poses), np.int64), poses, fov, size)
    return torch.tensor(found.colour).permute(0, 3, 1, 2).float() / 255, world.background


def psnr(images: Tensor, truth: Tensor) -> float:
    return -10 * math.log10(float((images - truth).square().mean()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "prompt, least", [("a red cube", 28.0), ("a penguin wearing a red hat", 28.0), ("a yellow donut", 28.0)]
)
def test_held_out_views(prompt: str, least: float):
    size, seen, held_out = 64, around(32, 0.0, (0.0, 15.0, 30.0, 60.0)), around(8, 5.6, (10.0, 25.0))
    truth, background = pictures(prompt, seen, size)
    behind = BackgroundSettings(augmentation=False, evaluation=background)
    g = torch.Generator().manual_seed(0)
    fast = NeRFSettings(grid_learning_rate=0.03, network_learning_rate=0.006)
    scene = NeRFScene([g], fast, camera=CameraSettings(resolution=(size,)), background=behind)
    optimizer = torch.optim.Adam(scene.parameter_groups(), betas=(0.9, 0.99))
    for step in range(120):
        scene.before_step(step, optimizer)
        chosen = torch.randperm(32, generator=g)[:4]
        rendering = scene.render(seen[:, chosen], [g])
        assert rendering.images is not None
        loss = (rendering.images[0] - truth[chosen]).square().sum()
        regularisation = scene.regularisation(rendering)
        optimizer.zero_grad()
        (loss if regularisation is None else loss + regularisation).backward()
        optimizer.step()
        scene.after_step(step, optimizer, [g])
    expected, _ = pictures(prompt, held_out, size)
    found = scene.render_images(held_out, size)[0]
    assert psnr(found, expected) > least
    assert psnr(torch.tensor(background)[:, None, None].expand_as(expected), expected) < least - 8
