"""The convention that every part relies on, told with pictures and hand-computed numbers."""

import json
import math

import pytest
import torch
from pydantic import ValidationError

from rewardsds.scenes.cameras import (
    Cameras,
    jittered,
    look_at,
    orbit,
    sample_cameras,
    sample_orbit_group,
    sample_single_views,
)
from rewardsds.scenes.gaussians.reference import rasterization
from rewardsds.scenes.settings import BackgroundSettings, CameraSettings
from rewardsds.scenes.trajectory import read_trajectory

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


def test_points_fall_where_the_rasterisers_matrices_put_them():
    one = sample_orbit_group(torch.Generator().manual_seed(0))[0, 2]
    points = torch.rand((20, 3), generator=torch.Generator().manual_seed(1)) - 0.5
    uvs, depth, half = one.project(points)
    pose, K = one.opencv_world_to_camera(), one.intrinsics(50, 50)
    x, y, z = (points @ pose[:3, :3].T + pose[:3, 3]).unbind(-1)
    torch.testing.assert_close(depth, z)
    torch.testing.assert_close(
        50 * uvs, torch.stack([K[0, 0] * x / z, K[1, 1] * y / z], -1) + 25, atol=1e-4, rtol=0
    )
    torch.testing.assert_close(half, z * torch.tan(0.5 * one.field_of_view))


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


# --- other ways to draw them --------------------------------------------------------------------------------


