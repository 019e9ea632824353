"""Gaussians that start from points on a surface, or from a file."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gaussian_steps import generator, images_of, make, step
from plyfile import PlyData, PlyElement
from scipy.spatial.distance import cdist

from rewardsds.runs.loop import make_optimizer
from rewardsds.scenes.cameras import Cameras
from rewardsds.scenes.gaussians.ply import PROPERTIES, write_ply
from rewardsds.scenes.gaussians.reference import quaternion_to_matrix


def ball(count: int, radius: float = 0.6) -> torch.Tensor:
    return radius * torch.nn.functional.normalize(torch.randn(count, 3, generator=generator(1)), dim=-1)


# --- points -------------------------------------------------------------------------------------------------


def test_gaussians_stand_on_the_points_as_large_as_their_neighbours_are_near() -> None:
    scene = make(initial_opacity=0.3)
    points, colours = ball(150), torch.rand(150, 3, generator=generator(2))
    scene.start_from(points, colours, generator())
    g = scene.gaussians()
    assert torch.equal(g.means.detach(), points)
    torch.testing.assert_close(g.colours.detach(), colours.clamp(1e-3, 1 - 1e-3))
    torch.testing.assert_close(g.opacities.detach(), torch.full((150,), 0.3))
    nearest = np.sort(cdist(points.numpy(), points.numpy()), axis=1)[:, 1:4]
    expected = torch.from_numpy(np.sqrt((nearest**2).mean(1))).float()
    torch.testing.assert_close(g.scales.detach(), expected[:, None].expand(150, 3))
    optimizer, own = make_optimizer(scene), generator()
    step(scene, optimizer, own, 0)  # and it can be optimised
    assert len(scene) == 150


def test_the_picture_is_that_of_the_surface() -> None:
    """A ball, red above and blue below, opaque in the middle and of the right size."""
    scene = make(initial_opacity=0.95, max_gaussians=3000)
    points = ball(3000)
    colours = torch.where(points[:, 2:] > 0, torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9]))
    scene.start_from(points, colours, generator(), normals=points)
    rendering = scene.render(scene.sample_cameras([generator()], 0), size=64)
    assert rendering.alpha is not None
    image, alpha = images_of(rendering)[0, 0], rendering.alpha[0, 0, 0]
    assert alpha[32, 32] > 0.98
    assert alpha[2, 2] < 0.01
    assert image[0, 22, 32] > image[2, 22, 32]
    assert image[2, 45, 32] > image[0, 45, 32]


@pytest.mark.parametrize("normal", [(0.0, 0.0, 1.0), (0.0, 0.0, -1.0), (3.0, 0.0, 0.0), (0.3, -0.5, 0.7)])
def test_with_normals_they_are_flat_along_them(normal: tuple[float, float, float]) -> None:
    scene = make()
    points = ball(20)
    scene.start_from(points, torch.full((20, 3), 0.5), generator(), torch.tensor(normal).expand(20, 3))
    g = scene.gaussians()
    rotation = quaternion_to_matrix(g.quats)
    covariance = rotation @ torch.diag_embed(g.scales**2) @ rotation.transpose(1, 2)
    unit = torch.nn.functional.normalize(torch.tensor(normal), dim=0)
    along = (unit @ covariance @ unit).sqrt()
    round_scene = make()
    round_scene.start_from(points, torch.full((20, 3), 0.5), generator())
    torch.testing.assert_close(along, 0.3 * round_scene.gaussians().scales[:, 0])
    tangent = torch.linalg.cross(unit, torch.tensor([0.3, 0.8, 0.1]))
    tangent = tangent / tangent.norm()
    torch.testing.assert_close((tangent @ covariance @ tangent).sqrt(), round_scene.gaussians().scales[:, 0])


def test_too_many_points_are_thinned_out_by_the_generator() -> None:
    scene = make(max_gaussians=250)
    points = ball(1000)
    scene.start_from(points, points.abs(), generator(5))
    assert len(scene) == 250
    kept = (scene.means.detach()[:, None] == points).all(-1)
    assert (kept.sum(1) == 1).all()
    torch.testing.assert_close(
        scene.gaussians().colours.detach(), points.abs()[kept.float().argmax(1)].clamp(1e-3, 1)
    )
    again = make(max_gaussians=250)
    again.start_from(points, points.abs(), generator(5))
    assert torch.equal(again.means, scene.means)
    again.start_from(points, points.abs(), generator(6))
    assert not torch.equal(again.means, scene.means)


def test_points_that_are_there_twice_are_as_large_as_once() -> None:
    scene, points = make(), ball(40)
    scene.start_from(points, points.abs(), generator())
    once = scene.gaussians().scales.detach()
    scene.start_from(points.repeat(5, 1), points.abs().repeat(5, 1), generator())
    torch.testing.assert_close(scene.gaussians().scales.detach(), once.repeat(5, 1))


def test_one_point_and_many_at_one_place_have_a_size() -> None:
    scene = make()
    for count in (1, 2, 30):
        scene.start_from(torch.zeros(count, 3), torch.full((count, 3), 0.5), generator())
        assert len(scene) == count
        assert scene.gaussians().scales.min() > 0
        assert scene.log_scales.isfinite().all()


@pytest.mark.parametrize(
    "points, colours, message",
    [
        (torch.zeros(0, 3), torch.zeros(0, 3), "0 points"),
        (torch.zeros(1, 1).expand(5_000_001, 3), torch.zeros(1, 1).expand(5_000_001, 3), "5,000,001 points"),
        (torch.zeros(4, 3), torch.zeros(3, 3), "colours have shape"),
        (torch.zeros(4, 2), torch.zeros(4, 3), "points have shape"),
        (torch.full((4, 3), math.nan), torch.zeros(4, 3), "points to start from hold NaN"),
        (torch.zeros(4, 3), torch.full((4, 3), math.inf), "colours to start from hold NaN"),
        (torch.full((4, 3), 5.0), torch.zeros(4, 3), "reach 8.66"),
    ],
)
def test_unusable_points_are_explained(points: torch.Tensor, colours: torch.Tensor, message: str) -> None:
    scene = make()
    before = scene.means
    with pytest.raises(ValueError, match=message):
        scene.start_from(points, colours, generator())
    assert scene.means is before


# --- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [0, 2])
def test_our_own_file_gives_the_scene_back(tmp_path, degree: int) -> None:
    scene = make(initial_opacity=0.6, sh_degree=degree, sh_degree_every=0, initial_colour_spread=1.0)
    if degree:
        with torch.no_grad():
            scene.harmonics.copy_(0.1 * torch.randn(200, 8, 3, generator=generator(1)))
    scene.export_ply(tmp_path / "object.ply")
    other = make(seed=5, initial_gaussians=10, sh_degree=degree)
    other.start_from_ply(tmp_path / "object.ply")
    assert len(other) == 200
    assert other.degree == degree
    torch.testing.assert_close(other.log_scales, scene.log_scales, atol=1e-4, rtol=1e-4)
    cameras = scene.sample_cameras([generator()], 0)
    expected = scene.render_images(cameras, 32)
    torch.testing.assert_close(other.render_images(cameras, 32), expected, atol=2e-3, rtol=0)
    optimizer, own = make_optimizer(other), generator()
    step(other, optimizer, own, 0)
    assert other.degree == degree  # the schedule does not take it back


def foreign_file(path, rest: int) -> np.ndarray:
    """A PLY as 3DGS's own code writes it, without a comment of ours."""
    names = [name for name in PROPERTIES if not name.startswith("f_rest_") or int(name[7:]) < rest]
    rows = np.zeros(3, dtype=[(name, "<f4") for name in names])
    rng = np.random.default_rng(0)
    for name in names:
        rows[name] = rng.normal(size=3) * 0.2
    for i in range(3):
        rows[f"scale_{i}"] = math.log(0.002)
    PlyData([PlyElement.describe(rows, "vertex")]).write(path)
    return rows


