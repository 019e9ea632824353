"""The kinds of toy: each a small signed-distance program with coloured parts.

A program is a table of primitives in the toy's own frame: +Z up, the front looks along +X, the toy stands on
z = 0 and is about one unit tall or wide. Distances follow Quilez, "Distance functions" (public formulas).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from rewardsds.toybox.specification import KINDS

ELLIPSOID, BOX, CONE, TORUS, ARC, CAPSULE = range(6)
UNION, SMOOTH_UNION, SUBTRACT, INTERSECT = range(4)
PLAIN, WINDOWS, BAND, DOTS = range(4)
ROW = 22  # type op smoothness colour pattern | 4 parameters | 3 translation | 9 rotation | bounding radius

MAIN = -1  # the colour that captions name; other parts have a colour of their own:
PALETTE_NAMES = (
    "ink", "chalk", "beak", "wood", "leaf", "glass", "tyre", "cream", "dough", "steel", "carrot", "face",
)  # fmt: skip
PALETTE = np.array(
    [
        (0.07, 0.07, 0.08), (0.96, 0.96, 0.95), (0.98, 0.55, 0.08), (0.42, 0.26, 0.13), (0.20, 0.52, 0.16),
        (0.62, 0.80, 0.92), (0.12, 0.12, 0.13), (0.93, 0.88, 0.74), (0.85, 0.65, 0.38), (0.62, 0.64, 0.67),
        (0.95, 0.48, 0.10), (0.22, 0.19, 0.18),
    ],
    dtype=np.float32,
)  # fmt: skip

COLOUR_RGB: dict[str, tuple[float, float, float]] = {
    "red": (0.84, 0.09, 0.10),
    "orange": (0.98, 0.50, 0.05),
    "yellow": (0.98, 0.86, 0.12),
    "green": (0.13, 0.60, 0.20),
    "blue": (0.12, 0.30, 0.86),
    "purple": (0.50, 0.14, 0.68),
    "pink": (0.98, 0.56, 0.74),
    "brown": (0.45, 0.26, 0.12),
    "black": (0.09, 0.09, 0.10),
    "white": (0.95, 0.95, 0.94),
    "grey": (0.50, 0.50, 0.52),
}

NATURAL_COLOURS: dict[str, tuple[str, ...]] = {
    "apple": ("red", "green"),
    "backpack": ("blue", "red", "green"),
    "bag": ("brown", "black"),
    "ball": ("red", "blue", "orange"),
    "banana": ("yellow",),
    "book": ("red", "blue", "green"),
    "car": ("red", "blue", "white", "black"),
    "chair": ("brown",),
    "cloud": ("white",),
    "cone": ("orange",),
    "couch": ("grey", "brown", "red"),
    "cube": ("red", "blue", "green"),
    "cup": ("white", "blue"),
    "cylinder": ("grey", "blue"),
    "dog": ("brown", "white", "black"),
    "donut": ("pink", "brown"),
    "hat": ("black", "brown"),
    "house": ("white", "yellow"),
    "mushroom": ("red", "brown"),
    "penguin": ("black",),
    "rocket": ("white", "grey"),
    "sheep": ("white",),
    "skyscraper": ("grey", "blue"),
    "snowman": ("white",),
    "table": ("brown",),
    "tree": ("green",),
    "vase": ("blue", "white"),
}


@dataclass(frozen=True)
class Kind:
    """A signed-distance program.

    rows: (P, ROW) float32 table of primitives.
    rest: height at which another toy stands on this one; None means its highest point.
    head: where a hat sits: x, y, z and the hat's size, for kinds that can wear one.
    turns: how far the toy may be turned away from the front, in radians either way.
    """

    name: str
    rows: np.ndarray
    rest: float | None = None
    head: tuple[float, float, float, float] | None = None
    turns: float = math.radians(35)


@dataclass
class _Program:
    rows: list[list[float]] = field(default_factory=list)

    def _add(
        self,
        kind: int,
        parameters: Sequence[float],
        at: Sequence[float],
        colour: str | None,
        turn: Sequence[float],
        op: int,
        smooth: float,
        pattern: int,
    ) -> _Program:
        index = MAIN if colour is None else PALETTE_NAMES.index(colour)
        padded = [*parameters, 0.0, 0.0, 0.0, 0.0][:4]
        rotation = _rotation(*(math.radians(angle) for angle in turn)).reshape(-1)
        if op == UNION and smooth > 0:
            op = SMOOTH_UNION
        self.rows.append([kind, op, smooth, index, pattern, *padded, *at, *rotation, _reach(kind, padded)])
        return self

    def ellipsoid(self, radii, at, colour=None, turn=(0, 0, 0), op=UNION, smooth=0.0, pattern=PLAIN):
        return self._add(ELLIPSOID, radii, at, colour, turn, op, smooth, pattern)

    def ball(self, radius, at, colour=None, op=UNION, smooth=0.0, pattern=PLAIN):
        return self._add(ELLIPSOID, (radius,) * 3, at, colour, (0, 0, 0), op, smooth, pattern)

    def box(self, half, at, colour=None, turn=(0, 0, 0), rounding=0.03, op=UNION, smooth=0.0, pattern=PLAIN):
        return self._add(BOX, (*half, rounding), at, colour, turn, op, smooth, pattern)

    def cone(self, half_height, bottom, top, at, colour=None, turn=(0, 0, 0), rounding=0.02, op=UNION,
             smooth=0.0, pattern=PLAIN):  # fmt: skip
        parameters = (half_height, bottom, top, rounding)
        return self._add(CONE, parameters, at, colour, turn, op, smooth, pattern)

    def torus(self, major, minor, at, colour=None, turn=(0, 0, 0), op=UNION, smooth=0.0, pattern=PLAIN):
        return self._add(TORUS, (major, minor), at, colour, turn, op, smooth, pattern)

    def arc(self, major, minor, half_angle, at, colour=None, turn=(0, 0, 0), op=UNION, smooth=0.0):
        """A part of a torus in the x–y plane, symmetric about +y, `half_angle` degrees to either side."""
        parameters = (major, minor, math.radians(half_angle))
        return self._add(ARC, parameters, at, colour, turn, op, smooth, PLAIN)

    def capsule(self, half_height, radius, at, colour=None, turn=(0, 0, 0), op=UNION, smooth=0.0):
        return self._add(CAPSULE, (half_height, radius), at, colour, turn, op, smooth, PLAIN)

    def table(self) -> np.ndarray:
        return np.array(self.rows, dtype=np.float32)


def _reach(kind: int, parameters: Sequence[float]) -> float:
    """Radius of a sphere about a primitive's own origin that holds all of it."""
    a, b, c, _ = parameters
    if kind == ELLIPSOID:
        return max(a, b, c)
    if kind == BOX:
        return math.sqrt(a * a + b * b + c * c)
    if kind == CONE:
        return math.hypot(a, max(b, c))
    return a + b  # torus, arc, capsule


