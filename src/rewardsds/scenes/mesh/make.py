"""From an object to a mesh with a texture."""

from __future__ import annotations

from rewardsds.scenes.mesh.atlas import unwrap
from rewardsds.scenes.mesh.bake import bake_texture
from rewardsds.scenes.mesh.extract import extract_surface
from rewardsds.scenes.mesh.scene import MeshScene
from rewardsds.scenes.mesh.settings import MeshExportSettings
from rewardsds.scenes.mesh.textured import TexturedMesh
from rewardsds.scenes.object3d import Object3D


def make_mesh(scene: Object3D, settings: MeshExportSettings | None = None) -> TexturedMesh:
    """The object as a mesh with a texture: surface, atlas, and colours from its own pictures, on the CPU.

    A `MeshScene` is one already and keeps its triangles and its texture. Set `scene.step` before, as for any other
    picture of a finished run. Raises ValueError where the object has no surface (see `extract_surface`).
    """
    if isinstance(scene, MeshScene):
        return scene.textured_mesh()
    settings = settings or MeshExportSettings()
    vertices, faces = extract_surface(scene, settings)
    index, faces, uvs = unwrap(
        vertices,
        faces,
        settings.texture_size,
        settings.padding,
        settings.atlas_faces,
        settings.atlas_seconds,
    )
    vertices = vertices[index]
    return TexturedMesh(vertices, faces, uvs, bake_texture(scene, vertices, faces, uvs, settings))
