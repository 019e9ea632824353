"""The surface of an object: a level of its density, as triangles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import fast_simplification
import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.measure import marching_cubes
from torch import Tensor
from trimesh.graph import connected_component_labels

from rewardsds.scenes.cameras import Cameras, orbit
from rewardsds.scenes.mesh.settings import MeshExportSettings
from rewardsds.scenes.mesh.silhouettes import fit_silhouettes
from rewardsds.scenes.mesh.textured import face_normals
from rewardsds.scenes.object3d import RADIUS, Object3D

CHUNK = 65_536  # points that the density is asked for at once
SILHOUETTE_SIZE = 96  # pixels, where a level is judged
OUTLINE_SIZE = 256  # pixels, where the surface is moved to the outlines
OUTLINE_ALPHA = 0.55  # from which on it is inside: at a half, soft objects came out larger than they are
LEVELS = 400  # that are tried, at most
FILLED = 0.9  # an object of which more than this share is opaque has no outline; the ball itself covers three quarters
TRANSPARENT = 1e-3  # an object of which no more than this share of its pictures is opaque is none
STEEP = 3.0  # natural logarithm about the level beyond which densities count alike when they are smoothed
MOST = 1.5  # by which smoothing changes the logarithm at most: thin parts stay
INWARDS = 0.5  # logarithm above the found level at which the surface is taken that is then moved outwards
GROWTH = 1.25  # of the ball's radius at a time, as long as the object reaches through its border
MOST_POINTS = 256  # along an axis of a larger ball, where the settings do not ask for more
PARTS = 4  # of a larger ball, that all directions look at
DIRECTIONS = 6  # at least, however large it is
CLEARANCE = 1.5  # distance of cameras over the ball's radius, at least
OUTSIDE = 0.5  # so much of the ball's border above the level is no object in the ball


def extract_surface(scene: Object3D, settings: MeshExportSettings | None = None) -> tuple[Tensor, Tensor]:
    """Vertices (V, 3) and faces (F, 3) of the surface where an object's density has the level of the settings.

    Marching cubes over the ball of radius 1, or a larger one that the object does not reach the border of, without
    floaters and hidden cavities, decimated to the settings' number of faces; what reaches the border of the largest
    ball is closed there. The logarithm of the density is smoothed before, see `smoothed`. A level that was found here,
    not given, is only nearly right everywhere: then the surface is moved to the object's silhouettes, from a little
    further inside, for what lies in a hollow is on no outline. Raises ValueError where the density is not finite,
    nothing is visible, or the object fills the ball.
    """
    settings = settings or MeshExportSettings()
    found = _in_smallest_ball(scene, settings)
    field, radius, level = found.field, found.radius, found.level
    if settings.smoothing > 0 and level > 0 and float(field[np.isfinite(field)].min()) >= 0:
        field, level = smoothed(log_density(field, level), settings.smoothing, radius), 0.0
        if found.seen_by is not None and found.opaque is not None:
            level = best_level(field, found.seen_by, found.opaque, radius)
            if settings.silhouette_views:
                level += min(INWARDS, 0.5 * (float(field.max()) - level))
        _check_smoothed(field, level)
    vertices, faces = without_pieces(*isosurface(field, level, radius), settings.smallest_component)
    vertices, faces = decimated(vertices, faces, settings.faces)
    if settings.level is None and settings.silhouette_views:
        cameras = spread_cameras(settings.silhouette_views, radius)
        opaque = opaque_pixels(scene, cameras, OUTLINE_SIZE, OUTLINE_ALPHA)
        vertices = fit_silhouettes(vertices, faces, cameras, opaque)
    return vertices, faces


@dataclass(frozen=True)
class _Found:
    """field: `density_grid` over the ball of a radius. level: of the surface. seen_by, opaque: the cameras (C,) and
    pixels (C, S, S) that a level was found by, None of one that was given."""

    field: np.ndarray
    radius: float
    level: float
    seen_by: Cameras | None
    opaque: Tensor | None


def _in_smallest_ball(scene: Object3D, settings: MeshExportSettings) -> _Found:
    """Density and level in the ball of radius 1, or in the first larger one that the object does not reach the border
    of, up to its own reach. Distances between grid points stay, as far as MOST_POINTS allow."""
    radius, reach = RADIUS, scene.reach
    while True:
        points = min(round(settings.resolution * radius / RADIUS), max(settings.resolution, MOST_POINTS))
        field = density_grid(scene, points, radius)
        level, cameras, opaque, filled = settings.level, None, None, False
        if level is None:
            cameras = spread_cameras(settings.level_views, radius)
            opaque = _outline(scene, cameras)
            filled = float(opaque.float().mean()) > FILLED
            level = best_level(field, cameras, opaque, radius)
        border = _border_share(field, level, radius)
        if radius < reach and (filled or border > 0):
            radius = min(GROWTH * radius, reach)
            continue
        if filled:
            raise ValueError(
                f"the object fills the whole ball of radius {radius:g}: it has no outline; train for more steps, or "
                "give a level"
            )
        _check_level(field, level, radius, border, found=settings.level is None)
        return _Found(field, radius, level, cameras, opaque)


def _in_ball(resolution: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """The distance (R, R, R) of grid points over [−radius, radius]³ from the origin, and which lie in the ball."""
    axis = np.linspace(-radius, radius, resolution, dtype=np.float32)
    distance = np.sqrt(
        axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2, dtype=np.float32
    )
    return distance, distance < radius


@torch.no_grad()
def density_grid(scene: Object3D, resolution: int, radius: float = RADIUS) -> np.ndarray:
    """Density (R, R, R) float32 at points over [−radius, radius]³, axes x y z; −inf outside the ball."""
    _, inside = _in_ball(resolution, radius)
    field = np.full(inside.shape, -np.inf, dtype=np.float32)
    index = np.flatnonzero(inside)
    values = np.empty(len(index), dtype=np.float32)
    for start in range(0, len(index), CHUNK):
        part = np.stack(np.unravel_index(index[start : start + CHUNK], inside.shape), axis=-1)
        points = torch.from_numpy(part.astype(np.float32)) * (2 * radius / (resolution - 1)) - radius
        values[start : start + CHUNK] = scene.density(points.to(scene.device)).float().cpu().numpy()
    if not np.isfinite(values).all():
        raise ValueError(
            "the object's density is not finite: the run has diverged; export an earlier checkpoint, or train again "
            "with a lower learning rate or guidance scale"
        )
    field[inside] = values
    return field


def _check_level(field: np.ndarray, level: float, radius: float, border: float, found: bool) -> None:
    """border: its share inside the object. found: the level was found, not given."""
    low, high = float(field[np.isfinite(field)].min()), float(field.max())
    if high <= level:
        raise ValueError(
            f"the object is empty at level {level:g}: its density is at most {high:g}; give a lower level"
            + ("" if found else ", or none to have it found")
        )
    if low > level or border > OUTSIDE:
        raise ValueError(
            f"at level {level:g} the object fills the whole ball of radius {radius:g} and has no surface in it: give a "
            f"higher level (its density is {low:g} to {high:g})"
            + ("" if found else ", or none to have it found")
        )


def _check_smoothed(field: np.ndarray, level: float) -> None:
    if float(field.max()) <= level:
        raise ValueError(
            "nothing of the object is left above its level when its density is smoothed: give a lower level, or less "
            "smoothing"
        )


def _border_share(field: np.ndarray, level: float, radius: float) -> float:
    """The share of the ball's border that is inside the object."""
    distance, inside = _in_ball(len(field), radius)
    border = inside & (distance > radius - 2 * 2 * radius / (len(field) - 1))
    return float((field[border] > level).mean())