@pytest.mark.parametrize("rest, kept, degree", [(0, 3, 0), (9, 3, 1), (24, 1, 1), (45, 3, 3), (45, 0, 0)])
def test_a_foreign_file_is_taken_as_it_is(tmp_path, rest: int, kept: int, degree: int) -> None:
    rows = foreign_file(tmp_path / "g.ply", rest)
    scene = make(sh_degree=kept)
    scene.start_from_ply(tmp_path / "g.ply")
    assert scene.degree == degree
    g = scene.gaussians()
    torch.testing.assert_close(g.scales.detach(), torch.full((3, 3), 0.002))
    torch.testing.assert_close(g.means.detach()[:, 1], torch.from_numpy(rows["y"].copy()))
    dc = torch.from_numpy(0.5 + 0.28209479 * rows["f_dc_2"])
    torch.testing.assert_close(g.colours.detach()[:, 2], dc)
    if degree:
        green = torch.from_numpy(rows[f"f_rest_{rest // 3}"].copy())  # first of the second channel
        torch.testing.assert_close(scene.harmonics.detach()[:, 0, 1], green)


def test_gaussians_out_of_bounds_are_brought_into_the_ball(tmp_path) -> None:
    """They look as before, seen from as much nearer as they are smaller; and none of them is pruned."""
    small = make(initial_gaussians=60, initial_opacity=0.7, initial_colour_spread=1.0)
    centre, factor = torch.tensor([3.0, -1.0, 4.0]), 7.0
    g = small.gaussians()
    write_ply(
        tmp_path / "far.ply", g.means * factor + centre, g.quats, g.scales * factor, g.opacities, g.colours
    )
    scene = make(seed=3, prune_start=0, densify_every=1, densify_stop=0)
    scene.start_from_ply(tmp_path / "far.ply")
    means = scene.means.detach()
    assert means.norm(dim=-1).max() == pytest.approx(0.9, abs=1e-5)
    torch.testing.assert_close(means.amin(0), -means.amax(0), atol=1e-5, rtol=0)
    with torch.no_grad():
        middle = (small.means.amin(0) + small.means.amax(0)) / 2
    ratio = 0.9 / float((small.means.detach() - middle).norm(dim=-1).max())
    cameras = small.sample_cameras([generator()], 0)
    nearer = cameras.camera_to_world.clone()
    nearer[..., :3, 3] = (nearer[..., :3, 3] - middle) * ratio
    moved = Cameras(nearer, cameras.field_of_view)
    expected = small.render_images(cameras, 32)
    torch.testing.assert_close(scene.render_images(moved, 32), expected, atol=2e-3, rtol=0)
    optimizer, own = make_optimizer(scene), generator()
    step(scene, optimizer, own, 0)
    assert len(scene) == 60


