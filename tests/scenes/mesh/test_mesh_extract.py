import math
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from analytic_objects import Sphere, TwoColouredBox
from torch import Tensor

from rewardsds.scenes.gaussians.scene import GaussianScene
from rewardsds.scenes.gaussians.settings import GaussianSettings
from rewardsds.scenes.mesh.extract import (
    best_level,
    decimated,
    density_grid,
    extract_surface,
    isosurface,
    log_density,
    opaque_pixels,
    smoothed,
    spread_cameras,
    without_pieces,
)
from rewardsds.scenes.mesh.rasterise import rasterise
from rewardsds.scenes.mesh.settings import MeshExportSettings
from rewardsds.scenes.mesh.silhouettes import fit_silhouettes, signed_distance
from rewardsds.scenes.mesh.textured import face_normals, smooth_normals
from rewardsds.scenes.settings import CameraSettings


def settings(**given: Any) -> MeshExportSettings:
    return MeshExportSettings.model_validate({"resolution": 48, "level": 0.0, **given})


def as_trimesh(vertices: Tensor, faces: Tensor) -> trimesh.Trimesh:
    return trimesh.Trimesh(vertices.double().numpy(), faces.numpy(), process=False)


def test_a_sphere():
    vertices, faces = extract_surface(Sphere(), settings())
    mesh = as_trimesh(vertices, faces)
    assert mesh.is_watertight
    assert mesh.euler_number == 2
    # positive: faces are counter-clockwise seen from outside
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.01)
    radius = (vertices - Sphere.centre).norm(dim=-1)
    torch.testing.assert_close(radius, torch.full_like(radius, 0.6), atol=2e-3, rtol=0)
    outward = (vertices - Sphere.centre) / radius[:, None]
    assert (smooth_normals(vertices, faces) * outward).sum(-1).min() > 0.98


def test_axes_are_those_of_the_world():
    vertices, _ = extract_surface(TwoColouredBox(), settings(resolution=81))
    torch.testing.assert_close(vertices.amax(0), TwoColouredBox.half, atol=0.01, rtol=0)
    torch.testing.assert_close(vertices.amin(0), -TwoColouredBox.half, atol=0.01, rtol=0)


class Torus(Sphere):
    def depth_inside(self, points: Tensor) -> Tensor:
        ring = points[:, :2].norm(dim=-1) - 0.5
        return 0.2 - torch.stack([ring, points[:, 2]], dim=-1).norm(dim=-1)


def test_a_torus_keeps_its_hole():
    mesh = as_trimesh(*extract_surface(Torus(), settings(faces=2000)))
    assert mesh.euler_number == 0
    assert mesh.volume == pytest.approx(2 * math.pi**2 * 0.5 * 0.2**2, rel=0.02)


def test_at_most_so_many_faces():
    vertices, faces = extract_surface(Sphere(), settings(faces=500))
    assert 400 < len(faces) <= 500
    assert as_trimesh(vertices, faces).volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.02)


class WithFloater(Sphere):
    def depth_inside(self, points: Tensor) -> Tensor:
        floater = 0.06 - (points - torch.tensor([-0.8, 0.0, 0.0])).norm(dim=-1)
        return torch.maximum(super().depth_inside(points), floater)


class Hollow(Sphere):
    def depth_inside(self, points: Tensor) -> Tensor:
        distance = (points - self.centre).norm(dim=-1)
        return torch.minimum(0.6 - distance, distance - 0.3)


def test_floaters_go_and_cavities_too():
    for scene in (WithFloater(), Hollow()):
        every = as_trimesh(*extract_surface(scene, settings(smallest_component=0)))
        mesh = as_trimesh(*extract_surface(scene, settings(smallest_component=0.05)))
        assert mesh.body_count == 1
        assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.01)
        assert every.body_count == (2 if isinstance(scene, WithFloater) else 1)


@pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (250.0, 40.0), (0.001, -7.0)])
def test_the_level_is_found_whatever_the_density_s_scale(scale: float, shift: float):
    scene = Sphere(scale, shift)
    cameras = spread_cameras(6)
    level = best_level(density_grid(scene, 40), cameras, opaque_pixels(scene, cameras, 96))
    assert (level - shift) / scale == pytest.approx(0.0, abs=0.02)


def test_a_found_level_gives_the_silhouettes():
    vertices, faces = extract_surface(TwoColouredBox(), settings(level=None, silhouette_views=8))
    assert as_trimesh(vertices, faces).volume == pytest.approx(8 * 0.5 * 0.3 * 0.4, rel=0.05)


