import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from plyfile import PlyData, PlyElement
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from rewardsds.scenes.gaussians.ply import write_ply
from rewardsds.scenes.mesh.atlas import triangle_atlas
from rewardsds.scenes.mesh.files import write_glb, write_obj
from rewardsds.scenes.mesh.rasterise import rasterise_uvs
from rewardsds.scenes.mesh.shapes import Shape, is_gaussian_ply, read_shape
from rewardsds.scenes.mesh.textured import TexturedMesh


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quarters() -> Any:
    """A box of 2 × 4 × 6 around (1, 2, 3), red where x is large and black elsewhere, by vertex colours."""
    mesh: Any = trimesh.creation.box((2, 4, 6))
    mesh.apply_translation((1, 2, 3))
    red = (mesh.vertices[:, 0] > 1)[:, None] * np.array([[255, 0, 0]]) + np.zeros((8, 3))
    mesh.visual.vertex_colors = np.column_stack([red, np.full(8, 255)]).astype(np.uint8)
    return mesh


@pytest.mark.parametrize("ending", ["ply", "obj", "stl"])
def test_formats_whose_axes_stay(ending: str, tmp_path: Path):
    path = tmp_path / f"box.{ending}"
    quarters().export(path)
    shape = read_shape(path)
    assert shape.kind == "mesh"
    assert shape.whole.is_watertight
    found = shape.surface_points(4000, generator())
    half = torch.tensor([1.0, 2.0, 3.0]) * 0.9 / math.sqrt(14)
    torch.testing.assert_close(found.points.amax(0), half, atol=0.01, rtol=0)
    torch.testing.assert_close(found.points.amin(0), -half, atol=0.01, rtol=0)
    if ending == "ply":  # colours between the corners are mixed, from black at the back to red in front
        wanted = (found.points[:, 0] / half[0] + 1) / 2
        torch.testing.assert_close(found.colours[:, 0], wanted, atol=0.01, rtol=0)
        assert (found.colours[:, 1:] == 0).all()


def test_gltf_is_turned(tmp_path: Path):
    quarters().export(tmp_path / "box.glb")
    found = read_shape(tmp_path / "box.glb").surface_points(4000, generator())
    # glTF's z (6 long) is our x, its x (2) our y, its y (4) our z
    half = torch.tensor([3.0, 1.0, 2.0]) * 0.9 / math.sqrt(14)
    torch.testing.assert_close(found.points.amax(0), half, atol=0.01, rtol=0)


def test_points_are_uniform_over_the_surface(tmp_path: Path):
    quarters().export(tmp_path / "box.stl")
    points, _, normals = read_shape(tmp_path / "box.stl").surface_points(20_000, generator())
    assert normals is not None
    # sides of 8, 12 and 24, two of each: shares of the points whose normal is along x, y, z
    shares = (normals.abs() > 0.99).float().mean(0)
    torch.testing.assert_close(shares, torch.tensor([24.0, 12.0, 8.0]) / 44, atol=0.015, rtol=0)
    assert ((points * normals).sum(-1) > 0).all()  # outwards
    top = points[normals[:, 2] > 0.99]
    torch.testing.assert_close(top[:, :2].mean(0), torch.zeros(2), atol=0.02, rtol=0)


def test_points_come_from_the_generator_alone(tmp_path: Path):
    quarters().export(tmp_path / "box.ply")
    shape = read_shape(tmp_path / "box.ply")
    assert torch.equal(
        shape.surface_points(50, generator(1)).points, shape.surface_points(50, generator(1)).points
    )
    assert not torch.equal(
        shape.surface_points(50, generator(1)).points, shape.surface_points(50, generator(2)).points
    )


def ball(size: int = 64) -> TexturedMesh:
    mesh = trimesh.creation.icosphere(3, 0.9)
    vertices = torch.tensor(mesh.vertices, dtype=torch.float32)
    texture = torch.zeros((3, size, size))
    texture[0] = torch.linspace(0, 1, size)  # red grows with u
    texture[1] = torch.linspace(0, 1, size)[:, None]  # green with v
    return TexturedMesh(vertices, torch.tensor(mesh.faces), 0.5 + 0.5 * vertices[:, [1, 2]], texture)


@pytest.mark.parametrize("ending", ["glb", "obj"])
def test_our_own_files_come_back_where_they_were(ending: str, tmp_path: Path):
    mesh = ball()
    (write_glb if ending == "glb" else write_obj)(mesh, tmp_path / f"a.{ending}")
    shape = read_shape(tmp_path / f"a.{ending}")
    found = shape.surface_points(500, generator())
    torch.testing.assert_close(found.colours[:, 0], 0.5 + 0.5 * found.points[:, 1], atol=0.02, rtol=0)
    torch.testing.assert_close(found.colours[:, 1], 0.5 + 0.5 * found.points[:, 2], atol=0.02, rtol=0)


