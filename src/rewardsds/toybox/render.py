"""The world's renderer: sphere tracing of toys on a disc of ground, from any cameras (numba, all cores).

Sphere tracing: Hart 1996. Soft shadows and ambient occlusion: Quilez, "Soft shadows in raymarched SDFs".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numba as nb
import numpy as np

from rewardsds.toybox.kinds import (
    ARC,
    BAND,
    BOX,
    CONE,
    DOTS,
    ELLIPSOID,
    INTERSECT,
    PALETTE,
    SMOOTH_UNION,
    SUBTRACT,
    TORUS,
    UNION,
    WINDOWS,
    program_table,
)
from rewardsds.toybox.specification import GROUNDS
from rewardsds.toybox.world import ToyScene

NO_TOY, GROUND = -1, -2
GROUND_THICKNESS = 0.07
_FAR = 1e9
_SURFACE = 0.0012
_TOY_COLUMNS = 11  # kind | x y z | cos yaw, sin yaw | size | bounding sphere x y z radius (world)
_SCENE_COLUMNS = 12  # ground | z | radius | light xyz | ambient | background rgb | seed | specular

_jit = nb.njit(cache=True, fastmath=True, inline="never")


@dataclass(frozen=True)
class Pictures:
    """What the renderer returns for W views.

    colour: (W, H, H, 3) uint8.
    depth: (W, H, H) float32, distance along the ray in world units; inf where nothing is hit.
    mask: (W, H, H) float32 in [0, 1], coverage by toys or ground.
    toy: (W, H, H) int8, index of the toy at the pixel's centre; GROUND or NO_TOY where there is none.
    """

    colour: np.ndarray
    depth: np.ndarray
    mask: np.ndarray
    toy: np.ndarray


def render(
    scenes: Sequence[ToyScene],
    view_scene: np.ndarray,
    camera_to_world: np.ndarray,
    field_of_view: np.ndarray,
    size: int = 64,
) -> Pictures:
    """Renders W views of any scenes.

    view_scene: (W,) which scene each view sees. camera_to_world: (W, 4, 4), OpenGL axes, as in
    `scenes.cameras`. field_of_view: (W,) vertical, radians. size: pixels a side.
    """
    toys, colours, scene_toys, scene_table = pack(scenes)
    rows, starts = program_table()
    views = len(view_scene)
    colour = np.empty((views, size, size, 3), np.uint8)
    depth = np.empty((views, size, size), np.float32)
    mask = np.empty((views, size, size), np.float32)
    toy = np.empty((views, size, size), np.int8)
    _render_views(
        rows, starts, PALETTE, toys, colours, scene_toys, scene_table, np.asarray(view_scene, np.int64),
        np.ascontiguousarray(camera_to_world, dtype=np.float32),
        (0.5 * size / np.tan(0.5 * np.asarray(field_of_view, np.float64))).astype(np.float32),
        colour, depth, mask, toy,
    )  # fmt: skip
    return Pictures(colour, depth, mask, toy)


def signed_distance(scene: ToyScene, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest toy and its index, for points (P, 3) in world units: (P,) float32, (P,) int64."""
    toys, _, scene_toys, _ = pack([scene])
    rows, starts = program_table()
    return _distances(rows, starts, toys, int(scene_toys[0, 0]), int(scene_toys[0, 1]), np.float32(points))


def kind_distance(kind: int, points: np.ndarray) -> np.ndarray:
    """Distance to one kind of toy in its own frame, for points (P, 3): (P,) float32."""
    rows, starts = program_table()
    return _kind_distances(rows, int(starts[kind]), int(starts[kind + 1]), np.float32(points))