def test_a_surface_moves_to_the_silhouettes():
    """A sphere that is a tenth too small, and off its place."""
    scene = Sphere()
    small = trimesh.creation.icosphere(4, 0.54)
    vertices = torch.tensor(small.vertices, dtype=torch.float32) + scene.centre + 0.01
    faces = torch.tensor(small.faces)
    cameras = spread_cameras(16)
    opaque = opaque_pixels(scene, cameras, 128)
    moved = vertices
    for _ in range(3):
        moved = fit_silhouettes(moved, faces, cameras, opaque)
    before, after = ((v - scene.centre).norm(dim=-1) - 0.6 for v in (vertices, moved))
    assert before.abs().mean() > 0.055
    assert after.abs().mean() < 0.012
    assert as_trimesh(moved, faces).is_watertight


def test_signed_distance_by_hand():
    mask = torch.zeros((1, 6), dtype=torch.bool)
    mask[0, 2:5] = True
    assert signed_distance(mask)[0].tolist() == [-1.5, -0.5, 0.5, 1.5, 0.5, -0.5]
    assert (signed_distance(torch.zeros((3, 4), dtype=torch.bool)) == -4).all()


# --- soft Gaussians -----------------------------------------------------------------------------------------


def gaussians(means: Tensor, scale: float, opacity_logits: Tensor) -> GaussianScene:
    """Round Gaussians of one size, grey."""
    scene = GaussianScene(
        [torch.Generator().manual_seed(0)], GaussianSettings(initial_gaussians=len(means), max_gaussians=len(means)),
        camera=CameraSettings(resolution=(64,)),
    )  # fmt: skip
    with torch.no_grad():
        scene.means.copy_(means)
        scene.log_scales.fill_(math.log(scale))
        scene.opacity_logits.copy_(opacity_logits)
    return scene


def ball(radius: float, count: int, generator: torch.Generator) -> Tensor:
    """Points (count, 3), uniform in a ball."""
    direction = torch.nn.functional.normalize(torch.randn((count, 3), generator=generator), dim=-1)
    return direction * radius * torch.rand((count, 1), generator=generator) ** (1 / 3)


def test_soft_gaussians_make_a_smooth_surface():
    """A ball of faint and opaque ones, at random places: no pits, though each of the outermost lies differently."""
    generator = torch.Generator().manual_seed(3)
    means = ball(0.6, 3000, generator)
    scene = gaussians(means, 0.035, torch.randn(3000, generator=generator))
    vertices, faces = extract_surface(scene)
    centre = vertices[faces].mean(1)
    normals = face_normals(vertices, faces).double()
    area = normals.norm(dim=-1)
    radius = centre.double().norm(dim=-1)
    middle = (area * radius).sum() / area.sum()
    deviation = ((area * (radius - middle).square()).sum() / area.sum()).sqrt()
    outward = torch.nn.functional.normalize(centre.double(), dim=-1)
    angle = torch.rad2deg(torch.acos(((normals * outward).sum(-1) / area).clamp(-1, 1)))
    assert middle == pytest.approx(0.625, abs=0.02)
    assert deviation < 0.022
    assert (area * angle).sum() / area.sum() < 22


def test_a_thin_part_of_gaussians_stays():
    """A hat's brim: a single sheet, thinner than what smoothing spreads over, round a ball."""
    generator = torch.Generator().manual_seed(4)
    crown = ball(0.35, 1500, generator)
    x, y = torch.meshgrid(torch.arange(-0.9, 0.9, 0.025), torch.arange(-0.9, 0.9, 0.025), indexing="ij")
    sheet = torch.stack([x.flatten(), y.flatten(), torch.zeros(x.numel())], -1)
    distance = sheet.norm(dim=-1)
    brim = sheet[(distance > 0.3) & (distance < 0.8)]
    scene = gaussians(torch.cat([crown, brim]), 0.018, torch.ones(len(crown) + len(brim)))
    vertices, faces = extract_surface(scene)
    cameras = spread_cameras(10)
    shown = rasterise(vertices, faces, cameras, 128, 128).mask
    opaque = opaque_pixels(scene, cameras, 128)
    assert (shown & opaque).sum() > 0.97 * opaque.sum()
    assert (shown & ~opaque).sum() < 0.06 * opaque.sum()


