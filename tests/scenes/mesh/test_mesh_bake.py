from pathlib import Path

import pytest
import torch
import trimesh
from analytic_objects import AnalyticObject, Sphere, TwoColouredBox
from glb_renderer import psnr, render_glb
from torch import Tensor

from rewardsds.scenes.cameras import Cameras, orbit, sample_single_views
from rewardsds.scenes.mesh.bake import GRAZING, _looked_up, bake_texture, dilated
from rewardsds.scenes.mesh.extract import spread_cameras
from rewardsds.scenes.mesh.files import write_glb
from rewardsds.scenes.mesh.make import make_mesh
from rewardsds.scenes.mesh.rasterise import rasterise
from rewardsds.scenes.mesh.settings import MeshExportSettings
from rewardsds.scenes.mesh.shapes import read_shape
from rewardsds.scenes.mesh.textured import TexturedMesh, sample_texture

SMALL = MeshExportSettings(
    resolution=48, level=0.0, faces=3000, texture_size=256, bake_views=20, bake_size=96, silhouette_views=0
)


@pytest.mark.parametrize("kind, least", [(Sphere, 33.0), (TwoColouredBox, 26.0)])
def test_the_glb_looks_like_the_object(kind: type[AnalyticObject], least: float, tmp_path: Path):
    """From views that the texture was not made from, above and below too, by a renderer that is not ours."""
    scene = kind()
    write_glb(make_mesh(scene, SMALL.model_copy(update={"resolution": 96})), tmp_path / "a.glb")
    cameras = sample_single_views(torch.Generator().manual_seed(4), 6, elevation=(-70.0, 85.0))[0]
    wanted = scene.render_images(cameras[None], 96)[0]
    figures = psnr(render_glb(tmp_path / "a.glb", cameras, 96), wanted)
    assert min(figures) > least
    # and it is not the backgrounds that agree: turned by a quarter, it does not
    turned = psnr(render_glb(tmp_path / "a.glb", cameras.__getitem__([3, 4, 5, 0, 1, 2]), 96), wanted)
    assert max(turned) < least


def test_colours_at_known_points(tmp_path: Path):
    mesh = make_mesh(Sphere(), SMALL)
    write_glb(mesh, tmp_path / "a.glb")
    shape = read_shape(tmp_path / "a.glb")
    found = shape.surface_points(2000, torch.Generator().manual_seed(0))
    # scaled to radius 0.9 around the origin; the sphere's colours follow from the place alone
    wanted = (0.5 + 0.6 * found.points * 0.6 / 0.9).clamp(0, 1)
    assert (found.colours - wanted).abs().mean() < 0.012
    assert (found.colours - wanted).abs().max() < 0.12


def looked_up(vertices: Tensor, faces: Tensor, places: Tensor, normals: Tensor, camera: Cameras) -> Tensor:
    """How far places (P, 3) of a surface are seen in a picture of 128 pixels; NaN where they face away."""
    fragments = rasterise(vertices, faces, camera[None], 128, 128)
    toward = torch.nn.functional.normalize(camera.camera_to_world[:3, 3] - places, dim=-1)
    cosine = (toward * normals).sum(-1)
    facing = cosine > GRAZING
    seen = torch.full((len(places),), torch.nan)
    white = torch.ones((4, 128, 128))
    seen[facing] = _looked_up(white, fragments, camera, places[facing], cosine[facing])[1]
    return seen


def test_a_ball_does_not_hide_itself():
    """Else its texture gets stripes where it is seen at a slant, view by view."""
    mesh = trimesh.creation.icosphere(5, 0.6)
    vertices = torch.tensor(mesh.vertices, dtype=torch.float32)
    normals = torch.nn.functional.normalize(vertices, dim=-1)
    for camera in (spread_cameras(8)[k] for k in range(8)):
        seen = looked_up(vertices, torch.tensor(mesh.faces), vertices, normals, camera)
        assert (seen[seen.isfinite()] == 1).float().mean() > 0.999


@pytest.mark.parametrize("turn", [0.0, 0.6])
def test_what_lies_before_it_hides_a_wall(turn: float):
    """Two parallel walls, of which the camera sees the farther one's left half; turn: radians that it looks aslant."""
    square = torch.tensor([[0.0, -0.5, -0.5], [0.0, 0.5, -0.5], [0.0, 0.5, 0.5], [0.0, -0.5, 0.5]])
    before = square * torch.tensor([1.0, 0.5, 1.0]) + torch.tensor([0.25, 0.25, 0.0])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    places = torch.zeros((5, 3))
    places[:, 1] = torch.tensor([-0.45, -0.35, 0.1, 0.2, 0.25])
    one = torch.ones((1, 1))
    camera = orbit(turn * one, 0 * one, 3 * one, 0.6 * one)[0, 0]
    normals = torch.tensor([1.0, 0.0, 0.0]).expand(5, 3)
    seen = looked_up(torch.cat([square, before]), torch.cat([faces, faces + 4]), places, normals, camera)
    assert seen.tolist() == [1, 1, 0, 0, 0]


