"""Meshes as files that other programs open: GLB and OBJ. Files appear only when complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from PIL import Image
from torch import Tensor
from trimesh.exchange.gltf import export_glb
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from rewardsds.scenes.export import to_bytes
from rewardsds.scenes.files import atomic_path
from rewardsds.scenes.mesh.textured import TexturedMesh

# glTF: +Y is up and an object's front faces +Z; our world: +Z is up, and the front faces +X. This rotation,
# and its inverse where files are read, is the only place where the two meet.
TO_GLTF = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])


def to_gltf_axes(vectors: Tensor) -> Tensor:
    """(M, 3) of our world as glTF has them: (x, y, z) becomes (y, z, x)."""
    return vectors @ TO_GLTF.to(vectors).T


def from_gltf_axes(vectors: Tensor) -> Tensor:
    """(M, 3) of glTF's axes in our world: (x, y, z) becomes (z, x, y)."""
    return vectors @ TO_GLTF.to(vectors)


def glb_bytes(mesh: TexturedMesh, name: str = "object") -> bytes:
    """A mesh as binary glTF 2.0, self-contained, with its texture as PNG.

    The material is unlit (KHR_materials_unlit): the colours are those of the object's pictures, light and shadow
    included, and lit once more they would come out too dark. Viewers that do not know the extension fall back to the
    metallic-roughness material that is there too, quite rough and not metallic. Both sides of faces are shown, as they
    are here.
    """
    texture = Image.fromarray(to_bytes(mesh.texture))
    material = PBRMaterial(
        name=name, baseColorTexture=texture, metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
    )
    # trimesh counts v upwards, and turns it round again where it writes glTF
    shape = trimesh.Trimesh(
        to_gltf_axes(mesh.vertices).numpy(),
        mesh.faces.numpy(),
        vertex_normals=to_gltf_axes(mesh.normals()).numpy(),
        visual=TextureVisuals(uv=_upwards(mesh.uvs), material=material),
        process=False,
        validate=False,
    )
    scene = trimesh.Scene()
    scene.add_geometry(shape, node_name=name, geom_name=name)
    data = export_glb(scene, include_normals=True, tree_postprocessor=_completed)
    assert isinstance(data, bytes)
    return data


def _completed(tree: dict[str, Any]) -> None:
    """What trimesh leaves out of the glTF tree."""
    tree["asset"]["generator"] = "rewardsds"
    tree["extensionsUsed"] = sorted({*tree.get("extensionsUsed", []), "KHR_materials_unlit"})
    for material in tree["materials"]:
        material["extensions"] = {"KHR_materials_unlit": {}}
    # linear filtering with mipmaps; uvs do not leave [0, 1], and the border must not bleed to the other side
    tree["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]
    for texture in tree["textures"]:
        texture["sampler"] = 0
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            vertex_data, indices = list(primitive["attributes"].values()), primitive["indices"]
            for accessor, target in [*((one, 34962) for one in vertex_data), (indices, 34963)]:
                tree["bufferViews"][tree["accessors"][accessor]["bufferView"]]["target"] = target


def write_glb(mesh: TexturedMesh, path: str | os.PathLike[str]) -> None:
    """One file that most 3D programs and viewers open; see `glb_bytes`."""
    data = glb_bytes(mesh, Path(path).stem or "object")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def obj_files(path: str | os.PathLike[str]) -> tuple[Path, Path, Path]:
    """What `write_obj` writes: texture, material, and the OBJ itself. Raises ValueError for an unusable name."""
    path = Path(path)
    if set(path.stem) & set(" \t#\\\"'") or path.suffix.lower() != ".obj":
        raise ValueError(
            f"{path.name} is no usable name: expected one that ends in .obj, without spaces, quotes or #, which "
            "programs that read its material stumble over"
        )
    return path.with_suffix(".png"), path.with_suffix(".mtl"), path


def write_obj(mesh: TexturedMesh, path: str | os.PathLike[str]) -> None:
    """NAME.obj, with its material NAME.mtl and its texture NAME.png beside it.

    OBJ says nothing about axes: the world is written as it is, +Z up and the front towards +X, and `read_shape` reads
    it so. All three files are made first and then get their names, the OBJ last: where it is, the others are.
    """
    files = obj_files(path)
    path, stem = files[-1], files[-1].stem
    vertices, uvs, normals = mesh.vertices.numpy(), _upwards(mesh.uvs), mesh.normals().numpy()
    lines = ["# rewardsds: +Z is up, the front faces +X", f"mtllib {stem}.mtl", f"o {stem}"]
    lines += [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices]
    lines += [f"vt {u:.9g} {v:.9g}" for u, v in uvs]
    lines += [f"vn {x:.6g} {y:.6g} {z:.6g}" for x, y, z in normals]
    lines += [f"usemtl {stem}"]
    lines += [f"f {a}/{a}/{a} {b}/{b}/{b} {c}/{c}/{c}" for a, b, c in (mesh.faces + 1).tolist()]
    material = [
        f"newmtl {stem}",
        "Ka 0 0 0",
        "Kd 1 1 1",
        "Ks 0 0 0",
        "d 1",
        "illum 1",
        f"map_Kd {stem}.png",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{stem}-", dir=path.parent))
    try:
        Image.fromarray(to_bytes(mesh.texture)).save(folder / "png", format="PNG")
        (folder / "mtl").write_text("\n".join(material) + "\n", encoding="utf-8")
        (folder / "obj").write_text("\n".join(lines) + "\n", encoding="utf-8")
        _place(folder, files)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _place(folder: Path, files: tuple[Path, Path, Path]) -> None:
    """What lies in the folder as png, mtl and obj gets its final names, or none of it does."""
    placed: list[tuple[Path, Path | None]] = []
    try:
        for ending, final in zip(("png", "mtl", "obj"), files):
            older = None
            if final.exists():
                older = folder / f"older-{ending}"
                os.replace(final, older)
            placed.append((final, older))
            os.replace(folder / ending, final)
    except OSError:
        for final, older in placed:
            if older is not None:
                os.replace(older, final)
            else:
                final.unlink(missing_ok=True)
        raise


def _upwards(uvs: Tensor) -> np.ndarray:
    """(V, 2) with v upwards, as OBJ and trimesh have it."""
    return torch.stack([uvs[:, 0], 1 - uvs[:, 1]], dim=-1).numpy()