def pack(scenes: Sequence[ToyScene]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scenes as the tables that the kernels read: toys, their colours, each scene's range of toys, scenes."""
    total = sum(len(scene.toys) for scene in scenes)
    toys = np.zeros((total, _TOY_COLUMNS), np.float32)
    colours = np.zeros((total, 3), np.float32)
    scene_toys = np.zeros((len(scenes), 2), np.int64)
    table = np.zeros((len(scenes), _SCENE_COLUMNS), np.float32)
    row = 0
    for index, scene in enumerate(scenes):
        scene_toys[index] = row, row + len(scene.toys)
        for toy in scene.toys:
            centre, radius = toy.bounding_sphere()
            toys[row] = (
                toy.kind_index, *toy.position, math.cos(toy.yaw), math.sin(toy.yaw), toy.size, *centre, radius,
            )  # fmt: skip
            colours[row] = toy.rgb
            row += 1
        table[index] = (
            GROUNDS.index(scene.ground), scene.ground_height, scene.ground_radius, *scene.light, scene.ambient,
            *scene.background, scene.texture_seed, scene.specular,
        )  # fmt: skip
    return toys, colours, scene_toys, table


@_jit
def _primitive(rows, i, x, y, z):
    """Distance to one primitive; x, y, z in the toy's frame."""
    dx, dy, dz = x - rows[i, 9], y - rows[i, 10], z - rows[i, 11]
    px = rows[i, 12] * dx + rows[i, 15] * dy + rows[i, 18] * dz
    py = rows[i, 13] * dx + rows[i, 16] * dy + rows[i, 19] * dz
    pz = rows[i, 14] * dx + rows[i, 17] * dy + rows[i, 20] * dz
    kind = rows[i, 0]
    a, b, c, r = rows[i, 5], rows[i, 6], rows[i, 7], rows[i, 8]
    if kind == ELLIPSOID:
        ex, ey, ez = px / a, py / b, pz / c
        k0 = math.sqrt(ex * ex + ey * ey + ez * ez)
        ex, ey, ez = ex / a, ey / b, ez / c
        k1 = math.sqrt(ex * ex + ey * ey + ez * ez)
        if k1 < 1e-6:
            return -min(a, min(b, c))
        return k0 * (k0 - 1.0) / k1
    if kind == BOX:
        qx, qy, qz = abs(px) - a + r, abs(py) - b + r, abs(pz) - c + r
        ox, oy, oz = max(qx, 0.0), max(qy, 0.0), max(qz, 0.0)
        return math.sqrt(ox * ox + oy * oy + oz * oz) + min(max(qx, max(qy, qz)), 0.0) - r
    if kind == CONE:  # half height a, bottom radius b, top radius c, rounding r
        h, r1, r2 = a - r, max(b - r, 0.0), max(c - r, 0.0)
        q = math.sqrt(px * px + py * py)
        limit = r1 if pz < 0.0 else r2
        cax, cay = q - min(q, limit), abs(pz) - h
        k2x, k2y = r2 - r1, 2.0 * h
        f = ((r2 - q) * k2x + (h - pz) * k2y) / (k2x * k2x + k2y * k2y)
        f = min(max(f, 0.0), 1.0)
        cbx, cby = q - r2 + k2x * f, pz - h + k2y * f
        s = -1.0 if (cbx < 0.0 and cay < 0.0) else 1.0
        return s * math.sqrt(min(cax * cax + cay * cay, cbx * cbx + cby * cby)) - r
    if kind == TORUS:
        q = math.sqrt(px * px + py * py) - a
        return math.sqrt(q * q + pz * pz) - b
    if kind == ARC:  # major a, minor b, half angle c about +y
        sx, cx = math.sin(c), math.cos(c)
        ax = abs(px)
        k = ax * sx + py * cx if cx * ax > sx * py else math.sqrt(ax * ax + py * py)
        return math.sqrt(max(px * px + py * py + pz * pz + a * a - 2.0 * a * k, 0.0)) - b
    # CAPSULE: half height a, radius b
    qz = pz - min(max(pz, -a), a)
    return math.sqrt(px * px + py * py + qz * qz) - b


@_jit
def _kind_distance(rows, first, last, x, y, z):
    """Distance to a toy in its own frame, and the primitive that is nearest."""
    distance = _FAR
    nearest = first
    for index in range(first, last):
        op = rows[index, 1]
        k = rows[index, 2]
        # A primitive whose bounding sphere is too far away to change the result is passed over.
        bx, by, bz = x - rows[index, 9], y - rows[index, 10], z - rows[index, 11]
        reach = rows[index, 21] + k + (-distance if op == SUBTRACT else distance)
        if op != INTERSECT and (reach <= 0.0 or bx * bx + by * by + bz * bz > reach * reach):
            continue
        d = _primitive(rows, index, x, y, z)
        if op == UNION:
            if d < distance:
                distance, nearest = d, index
        elif op == SMOOTH_UNION:
            if d < distance:
                nearest = index
            h = max(k - abs(distance - d), 0.0) / k
            distance = min(distance, d) - h * h * k * 0.25
        elif op == SUBTRACT:
            if -d > distance:
                nearest = index
            if k > 0.0:
                h = max(k - abs(-d - distance), 0.0) / k
                distance = max(distance, -d) + h * h * k * 0.25
            else:
                distance = max(distance, -d)
        elif op == INTERSECT and d > distance:
            distance, nearest = d, index
    return distance, nearest


@_jit
def _scene_distance(rows, starts, toys, first, last, x, y, z):
    """Distance to the nearest toy in world units, that toy and its nearest primitive."""
    best, best_toy, best_row = _FAR, -1, -1
    for t in range(first, last):
        bx, by, bz = x - toys[t, 7], y - toys[t, 8], z - toys[t, 9]
        bound = math.sqrt(bx * bx + by * by + bz * bz) - toys[t, 10]
        if bound > 0.1:  # outside the bounding sphere its distance is a safe lower bound
            if bound < best:
                best, best_toy, best_row = bound, t, -1
            continue
        if bound > best:
            continue
        dx, dy, dz = (
            (x - toys[t, 1]) / toys[t, 6],
            (y - toys[t, 2]) / toys[t, 6],
            (z - toys[t, 3]) / toys[t, 6],
        )
        lx, ly = toys[t, 4] * dx + toys[t, 5] * dy, -toys[t, 5] * dx + toys[t, 4] * dy
        kind = int(toys[t, 0])
        d, row = _kind_distance(rows, starts[kind], starts[kind + 1], lx, ly, dz)
        d *= toys[t, 6]
        if d < best:
            best, best_toy, best_row = d, t, row
    return best, best_toy, best_row


@nb.njit(cache=True, fastmath=True, parallel=True)
def _distances(rows, starts, toys, first, last, points):
    distance = np.empty(len(points), np.float32)
    index = np.empty(len(points), np.int64)
    for i in nb.prange(len(points)):
        d, toy, _ = _scene_distance(rows, starts, toys, first, last, points[i, 0], points[i, 1], points[i, 2])
        distance[i] = d
        index[i] = toy - first
    return distance, index


@nb.njit(cache=True, fastmath=True, parallel=True)
def _kind_distances(rows, first, last, points):
    distance = np.empty(len(points), np.float32)
    for i in nb.prange(len(points)):
        d, _ = _kind_distance(rows, first, last, points[i, 0], points[i, 1], points[i, 2])
        distance[i] = d
    return distance


@_jit
def _hash(x, y, seed):
    value = math.sin(x * 127.1 + y * 311.7 + seed * 74.7) * 43758.5453
    return value - math.floor(value)


@_jit
def _noise(x, y, seed):
    """Value noise in [0, 1]."""
    ix, iy = math.floor(x), math.floor(y)
    fx, fy = x - ix, y - iy
    fx, fy = fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy)
    low = _hash(ix, iy, seed) * (1.0 - fx) + _hash(ix + 1.0, iy, seed) * fx
    high = _hash(ix, iy + 1.0, seed) * (1.0 - fx) + _hash(ix + 1.0, iy + 1.0, seed) * fx
    return low * (1.0 - fy) + high * fy