class Unseen(TwoColouredBox):
    """A box that nobody can look at, only be told about."""

    def nearest(self, origins: Tensor, directions: Tensor) -> Tensor:
        return torch.full(directions.shape[:-1], torch.inf)


def test_what_no_picture_shows_is_asked_of_the_object():
    uvs = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    vertices = torch.tensor([[-1.0, 0.0, -1.0], [1.0, 0.0, -1.0], [-1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
    texture = bake_texture(Unseen(), vertices, faces, uvs, SMALL.model_copy(update={"texture_size": 8}))
    orange, blue = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.1, 0.3, 0.8])
    expected = torch.where(torch.arange(8) >= 4, orange[:, None], blue[:, None])  # u grows with x
    torch.testing.assert_close(texture, expected[:, None].expand(3, 8, 8))


def test_a_chart_smaller_than_a_texel_has_its_own_colour():
    """A small triangle on the box's blue back, whose chart lies beside that of its orange front."""
    front = torch.tensor([[0.5, -0.3, -0.4], [0.5, 0.3, -0.4], [0.5, 0.3, 0.4]])
    back = torch.tensor([[-0.5, 0.0, 0.0], [-0.5, 0.0, 0.05], [-0.5, 0.05, 0.0]])
    corner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    uvs = torch.cat([0.6 * corner, 0.875 + 0.004 * (corner + 1)])  # in 16 texels a side, between centres
    faces = torch.arange(6).reshape(2, 3)
    settings = SMALL.model_copy(update={"texture_size": 16})
    texture = bake_texture(TwoColouredBox(), torch.cat([front, back]), faces, uvs, settings)
    orange, blue = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.1, 0.3, 0.8])
    shown = sample_texture(texture, uvs[faces].mean(1))
    torch.testing.assert_close(shown, torch.stack([orange, blue]), atol=0.05, rtol=0)


class Veiled(Sphere):
    """As the sphere, half transparent in its pictures' border: what shines through must not get into the texture."""

    def render(self, *arguments, **named):
        rendering = super().render(*arguments, **named)
        assert rendering.images is not None
        assert rendering.alpha is not None
        behind = self.plain_background(None, named.get("background"))[:, None, None]
        rendering.images = behind + 0.7 * (rendering.images - behind)
        rendering.alpha = 0.7 * rendering.alpha
        return rendering


def test_the_background_stays_out_of_the_texture():
    plain, veiled = make_mesh(Sphere(), SMALL), make_mesh(Veiled(), SMALL)
    assert torch.equal(plain.uvs, veiled.uvs)
    assert (plain.texture - veiled.texture).abs().mean() < 0.01


def test_settings_of_runs_that_named_the_colour_behind_can_be_read():
    assert "bake_background" not in MeshExportSettings.model_fields
    older = {**SMALL.model_dump(), "bake_background": [0.5, 0.5, 0.5]}
    assert MeshExportSettings.model_validate(older) == SMALL


def test_the_same_bits_again():
    first, again = make_mesh(Sphere(), SMALL), make_mesh(Sphere(), SMALL)
    for name in ("vertices", "faces", "uvs", "texture"):
        assert torch.equal(getattr(first, name), getattr(again, name))


def test_dilation_takes_the_nearest():
    known = torch.zeros((1, 6), dtype=torch.bool)
    known[0, 1], known[0, 5] = True, True
    texture = torch.arange(6.0)[None, :, None].expand(1, 6, 3)
    assert dilated(texture, known)[0, :, 0].tolist() == [1, 1, 1, 5, 5, 5] or (
        dilated(texture, known)[0, :, 0].tolist() == [1, 1, 1, 1, 5, 5]
    )
    none = torch.zeros_like(known)
    assert torch.equal(dilated(texture, none), texture)


class Diverged(Sphere):
    def render(self, *arguments, **named):
        rendering = super().render(*arguments, **named)
        assert rendering.images is not None
        rendering.images = rendering.images * torch.nan
        return rendering


def test_pictures_that_are_not_finite():
    with pytest.raises(ValueError, match="diverged"):
        make_mesh(Diverged(), SMALL)


def test_a_mesh_that_is_none():
    corners = torch.zeros((3, 3))
    uvs, texture = torch.zeros((3, 2)), torch.zeros((3, 4, 4))
    with pytest.raises(ValueError, match="at least one face"):
        TexturedMesh(corners, torch.zeros((0, 3), dtype=torch.int64), uvs, texture)
    with pytest.raises(ValueError, match="vertices that are not there"):
        TexturedMesh(corners, torch.tensor([[0, 1, 3]]), uvs, texture)
    with pytest.raises(ValueError, match="uvs"):
        TexturedMesh(corners, torch.tensor([[0, 1, 2]]), uvs[:2], texture)
    with pytest.raises(ValueError, match="texture"):
        TexturedMesh(corners, torch.tensor([[0, 1, 2]]), uvs, texture[:, :2])
    with pytest.raises(ValueError, match="finite"):
        TexturedMesh(corners * torch.nan, torch.tensor([[0, 1, 2]]), uvs, texture)
