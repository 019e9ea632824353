"""The convention that every part relies on, told with pictures and hand-computed numbers."""

import math

import pytest
import torch

from rewardsds.scenes.cameras import Cameras, orbit, sample_orbit_group
from rewardsds.scenes.gaussians.reference import rasterization

DEGREE = math.pi / 180


def camera(azimuth: float, elevation: float = 0.0, distance: float = 3.0, fov: float = 40.0) -> Cameras:
    """Cameras of batch shape (1,); angles in degrees."""
    return orbit(
        torch.tensor([azimuth * DEGREE]),
        torch.tensor([elevation * DEGREE]),
        torch.tensor([distance]),
        torch.tensor([fov * DEGREE]),
    )


def dot(position: list[float], cameras: Cameras, size: int = 64) -> tuple[int, int]:
    """Row and column of the brightest pixel of one small Gaussian."""
    _, alphas, _ = rasterization(
        torch.tensor([position]),
        torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        torch.full((1, 3), 0.02),
        torch.tensor([0.9]),
        torch.ones(1, 3),
        cameras.opencv_world_to_camera(),
        cameras.intrinsics(size, size),
        size,
        size,
    )
    return divmod(int(alphas[0, ..., 0].argmax()), size)


def test_up_is_up_from_everywhere():
    for azimuth in (0, 90, 200):
        row, column = dot([0.0, 0.0, 0.5], camera(azimuth))
        assert row < 24
        assert column in (31, 32)


def test_plus_y_is_right_in_the_front_view():
    row, column = dot([0.0, 0.5, 0.0], camera(0))
    assert column > 40
    assert row in (31, 32)


def test_azimuth_grows_counter_clockwise_seen_from_above():
    """From azimuth 90° the camera stands on +Y, so +X is on its left."""
    torch.testing.assert_close(
        camera(90).camera_to_world[0, :3, 3], torch.tensor([0.0, 3.0, 0.0]), atol=1e-6, rtol=0
    )
    assert dot([0.5, 0.0, 0.0], camera(90))[1] < 24


def test_elevation_raises_the_camera():
    position = camera(0, elevation=30).camera_to_world[0, :3, 3]
    torch.testing.assert_close(position, torch.tensor([3 * math.sqrt(0.75), 0.0, 1.5]))
    assert dot([0.5, 0.0, 0.0], camera(0, elevation=30))[0] > 34  # what is nearer lies lower


def test_field_of_view_reaches_the_border():
    """A point at tan(fov/2) · distance above the centre falls on the upper border."""
    height = math.tan(20 * DEGREE) * 3.0
    cameras = camera(0)
    point = torch.tensor([0.0, 0.0, height, 1.0])
    x, y, z, _ = cameras.opencv_world_to_camera()[0] @ point
    K = cameras.intrinsics(64, 64)[0]
    assert z.item() == pytest.approx(3.0, abs=1e-6)
    assert (K[1, 1] * y / z + K[1, 2]).item() == pytest.approx(0.0, abs=1e-4)
    assert (K[0, 0] * x / z + K[0, 2]).item() == pytest.approx(32.0, abs=1e-4)


def test_world_to_camera_is_the_inverse():
    cameras = sample_orbit_group(torch.Generator().manual_seed(0), batch=3)
    product = cameras.world_to_camera() @ cameras.camera_to_world
    torch.testing.assert_close(product, torch.eye(4).expand(3, 4, 4, 4), atol=1e-5, rtol=0)


def test_a_group_surrounds_the_object_at_constant_size():
    cameras = sample_orbit_group(
        torch.Generator().manual_seed(1),
        views=4,
        batch=50,
        elevation=(0.0, 30.0),
        field_of_view=(30.0, 50.0),
        relative_distance=(0.9, 1.1),
    )
    positions = cameras.camera_to_world[..., :3, 3]
    distance = positions.norm(dim=-1)
    elevation = torch.asin(positions[..., 2] / distance) / DEGREE
    azimuth = torch.atan2(positions[..., 1], positions[..., 0])
    relative = distance * torch.tan(cameras.field_of_view / 2)
    assert cameras.batch_shape == (50, 4)
    assert elevation.min() >= -1e-3
    assert elevation.max() <= 30.001
    assert relative.min() >= 0.9 - 1e-4
    assert relative.max() <= 1.1 + 1e-4
    turn = torch.remainder(azimuth[:, 1:] - azimuth[:, :-1], 2 * math.pi)
    torch.testing.assert_close(turn, torch.full_like(turn, math.pi / 2), atol=1e-4, rtol=0)


def test_same_generator_same_cameras():
    a = sample_orbit_group(torch.Generator().manual_seed(5))
    b = sample_orbit_group(torch.Generator().manual_seed(5))
    assert torch.equal(a.camera_to_world, b.camera_to_world)