@_jit
def _ground_colour(ground, x, y, seed):
    if ground == 1:  # snow
        v = 0.88 + 0.10 * _noise(x * 7.0, y * 7.0, seed)
        return v * 0.97, v * 0.985, v
    if ground == 2:  # grass
        v = 0.75 + 0.5 * _noise(x * 17.0, y * 17.0, seed)
        return 0.30 * v, 0.58 * v, 0.17 * v
    if ground == 3:  # sand
        v = 0.90 + 0.16 * _noise(x * 14.0, y * 14.0, seed)
        return 0.89 * v, 0.77 * v, 0.53 * v
    plank = math.floor(y * 6.0)  # wooden floor
    tone = 0.82 + 0.30 * _hash(plank, 0.0, seed)
    grain = 0.94 + 0.12 * _noise(x * 4.0, y * 40.0, seed)
    edge = 0.72 if (y * 6.0 - plank) < 0.10 else 1.0
    v = tone * grain * edge
    return 0.66 * v, 0.45 * v, 0.27 * v


@_jit
def _surface_colour(rows, row, palette, colours, toy, lx, ly, lz):
    index = int(rows[row, 3])
    if index >= 0:
        return palette[index, 0], palette[index, 1], palette[index, 2]
    r, g, b = colours[toy, 0], colours[toy, 1], colours[toy, 2]
    pattern = int(rows[row, 4])
    if pattern == WINDOWS:
        # The facade is the side along which the point lies furthest out.
        along = ly if abs(lx) > abs(ly) else lx
        u, v = along * 7.0, lz * 7.0
        u, v = u - math.floor(u), v - math.floor(v)
        if 0.25 < u < 0.8 and 0.25 < v < 0.75:
            return 0.72, 0.86, 0.95
    elif pattern == BAND:
        if abs(lz - 0.44) < 0.085:
            return 0.96, 0.96, 0.95
    elif pattern == DOTS:
        angle = math.atan2(ly, lx) * 5.0 / (2.0 * math.pi)
        ring = (lz - 0.46) / 0.17
        offset = 0.5 * (math.floor(ring) % 2.0)
        u, v = angle + offset, ring
        u, v = u - math.floor(u) - 0.5, v - math.floor(v) - 0.5
        if ring > 0.0 and u * u + v * v < 0.075:
            return 0.96, 0.95, 0.90
    return r, g, b


