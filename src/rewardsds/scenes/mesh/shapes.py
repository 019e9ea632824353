"""Shapes that a user gives to start from: meshes and point clouds from files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import trimesh
from torch import Tensor

from rewardsds.scenes.gaussians.ply import read_ply
from rewardsds.scenes.mesh.atlas import unwrap
from rewardsds.scenes.mesh.bake import dilated
from rewardsds.scenes.mesh.files import from_gltf_axes
from rewardsds.scenes.mesh.inside import Inside
from rewardsds.scenes.mesh.rasterise import atlas_texels, rasterise_uvs
from rewardsds.scenes.mesh.textured import TexturedMesh, face_normals, sample_texture
from rewardsds.scenes.object3d import into_ball

ENDINGS = (".glb", ".gltf", ".obj", ".stl", ".ply")
LARGEST_FILE = 2**31  # bytes
MOST_FACES = 5_000_000
MOST_POINTS = 10_000_000
SMALLEST_ATLAS = 16  # texels a side
UNPLACED = 1e-3  # share of a surface that may have no area in an atlas that is kept: xatlas leaves some
OVERLAP = 0.02  # by which the areas of its triangles may exceed what they cover
PLAIN = (0.7, 0.7, 0.7)  # colour of what has none


class SurfacePoints(NamedTuple):
    """points (M, 3), colours (M, 3) in [0, 1], and unit normals (M, 3), None of a point cloud without them."""

    points: Tensor
    colours: Tensor
    normals: Tensor | None


@dataclass(frozen=True)
class Part:
    """Triangles with one material. vertices: (V, 3), faces: (F, 3) int64. colours: (V, 3) in [0, 1], which a texture
    (3, h, w), with uvs (V, 2) from its top left, is multiplied by."""

    vertices: Tensor
    faces: Tensor
    colours: Tensor
    uvs: Tensor | None = None
    texture: Tensor | None = None

    def colours_at(self, triangle: Tensor, barycentric: Tensor) -> Tensor:
        """(M, 3) of places on triangles (M,), barycentric (M, 3)."""
        corners = self.faces[triangle]
        colours = (self.colours[corners] * barycentric[..., None]).sum(1)
        if self.texture is None or self.uvs is None:
            return colours
        uvs = (self.uvs[corners] * barycentric[..., None]).sum(1)
        uvs = torch.where((uvs < 0) | (uvs > 1), uvs - uvs.floor(), uvs)  # textures repeat
        return colours * sample_texture(self.texture, uvs)


@dataclass(frozen=True)
class Shape:
    """A mesh (`parts`) or a point cloud (`cloud`), in our world, inside the ball of radius 0.9 around the origin.

    kind: "gaussians" is a point cloud of the means of a 3DGS PLY; the file itself is read, as it is, by
    `scenes.gaussians.ply.read_ply`.
    """

    name: str
    kind: Literal["mesh", "points", "gaussians"]
    parts: tuple[Part, ...] = ()
    cloud: SurfacePoints | None = None

    def surface_points(self, count: int, generator: torch.Generator) -> SurfacePoints:
        """`count` points, uniform over the surface, drawn with the CPU generator; of a point cloud as many of its own
        points, or all where it has fewer."""
        if count < 1:
            raise ValueError(f"at least one point must be asked for, got {count}")
        if self.cloud is not None:
            order = torch.randperm(len(self.cloud.points), generator=generator)[:count]
            points, colours, normals = self.cloud
            return SurfacePoints(points[order], colours[order], None if normals is None else normals[order])
        sizes = [len(part.faces) for part in self.parts]
        areas = torch.cat(
            [face_normals(part.vertices, part.faces).double().norm(dim=-1) for part in self.parts]
        )
        # inverse of the cumulated areas: `multinomial` takes no more than 2^24 triangles
        edges = areas.cumsum(0)
        drawn = torch.rand(count, generator=generator, dtype=torch.float64) * edges[-1]
        chosen = torch.searchsorted(edges, drawn, right=True).clamp(max=len(areas) - 1)
        # uniform over a triangle (Osada et al., "Shape distributions", 2002, section 4.2)
        first, second = torch.rand((2, count), generator=generator)
        root = first.sqrt()
        barycentric = torch.stack([1 - root, root * (1 - second), root * second], dim=-1)
        points, colours, normals = (torch.empty((count, 3)) for _ in range(3))
        start = 0
        for part, size in zip(self.parts, sizes):
            own = (chosen >= start) & (chosen < start + size)
            triangle, weights = chosen[own] - start, barycentric[own]
            points[own] = (part.vertices[part.faces[triangle]] * weights[..., None]).sum(1)
            colours[own] = part.colours_at(triangle, weights)
            flat = face_normals(part.vertices, part.faces[triangle])
            normals[own] = torch.nn.functional.normalize(flat, dim=-1)
            start += size
        return SurfacePoints(points, colours.clamp(0, 1), normals)

    @cached_property
    def whole(self) -> trimesh.Trimesh:
        """All triangles, corners at one place merged. Raises ValueError for a point cloud."""
        if not self.parts:
            raise ValueError(f"{self.name} is a point cloud, which has no inside: give a mesh")
        places, same = torch.unique(
            torch.cat([part.vertices[part.faces].reshape(-1, 3) for part in self.parts]),
            dim=0,
            return_inverse=True,
        )
        return trimesh.Trimesh(places.double().numpy(), same.reshape(-1, 3).numpy(), process=True)

    @cached_property
    def _test(self) -> Inside:
        return Inside(self.whole)

    def inside(self, points: Tensor) -> Tensor:
        """(M,) bool: which of the points (M, 3) lie inside one of the mesh's bodies, as `inside.Inside` says, also
        of those with holes. Raises ValueError for a point cloud.
        """
        places = points.detach().double().cpu().numpy()
        return torch.from_numpy(self._test(places)).to(points.device)

    def textured(
        self, size: int = 1024, padding: int = 4, face_limit: int = 200_000, seconds: float = 30.0
    ) -> TexturedMesh:
        """The mesh with one texture, as `MeshScene` takes it.

        A single part with a texture keeps it and its atlas; everything else is unwrapped anew (see `atlas.unwrap`), and
        its colours are painted into a new texture, size × size. Raises ValueError for a point cloud.
        """
        if not self.parts:
            raise ValueError(f"{self.name} is a point cloud: give a mesh where a mesh is to be textured")
        only = self.parts[0]
        if len(self.parts) == 1 and _usable_atlas(only):
            assert only.uvs is not None
            assert only.texture is not None
            return TexturedMesh(only.vertices, only.faces, only.uvs, only.texture)
        starts = np.cumsum([0, *(len(part.vertices) for part in self.parts)])
        vertices = torch.cat([part.vertices for part in self.parts])
        faces = torch.cat([part.faces + int(start) for part, start in zip(self.parts, starts)])
        # corners at one place are merged first, or every face of an STL would become a chart
        places, same = torch.unique(vertices, dim=0, return_inverse=True)
        index, unwrapped, uvs = unwrap(places, same[faces], size, padding, face_limit, seconds)
        fragments = atlas_texels(uvs, unwrapped, size)
        mask = fragments.mask[0]
        triangle, barycentric = fragments.triangle[0][mask], fragments.barycentric[0][mask]
        colours = torch.empty((len(triangle), 3))
        start = 0
        for part in self.parts:
            own = (triangle >= start) & (triangle < start + len(part.faces))
            colours[own] = part.colours_at(triangle[own] - start, barycentric[own])
            start += len(part.faces)
        texture = torch.full((size, size, 3), PLAIN[0])
        texture[mask] = colours.clamp(0, 1)
        texture = dilated(texture, mask).permute(2, 0, 1).contiguous()
        return TexturedMesh(places[index], unwrapped, uvs, texture)


def _usable_atlas(part: Part) -> bool:
    """Whether a part's texture can be optimised as it is: no tint, no repetition, and nearly each place of the surface
    has texels that no other place has. Palettes, and sides that share a picture, are not so."""
    if part.uvs is None or part.texture is None:
        return False
    size = part.texture.shape[-1]
    inside = bool(((part.uvs >= 0) & (part.uvs <= 1)).all())
    if (
        not inside
        or bool((part.colours != 1).any())
        or part.texture.shape[-2] != size
        or size < SMALLEST_ATLAS
    ):
        return False
    flat = torch.cat([part.uvs, torch.zeros_like(part.uvs[:, :1])], dim=-1).double()
    areas = 0.5 * face_normals(flat, part.faces).norm(dim=-1)
    surface = face_normals(part.vertices.double(), part.faces).norm(dim=-1)
    if float(surface[areas == 0].sum()) > UNPLACED * float(surface.sum()):
        return False
    covered = rasterise_uvs(part.uvs, part.faces, size).mask.double().mean()
    return float(areas.sum()) <= (1 + OVERLAP) * float(covered)


# --- reading ------------------------------------------------------------------------------------------------


def is_gaussian_ply(path: str | Path) -> bool:
    """Whether a PLY holds 3D Gaussians: their properties are f_dc_0, scale_0 and so on."""
    path = Path(path)
    if path.suffix.lower() != ".ply" or not path.is_file():
        return False
    with open(path, "rb") as file:
        header = file.read(65_536).split(b"end_header")[0]
    names = {
        line.split()[-1] for line in header.splitlines() if line.startswith(b"property") and line.split()
    }
    return {b"f_dc_0", b"scale_0"} <= names


def read_shape(path: str | Path) -> Shape:
    """A mesh or point cloud (.glb, .gltf, .obj, .stl, .ply) to start from.

    Moved and scaled so that it just fits into the ball of radius 0.9 around the origin. glTF is turned from its +Y up
    to our +Z up, its front to our +X; of the others axes stay as they are. Raises ValueError, in one line, where a file
    cannot be used.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(
            f"{path} is no shape that can be read: expected a file that ends in {', '.join(ENDINGS)}"
        )
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give a mesh or a point cloud, {', '.join(ENDINGS)}")
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path} has more than {LARGEST_FILE // 2**30} GiB: reduce it in a mesh editor")
    if is_gaussian_ply(path):
        g = read_ply(path)
        shape = Shape(str(path), "gaussians", cloud=SurfacePoints(g["means"], g["colours"], None))
    else:
        shape = _from_scene(path, _load(path, ending), gltf=ending in (".glb", ".gltf"))
    return _normalised(shape)


def _load(path: Path, ending: str) -> trimesh.Scene:
    try:
        # maintain_order and process: vertices must stay beside their uvs and colours
        return trimesh.load_scene(path, file_type=ending[1:], process=False, allow_remote=False)
    except Exception as error:  # whatever trimesh's readers raise: the file is the user's
        raise ValueError(f"{path} cannot be read: {_reason(path, error)}") from None


def _reason(path: Path, error: Exception) -> str:
    """What is wrong with a file, for what trimesh's readers say of it in terms of their own code."""
    if path.suffix.lower() == ".glb":
        with open(path, "rb") as file:
            head = file.read(12)
        if head[:4] != b"glTF":
            return "it is no GLB"
        there, announced = path.stat().st_size, int.from_bytes(head[8:12], "little")
        if len(head) < 12 or there < announced:
            return f"it is cut off after {there:,} bytes: copy or download it again"
    if path.suffix.lower() == ".obj" and isinstance(error, IndexError):
        return "it has faces that name vertices or texture coordinates which are not there"
    return " ".join(str(error).split())[:160] or type(error).__name__


def _from_scene(path: Path, scene: trimesh.Scene, gltf: bool) -> Shape:
    parts, clouds = [], []
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        geometry = scene.geometry[name].copy()
        geometry.apply_transform(transform)
        if isinstance(geometry, trimesh.Trimesh) and len(geometry.faces):
            parts.append(_part(path, geometry, gltf))
        elif isinstance(geometry, trimesh.PointCloud) or len(getattr(geometry, "vertices", ())):
            clouds.append(_cloud(path, geometry, gltf))
    if sum(len(part.faces) for part in parts) > MOST_FACES:
        raise ValueError(f"{path} has more than {MOST_FACES:,} faces: reduce it in a mesh editor")
    if parts:
        return Shape(str(path), "mesh", parts=tuple(parts))
    if path.suffix.lower() != ".ply" or not clouds:
        raise ValueError(f"{path} has no faces: expected a mesh, or a point cloud as PLY")
    if sum(len(cloud.points) for cloud in clouds) > MOST_POINTS:
        raise ValueError(f"{path} has more than {MOST_POINTS:,} points: thin it out")
    return Shape(str(path), "points", cloud=clouds[0])


def _part(path: Path, mesh: Any, gltf: bool) -> Part:
    vertices = torch.from_numpy(np.asarray(mesh.vertices, np.float32).copy())
    faces = torch.from_numpy(np.asarray(mesh.faces, np.int64).copy())
    if not bool(vertices.isfinite().all()):
        raise ValueError(f"{path} has vertices that are NaN or infinite")
    if int(faces.min()) < 0 or int(faces.max()) >= len(vertices):
        raise ValueError(f"{path} has faces that name vertices which are not there")
    faces = faces[face_normals(vertices.double(), faces).norm(dim=-1) > 0]
    if len(faces) == 0:
        raise ValueError(f"{path} has only faces without area")
    visual, uvs, texture = mesh.visual, None, None
    colours = torch.ones((len(vertices), 3))
    if visual.kind == "texture" and visual.uv is not None:
        image = _image(visual.material)
        if image is not None:
            uvs = torch.from_numpy(np.asarray(visual.uv, np.float32)[:, :2].copy())
            if not bool(uvs[faces].isfinite().all()):
                raise ValueError(f"{path} has texture coordinates that are NaN or infinite: unwrap it again")
            uvs = uvs.nan_to_num(0.0, 0.0, 0.0)  # of vertices without a face
            uvs = torch.stack([uvs[:, 0], 1 - uvs[:, 1]], dim=-1)  # trimesh counts v upwards
            pixels = np.asarray(image.convert("RGB"), np.float32) / 255
            texture = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    if visual.kind in ("vertex", "face"):
        if visual.kind == "face":  # each face gets corners of its own
            own = torch.from_numpy(np.asarray(visual.face_colors)[:, :3].copy())
            kept = face_normals(vertices.double(), torch.from_numpy(np.asarray(mesh.faces, np.int64))).norm(
                dim=-1
            )
            own = own[kept > 0]
            vertices, colours = vertices[faces].reshape(-1, 3), own.repeat_interleave(3, dim=0).float() / 255
            faces = torch.arange(len(vertices)).reshape(-1, 3)
        else:
            colours = torch.from_numpy(np.asarray(visual.vertex_colors)[:, :3].copy()).float() / 255
        colours = _as_srgb(colours) if gltf else colours
    elif texture is None or gltf:
        factor = _factor(visual)
        plain = torch.tensor(PLAIN) if factor is None and texture is None else factor
        if plain is not None:
            colours = (_as_srgb(plain) if gltf and factor is not None else plain).expand(len(vertices), 3)
    return Part(from_gltf_axes(vertices) if gltf else vertices, faces, colours.contiguous(), uvs, texture)


def _image(material: Any) -> Any:
    image = getattr(material, "baseColorTexture", None)
    return image if image is not None else getattr(material, "image", None)


def _factor(visual: Any) -> Tensor | None:
    """The plain colour (3,) of a material, None where it has none."""
    material = getattr(visual, "material", None)
    factor = getattr(material, "baseColorFactor", None)
    if factor is None and material is not None and _image(material) is None:
        factor = getattr(material, "diffuse", None)
    if factor is None:
        return None
    values = np.asarray(factor)
    scale = 255.0 if np.issubdtype(values.dtype, np.integer) else 1.0
    return torch.tensor(values[:3].astype(np.float32) / scale)


def _as_srgb(linear: Tensor) -> Tensor:
    """glTF keeps plain and vertex colours linear, textures sRGB (IEC 61966-2-1)."""
    return torch.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=1e-8) ** (1 / 2.4) - 0.055
    )


