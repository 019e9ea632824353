import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given
from PIL import Image
from random_meshes import textured_meshes

from outside_programs import gltf_report
from rewardsds.scenes.mesh import files
from rewardsds.scenes.mesh.files import from_gltf_axes, glb_bytes, to_gltf_axes, write_glb, write_obj
from rewardsds.scenes.mesh.textured import TexturedMesh


def tetrahedron() -> TexturedMesh:
    vertices = torch.tensor([[0.9, 0.0, 0.0], [-0.3, 0.8, -0.3], [-0.3, -0.8, -0.3], [-0.3, 0.0, 0.8]])
    faces = torch.tensor([[0, 1, 3], [0, 3, 2], [0, 2, 1], [1, 2, 3]])
    uvs = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    texture = torch.zeros((3, 8, 8))
    texture[0, :4], texture[1, 4:] = 1.0, 0.5  # red above, dark green below
    return TexturedMesh(vertices, faces, uvs, texture)


def read(glb: bytes) -> Any:
    """The one mesh of a GLB, as trimesh has it."""
    scene = trimesh.load_scene(trimesh.util.wrap_as_stream(glb), file_type="glb", process=False)
    return scene.dump()[0]


def tree_of(data: bytes) -> dict:
    length = struct.unpack("<I", data[12:16])[0]
    return json.loads(data[20 : 20 + length])


def test_axes_by_hand():
    front, left, up = torch.eye(3)
    # glTF: an object's front faces +Z, its left side (our +Y) is at +X, +Y is up
    assert to_gltf_axes(front[None]).tolist() == [[0, 0, 1]]
    assert to_gltf_axes(left[None]).tolist() == [[1, 0, 0]]
    assert to_gltf_axes(up[None]).tolist() == [[0, 1, 0]]
    points = torch.randn((5, 3), generator=torch.Generator().manual_seed(0))
    assert torch.equal(from_gltf_axes(to_gltf_axes(points)), points)


@given(mesh=textured_meshes())
def test_a_glb_comes_back(mesh: TexturedMesh):
    shape = read(glb_bytes(mesh))
    np.testing.assert_array_equal(shape.vertices[:, [2, 0, 1]], mesh.vertices.numpy())
    np.testing.assert_array_equal(shape.faces, mesh.faces.numpy())
    np.testing.assert_allclose(shape.visual.uv, mesh.uvs.numpy() * [1, -1] + [0, 1], atol=1e-6)
    image = np.asarray(shape.visual.material.baseColorTexture.convert("RGB"))
    np.testing.assert_array_equal(image, (mesh.texture.permute(1, 2, 0) * 255).round().numpy())