def _rotation(x: float, y: float, z: float) -> np.ndarray:
    cx, sx, cy, sy, cz, sz = math.cos(x), math.sin(x), math.cos(y), math.sin(y), math.cos(z), math.sin(z)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _eyes(p: _Program, x: float, y: float, z: float, radius: float, colour: str = "ink") -> _Program:
    return p.ball(radius, (x, y, z), colour).ball(radius, (x, -y, z), colour)


def _apple() -> Kind:
    p = _Program()
    p.ellipsoid((0.42, 0.42, 0.39), (0, 0, 0.40))
    p.cone(0.12, 0.02, 0.16, (0, 0, 0.80), op=SUBTRACT, smooth=0.12)
    p.capsule(0.10, 0.035, (0.02, 0, 0.82), "wood", turn=(0, 12, 0))
    p.ellipsoid((0.05, 0.17, 0.04), (0.02, 0.16, 0.88), "leaf", turn=(25, 0, 0))
    return Kind("apple", p.table(), rest=0.74)


def _backpack() -> Kind:
    p = _Program()
    p.box((0.20, 0.34, 0.42), (0, 0, 0.43), rounding=0.16)
    p.box((0.09, 0.25, 0.17), (0.24, 0, 0.27), rounding=0.07)
    p.box((0.105, 0.26, 0.022), (0.235, 0, 0.43), "ink", rounding=0.01)
    p.arc(0.09, 0.028, 100, (0, 0, 0.86), "ink", turn=(90, 0, 0))
    for side in (-1, 1):
        p.arc(0.25, 0.045, 80, (-0.16, 0.19 * side, 0.48), "ink", turn=(90, 0, 90))
        p.box((0.11, 0.06, 0.14), (0.0, 0.37 * side, 0.22), rounding=0.05)
    p.box((0.015, 0.03, 0.05), (0.335, 0, 0.40), "steel", rounding=0.01)
    return Kind("backpack", p.table())