@_jit
def _trace(rows, starts, toys, first, last, ox, oy, oz, dx, dy, dz, limit):
    """Distance along the ray to the first toy before `limit`, its index and primitive; _FAR if none."""
    near, far = _FAR, -1.0
    for t in range(first, last):
        cx, cy, cz = ox - toys[t, 7], oy - toys[t, 8], oz - toys[t, 9]
        b = cx * dx + cy * dy + cz * dz
        h = b * b - (cx * cx + cy * cy + cz * cz - toys[t, 10] * toys[t, 10])
        if h > 0.0:
            h = math.sqrt(h)
            if -b + h > 0.0:
                near = min(near, max(-b - h, 0.0))
                far = max(far, -b + h)
    if far < 0.0:
        return _FAR, -1, -1
    far = min(far, limit)
    t = near
    for _ in range(72):
        if t > far:
            return _FAR, -1, -1
        d, toy, row = _scene_distance(rows, starts, toys, first, last, ox + t * dx, oy + t * dy, oz + t * dz)
        if d < _SURFACE and row >= 0:
            return t, toy, row
        t += max(d * 0.9, _SURFACE * 0.5)
    return _FAR, -1, -1


@_jit
def _shadow(rows, starts, toys, first, last, x, y, z, lx, ly, lz, softness):
    """Share of the light that reaches a point, 0 to 1."""
    meets = False
    for t in range(first, last):
        cx, cy, cz = x - toys[t, 7], y - toys[t, 8], z - toys[t, 9]
        b = cx * lx + cy * ly + cz * lz
        grown = toys[t, 10] + 0.05
        inside = cx * cx + cy * cy + cz * cz - grown * grown
        if inside < 0.0 or (b < 0.0 and b * b > inside):
            meets = True
    if not meets:
        return 1.0
    light, t = 1.0, 0.02
    for _ in range(16):
        d, _, _ = _scene_distance(rows, starts, toys, first, last, x + t * lx, y + t * ly, z + t * lz)
        light = min(light, softness * d / t)
        if light < 0.01 or t > 2.2:
            break
        t += min(max(d, 0.04), 0.3)
    light = min(max(light, 0.0), 1.0)
    return light * light * (3.0 - 2.0 * light)