def test_smoothing_by_hand():
    field = np.full((33, 33, 33), -3.0, np.float32)
    field[:, :, 17:] = 3.0
    field[0, 0, 0] = -np.inf
    wide = smoothed(field, 0.125)  # two grid points
    assert wide[0, 0, 0] == -np.inf
    assert np.isfinite(wide).sum() == field.size - 1
    # a plane stays where it is, and all of it is level
    np.testing.assert_allclose(wide[16, 16, 16] + wide[16, 16, 17], 0, atol=1e-4)
    np.testing.assert_allclose(wide[8:24, 8:24, 16], wide[16, 16, 16], atol=1e-4)
    known = np.isfinite(field)
    assert np.abs(wide[known] - field[known]).max() < 1.5
    np.testing.assert_allclose(wide[16, 16, [0, 32]], [-3, 3], atol=1e-3)


def test_sheets_thinner_than_the_smoothing_stay():
    field = np.full((33, 33, 33), -3.0, np.float32)
    field[:, :, 16] = 3.0
    wide = smoothed(field, 0.125)
    assert (wide[:, :, 16] > 1).all()
    assert (wide[:, :, [15, 17]] < -1).all()


def test_logarithms_of_densities():
    density = np.array([-np.inf, 0.0, 0.1, 0.2, 0.4, 1e6], np.float32)
    logarithm = log_density(density, 0.2)
    np.testing.assert_allclose(logarithm, [-np.inf, -3, -math.log(2), 0, math.log(2), 3], atol=1e-6)


# --- objects beyond the ball of radius 1 --------------------------------------------------------------------


def long_box() -> GaussianScene:
    """Opaque Gaussians in a box from −1.2 to 1.2 along x, whose corners are 1.23 from the origin."""
    x, y, z = torch.meshgrid(
        torch.arange(-1.2, 1.21, 0.06),
        torch.arange(-0.2, 0.21, 0.05),
        torch.arange(-0.2, 0.21, 0.05),
        indexing="ij",
    )
    means = torch.stack([x.flatten(), y.flatten(), z.flatten()], -1)
    return gaussians(means, 0.03, torch.full((len(means),), 2.0))


@pytest.mark.parametrize("level", [None, 0.3])
def test_an_object_that_reaches_out_of_the_ball_is_whole(level: float | None):
    scene = long_box()
    few = MeshExportSettings(level=level, resolution=80, level_views=4, silhouette_views=6, faces=4000)
    vertices, faces = extract_surface(scene, few)
    assert as_trimesh(vertices, faces).is_watertight
    torch.testing.assert_close(vertices.amax(0), torch.tensor([1.25, 0.25, 0.25]), atol=0.04, rtol=0)
    torch.testing.assert_close(vertices.amin(0), -torch.tensor([1.25, 0.25, 0.25]), atol=0.04, rtol=0)
    cameras = spread_cameras(10, 1.3)
    shown = rasterise(vertices, faces, cameras, 128, 128).mask
    opaque = opaque_pixels(scene, cameras, 128)
    assert (shown ^ opaque).sum() < 0.05 * opaque.sum()


def test_what_lies_within_the_ball_is_cut_as_before():
    """The ball grows by what is seen, not by what might be there: a faint Gaussian far away changes nothing."""
    near = gaussians(ball(0.5, 800, torch.Generator().manual_seed(1)), 0.05, torch.full((800,), 1.0))
    means = torch.cat([near.means.detach(), torch.tensor([[1.15, 0.0, 0.0]])])
    far = gaussians(means, 0.05, torch.cat([torch.full((800,), 1.0), torch.tensor([-5.0])]))
    assert near.reach == 1.0
    assert far.reach > 1.2
    few = MeshExportSettings(resolution=64, silhouette_views=0)
    for one, other in zip(extract_surface(near, few), extract_surface(far, few), strict=True):
        torch.testing.assert_close(one, other, atol=0.02, rtol=0)


@pytest.mark.parametrize("radius, parts", [(1.0, 1), (1.4, 2), (2.0, 2), (2.5, 3), (4.0, 4)])
def test_cameras_side_by_side_see_the_whole_ball(radius: float, parts: int):
    """Every place on the circle that faces a direction is in a picture, and all pictures are 2 wide there."""
    cameras = spread_cameras(5, radius)
    assert cameras.batch_shape == (5 * parts**2,)
    poses = cameras.camera_to_world.reshape(5, -1, 4, 4)
    half = torch.tan(cameras.field_of_view / 2).reshape(5, -1)
    torch.testing.assert_close(
        -(poses[..., :3, 3] * -poses[..., :3, 2]).sum(-1) * half, torch.ones_like(half)
    )
    angle = torch.linspace(0, 2 * math.pi, 40)
    for group in poses:
        right, up = group[0, :3, 0], group[0, :3, 1]
        for share in (0.0, 0.3, 0.7, 1.0):
            ring = radius * share * (torch.cos(angle)[:, None] * right + torch.sin(angle)[:, None] * up)
            local = torch.einsum("pwi,npw->npi", group[:, :3, :3], ring[:, None] - group[:, :3, 3])
            inside = (local[..., :2].abs() <= 1 + 1e-5).all(-1)
            assert inside.any(-1).all()


