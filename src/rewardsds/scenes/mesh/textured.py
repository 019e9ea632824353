"""A triangle mesh with a texture, and how colours are looked up in it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TexturedMesh:
    """Triangles in the world of `cameras.py` (+Z up, front towards +X), with one texture.

    vertices: (V, 3) float32. faces: (F, 3) int64, counter-clockwise seen from outside. uvs: (V, 2) in [0, 1], from the
    texture's top left corner, u to the right and v down, as glTF has them. texture: (3, T, T) in [0, 1], sRGB values
    as the object's own pictures have. A vertex where charts meet is there once for each chart.
    """

    vertices: Tensor
    faces: Tensor
    uvs: Tensor
    texture: Tensor

    def __post_init__(self) -> None:
        check_triangles(self.vertices, self.faces)
        if self.uvs.shape != (len(self.vertices), 2) or not bool(self.uvs.isfinite().all()):
            raise ValueError(f"uvs must be finite and ({len(self.vertices)}, 2), got {tuple(self.uvs.shape)}")
        size = self.texture.shape[-1]
        if self.texture.shape != (3, size, size) or not bool(self.texture.isfinite().all()):
            raise ValueError(f"a texture is finite and (3, T, T), got {tuple(self.texture.shape)}")

    def normals(self) -> Tensor:
        """(V, 3) unit normals of the vertices, smooth across the seams of the charts."""
        return smooth_normals(self.vertices, self.faces)


def check_triangles(vertices: Tensor, faces: Tensor) -> None:
    """Raises ValueError where these are no triangles."""
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not bool(vertices.isfinite().all()):
        raise ValueError(f"vertices must be finite and (V, 3), got {tuple(vertices.shape)}")
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype != torch.int64:
        raise ValueError(f"faces must be (F, 3) of int64, got {tuple(faces.shape)} of {faces.dtype}")
    if len(faces) == 0:
        raise ValueError("a mesh needs at least one face, got none")
    if int(faces.min()) < 0 or int(faces.max()) >= len(vertices):
        raise ValueError(f"faces name vertices that are not there: {len(vertices)} vertices were given")


def face_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """(F, 3), as long as twice the area of the face."""
    a, b, c = vertices[faces].unbind(1)
    return torch.linalg.cross(b - a, c - a)


def smooth_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """(V, 3) of unit length: means of the faces' normals, weighted by area; vertices at one place share theirs."""
    _, same = torch.unique(vertices, dim=0, return_inverse=True)  # a vertex's place
    by_corner = face_normals(vertices, faces).double()[:, None].expand(-1, 3, -1).reshape(-1, 3)
    sums = torch.zeros((int(same.max()) + 1, 3), dtype=torch.float64, device=vertices.device)
    sums.index_add_(0, same[faces.reshape(-1)], by_corner)
    length = sums.norm(dim=-1, keepdim=True)
    up = sums.new_tensor([0.0, 0.0, 1.0])  # where faces cancel: glTF wants unit vectors
    return torch.where(length > 1e-20, sums / length.clamp(min=1e-20), up)[same].to(vertices.dtype)


def sample_texture(texture: Tensor, uvs: Tensor) -> Tensor:
    """Colours (M, 3) at uvs (M, 2), bilinear between texel centres, the border repeated; carries gradient.

    texture: (3, T, T). Gathering texels, instead of `grid_sample`, has a deterministic gradient on CUDA too.
    """
    index, weight = bilinear_taps(uvs, texture.shape[-2], texture.shape[-1])
    texels = texture.flatten(1).T[index]  # M 4 3
    return (texels * weight[..., None].to(texels)).sum(1)


def bilinear_taps(uvs: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four texels (M, 4), as row · width + column, that a look-up at uvs (M, 2) mixes, and weights (M, 4)."""
    x = (uvs[:, 0] * width - 0.5).clamp(0, width - 1)
    y = (uvs[:, 1] * height - 0.5).clamp(0, height - 1)
    left, top = x.floor().clamp(max=max(width - 2, 0)), y.floor().clamp(max=max(height - 2, 0))
    fx, fy = x - left, y - top
    left, top = left.long(), top.long()
    right, below = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    index = torch.stack(
        [top * width + left, top * width + right, below * width + left, below * width + right], -1
    )
    weight = torch.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], dim=-1)
    return index, weight


def resampled(texture: Tensor, size: int) -> Tensor:
    """(3, T, T) as (3, size, size): bilinear where it grows, means over what a new texel covers where it shrinks."""
    old = texture.shape[-1]
    if size > old:
        axis = (torch.arange(size, dtype=torch.float64) + 0.5) / size
        v, u = torch.meshgrid(axis, axis, indexing="ij")
        colours = sample_texture(texture, torch.stack([u, v], dim=-1).reshape(-1, 2))
        return colours.T.reshape(3, size, size).contiguous()
    if size == old:
        return texture
    # differences of the integral of a row, read at the new texels' edges
    edges = torch.arange(size + 1, dtype=torch.float64) * (old / size)
    whole = edges.floor().long().clamp(max=old - 1)
    rest = edges - whole
    for axis in (1, 2):
        lines = texture.double().movedim(axis, -1)
        integral = torch.nn.functional.pad(lines.cumsum(-1), (1, 0))
        at_edges = integral[..., whole] + rest * lines[..., whole]
        texture = (at_edges.diff(dim=-1) * (size / old)).movedim(-1, axis)
    return texture.float().clamp(0, 1).contiguous()