def _bag() -> Kind:
    p = _Program()
    p.box((0.17, 0.44, 0.27), (0, 0, 0.28), rounding=0.07)
    for x in (-0.10, 0.10):
        p.arc(0.24, 0.04, 105, (x, 0, 0.54), turn=(90, 0, 90))
    p.box((0.185, 0.45, 0.025), (0, 0, 0.43), "cream", rounding=0.012)
    p.box((0.03, 0.06, 0.05), (0.17, 0, 0.40), "steel", rounding=0.015)
    return Kind("bag", p.table(), rest=0.55)


def _ball() -> Kind:
    return Kind("ball", _Program().ball(0.44, (0, 0, 0.44), pattern=BAND).table())


def _banana() -> Kind:
    p = _Program()
    p.arc(0.55, 0.125, 52, (0, 0, 0.68), turn=(-90, 0, 90))
    p.arc(0.56, 0.10, 60, (0, 0, 0.69), turn=(-90, 0, 90), smooth=0.05)
    for side, radius in ((-1, 0.055), (1, 0.065)):
        p.ball(radius, (0, side * 0.535, 0.40), "wood")
    return Kind("banana", p.table(), rest=0.25)


def _book() -> Kind:
    p = _Program()
    p.box((0.33, 0.44, 0.035), (0, 0, 0.035), rounding=0.015)
    p.box((0.33, 0.44, 0.035), (0, 0, 0.225), rounding=0.015)
    p.box((0.33, 0.035, 0.13), (0, -0.42, 0.13), rounding=0.02)
    p.box((0.30, 0.39, 0.085), (0, 0.02, 0.13), "chalk", rounding=0.005)
    p.box((0.16, 0.22, 0.006), (0, 0.0, 0.262), "cream", rounding=0.004)
    return Kind("book", p.table())


def _car() -> Kind:
    p = _Program()
    p.box((0.58, 0.27, 0.13), (0, 0, 0.26), rounding=0.09)
    p.box((0.30, 0.23, 0.13), (-0.06, 0, 0.46), rounding=0.10, smooth=0.03)
    p.box((0.25, 0.236, 0.07), (-0.06, 0, 0.47), "glass", rounding=0.04)
    p.box((0.306, 0.18, 0.07), (-0.06, 0, 0.47), "glass", rounding=0.04)
    for x in (-0.33, 0.34):
        for side in (-1, 1):
            p.cone(0.05, 0.145, 0.145, (x, 0.25 * side, 0.145), "tyre", turn=(90, 0, 0), rounding=0.02)
            p.cone(0.012, 0.06, 0.06, (x, 0.305 * side, 0.145), "steel", turn=(90, 0, 0), rounding=0.004)
    for side in (-1, 1):
        p.ball(0.055, (0.56, 0.17 * side, 0.28), "cream")
    return Kind("car", p.table(), rest=0.59, turns=math.radians(70))


def _chair() -> Kind:
    p = _Program()
    p.box((0.29, 0.29, 0.045), (0, 0, 0.44), rounding=0.02)
    p.box((0.045, 0.29, 0.27), (-0.25, 0, 0.73), rounding=0.02)
    for x in (-0.24, 0.24):
        for y in (-0.24, 0.24):
            p.box((0.045, 0.045, 0.22), (x, y, 0.22), rounding=0.015)
    return Kind("chair", p.table(), rest=0.485)


def _cloud() -> Kind:
    p = _Program()
    p.ball(0.26, (0, 0, 0.36))
    p.ball(0.20, (0.02, 0.29, 0.30), smooth=0.06)
    p.ball(0.20, (0.0, -0.29, 0.30), smooth=0.06)
    p.ball(0.19, (0.06, 0.12, 0.48), smooth=0.05)
    p.ball(0.15, (-0.04, -0.16, 0.48), smooth=0.05)
    p.ellipsoid((0.20, 0.46, 0.14), (0, 0, 0.20), smooth=0.08)
    return Kind("cloud", p.table(), rest=0.58)