def box_with(uvs: np.ndarray, size: int = 64) -> Any:
    """A box whose 36 corners have uvs (36, 2) in a texture of four squares."""
    box = trimesh.creation.box((1, 1, 1))
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[: size // 2, : size // 2] = (200, 40, 40)
    pixels[size // 2 :, : size // 2] = (40, 40, 200)
    pixels[:, size // 2 :] = (40, 200, 40)
    visual = TextureVisuals(uv=uvs, material=PBRMaterial(baseColorTexture=Image.fromarray(pixels)))
    return trimesh.Trimesh(
        box.triangles.reshape(-1, 3), np.arange(36).reshape(-1, 3), process=False, visual=visual
    )


def each_its_own() -> np.ndarray:
    """uvs (36, 2) of an atlas."""
    _, _, uvs = triangle_atlas(torch.arange(36).reshape(-1, 3), 64, 2)
    return uvs.numpy() * [1, -1] + [0, 1]  # trimesh counts v upwards


@pytest.mark.parametrize("ending", ["glb", "obj"])
def test_an_atlas_is_kept(ending: str, tmp_path: Path):
    box_with(each_its_own()).export(tmp_path / f"box.{ending}")
    part = read_shape(tmp_path / f"box.{ending}").parts[0]
    mesh = Shape("box", "mesh", parts=(part,)).textured(size=64)
    assert part.uvs is not None
    assert part.texture is not None
    assert torch.equal(mesh.uvs, part.uvs)
    assert torch.equal(mesh.texture, part.texture)


@pytest.mark.parametrize("kind", ["palette", "points", "shared", "few texels"])
def test_an_atlas_that_cannot_be_painted_is_made_anew(kind: str, tmp_path: Path):
    """Each side of a box is to have a colour of its own, whatever it has at first."""
    uvs, size = each_its_own(), 64
    if kind == "palette":  # all of it in one square, and slightly apart
        uvs = 0.2 + 0.01 * each_its_own()
    elif kind == "points":
        uvs = np.full((36, 2), 0.25)
    elif kind == "shared":  # the last side shows what the first does
        uvs[30:] = uvs[:6]
    else:
        size = 4
    box_with(uvs, size).export(tmp_path / "box.glb")
    shape = read_shape(tmp_path / "box.glb")
    mesh = shape.textured(size=128)
    seen = rasterise_uvs(mesh.uvs, mesh.faces, 128).triangle
    assert torch.bincount(seen[seen >= 0], minlength=12).min() > 100
    before = shape.surface_points(300, generator(1)).colours
    after = Shape("after", "mesh", parts=(read_part(mesh, tmp_path),)).surface_points(300, generator(1))
    assert (after.colours - before).abs().mean() < 0.02


def test_what_has_no_atlas_gets_one(tmp_path: Path):
    quarters().export(tmp_path / "box.ply")
    shape = read_shape(tmp_path / "box.ply")
    mesh = shape.textured(size=64)
    painted = Shape("painted", "mesh", parts=(read_part(mesh, tmp_path),))
    found = painted.surface_points(500, generator())
    half = 0.9 / math.sqrt(14)
    wanted = (found.points[:, 0] / half + 1) / 2
    assert (found.colours[:, 0] - wanted).abs().mean() < 0.03


def read_part(mesh: TexturedMesh, folder: Path):
    write_glb(mesh, folder / "painted.glb")
    return read_shape(folder / "painted.glb").parts[0]


def test_several_materials_become_one_texture(tmp_path: Path):
    scene = trimesh.Scene()
    for index, colour in enumerate([(255, 0, 0), (0, 0, 255)]):
        part = trimesh.creation.box((1, 1, 1))
        part.apply_translation((0, 0, 2 * index))
        image = Image.new("RGB", (4, 4), colour)
        material = PBRMaterial(baseColorTexture=image)
        part.visual = TextureVisuals(uv=np.full((8, 2), 0.5), material=material)
        scene.add_geometry(part, node_name=f"part{index}", geom_name=f"part{index}")
    scene.export(tmp_path / "two.glb")
    shape = read_shape(tmp_path / "two.glb")
    assert len(shape.parts) == 2
    found = shape.surface_points(400, generator())
    red = found.points[:, 0] < 0  # glTF's z is our x
    assert 150 < red.sum() < 250
    torch.testing.assert_close(found.colours[red], torch.tensor([[1.0, 0.0, 0.0]]).expand(int(red.sum()), 3))
    torch.testing.assert_close(
        found.colours[~red], torch.tensor([[0.0, 0.0, 1.0]]).expand(int((~red).sum()), 3)
    )
    painted = read_part(shape.textured(size=64), tmp_path)
    once = Shape("once", "mesh", parts=(painted,)).surface_points(400, generator())
    assert (once.colours[once.points[:, 0] < 0] - torch.tensor([1.0, 0.0, 0.0])).abs().mean() < 0.02


def test_plain_colours_of_gltf_are_linear(tmp_path: Path):
    part = trimesh.creation.box((1, 1, 1))
    part.visual = TextureVisuals(material=PBRMaterial(baseColorFactor=[0.5, 0.0, 1.0, 1.0]))
    part.export(tmp_path / "a.glb")
    colours = read_shape(tmp_path / "a.glb").surface_points(4, generator()).colours
    # 0.5 is 0.735 in sRGB (IEC 61966-2-1)
    torch.testing.assert_close(colours, torch.tensor([0.735, 0.0, 1.0]).expand(4, 3), atol=5e-3, rtol=0)


# --- inside -------------------------------------------------------------------------------------------------


def test_inside_a_ball(tmp_path: Path):
    write_glb(ball(), tmp_path / "a.glb")
    shape = read_shape(tmp_path / "a.glb")
    points = 2 * torch.rand((400, 3), generator=generator()) - 1
    radius = points.norm(dim=-1)
    clear = (radius - 0.9).abs() > 0.02
    assert torch.equal(shape.inside(points)[clear], (radius < 0.9)[clear])


def test_inside_bodies_that_overlap(tmp_path: Path):
    one, other = trimesh.creation.icosphere(2, 1.0), trimesh.creation.icosphere(2, 1.0)
    other.apply_translation((1.0, 0.0, 0.0))
    trimesh.util.concatenate([one, other]).export(tmp_path / "two.stl")
    assert read_shape(tmp_path / "two.stl").inside(
        torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.89]])
    ).tolist() == [
        True,
        False,
    ]