def angles(cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Azimuth and elevation in degrees, and distance × tan(field of view / 2)."""
    positions = cameras.camera_to_world[..., :3, 3]
    distance = positions.norm(dim=-1)
    azimuth = torch.atan2(positions[..., 1], positions[..., 0]) / DEGREE
    return (
        azimuth,
        torch.asin(positions[..., 2] / distance) / DEGREE,
        distance * torch.tan(cameras.field_of_view / 2),
    )


def test_single_views_are_drawn_one_by_one():
    cameras = sample_single_views(torch.Generator().manual_seed(0), views=4, batch=2000)
    azimuth, elevation, relative = angles(cameras)
    assert cameras.batch_shape == (2000, 4)
    assert -180 <= azimuth.min() < -170
    assert 170 < azimuth.max() <= 180
    assert elevation.min() >= -10.001
    assert elevation.max() <= 90.001
    assert 0.8 - 1e-3 <= relative.min() < relative.max() <= 1.0 + 1e-3
    # half uniform from −10° to 90°, half on the sphere: 0.4 of the one lies below 30°, of the other by height
    on_sphere = (0.5 + math.sin(10 * DEGREE)) / (1 + math.sin(10 * DEGREE))
    assert (elevation < 30).float().mean().item() == pytest.approx(0.5 * 0.4 + 0.5 * on_sphere, abs=0.02)
    differences = torch.remainder(azimuth[:, 1] - azimuth[:, 0], 360)
    assert differences.std() > 90  # views of a group know nothing of each other


def test_the_sampling_decides_from_where_it_is_seen_unless_that_is_given():
    def extremes(settings: CameraSettings) -> list[float]:
        cameras = sample_cameras(settings, torch.Generator().manual_seed(0), 0)
        _, elevation, relative = angles(cameras)
        assert 0.9 - 1e-3 <= relative.min() < relative.max() <= 1.1 + 1e-3
        fov = cameras.field_of_view / DEGREE
        return [float(value) for value in (elevation.min(), elevation.max(), fov.min(), fov.max())]

    many = {"groups": (64,), "views": 16}
    assert extremes(CameraSettings(**many)) == pytest.approx([0, 30, 30, 50], abs=2)
    assert extremes(CameraSettings(**many, sampling="single")) == pytest.approx([-10, 90, 40, 70], abs=2)
    given = CameraSettings(**many, sampling="single", elevation=(10, 20), field_of_view=(25, 35))
    assert extremes(given) == pytest.approx([10, 20, 25, 35], abs=1)
    with pytest.raises(ValidationError, match="range"):
        CameraSettings(sampling="single", elevation=(30.0, 0.0))


def test_what_the_sampling_decides_is_written_down():
    """And what was written before it could decide is read as it was."""
    said = CameraSettings().model_dump(mode="json")
    assert (said["elevation"], said["field_of_view"]) == ([0.0, 30.0], [30.0, 50.0])
    single = CameraSettings(sampling="single")
    assert single.model_dump(mode="json")["elevation"] == [-10.0, 90.0]
    older = CameraSettings(sampling="single", elevation=(0.0, 30.0), field_of_view=(30.0, 50.0))
    assert older.model_dump()["elevation"] == (0.0, 30.0)
    assert CameraSettings(**single.model_dump()).model_dump() == single.model_dump()


def test_relative_distance_is_that_of_the_sampling():
    cameras = sample_orbit_group(torch.Generator().manual_seed(1), relative_distance=(0.7, 0.7))
    torch.testing.assert_close(cameras.relative_distance(), torch.full((1, 4), 0.7))


def test_look_at_sees_the_target_in_the_middle_and_upright():
    position = torch.tensor([[2.0, 1.0, 3.0], [0.5, -2.0, 0.2]])
    target = torch.tensor([[0.1, 0.2, -0.1], [0.0, 0.3, 0.0]])
    cameras = look_at(position, target, torch.tensor([0.0, 0.0, 1.0]), torch.full((2,), 0.7))
    homogeneous = torch.cat([target, torch.ones(2, 1)], -1)
    seen = (cameras.world_to_camera() @ homogeneous[..., None]).squeeze(-1)
    torch.testing.assert_close(seen[:, :2], torch.zeros(2, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[:, 2], -(position - target).norm(dim=-1))
    assert (cameras.camera_to_world[:, 2, 1] > 0).all()  # up in the picture is up in the world
    assert (cameras.camera_to_world[:, 2, 0].abs() < 1e-6).all()  # and the horizon is level


def test_look_at_and_orbit_agree():
    cameras = camera(70, elevation=20)
    again = look_at(
        cameras.camera_to_world[:, :3, 3],
        torch.zeros(1, 3),
        torch.tensor([0.0, 0.0, 1.0]),
        cameras.field_of_view,
    )
    torch.testing.assert_close(cameras.camera_to_world, again.camera_to_world, atol=1e-6, rtol=0)


def test_jitter_moves_cameras_as_far_as_it_says():
    g = torch.Generator().manual_seed(3)
    cameras = sample_orbit_group(g, batch=500)
    assert jittered(cameras, g) is cameras
    moved = jittered(cameras, g, position=0.1)
    shift = moved.camera_to_world[..., :3, 3] - cameras.camera_to_world[..., :3, 3]
    assert 0.09 < shift.abs().max() <= 0.1 + 1e-5
    turned = jittered(cameras, g, target=0.2)
    assert torch.equal(turned.camera_to_world[..., :3, 3], cameras.camera_to_world[..., :3, 3])
    forward = -turned.camera_to_world[..., :3, 2]
    distance = turned.camera_to_world[..., :3, 3].norm(dim=-1)
    missed = torch.linalg.cross(-turned.camera_to_world[..., :3, 3] / distance[..., None], forward).norm(
        dim=-1
    )
    # two of three normal components of the target lie across the line of sight
    assert (missed * distance).square().mean().sqrt().item() == pytest.approx(0.2 * math.sqrt(2), rel=0.1)
    rolled = jittered(cameras, g, up=0.02)
    roll = torch.asin(rolled.camera_to_world[..., 2, 0]) / DEGREE
    assert 0.3 < roll.std() < 3


def test_a_jittered_group_keeps_its_views_at_right_angles() -> None:
    """MVDream moves the views of a group alike (random_multiview.py): what they see is one place from four sides."""
    settings = CameraSettings(groups=(50,), position_jitter=0.3, target_jitter=0.2, up_jitter=0.1)
    g = torch.Generator().manual_seed(2)
    cameras = sample_cameras(settings, g, 0)
    places = cameras.camera_to_world[..., :3, 3]
    middle = places.mean(1, keepdim=True)
    torch.testing.assert_close(places[..., 2], middle.expand_as(places)[..., 2], atol=1e-5, rtol=0)
    around = places - middle
    corner = (around * around.roll(1, 1)).sum(-1)
    torch.testing.assert_close(corner, torch.zeros_like(corner), atol=1e-4, rtol=0)
    assert middle[..., :2].abs().max() > 0.2  # and they are moved
    assert middle[:, 0].std(0).min() > 0.1  # each group by itself
    alone = sample_cameras(settings.model_copy(update={"sampling": "single"}), g, 0)
    assert alone.camera_to_world[..., 2, 3].std(1).min() > 0


def test_views_beyond_the_priors_are_evenly_spread_in_each_of_its_sets() -> None:
    eight = CameraSettings(views=8, together=4)
    azimuth, _, _ = angles(sample_cameras(eight, torch.Generator().manual_seed(1), 0))
    turn = torch.remainder(azimuth.reshape(2, 4)[:, 1:] - azimuth.reshape(2, 4)[:, :-1], 360)
    torch.testing.assert_close(turn, torch.full_like(turn, 90.0), atol=1e-3, rtol=0)
    assert torch.remainder(azimuth[0, 4] - azimuth[0, 0], 360).item() == pytest.approx(45, abs=1e-3)
    plain = sample_cameras(CameraSettings(views=8), torch.Generator().manual_seed(1), 0)
    assert sorted(angles(plain)[0][0].tolist()) == sorted(azimuth[0].tolist())
    for together in (1, 3, 8):  # nothing to arrange
        same = sample_cameras(CameraSettings(views=8, together=together), torch.Generator().manual_seed(1), 0)
        assert torch.equal(same.camera_to_world, plain.camera_to_world)
    file = orbit(torch.arange(16) * (math.pi / 8), torch.tensor(0.0), torch.tensor(2.0), torch.tensor(0.6))
    azimuth, _, _ = angles(sample_cameras(eight, torch.Generator().manual_seed(1), 0, file))
    turn = torch.remainder(azimuth[0, 1:4] - azimuth[0, :3], 360)
    torch.testing.assert_close(turn, torch.full_like(turn, 90.0), atol=1e-3, rtol=0)


def test_mixed_elevations_are_half_of_them_even_on_the_sphere() -> None:
    """Half have the mean 45°, half that of even points on a half sphere, π/2 − 1."""
    g = torch.Generator().manual_seed(5)
    settings = CameraSettings(groups=(64,), elevation=(0.0, 90.0), elevation_draw="mixed")
    drawn = torch.cat([angles(sample_cameras(settings, g, 0))[1] for _ in range(100)])
    assert drawn.min() >= -1e-3
    assert (drawn - drawn[:, :1]).abs().max() < 1e-2  # one a group
    assert drawn.mean().item() == pytest.approx(0.5 * 45 + 0.5 * (90 - 180 / math.pi), abs=1)


def test_rays_go_through_the_pixels_that_points_fall_on():
    cameras = look_at(
        torch.tensor([[[2.0, 1.0, 1.5]]]),
        torch.zeros(1, 1, 3),
        torch.tensor([0.0, 0.0, 1.0]),
        torch.full((1, 1), 0.8),
    )
    origins, directions = cameras.rays(10, 6)
    assert origins.shape == directions.shape == (1, 1, 6, 10, 3)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(1, 1, 6, 10))
    point = (origins + 2.5 * directions)[0, 0, 4, 7]
    x, y, z, _ = cameras.opencv_world_to_camera()[0, 0] @ torch.cat([point, torch.ones(1)])
    K = cameras.intrinsics(10, 6)[0, 0]
    assert (K[0, 0] * x / z + K[0, 2]).item() == pytest.approx(7.5, abs=1e-4)
    assert (K[1, 1] * y / z + K[1, 2]).item() == pytest.approx(4.5, abs=1e-4)


def test_milestones_change_groups_and_resolution():
    settings = CameraSettings(groups=(2, 1), resolution=(64, 256), milestones=(5000,))
    g = torch.Generator().manual_seed(0)
    assert [settings.resolution_at(step) for step in (0, 4999, 5000, 9000)] == [64, 64, 256, 256]
    assert sample_cameras(settings, g, 4999).batch_shape == (2, 4)
    assert sample_cameras(settings, g, 5000).batch_shape == (1, 4)
    fixed = CameraSettings(resolution=(32,), milestones=(10,))
    assert fixed.resolution_at(20) == 32


@pytest.mark.parametrize(
    "wrong",
    [
        {"elevation": (30.0, 0.0)},
        {"elevation": (0.0, 91.0)},
        {"field_of_view": (0.0, 40.0)},
        {"relative_distance": (0.0, 1.0)},
        {"milestones": (20, 10)},
        {"groups": (1, 2)},
        {"groups": (0,)},
        {"resolution": (64, 128, 256), "milestones": (5,)},
        {"resolution": (4,)},
    ],
)
def test_impossible_cameras(wrong):
    with pytest.raises(ValidationError):
        CameraSettings(**wrong)


# --- cameras from a file ------------------------------------------------------------------------------------


def test_nerf_transforms_are_read(tmp_path):
    poses = orbit(
        torch.arange(3) * 0.7, torch.tensor(0.2), torch.tensor(2.0), torch.tensor(0.6)
    ).camera_to_world
    file = tmp_path / "transforms.json"
    frames = [{"file_path": f"{i}.png", "transform_matrix": pose.tolist()} for i, pose in enumerate(poses)]
    frames[2].update(fl_y=100.0, h=80)
    file.write_text(json.dumps({"camera_angle_x": 0.6, "frames": frames}))
    cameras = read_trajectory(file)
    torch.testing.assert_close(cameras.camera_to_world, poses)
    assert cameras.field_of_view.tolist() == pytest.approx([0.6, 0.6, 2 * math.atan(0.4)])


def test_nerfstudio_paths_are_read(tmp_path):
    pose = camera(40).camera_to_world[0]
    file = tmp_path / "camera_path.json"
    path = [{"camera_to_world": pose.flatten().tolist(), "fov": 50.0, "aspect": 1.0}]
    file.write_text(json.dumps({"camera_path": path, "fps": 24}))
    cameras = read_trajectory(file)
    torch.testing.assert_close(cameras.camera_to_world[0], pose)
    assert cameras.field_of_view.item() == pytest.approx(50 * DEGREE)


def test_fields_of_view_are_vertical_and_a_frames_own_counts_first(tmp_path) -> None:
    file = tmp_path / "transforms.json"
    pose = camera(40).camera_to_world[0].tolist()

    def read(common: dict, **frame: float) -> float:
        file.write_text(json.dumps({**common, "frames": [{"transform_matrix": pose, **frame}]}))
        return read_trajectory(file).field_of_view.item()

    wide = {"w": 1600, "h": 800}
    vertical = 2 * math.atan(math.tan(0.6) / 2)
    assert vertical == pytest.approx(0.659, abs=5e-4)
    assert read({"camera_angle_x": 1.2, **wide}) == pytest.approx(vertical)
    assert read({"camera_angle_x": 1.2}) == pytest.approx(1.2)
    assert read({"fl_x": 800 / math.tan(0.6), **wide}) == pytest.approx(vertical)
    assert read({"fl_x": 800 / math.tan(0.6), "w": 1600}) == pytest.approx(1.2)
    assert read({"fl_y": 9000.0, **wide}, camera_angle_x=1.2) == pytest.approx(vertical)
    assert read({"camera_angle_y": 0.3, **wide}, fl_y=400.0) == pytest.approx(math.pi / 2)


def test_jitter_and_a_trajectory_do_not_go_together(tmp_path) -> None:
    with pytest.raises(ValidationError, match="target_jitter moves cameras that are drawn"):
        CameraSettings(trajectory=tmp_path / "cameras.json", target_jitter=0.1)


@pytest.mark.parametrize(
    "given, told",
    [
        ({"resolution": (64, 256)}, "no milestones say from which step"),
        ({"groups": (2, 1, 1)}, r"give 2 \(--camera.milestones"),
    ],
)
def test_values_and_milestones_belong_together(given: dict, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        CameraSettings(**given)


def test_backgrounds_are_colours() -> None:
    with pytest.raises(ValidationError, match="between 0"):
        BackgroundSettings(grey=(-1.0, 2.0))
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        BackgroundSettings(tint=5.0)


def test_groups_are_taken_evenly_from_a_trajectory():
    file = orbit(torch.arange(12) * (math.pi / 6), torch.tensor(0.0), torch.tensor(2.0), torch.tensor(0.6))
    g = torch.Generator().manual_seed(0)
    cameras = sample_cameras(CameraSettings(groups=(30,)), g, 0, file)
    azimuth, _, _ = angles(cameras)
    turn = torch.remainder(azimuth[:, 1:] - azimuth[:, :-1], 360)
    torch.testing.assert_close(turn, torch.full_like(turn, 90.0), atol=1e-3, rtol=0)
    assert len(azimuth[:, 0].round().unique()) > 8


WHOLE = '{"frames": [{"transform_matrix": [[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]}], %s}'


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no file of cameras"),
        ("{", "cannot be read"),
        ("[]", "holds no cameras"),
        ('{"frames": []}', "holds no cameras"),
        ('{"frames": [{"transform_matrix": [[1, 2], [3, 4]]}]}', "camera 0"),
        ('{"frames": [{"file_path": "a"}], "camera_angle_x": 0.6}', "'camera_to_world' is missing"),
        (
            '{"frames": [{"transform_matrix": [[2,0,0,0],[0,2,0,0],[0,0,2,0],[0,0,0,1]]}], "camera_angle_x": 0.6}',
            "no rotation",
        ),
        ('{"frames": [{"transform_matrix": [[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]}]}', "camera_angle_x"),
        (
            '{"frames": [{"transform_matrix": [[1,0,0],[0,1,0],[0,0,1]]}], "camera_angle_x": 0.6}',
            "has 9 numbers",
        ),
        (WHOLE % '"fl_y": 0, "h": 80', "fl_y is 0: expected a focal length"),
        (WHOLE % '"fl_y": -3, "h": 80', "fl_y is -3"),
        (WHOLE % '"fl_y": NaN, "h": 80', "fl_y is nan"),
        (WHOLE % f'"fl_y": 5, "h": {10**400}', "camera 0"),
        (WHOLE % '"camera_angle_y": NaN', "field of view is nan"),
        (WHOLE.replace("[1,0,0,0]", f"[{10**400},0,0,0]") % '"fov": 40', "camera 0"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_files_without_cameras_are_told(tmp_path, content, told):
    file = tmp_path / "cameras.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=told) as error:
        read_trajectory(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