def _cone() -> Kind:
    return Kind("cone", _Program().cone(0.46, 0.40, 0.015, (0, 0, 0.46), rounding=0.015).table())


def _couch() -> Kind:
    p = _Program()
    p.box((0.30, 0.52, 0.14), (0.02, 0, 0.22), rounding=0.06)
    p.box((0.11, 0.58, 0.30), (-0.27, 0, 0.36), rounding=0.09)
    for side in (-1, 1):
        p.box((0.32, 0.10, 0.22), (0.0, 0.54 * side, 0.28), rounding=0.09)
        p.box((0.24, 0.20, 0.05), (0.06, 0.215 * side, 0.37), rounding=0.045)
        for x in (-0.26, 0.24):
            p.cone(0.05, 0.035, 0.045, (x, 0.5 * side, 0.05), "wood")
    return Kind("couch", p.table(), rest=0.42)


def _cube() -> Kind:
    return Kind("cube", _Program().box((0.37,) * 3, (0, 0, 0.37), rounding=0.03).table())


def _cup() -> Kind:
    p = _Program()
    p.cone(0.36, 0.28, 0.34, (0, 0, 0.36), rounding=0.03)
    p.cone(0.34, 0.22, 0.285, (0, 0, 0.46), "face", op=SUBTRACT)
    p.torus(0.19, 0.05, (0.0, 0.38, 0.38), turn=(0, 90, 0))
    p.cone(0.36, 0.235, 0.285, (0, 0, 0.45), "face", op=SUBTRACT)
    p.cone(0.02, 0.265, 0.27, (0, 0, 0.52), "wood", rounding=0.01)
    return Kind("cup", p.table(), rest=0.70, turns=math.radians(50))


def _cylinder() -> Kind:
    return Kind("cylinder", _Program().cone(0.44, 0.31, 0.31, (0, 0, 0.44), rounding=0.02).table())


def _dog() -> Kind:
    p = _Program()
    p.capsule(0.24, 0.19, (-0.06, 0, 0.42), turn=(0, 90, 0))
    p.ellipsoid((0.20, 0.19, 0.20), (0.30, 0, 0.70), smooth=0.06)
    p.ellipsoid((0.15, 0.10, 0.09), (0.47, 0, 0.64), smooth=0.03)
    p.ball(0.05, (0.61, 0, 0.67), "ink")
    for x in (-0.26, 0.17):
        for side in (-1, 1):
            p.capsule(0.15, 0.075, (x, 0.115 * side, 0.21), smooth=0.03)
    for side in (-1, 1):
        p.ellipsoid((0.07, 0.045, 0.16), (0.24, 0.205 * side, 0.68), "face", turn=(14 * side, 0, 0))
    p.capsule(0.14, 0.05, (-0.42, 0, 0.60), turn=(0, -35, 0), smooth=0.03)
    p.torus(0.15, 0.035, (0.19, 0, 0.565), "steel", turn=(0, 25, 0))
    _eyes(p, 0.455, 0.085, 0.755, 0.035)
    return Kind("dog", p.table(), rest=0.60, head=(0.27, 0, 0.86, 0.46), turns=math.radians(55))


def _donut() -> Kind:
    p = _Program()
    p.torus(0.29, 0.16, (0, 0, 0.42), "dough", turn=(0, 62, 0))
    p.torus(0.29, 0.155, (0.045, 0, 0.445), turn=(0, 62, 0))
    return Kind("donut", p.table(), rest=0.80)


def _hat() -> Kind:
    p = _Program()
    p.cone(0.025, 0.46, 0.46, (0, 0, 0.03), rounding=0.02)
    p.cone(0.22, 0.27, 0.25, (0, 0, 0.26), rounding=0.03)
    p.cone(0.045, 0.282, 0.278, (0, 0, 0.115), "cream", rounding=0.01)
    return Kind("hat", p.table())


