"""An independent renderer: the GLB as trimesh reads it, rays cast by Embree, colours looked up by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from torch import Tensor
from trimesh.ray.ray_pyembree import RayMeshIntersector

from rewardsds.scenes.cameras import Cameras


def render_glb(path: Path, cameras: Cameras, size: int, background: float = 0.9, fine: int = 2) -> Tensor:
    """Images (C, 3, size, size) of a GLB from cameras (C,) of our world."""
    mesh: Any = trimesh.load_scene(path, process=False).dump()[0]
    caster: Any = RayMeshIntersector(mesh)
    image = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"), np.float64) / 255
    origins, directions = cameras.rays(fine * size, fine * size)
    # our x, the front, is glTF's z; our y is glTF's x; our z, up, is glTF's y
    order = [1, 2, 0]
    flat_origins = origins.reshape(-1, 3).double().numpy()[:, order]
    flat_directions = directions.reshape(-1, 3).double().numpy()[:, order]
    triangle, ray, places = caster.intersects_id(
        flat_origins, flat_directions, multiple_hits=False, return_locations=True
    )
    weights = trimesh.triangles.points_to_barycentric(mesh.triangles[triangle], places)
    uvs = (mesh.visual.uv[mesh.faces[triangle]] * weights[..., None]).sum(1)
    height, width = image.shape[:2]
    x, y = uvs[:, 0] * width - 0.5, (1 - uvs[:, 1]) * height - 0.5
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    colours = np.zeros((len(x), 3))
    for dx in (0, 1):
        for dy in (0, 1):
            share = np.abs(1 - dx - (x - left)) * np.abs(1 - dy - (y - top))
            texel = image[(top + dy).clip(0, height - 1), (left + dx).clip(0, width - 1)]
            colours += share[:, None] * texel
    pixels = np.full((len(flat_origins), 3), background)
    pixels[ray] = colours
    images = torch.from_numpy(pixels).float().reshape(-1, fine * size, fine * size, 3).permute(0, 3, 1, 2)
    return torch.nn.functional.avg_pool2d(images, fine)


def psnr(shown: Tensor, wanted: Tensor) -> list[float]:
    """Of images (C, 3, H, W), one by one, decibels."""
    errors = (shown - wanted).square().mean((1, 2, 3)).tolist()
    return [-10 * math.log10(error) for error in errors]
