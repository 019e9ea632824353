"""A surface moved to where an object's silhouettes are.

A level of the density is a good first guess of the surface, but how fast alpha grows behind it differs from place to
place: thin parts become opaque later than thick ones. So vertices on the outline of a view are moved to the outline
that the object's own alpha has there, and their neighbours along with them.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from scipy.sparse import csr_matrix
from torch import Tensor

from rewardsds.scenes.cameras import Cameras
from rewardsds.scenes.mesh.rasterise import rasterise
from rewardsds.scenes.mesh.textured import bilinear_taps, smooth_normals

OUTLINE = 0.35  # cosine between ray and normal up to which a vertex lies on a view's outline
NEAR_OUTLINE = 2.5  # pixels from the outline of the mesh within which it does
FARTHEST = 0.04  # world units that a vertex moves in one round, at most
SMOOTHING = 80  # times that offsets spread to neighbours
PULL = 0.1  # weight of a vertex's own outlines beside its neighbours
FADING = 0.003  # share by which offsets shrink each time
ROUNDS = 2


@torch.no_grad()
def fit_silhouettes(vertices: Tensor, faces: Tensor, cameras: Cameras, opaque: Tensor) -> Tensor:
    """Vertices (V, 3), moved along their normals until the mesh's outlines are those of `opaque`.

    cameras: (C,). opaque: (C, S, S) bool, where the object covers the picture.
    """
    wanted = [signed_distance(mask) for mask in opaque]
    spread = _neighbours(faces, len(vertices))
    size = opaque.shape[-1]
    for _ in range(ROUNDS):
        normals = smooth_normals(vertices, faces)
        sums, weights = torch.zeros(len(vertices)), torch.zeros(len(vertices))
        for view in range(len(opaque)):
            camera = cameras[view]
            present = signed_distance(
                rasterise(vertices, faces, cameras[view : view + 1], size, size).mask[0]
            )
            toward = torch.nn.functional.normalize(camera.camera_to_world[:3, 3] - vertices, dim=-1)
            cosine = (toward * normals).sum(-1)
            uvs, _, half = camera.project(vertices)
            index, mix = bilinear_taps(uvs, size, size)
            missing = ((wanted[view] - present).reshape(-1)[index] * mix).sum(-1)  # pixels, outwards
            outline = (present.reshape(-1)[index] * mix).sum(-1).abs() < NEAR_OUTLINE
            inside = ((uvs >= 0) & (uvs <= 1)).all(-1)
            weight = (outline & inside & (cosine.abs() < OUTLINE)).float()
            sums += weight * missing * 2 * half / size
            weights += weight
        move = (sums / weights.clamp(min=1)).clamp(-FARTHEST, FARTHEST)
        vertices = vertices + _smoothed(move, weights, spread)[:, None] * normals
    return vertices


def signed_distance(mask: Tensor) -> Tensor:
    """(S, S) float: pixels to the border of a mask (S, S), positive inside, from pixel centres."""
    inside = mask.numpy()
    if inside.all() or not inside.any():
        return torch.full(mask.shape, float(max(mask.shape)) if inside.all() else -float(max(mask.shape)))
    within, beyond = (np.asarray(distance_transform_edt(part)) for part in (inside, ~inside))
    distance = np.where(inside, within - 0.5, 0.5 - beyond)
    return torch.from_numpy(distance.astype(np.float32))


def _neighbours(faces: Tensor, count: int) -> csr_matrix:
    """(V, V): which vertices share an edge."""
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).numpy()
    both = np.concatenate([edges, edges[:, ::-1]])
    matrix = csr_matrix((np.ones(len(both), np.float32), (both[:, 0], both[:, 1])), shape=(count, count))
    matrix.data[:] = 1
    return matrix


def _smoothed(move: Tensor, weights: Tensor, neighbours: csr_matrix) -> Tensor:
    """Offsets (V,) that are smooth over the surface, near the known ones (of weight above 0); far from any they fade.

    Single outlines are uncertain by a pixel, so known offsets pull but weakly: else the surface gets their noise.
    """
    degree = np.maximum(np.asarray(neighbours.sum(1)).reshape(-1), 1).astype(np.float32)
    pull = PULL * weights.numpy() / (weights.numpy() + 2)
    known = pull * move.numpy()
    values = known / PULL
    for _ in range(SMOOTHING):
        values = (known + (neighbours @ values) / degree) / (pull + 1 + FADING)
    return torch.from_numpy(values.astype(np.float32))