def _house() -> Kind:
    p = _Program()
    p.box((0.34, 0.40, 0.27), (0, 0, 0.27), rounding=0.015)
    p.box((0.335, 0.31, 0.31), (0, 0, 0.53), "face", turn=(45, 0, 0), rounding=0.01)
    p.box((0.02, 0.075, 0.14), (0.335, 0, 0.14), "wood", rounding=0.01)
    for y in (-0.24, 0.24):
        p.box((0.02, 0.075, 0.075), (0.335, y, 0.31), "glass", rounding=0.01)
        p.box((0.02, 0.075, 0.075), (-0.335, y, 0.31), "glass", rounding=0.01)
    p.box((0.06, 0.06, 0.14), (-0.12, 0.24, 0.85), "face", rounding=0.01)
    return Kind("house", p.table())


def _mushroom() -> Kind:
    p = _Program()
    p.cone(0.24, 0.17, 0.12, (0, 0, 0.24), "cream", rounding=0.05)
    p.ellipsoid((0.44, 0.44, 0.36), (0, 0, 0.48), pattern=DOTS)
    p.box((0.6, 0.6, 0.30), (0, 0, 0.14), "cream", op=SUBTRACT)
    p.cone(0.22, 0.17, 0.12, (0, 0, 0.24), "cream", rounding=0.05)
    return Kind("mushroom", p.table())


def _penguin() -> Kind:
    p = _Program()
    p.ellipsoid((0.27, 0.29, 0.42), (0, 0, 0.42))
    p.ball(0.22, (0.02, 0, 0.84), smooth=0.08)
    p.ellipsoid((0.20, 0.22, 0.34), (0.12, 0, 0.40), "chalk")
    for side in (-1, 1):
        p.ellipsoid((0.10, 0.09, 0.11), (0.155, 0.08 * side, 0.86), "chalk")
        p.ellipsoid((0.10, 0.05, 0.25), (0.02, 0.30 * side, 0.47), turn=(16 * side, 0, 0))
        p.ellipsoid((0.15, 0.10, 0.045), (0.13, 0.13 * side, 0.045), "beak")
    p.cone(0.085, 0.07, 0.012, (0.29, 0, 0.81), "beak", turn=(0, 90, 0))
    _eyes(p, 0.243, 0.085, 0.885, 0.032)
    return Kind("penguin", p.table(), head=(0.02, 0, 1.01, 0.50))


def _rocket() -> Kind:
    p = _Program()
    p.cone(0.30, 0.19, 0.19, (0, 0, 0.48), rounding=0.03)
    p.cone(0.18, 0.19, 0.02, (0, 0, 0.94), "face", rounding=0.02)
    p.cone(0.06, 0.15, 0.11, (0, 0, 0.14), "steel")
    for angle in (45, 135, 225, 315):
        a = math.radians(angle)
        at = (0.24 * math.cos(a), 0.24 * math.sin(a), 0.22)
        p.box((0.12, 0.028, 0.17), at, "face", turn=(0, 0, angle), rounding=0.02)
    p.ball(0.09, (0.145, 0, 0.62), "glass")
    p.torus(0.09, 0.025, (0.185, 0, 0.62), "steel", turn=(0, 90, 0))
    return Kind("rocket", p.table())


def _sheep() -> Kind:
    p = _Program()
    p.ellipsoid((0.36, 0.27, 0.26), (-0.05, 0, 0.48))
    for x, y, z in (
        (-0.30, 0.12, 0.58), (-0.30, -0.12, 0.58), (-0.05, 0.20, 0.62), (-0.05, -0.20, 0.62), (0.18, 0.12, 0.60),
        (0.18, -0.12, 0.60), (-0.18, 0.24, 0.42), (-0.18, -0.24, 0.42), (0.10, 0.24, 0.42), (0.10, -0.24, 0.42),
        (-0.38, 0.0, 0.44),
    ):  # fmt: skip
        p.ball(0.135, (x, y, z), smooth=0.03)
    p.ellipsoid((0.16, 0.12, 0.15), (0.40, 0, 0.66), "face")
    p.ball(0.12, (0.33, 0, 0.79), smooth=0.0)
    for side in (-1, 1):
        p.ellipsoid((0.05, 0.10, 0.04), (0.36, 0.16 * side, 0.70), "face", turn=(-20 * side, 0, 0))
        p.ball(0.032, (0.53, 0.06 * side, 0.71), "chalk")
        for x in (-0.24, 0.14):
            p.capsule(0.12, 0.055, (x, 0.13 * side, 0.17), "face")
    return Kind("sheep", p.table(), rest=0.74, head=(0.35, 0, 0.88, 0.42), turns=math.radians(55))