def test_inside_a_body_with_a_hole(tmp_path: Path):
    """Also where its faces look inwards, and where another body, of which the fronts are seen, lies in it."""
    whole = trimesh.creation.icosphere(3)
    whole.update_faces(np.arange(len(whole.faces)) >= 20)
    whole.invert()
    small = trimesh.creation.icosphere(1, 0.3)
    trimesh.util.concatenate([whole, small]).export(tmp_path / "open.ply")
    shape = read_shape(tmp_path / "open.ply")
    assert not shape.whole.is_watertight
    points = 2 * torch.rand((4000, 3), generator=generator()) - 1
    radius = points.norm(dim=-1)
    clear = (radius - 0.9).abs() > 0.02
    assert ((shape.inside(points) == (radius < 0.9))[clear]).float().mean() > 0.995


def test_a_sheet_has_no_inside(tmp_path: Path):
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]]).export(tmp_path / "sheet.ply")
    points = torch.rand((500, 3), generator=generator()) * torch.tensor([1, 1, 0.02]) - 0.01
    assert not read_shape(tmp_path / "sheet.ply").inside(points).any()


# --- point clouds -------------------------------------------------------------------------------------------


def test_a_point_cloud(tmp_path: Path):
    points = np.random.default_rng(0).normal(size=(200, 3))
    colours = np.random.default_rng(1).integers(0, 256, (200, 4)).astype(np.uint8)
    trimesh.PointCloud(points, colours).export(tmp_path / "cloud.ply")
    shape = read_shape(tmp_path / "cloud.ply")
    assert shape.kind == "points"
    found = shape.surface_points(200, generator())
    assert found.normals is None
    assert found.points.norm(dim=-1).max() == pytest.approx(0.9)
    # a permutation of what the file has
    order = found.colours.double().sum(-1).argsort()
    wanted = torch.from_numpy(colours[:, :3]).double().sum(-1).sort().values / 255
    torch.testing.assert_close(found.colours.double().sum(-1)[order], wanted)
    assert len(shape.surface_points(30, generator()).points) == 30
    assert len(shape.surface_points(500, generator()).points) == 200  # none of them twice
    with pytest.raises(ValueError, match="point cloud, which has no inside"):
        shape.inside(torch.zeros((1, 3)))
    with pytest.raises(ValueError, match="give a mesh"):
        shape.textured()