@given(mesh=textured_meshes())
def test_an_obj_comes_back(mesh: TexturedMesh, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("obj") / "thing.obj"
    write_obj(mesh, path)
    shape: Any = trimesh.load_scene(path, process=False).dump()[0]
    # vertices that no face names may be left out by a reader: corners are compared
    np.testing.assert_allclose(
        shape.vertices[shape.faces], mesh.vertices[mesh.faces].numpy(), rtol=1e-6, atol=1e-9
    )
    uvs = mesh.uvs[mesh.faces].numpy() * [1, -1] + [0, 1]
    np.testing.assert_allclose(shape.visual.uv[shape.faces], uvs, atol=1e-6)
    np.testing.assert_array_equal(
        np.asarray(shape.visual.material.image.convert("RGB")),
        (mesh.texture.permute(1, 2, 0) * 255).round().numpy(),
    )


def test_the_khronos_validator_finds_nothing(tmp_path: Path):
    write_glb(tetrahedron(), tmp_path / "a.glb")
    report = gltf_report(tmp_path / "a.glb")
    issues = report["issues"]
    assert (issues["numErrors"], issues["numWarnings"], issues["numInfos"], issues["numHints"]) == (
        0,
        0,
        0,
        0,
    ), issues["messages"]
    assert report["info"]["totalTriangleCount"] == 4
    assert report["info"]["extensionsUsed"] == ["KHR_materials_unlit"]


def test_the_validator_s_report_can_be_bad(tmp_path: Path):
    data = glb_bytes(tetrahedron())
    (tmp_path / "a.glb").write_bytes(data.replace(b'"VEC3"', b'"VEC2"'))
    assert gltf_report(tmp_path / "a.glb")["issues"]["numErrors"] > 0


def test_the_material():
    tree = tree_of(glb_bytes(tetrahedron(), "thing"))
    (material,) = tree["materials"]
    assert material["extensions"] == {"KHR_materials_unlit": {}}
    rough = material["pbrMetallicRoughness"]
    assert (rough["metallicFactor"], rough["roughnessFactor"]) == (0.0, 1.0)
    assert "baseColorTexture" in rough
    assert "extensionsRequired" not in tree  # programs that do not know the extension open it too
    assert tree["asset"] == {"version": "2.0", "generator": "rewardsds"}


def test_the_texture_s_top_is_v_zero():
    mesh = tetrahedron()
    shape = read(glb_bytes(mesh))
    colours = shape.visual.to_color().vertex_colors[:, :3]
    assert colours.tolist() == [[255, 0, 0], [255, 0, 0], [0, 128, 0], [0, 128, 0]]


def test_normals_are_outward_and_smooth_across_seams():
    mesh = tetrahedron()
    # each face with corners of its own, as a seam would have them
    apart = TexturedMesh(
        mesh.vertices[mesh.faces].reshape(-1, 3),
        torch.arange(12).reshape(-1, 3),
        mesh.uvs[mesh.faces].reshape(-1, 2),
        mesh.texture,
    )
    torch.testing.assert_close(apart.normals(), mesh.normals()[mesh.faces.reshape(-1)])
    assert ((mesh.normals() * mesh.vertices).sum(-1) > 0).all()


# --- complete or not at all ---------------------------------------------------------------------------------


def test_an_obj_has_its_material_and_picture_beside_it(tmp_path: Path):
    write_obj(tetrahedron(), tmp_path / "new" / "thing.obj")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "thing.mtl",
        "thing.obj",
        "thing.png",
    ]
    assert "mtllib thing.mtl" in (tmp_path / "new" / "thing.obj").read_text()
    assert "map_Kd thing.png" in (tmp_path / "new" / "thing.mtl").read_text()
    with Image.open(tmp_path / "new" / "thing.png") as picture:
        assert picture.size == (8, 8)


@pytest.mark.parametrize("ending", ["png", "mtl", "obj"])
def test_an_obj_that_cannot_be_placed_leaves_what_was_there(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "thing.mtl").write_text("older")
    replace = os.replace

    def failing(source, target):
        if Path(source).name == ending:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", failing)
    with pytest.raises(OSError, match="No space"):
        write_obj(tetrahedron(), tmp_path / "thing.obj")
    assert [path.name for path in tmp_path.iterdir()] == ["thing.mtl"]
    assert (tmp_path / "thing.mtl").read_text() == "older"


def test_names_that_break_an_obj(tmp_path: Path):
    for name in ("two words.obj", "thing.glb", "a#b.obj"):
        with pytest.raises(ValueError, match="no usable name"):
            write_obj(tetrahedron(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_all_files_of_an_obj_are_named(tmp_path: Path):
    write_obj(tetrahedron(), tmp_path / "thing.v2.obj")
    assert set(files.obj_files(tmp_path / "thing.v2.obj")) == set(tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 3


def test_the_same_bytes_again(tmp_path: Path):
    assert glb_bytes(tetrahedron()) == glb_bytes(tetrahedron())
    write_glb(tetrahedron(), tmp_path / "object.glb")
    assert (tmp_path / "object.glb").read_bytes() == glb_bytes(tetrahedron())
