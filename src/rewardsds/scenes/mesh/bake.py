"""A texture from an object's own pictures."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from rewardsds.scenes.cameras import Cameras
from rewardsds.scenes.mesh.extract import CHUNK, spread_cameras
from rewardsds.scenes.mesh.rasterise import Fragments, atlas_texels, rasterise
from rewardsds.scenes.mesh.settings import MeshExportSettings
from rewardsds.scenes.mesh.textured import bilinear_taps, face_normals
from rewardsds.scenes.object3d import RADIUS, Object3D

BEHIND = (0.5, 0.5, 0.5)  # colour behind the object in its pictures, taken out of them again
OPAQUE = 0.5  # alpha from which on a pixel shows the object's colour
GRAZING = 0.15  # cosine below which a surface is seen too flat to tell its colour
POWER = 2  # of the cosine, in a view's weight
UNTRAINED = (
    0.05  # weight of views from elevations that training never looked from: they fill what others do not see
)
HIDDEN = 0.02  # world units by which something nearer hides a texel
SPREAD = 2.9  # pixels from a look-up to the farthest point that its neighbourhood can hold, along a diagonal


@torch.no_grad()
def bake_texture(
    scene: Object3D, vertices: Tensor, faces: Tensor, uvs: Tensor, settings: MeshExportSettings | None = None
) -> Tensor:
    """The texture (3, T, T) in [0, 1] that makes a mesh look as its object does, from all around.

    Each of the `atlas_texels` looks up its place in pictures of the object that see it, and takes their mean,
    weighted by the square of the cosine between ray and normal; where views that training looked from see it, others
    hardly count. What shines through from behind the object is taken out
    of the pictures. Texels that no picture shows get the object's `colour` at their place, and what lies between the
    charts gets the nearest texel's, against seams.
    """
    settings = settings or MeshExportSettings()
    size = settings.texture_size
    covered = atlas_texels(uvs, faces, size)
    mask = covered.mask[0]
    places = covered.interpolate(faces, vertices)  # P 3
    flat = torch.nn.functional.normalize(face_normals(vertices, faces), dim=-1)
    normals = flat[covered.triangle[0][mask]]

    sums, weights = torch.zeros_like(places), torch.zeros(len(places))
    radius = min(scene.reach, max(RADIUS, float(vertices.norm(dim=-1).max())))
    cameras = spread_cameras(settings.bake_views, radius)
    for view in range(cameras.batch_shape[0]):
        camera = cameras[view]
        toward = torch.nn.functional.normalize(camera.camera_to_world[:3, 3] - places, dim=-1)
        cosine = (toward * normals).sum(-1)
        facing = torch.nonzero(cosine > GRAZING).squeeze(-1)
        picture = _picture(scene, camera, settings.bake_size)
        fragments = rasterise(
            vertices, faces, cameras[view : view + 1], settings.bake_size, settings.bake_size
        )
        colours, seen = _looked_up(picture, fragments, camera, places[facing], cosine[facing])
        weight = seen * cosine[facing] ** POWER * _trust(scene, camera)
        sums[facing] += colours * weight[:, None]
        weights[facing] += weight

    unseen = weights < 1e-4
    colours = sums / weights.clamp(min=1e-4)[:, None]
    if bool(unseen.any()):
        parts = [scene.colour(part.to(scene.device)).float().cpu() for part in places[unseen].split(CHUNK)]
        colours[unseen] = torch.cat(parts).nan_to_num(0.5).clamp(0, 1)
    texture = torch.full((size, size, 3), 0.5)
    texture[mask] = colours
    return dilated(texture, mask).permute(2, 0, 1).contiguous()


def dilated(texture: Tensor, known: Tensor) -> Tensor:
    """(T, T, 3) with each texel that is not `known` (T, T) as the nearest one that is."""
    if bool(known.all()) or not bool(known.any()):
        return texture
    nearest = distance_transform_edt(~known.numpy(), return_distances=False, return_indices=True)
    rows, columns = torch.from_numpy(np.asarray(nearest)).long()
    return texture[rows, columns]


def _trust(scene: Object3D, camera: Cameras, margin: float = 10.0) -> float:
    """How much a view counts, by its elevation; of a trajectory nothing is known."""
    if scene.camera.trajectory is not None:
        return 1.0
    low, high = scene.camera.resolved_elevation
    elevation = math.degrees(math.asin(max(-1.0, min(1.0, float(camera.camera_to_world[2, 2])))))
    return 1.0 if low - margin <= elevation <= high + margin else UNTRAINED


def _picture(scene: Object3D, camera: Cameras, size: int) -> Tensor:
    """(4, S, S) on the CPU: the object's own colours, without what shines through from behind, and its alpha."""
    rendering = scene.render(camera[None, None].to(scene.device), size=size, background=BEHIND)
    assert rendering.images is not None
    image = rendering.images[0, 0].float().cpu()
    if not bool(image.isfinite().all()):
        raise ValueError(
            "the object's pictures are not finite: the run has diverged; export an earlier checkpoint"
        )
    if rendering.alpha is None:
        return torch.cat([image.clamp(0, 1), torch.ones_like(image[:1])])
    alpha = rendering.alpha[0, 0].float().cpu()
    behind = image.new_tensor(BEHIND)[:, None, None]
    own = ((image - (1 - alpha) * behind) / alpha.clamp(min=OPAQUE)).clamp(0, 1)
    return torch.cat([own, alpha])


def _looked_up(
    picture: Tensor, fragments: Fragments, camera: Cameras, places: Tensor, cosine: Tensor
) -> tuple[Tensor, Tensor]:
    """Colours (P, 3) of a picture (4, S, S) at places (P, 3) of the world, and how far they are seen there, (P,) from 0
    to 1: not where something else is nearer, nor where the picture shows the background.

    cosine: (P,) > 0, between the surface's normals there and the way to the camera.
    """
    size = picture.shape[-1]
    uvs, depth, half = camera.project(places)
    index, mix = bilinear_taps(uvs, size, size)
    # The nearest of a pixel's neighbourhood: beside an edge, what is behind is not believed.
    behind = torch.where(fragments.mask, fragments.depth, fragments.depth.new_tensor(1e3))
    nearest = -torch.nn.functional.max_pool2d(-behind[None], 3, stride=1, padding=1)
    # A slanted surface is itself nearer there: what hides must be before its plane, or stripes are taken out of it.
    slope = (1 - cosine.square()).clamp(min=0).sqrt() / cosine
    slack = HIDDEN + SPREAD * (2 * half / size) * slope
    visible = nearest.reshape(-1)[index].amin(-1) > depth - slack
    found = (picture.flatten(1).T[index] * mix[..., None]).sum(1)  # P 4
    inside = ((uvs >= 0) & (uvs <= 1)).all(-1)
    opaque = found[:, 3] > OPAQUE
    return found[:, :3], (visible & inside & opaque).float()
