"""Which points lie inside triangles that need not enclose them."""

from __future__ import annotations

import math

import numpy as np
import trimesh

DIRECTIONS = 16  # from which a point inside an open body is judged
BODIES = 64  # that are judged one by one, the largest; what is smaller is judged together


class Inside:
    """Which points lie inside one of a mesh's bodies.

    A closed body contains what a ray leaves. Of one with holes a point is inside if it sees the backs of its faces in
    more than half of the directions, as a generalised winding number above ½ says it (Jacobson et al., "Robust
    inside-outside segmentation", 2013): a hole is closed about where it is, and a sheet encloses nothing.
    """

    def __init__(self, whole: trimesh.Trimesh) -> None:
        bodies = _bodies(whole)
        self.tests = [body.contains if body.is_watertight else _Seen(body) for body in bodies]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """(M,) bool of points (M, 3)."""
        found = np.zeros(len(points), dtype=bool)
        for test in self.tests:
            left = (~found).nonzero()[0]
            found[left] = test(points[left])
        return found


def _bodies(whole: trimesh.Trimesh) -> list[trimesh.Trimesh]:
    bodies = sorted(whole.split(only_watertight=False), key=lambda body: -body.area)
    if len(bodies) <= BODIES:
        return bodies or [whole]
    small = bodies[BODIES - 1 :]
    starts = np.cumsum([0, *(len(body.vertices) for body in small)])
    rest = trimesh.Trimesh(
        np.concatenate([body.vertices for body in small]),
        np.concatenate([body.faces + start for body, start in zip(small, starts)]),
    )
    return [*bodies[: BODIES - 1], rest]


class _Seen:
    """Whether points see a body's backs; it is turned outwards first."""

    def __init__(self, body: trimesh.Trimesh) -> None:
        self.body = body.copy()
        if not self.body.is_winding_consistent:
            trimesh.repair.fix_winding(self.body)
        corners = self.body.triangles - self.body.triangles_center.mean(axis=0)
        volume = np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
        self.outwards = self.body.face_normals * (1.0 if volume >= 0 else -1.0)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        found = np.zeros(len(points), dtype=bool)
        low, high = self.body.bounds
        close = ((points >= low) & (points <= high)).all(axis=1).nonzero()[0]
        if len(close) == 0:
            return found
        votes = np.zeros(len(close), dtype=np.int64)
        for direction in _directions():
            face = self.body.ray.intersects_first(points[close], np.tile(direction, (len(close), 1)))
            votes += (face >= 0) & (self.outwards[face] @ direction > 0)
        found[close] = 2 * votes > DIRECTIONS
        return found


def _directions() -> np.ndarray:
    """Unit vectors (DIRECTIONS, 3), evenly around and along no axis, whose rays would run along edges of boxes."""
    index = np.arange(DIRECTIONS) + 0.5
    z = 1 - 2 * index / DIRECTIONS
    angle = index * math.pi * (3 - math.sqrt(5)) + 0.3
    across = np.sqrt(1 - z * z)
    return np.stack([across * np.cos(angle), across * np.sin(angle), z], axis=-1)