def _cloud(path: Path, geometry: Any, gltf: bool) -> SurfacePoints:
    points = torch.from_numpy(np.asarray(geometry.vertices, np.float32).copy())
    if not bool(points.isfinite().all()):
        raise ValueError(f"{path} has points that are NaN or infinite")
    colours = torch.tensor(PLAIN).repeat(len(points), 1)
    given = getattr(geometry, "colors", None)
    if given is not None and len(given) == len(points):
        colours = torch.from_numpy(np.asarray(given)[:, :3].copy()).float() / 255
    normals = _ply_normals(geometry, len(points))
    return SurfacePoints(from_gltf_axes(points) if gltf else points, colours, normals)


def _ply_normals(geometry: Any, count: int) -> Tensor | None:
    """Unit normals of a PLY's points, which trimesh keeps only in its raw elements."""
    raw = geometry.metadata.get("_ply_raw", {}).get("vertex", {}).get("data")
    # an array with named columns of a binary file, a mapping of columns of a text file
    names = raw.keys() if isinstance(raw, dict) else getattr(getattr(raw, "dtype", None), "names", None)
    if raw is None or not {"nx", "ny", "nz"} <= set(names or ()):
        return None
    columns = [np.asarray(raw[name], np.float32).reshape(count) for name in ("nx", "ny", "nz")]
    normals = torch.from_numpy(np.stack(columns, axis=-1))
    if not bool(normals.isfinite().all()) or bool((normals.norm(dim=-1) == 0).any()):
        return None
    return torch.nn.functional.normalize(normals, dim=-1)


def _normalised(shape: Shape) -> Shape:
    """Its bounding box around the origin, its farthest point at `START_RADIUS`."""
    if shape.cloud is not None:
        points = shape.cloud.points
    else:
        points = torch.cat([part.vertices[part.faces].reshape(-1, 3) for part in shape.parts])
    try:
        moved = into_ball(points).moved
    except ValueError as error:
        raise ValueError(f"{shape.name} has no extent: {error}") from None

    if shape.cloud is not None:
        return replace(shape, cloud=shape.cloud._replace(points=moved(shape.cloud.points)))
    return replace(shape, parts=tuple(replace(part, vertices=moved(part.vertices)) for part in shape.parts))