def isosurface(field: np.ndarray, level: float, radius: float = RADIUS) -> tuple[Tensor, Tensor]:
    """Vertices (V, 3) and faces (F, 3), counter-clockwise from outside, where a grid over [−radius, radius]³ has a
    level.

    Closed: beyond the ball there is as much missing to the level as the density exceeds it at most.
    """
    finite = np.where(np.isfinite(field), field, np.float32(0))
    beyond = level - max(float(finite.max()) - level, 1e-6)
    padded = np.pad(np.where(np.isfinite(field), field, beyond), 1, constant_values=beyond)
    vertices, faces, _, _ = marching_cubes(padded, level, gradient_direction="ascent", allow_degenerate=False)
    step = 2 * radius / (len(field) - 1)
    places = (vertices.astype(np.float64) - 1) * step - radius
    return torch.from_numpy(places.astype(np.float32)), torch.from_numpy(faces.astype(np.int64))


def log_density(field: np.ndarray, level: float) -> np.ndarray:
    """The natural logarithm of a density ≥ 0 over a level > 0, from −STEEP to STEEP; −inf outside the ball stays.

    Densities of Gaussians fall as fast as exp(−r²): between grid points only their logarithm is nearly linear.
    """
    lowest, highest = level * math.exp(-STEEP), level * math.exp(STEEP)
    logarithm = np.log(np.clip(field, lowest, highest) / level).astype(np.float32)
    return np.where(np.isfinite(field), logarithm, np.float32(-np.inf))