@pytest.mark.parametrize("text", [True, False])
def test_normals_of_a_point_cloud(text: bool, tmp_path: Path):
    columns = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    rows = np.array([(x, 0, 0, 0, 0, 2 if x else -3) for x in range(4)], dtype=columns)
    PlyData([PlyElement.describe(rows, "vertex")], text=text, byte_order="<").write(tmp_path / "a.ply")
    found = read_shape(tmp_path / "a.ply").surface_points(4, generator())
    assert found.normals is not None
    wanted = torch.where(found.points[:, 0] < -0.8, -1.0, 1.0)
    assert torch.equal(found.normals, wanted[:, None] * torch.tensor([0.0, 0.0, 1.0]))


def test_a_ply_of_gaussians_is_told_apart(tmp_path: Path):
    means = torch.randn((30, 3), generator=generator())
    write_ply(
        tmp_path / "a.ply", means, torch.ones((30, 4)), torch.full((30, 3), 0.1), torch.full((30,), 0.5),
        torch.full((30, 3), 0.25),
    )  # fmt: skip
    quarters().export(tmp_path / "box.ply")
    assert is_gaussian_ply(tmp_path / "a.ply")
    assert not is_gaussian_ply(tmp_path / "box.ply")
    shape = read_shape(tmp_path / "a.ply")
    assert shape.kind == "gaussians"
    found = shape.surface_points(30, generator())
    torch.testing.assert_close(found.colours, torch.full((30, 3), 0.25), atol=1e-5, rtol=0)


# --- files that cannot be used ------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["glb", "gltf", "obj", "stl", "ply"])
@given(data=st.binary(max_size=300))
def test_rubbish_is_refused_in_one_line(ending: str, data: bytes, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("rubbish") / f"a.{ending}"
    path.write_bytes(data)
    with pytest.raises(ValueError) as caught:
        read_shape(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_used(tmp_path: Path):
    with pytest.raises(ValueError, match=r"expected a file that ends in \.glb"):
        read_shape(tmp_path / "a.fbx")
    with pytest.raises(ValueError, match="no file"):
        read_shape(tmp_path / "a.glb")
    (tmp_path / "no.obj").write_text("v 0 0 0\nv 1 0 0\n")
    with pytest.raises(ValueError, match="no faces"):
        read_shape(tmp_path / "no.obj")
    (tmp_path / "flat.obj").write_text("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n")
    with pytest.raises(ValueError, match="without area"):
        read_shape(tmp_path / "flat.obj")
    (tmp_path / "nan.obj").write_text("v nan 0 0\nv 1 0 0\nv 2 1 0\nf 1 2 3\n")
    with pytest.raises(ValueError, match=r"nan\.obj"):
        read_shape(tmp_path / "nan.obj")


def test_what_is_wrong_with_a_file_is_told_in_words(tmp_path: Path):
    uvs = each_its_own()
    box_with(uvs).export(tmp_path / "box.glb")
    whole = (tmp_path / "box.glb").read_bytes()
    for length in (4, 8, 15, 24, 300, len(whole) - 2):
        (tmp_path / "cut.glb").write_bytes(whole[:length])
        with pytest.raises(
            ValueError, match=rf"cut\.glb cannot be read: it is cut off after {length:,} bytes"
        ):
            read_shape(tmp_path / "cut.glb")
    (tmp_path / "page.glb").write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="it is no GLB"):
        read_shape(tmp_path / "page.glb")
    (tmp_path / "far.obj").write_text("v 0 0 0\nv 1 0 0\nv 2 1 0\nf 1 2 9\n")
    with pytest.raises(ValueError, match=r"far\.obj cannot be read: it has faces that name vertices"):
        read_shape(tmp_path / "far.obj")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_texture_coordinates_that_are_not_finite(value: float, tmp_path: Path):
    uvs = each_its_own()
    uvs[7, 1] = value
    box_with(uvs).export(tmp_path / "box.glb")
    with pytest.raises(ValueError, match=r"box\.glb has texture coordinates that are NaN or infinite"):
        read_shape(tmp_path / "box.glb")


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    quarters().export(tmp_path / "box.ply")
    monkeypatch.setattr("rewardsds.scenes.mesh.shapes.MOST_FACES", 11)
    with pytest.raises(ValueError, match="more than 11 faces"):
        read_shape(tmp_path / "box.ply")
    monkeypatch.setattr("rewardsds.scenes.mesh.shapes.LARGEST_FILE", 10)
    with pytest.raises(ValueError, match="GiB"):
        read_shape(tmp_path / "box.ply")
