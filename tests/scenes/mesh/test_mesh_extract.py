import math
from typing import Any

import pytest
import torch
import trimesh
from analytic_objects import Sphere, TwoColouredBox
from torch import Tensor

from rewardsds.scenes.mesh.extract import (
    decimated,
    density_grid,
    extract_surface,
    find_level,
    isosurface,
    opaque_pixels,
    spread_cameras,
    without_pieces,
)
from rewardsds.scenes.mesh.settings import MeshExportSettings
from rewardsds.scenes.mesh.silhouettes import fit_silhouettes, signed_distance
from rewardsds.scenes.mesh.textured import smooth_normals


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
    level = find_level(scene, density_grid(scene, 40), views=6)
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


def test_what_reaches_the_border_is_closed_there():
    class Slab(Sphere):
        def depth_inside(self, points: Tensor) -> Tensor:
            return 0.1 - points[:, 2].abs()

    mesh = as_trimesh(*extract_surface(Slab(), settings()))
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(2 * math.pi * (0.1 - 0.1**3 / 3), rel=0.05)


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