def test_huge_balls_are_seen_from_fewer_directions():
    assert spread_cameras(48, 2.0).batch_shape == (48 * 4,)
    assert spread_cameras(48, 4.5).batch_shape == (7 * 25,)
    assert spread_cameras(48, 20.0).batch_shape == (6 * 400,)
    assert (spread_cameras(3, 4.5).camera_to_world[:, :3, 3].norm(dim=-1) > 1.4 * 4.5).all()


# --- what cannot be a mesh ----------------------------------------------------------------------------------


class Broken(Sphere):
    def depth_inside(self, points: Tensor) -> Tensor:
        return super().depth_inside(points) * torch.where(points[:, 0] > 0.5, torch.nan, 1.0)


class Invisible(Sphere):
    def nearest(self, origins: Tensor, directions: Tensor) -> Tensor:
        return torch.full(directions.shape[:-1], torch.inf)


def test_densities_that_are_not_finite():
    with pytest.raises(ValueError, match=r"not finite.*earlier checkpoint"):
        extract_surface(Broken(), settings())


def test_an_object_that_nobody_sees():
    with pytest.raises(ValueError, match=r"transparent.*train for more steps"):
        extract_surface(Invisible(), settings(level=None))


def test_levels_that_have_no_surface():
    with pytest.raises(ValueError, match=r"empty at level 0\.7: its density is at most 0\.5"):
        extract_surface(Sphere(), settings(level=0.7))
    with pytest.raises(ValueError, match=r"fills the whole ball"):
        extract_surface(Sphere(), settings(level=-1.5))
    with pytest.raises(ValueError, match=r"fills the whole ball"):
        extract_surface(Sphere(), settings(level=-0.45))  # nearly all of the border is inside


class Full(Sphere):
    def nearest(self, origins: Tensor, directions: Tensor) -> Tensor:
        return torch.ones(directions.shape[:-1])

    def depth_inside(self, points: Tensor) -> Tensor:
        return torch.ones(len(points)) + 1e-3 * points[:, 0]


def test_an_object_that_fills_everything():
    with pytest.raises(ValueError, match="fills the whole"):
        extract_surface(Full(), settings(level=None))


def test_a_level_that_was_found_is_not_asked_for():
    """Opaque in few pixels, and dense everywhere: what to do next is not what was done already."""

    class Fog(Sphere):
        def depth_inside(self, points: Tensor) -> Tensor:
            return torch.ones(len(points)) + 1e-3 * points[:, 0]

    with pytest.raises(
        ValueError, match=r"fills the whole ball.*give a higher level \(its density is [\d.]+ to [\d.]+\)$"
    ):
        extract_surface(Fog(), settings(level=None))


def test_what_reaches_the_border_is_closed_there():
    class Slab(Sphere):
        def depth_inside(self, points: Tensor) -> Tensor:
            return 0.1 - points[:, 2].abs()

    mesh = as_trimesh(*extract_surface(Slab(), settings()))
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(2 * math.pi * (0.1 - 0.1**3 / 3), rel=0.05)


def test_what_is_too_small_for_its_smoothing():
    scene = gaussians(torch.zeros((1, 3)), 0.02, torch.tensor([0.0]))
    with pytest.raises(ValueError, match="less smoothing"):
        extract_surface(scene, MeshExportSettings(level=0.3, smoothing=0.2))
    vertices, _ = extract_surface(scene, MeshExportSettings(level=0.3, smoothing=0))
    assert vertices.abs().max() < 0.03


def test_no_faces():
    with pytest.raises(ValueError, match="no faces"):
        without_pieces(torch.zeros((0, 3)), torch.zeros((0, 3), dtype=torch.int64), 0.1)
    flat = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="no face is left"):
        decimated(flat, torch.tensor([[0, 1, 2]]), 10)


def test_isosurfaces_interpolate():
    """Of a linear density the surface is the plane itself, between grid points."""
    x = torch.linspace(-1, 1, 21)
    field = (0.33 - x)[:, None, None].expand(21, 21, 21).numpy()
    vertices, _ = isosurface(field, 0.0)
    inner = vertices[(vertices[:, 1:].abs() < 0.9).all(-1) & (vertices[:, 0] > -0.9)]
    torch.testing.assert_close(inner[:, 0], torch.full((len(inner),), 0.33), atol=1e-5, rtol=0)
    assert len(inner) > 100