def test_gaussians_at_one_place_out_of_bounds_are_explained(tmp_path) -> None:
    g = make().gaussians()
    write_ply(tmp_path / "g.ply", g.means * 0 + 4, g.quats, g.scales, g.opacities, g.colours)
    with pytest.raises(ValueError, match=r"g\.ply has no extent: all of it lies at one point"):
        make().start_from_ply(tmp_path / "g.ply")


def test_files_that_do_not_fit_are_explained(tmp_path) -> None:
    scene = make(max_gaussians=200)
    other = make(initial_gaussians=300)
    other.export_ply(tmp_path / "many.ply")
    with pytest.raises(ValueError, match="holds 300 Gaussians, max_gaussians is 200: raise max_gaussians"):
        scene.start_from_ply(tmp_path / "many.ply")
    with pytest.raises(ValueError, match="no PLY file"):
        scene.start_from_ply(tmp_path / "none.ply")
    with pytest.raises(ValueError, match="cannot be read"):
        scene.start_from_ply(tmp_path)


def test_a_blur_larger_than_the_scales_leaves_something(tmp_path) -> None:
    g = make().gaussians()
    write_ply(tmp_path / "g.ply", g.means, g.quats, g.scales, g.opacities, g.colours, blur=1.0)
    scene = make()
    scene.start_from_ply(tmp_path / "g.ply")
    assert scene.log_scales.isfinite().all()