@_jit
def _sample(rows, starts, palette, toys, colours, first, last, scenes, s, ox, oy, oz, dx, dy, dz):
    """One ray: colour r g b, distance, toy (or GROUND, NO_TOY), part."""
    ground = int(scenes[s, 0])
    lx, ly, lz = scenes[s, 3], scenes[s, 4], scenes[s, 5]
    ground_hit = _FAR
    rim = False
    if ground > 0:
        if dz < -1e-6:
            t = (scenes[s, 1] - oz) / dz
            x, y = ox + t * dx, oy + t * dy
            if t > 0.0 and x * x + y * y < scenes[s, 2] * scenes[s, 2]:
                ground_hit = t
        a = dx * dx + dy * dy
        if a > 1e-9:
            b = ox * dx + oy * dy
            h = b * b - a * (ox * ox + oy * oy - scenes[s, 2] * scenes[s, 2])
            if h > 0.0:
                t = (-b - math.sqrt(h)) / a
                z = oz + t * dz
                if 0.0 < t < ground_hit and scenes[s, 1] - GROUND_THICKNESS < z < scenes[s, 1]:
                    ground_hit = t
                    rim = True
    t, toy, row = _trace(rows, starts, toys, first, last, ox, oy, oz, dx, dy, dz, ground_hit)
    if toy < 0 and ground_hit >= _FAR:
        return scenes[s, 7], scenes[s, 8], scenes[s, 9], _FAR, NO_TOY, -1

    if toy < 0:
        t = ground_hit
        x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
        r, g, b = _ground_colour(ground, x, y, scenes[s, 10])
        if rim:
            nx, ny, nz = x / scenes[s, 2], y / scenes[s, 2], 0.0
            r, g, b = 0.8 * r, 0.8 * g, 0.8 * b
            occlusion = 1.0
        else:
            nx, ny, nz = 0.0, 0.0, 1.0
            d, _, _ = _scene_distance(rows, starts, toys, first, last, x, y, z + 0.10)
            occlusion = 0.45 + 0.55 * min(max(d / 0.10, 0.0), 1.0)
        lit = max(nx * lx + ny * ly + nz * lz, 0.0)
        if lit > 0.0 and not rim:
            lit *= _shadow(rows, starts, toys, first, last, x, y, z + 0.004, lx, ly, lz, 7.0)
        shade = (scenes[s, 6] * (0.75 + 0.25 * nz) + (1.05 - scenes[s, 6]) * lit) * occlusion
        return r * shade, g * shade, b * shade, t, GROUND, 0

    x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
    e = 0.004
    # The gradient (tetrahedron rule) of the toy that was hit: the others are further away.
    d1, _, _ = _scene_distance(rows, starts, toys, toy, toy + 1, x + e, y - e, z - e)
    d2, _, _ = _scene_distance(rows, starts, toys, toy, toy + 1, x - e, y - e, z + e)
    d3, _, _ = _scene_distance(rows, starts, toys, toy, toy + 1, x - e, y + e, z - e)
    d4, _, _ = _scene_distance(rows, starts, toys, toy, toy + 1, x + e, y + e, z + e)
    nx, ny, nz = d1 - d2 - d3 + d4, -d1 - d2 + d3 + d4, -d1 + d2 - d3 + d4
    length = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12
    nx, ny, nz = nx / length, ny / length, nz / length
    px, py, pz = (
        (x - toys[toy, 1]) / toys[toy, 6],
        (y - toys[toy, 2]) / toys[toy, 6],
        (z - toys[toy, 3]) / toys[toy, 6],
    )
    qx, qy = toys[toy, 4] * px + toys[toy, 5] * py, -toys[toy, 5] * px + toys[toy, 4] * py
    r, g, b = _surface_colour(rows, row, palette, colours, toy, qx, qy, pz)
    d, _, _ = _scene_distance(rows, starts, toys, first, last, x + nx * 0.09, y + ny * 0.09, z + nz * 0.09)
    if ground > 0:
        d = min(d, z + nz * 0.09 - scenes[s, 1])
    occlusion = 0.60 + 0.40 * min(max(d / 0.09, 0.0), 1.0)
    lit = max(nx * lx + ny * ly + nz * lz, 0.0)
    if lit > 0.0:
        lit *= _shadow(
            rows, starts, toys, first, last, x + nx * 0.015, y + ny * 0.015, z + nz * 0.015, lx, ly, lz, 9.0
        )
    hx, hy, hz = lx - dx, ly - dy, lz - dz
    half = max((nx * hx + ny * hy + nz * hz) / (math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-9), 0.0)
    shine = scenes[s, 11] * half**24.0 * lit
    shade = (scenes[s, 6] * (0.78 + 0.22 * nz) + (1.2 - scenes[s, 6]) * lit) * occlusion
    return r * shade + shine, g * shade + shine, b * shade + shine, t, toy - first, row