def _skyscraper() -> Kind:
    p = _Program()
    p.box((0.30, 0.30, 0.36), (0, 0, 0.36), rounding=0.01, pattern=WINDOWS)
    p.box((0.22, 0.22, 0.28), (0, 0, 0.90), rounding=0.01, pattern=WINDOWS)
    p.box((0.13, 0.13, 0.08), (0, 0, 1.22), rounding=0.01)
    p.cone(0.10, 0.025, 0.012, (0, 0, 1.36), "steel")
    return Kind("skyscraper", p.table())


def _snowman() -> Kind:
    p = _Program()
    p.ball(0.32, (0, 0, 0.30))
    p.ball(0.235, (0, 0, 0.70), smooth=0.04)
    p.ball(0.175, (0, 0, 1.00), smooth=0.03)
    p.cone(0.10, 0.04, 0.006, (0.25, 0, 1.0), "carrot", turn=(0, 90, 0))
    _eyes(p, 0.155, 0.07, 1.06, 0.03)
    for z in (0.62, 0.74):
        p.ball(0.032, (0.225, 0, z), "ink")
    for side in (-1, 1):
        p.capsule(0.15, 0.022, (0.0, 0.34 * side, 0.82), "wood", turn=(-55 * side, 0, 0))
    return Kind("snowman", p.table(), head=(0, 0, 1.13, 0.42))


def _table() -> Kind:
    p = _Program()
    p.box((0.42, 0.54, 0.045), (0, 0, 0.56), rounding=0.02)
    for x in (-0.34, 0.34):
        for y in (-0.46, 0.46):
            p.box((0.05, 0.05, 0.27), (x, y, 0.27), rounding=0.015)
    p.box((0.36, 0.48, 0.04), (0, 0, 0.49), rounding=0.01)
    return Kind("table", p.table())


def _tree() -> Kind:
    p = _Program()
    p.cone(0.26, 0.10, 0.07, (0, 0, 0.26), "wood")
    p.ball(0.28, (0, 0, 0.72))
    p.ball(0.20, (0.13, 0.17, 0.62), smooth=0.05)
    p.ball(0.20, (0.10, -0.18, 0.64), smooth=0.05)
    p.ball(0.20, (-0.18, 0.02, 0.64), smooth=0.05)
    p.ball(0.19, (0, 0, 0.94), smooth=0.06)
    return Kind("tree", p.table())


def _vase() -> Kind:
    p = _Program()
    p.ellipsoid((0.30, 0.30, 0.32), (0, 0, 0.36))
    p.cone(0.14, 0.15, 0.11, (0, 0, 0.70), smooth=0.10, rounding=0.02)
    p.cone(0.06, 0.11, 0.20, (0, 0, 0.88), smooth=0.05, rounding=0.015)
    p.cone(0.03, 0.20, 0.17, (0, 0, 0.04), smooth=0.05)
    p.cone(0.16, 0.075, 0.15, (0, 0, 0.86), "face", op=SUBTRACT)
    return Kind("vase", p.table())


_BUILDERS = {
    "apple": _apple, "backpack": _backpack, "bag": _bag, "ball": _ball, "banana": _banana, "book": _book,
    "car": _car, "chair": _chair, "cloud": _cloud, "cone": _cone, "couch": _couch, "cube": _cube, "cup": _cup,
    "cylinder": _cylinder, "dog": _dog, "donut": _donut, "hat": _hat, "house": _house, "mushroom": _mushroom,
    "penguin": _penguin, "rocket": _rocket, "sheep": _sheep, "skyscraper": _skyscraper, "snowman": _snowman,
    "table": _table, "tree": _tree, "vase": _vase,
}  # fmt: skip


@lru_cache(maxsize=1)
def kinds() -> tuple[Kind, ...]:
    """All kinds, in the order of `specification.KINDS`."""
    return tuple(_BUILDERS[name]() for name in KINDS)


@lru_cache(maxsize=1)
def program_table() -> tuple[np.ndarray, np.ndarray]:
    """All programs in one table: rows (R, ROW) and the first row of each kind (K + 1,)."""
    tables = [kind.rows for kind in kinds()]
    starts = np.cumsum([0, *(len(rows) for rows in tables)]).astype(np.int64)
    return np.ascontiguousarray(np.concatenate(tables)), starts