def smoothed(field: np.ndarray, width: float, radius: float = RADIUS) -> np.ndarray:
    """A logarithm of densities (R, R, R), −inf outside the ball of a radius, after a Gaussian filter of standard
    deviation `width` (world units), changed by no more than MOST.

    At the level of the outlines a surface follows each of the outermost Gaussians, of which pictures only show the sum
    along a ray: without this it is bumps and pits. What is far above the level on few points, a thin part, stays.
    """
    inside = np.isfinite(field)
    deviation = width * (len(field) - 1) / (2 * radius)
    weight = gaussian_filter(inside.astype(np.float32), deviation)
    raw = np.where(inside, field, np.float32(0))
    mean = gaussian_filter(raw, deviation) / np.maximum(weight, 1e-6)
    changed = raw + MOST * np.tanh((mean - raw) / MOST)
    return np.where(inside, changed, np.float32(-np.inf)).astype(np.float32)


# --- the level ----------------------------------------------------------------------------------------------


def spread_cameras(count: int, radius: float = RADIUS, field_of_view: float = 40.0) -> Cameras:
    """Cameras all around the origin, above and below too, in `count` directions (on a Fibonacci spiral).

    field_of_view in degrees, and less where the ball would reach to the cameras. Pictures are 2 wide at the origin, as
    training has them on average, for blur goes by the picture: a larger ball is seen in parts, by cameras
    (count · P²,) side by side, P = ⌈radius⌉. Of more than PARTS parts there are fewer directions instead.
    """
    parts = math.ceil(radius / RADIUS)
    if parts**2 > PARTS:
        count = min(count, max(DIRECTIONS, PARTS * count // parts**2))
    index = torch.arange(count, dtype=torch.float64) + 0.5
    elevation = torch.asin(1 - 2 * index / count)
    azimuth = index * (math.pi * (3 - math.sqrt(5)))
    fov = torch.tensor(math.radians(field_of_view), dtype=torch.float64)
    if radius * CLEARANCE > RADIUS / math.tan(0.5 * float(fov)):
        fov = 2 * torch.atan(torch.tensor(RADIUS / (radius * CLEARANCE), dtype=torch.float64))
    cameras = orbit(azimuth, elevation, RADIUS / torch.tan(0.5 * fov), fov)
    poses, fovs = cameras.camera_to_world.float(), cameras.field_of_view.float()
    if parts > 1:
        aside = torch.linspace(RADIUS - radius, radius - RADIUS, parts)
        x, y = (shift.flatten() for shift in torch.meshgrid(aside, aside, indexing="ij"))
        fovs = fovs.repeat_interleave(len(x))
        poses = poses[:, None].repeat(1, len(x), 1, 1)
        poses[:, :, :3, 3] += x[:, None] * poses[:, :, :3, 0] + y[:, None] * poses[:, :, :3, 1]
        poses = poses.flatten(0, 1)
    return Cameras(poses, fovs)


def _outline(scene: Object3D, cameras: Cameras) -> Tensor:
    """The object's opaque pixels, where levels are judged; raises ValueError where there are none."""
    opaque = opaque_pixels(scene, cameras, SILHOUETTE_SIZE)
    if float(opaque.float().mean()) < TRANSPARENT:
        raise ValueError(
            "the object is transparent from all sides, there is no surface to take: train for more steps, or give a "
            "level"
        )
    return opaque


@torch.no_grad()
def best_level(field: np.ndarray, cameras: Cameras, opaque: Tensor, radius: float = RADIUS) -> float:
    """The level of a field that grows inwards whose surface has the silhouettes of the object: the best mean
    intersection over union with where it is opaque in pictures (C, S, S). Levels are tried from what rays meet."""
    strongest = densest(field, cameras, opaque.shape[-1], radius)
    # Quantiles of what rays meet: a density may have any scale.
    shares = torch.linspace(0, 1, LEVELS, dtype=torch.float64)
    values = strongest.double().flatten().sort().values
    tried = values[(shares * (len(values) - 1)).long()].unique()
    best, agreement = float(tried[0]), -1.0
    for level in tried.tolist():
        seen = strongest > level
        union = (seen | opaque).flatten(1).sum(-1)
        overlap = float(((seen & opaque).flatten(1).sum(-1) / union.clamp(min=1)).mean())
        if overlap > agreement:
            best, agreement = level, overlap
    return best


@torch.no_grad()
def densest(field: np.ndarray, cameras: Cameras, size: int, radius: float = RADIUS) -> Tensor:
    """(C, size, size): the largest density that each pixel's ray meets in the ball. Where it exceeds a level, that
    level's surface is seen."""
    finite = np.where(np.isfinite(field), field, field[np.isfinite(field)].min())
    volume = torch.from_numpy(finite)[None, None]
    found = []
    for camera in range(cameras.batch_shape[0]):
        origins, directions = cameras[camera].rays(size, size)
        middle = float(origins[0, 0].norm())
        steps = torch.linspace(max(middle - radius, 0.0), middle + radius, len(field))
        places = origins[..., None, :] + directions[..., None, :] * steps[:, None]  # S S R 3
        # grid_sample counts axes from the last
        grid = (places.flip(-1) / radius)[None]
        sampled = torch.nn.functional.grid_sample(volume, grid, padding_mode="border", align_corners=True)
        found.append(sampled[0, 0].amax(-1))
    return torch.stack(found)


@torch.no_grad()
def opaque_pixels(scene: Object3D, cameras: Cameras, size: int, alpha: float = 0.5) -> Tensor:
    """(C, size, size) bool on the CPU: where alpha exceeds a half, or what is given."""
    found = []
    for camera in range(cameras.batch_shape[0]):
        seen = scene.render(cameras[camera : camera + 1][None].to(scene.device), size=size).alpha
        if seen is None:
            raise ValueError("this object renders no alpha: give a level")
        found.append(seen[0, :, 0].cpu())
    alphas = torch.cat(found)
    if not bool(alphas.isfinite().all()):
        raise ValueError(
            "the object's pictures are not finite: the run has diverged; export an earlier checkpoint"
        )
    return alphas > alpha


# --- cleaning -----------------------------------------------------------------------------------------------


def without_pieces(vertices: Tensor, faces: Tensor, smallest: float) -> tuple[Tensor, Tensor]:
    """Without components of less than `smallest` of the largest one's area, and without the walls of cavities.

    A cavity's wall is a closed component that faces inwards: no camera sees it.
    """
    if len(faces) == 0:
        raise ValueError("the surface has no faces: give another level")
    edges = torch.cat([faces[:, :2], faces[:, 1:]]).numpy()
    labels = torch.from_numpy(connected_component_labels(edges, len(vertices))).long()[faces[:, 0]]
    count = int(labels.max()) + 1
    crosses = face_normals(vertices, faces).double()
    areas = torch.zeros(count, dtype=torch.float64).index_add_(0, labels, crosses.norm(dim=-1))
    volumes = torch.zeros(count, dtype=torch.float64)
    volumes.index_add_(0, labels, (vertices[faces[:, 0]].double() * crosses).sum(-1))
    outer = volumes > 0
    if not bool(outer.any()):
        raise ValueError("the surface encloses nothing: give another level")
    keep = outer & (areas >= smallest * areas[outer].max())
    return compact(vertices, faces[keep[labels]])


def compact(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Without vertices that no face names."""
    used, index = torch.unique(faces, return_inverse=True)
    return vertices[used], index.reshape(-1, 3)


def decimated(vertices: Tensor, faces: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """At most about `limit` faces, by quadric error (Garland and Heckbert 1997), without degenerate ones."""
    if len(faces) > limit:
        points, triangles = fast_simplification.simplify(
            vertices.numpy(), faces.numpy().astype(np.int32), target_count=limit
        )[:2]
        vertices = torch.from_numpy(np.ascontiguousarray(points, dtype=np.float32))
        faces = torch.from_numpy(triangles.astype(np.int64))
    flat = face_normals(vertices, faces).norm(dim=-1) <= 1e-14
    faces = faces[~flat]
    if len(faces) == 0:
        raise ValueError(f"no face is left of the surface at a limit of {limit} faces: allow more")
    return compact(vertices, faces)