@_jit
def _on_edge(part, depth, i, j, size):
    for k in range(4):
        a, b = i + (0, 0, 1, -1)[k], j + (1, -1, 0, 0)[k]
        if 0 <= a < size and 0 <= b < size:
            if part[a, b] != part[i, j]:
                return True
            if part[i, j] >= 64 * 3 and abs(depth[a, b] - depth[i, j]) > 0.08:
                return True
    return False


@nb.njit(cache=True, fastmath=True, parallel=True)
def _render_views(
    rows, starts, palette, toys, colours, scene_toys, scenes, view_scene, poses, focal, colour, depth, mask, toy_map
):  # fmt: skip
    views, size = colour.shape[0], colour.shape[1]
    for v in nb.prange(views):
        s = view_scene[v]
        first, last = scene_toys[s, 0], scene_toys[s, 1]
        ox, oy, oz = poses[v, 0, 3], poses[v, 1, 3], poses[v, 2, 3]
        image = np.empty((size, size, 3), np.float32)
        part = np.empty((size, size), np.int32)
        for i in range(size):
            for j in range(size):
                cx, cy = (j + 0.5 - 0.5 * size) / focal[v], -(i + 0.5 - 0.5 * size) / focal[v]
                dx = poses[v, 0, 0] * cx + poses[v, 0, 1] * cy - poses[v, 0, 2]
                dy = poses[v, 1, 0] * cx + poses[v, 1, 1] * cy - poses[v, 1, 2]
                dz = poses[v, 2, 0] * cx + poses[v, 2, 1] * cy - poses[v, 2, 2]
                n = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
                r, g, b, t, toy, row = _sample(
                    rows, starts, palette, toys, colours, first, last, scenes, s, ox, oy, oz, dx * n, dy * n, dz * n
                )  # fmt: skip
                image[i, j, 0], image[i, j, 1], image[i, j, 2] = r, g, b
                depth[v, i, j] = t if t < _FAR else np.inf
                toy_map[v, i, j] = toy
                mask[v, i, j] = 0.0 if toy == NO_TOY else 1.0
                part[i, j] = (toy + 3) * 64 + (int(rows[row, 3]) if row >= 0 else 0)
        # Anti-aliasing: pixels that border on another colour, toy or depth are drawn anew with four rays each.
        for i in range(size):
            for j in range(size):
                if _on_edge(part, depth[v], i, j, size):
                    sr, sg, sb, covered = 0.0, 0.0, 0.0, 0.0
                    for k in range(4):
                        u = (0.125, 0.625, 0.375, 0.875)[k]
                        w = (0.375, 0.125, 0.875, 0.625)[k]
                        cx = (j + u - 0.5 * size) / focal[v]
                        cy = -(i + w - 0.5 * size) / focal[v]
                        dx = poses[v, 0, 0] * cx + poses[v, 0, 1] * cy - poses[v, 0, 2]
                        dy = poses[v, 1, 0] * cx + poses[v, 1, 1] * cy - poses[v, 1, 2]
                        dz = poses[v, 2, 0] * cx + poses[v, 2, 1] * cy - poses[v, 2, 2]
                        n = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
                        r, g, b, t, toy, row = _sample(
                            rows, starts, palette, toys, colours, first, last, scenes, s, ox, oy, oz,
                            dx * n, dy * n, dz * n,
                        )  # fmt: skip
                        sr += min(max(r, 0.0), 1.0)
                        sg += min(max(g, 0.0), 1.0)
                        sb += min(max(b, 0.0), 1.0)
                        covered += 0.0 if toy == NO_TOY else 1.0
                    image[i, j, 0], image[i, j, 1], image[i, j, 2] = 0.25 * sr, 0.25 * sg, 0.25 * sb
                    mask[v, i, j] = 0.25 * covered
        for i in range(size):
            for j in range(size):
                for c in range(3):
                    colour[v, i, j, c] = np.uint8(min(max(image[i, j, c], 0.0), 1.0) * 255.0 + 0.5)
