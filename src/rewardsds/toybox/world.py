"""From what a caption says to a definite scene: positions, sizes, poses, light and ground."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from rewardsds.toybox.kinds import COLOUR_RGB, NATURAL_COLOURS, Kind, kinds
from rewardsds.toybox.specification import KINDS, SceneSpec

ACCESSORY_SIZE = 0.62  # of a toy that another one is "with"
STACKED_SIZE = 0.72  # of a toy that stands on another


@dataclass(frozen=True)
class Toy:
    """One toy in the world. position: of its base; yaw: radians from facing +X; size: units per own unit."""

    kind: str
    colour: str
    rgb: tuple[float, float, float]
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    size: float = 1.0

    @property
    def kind_index(self) -> int:
        return KINDS.index(self.kind)

    def to_world(self, point: tuple[float, float, float] | np.ndarray) -> tuple[float, float, float]:
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        x, y, z = point
        return (
            self.position[0] + self.size * (c * x - s * y),
            self.position[1] + self.size * (s * x + c * y),
            self.position[2] + self.size * z,
        )

    def bounding_sphere(self) -> tuple[tuple[float, float, float], float]:
        """Centre and radius in the world."""
        low, high, radius = kind_bounds(self.kind)
        return self.to_world(0.5 * (low + high)), self.size * radius

    def footprint(self) -> float:
        """Radius of the circle around the position that the toy covers on the ground."""
        low, high, _ = kind_bounds(self.kind)
        return self.size * float(np.abs(np.concatenate([low[:2], high[:2]])).max())

    def half_width(self) -> float:
        """Half of the toy's extent along the world's Y axis, at its yaw."""
        low, high, _ = kind_bounds(self.kind)
        deep, wide = np.maximum(np.abs(low[:2]), np.abs(high[:2]))
        return self.size * float(deep * abs(math.sin(self.yaw)) + wide * math.cos(self.yaw))


@dataclass(frozen=True)
class ToyScene:
    """A definite scene around the origin.

    light: unit vector towards the light. background: RGB in [0, 1]. ground_height: z of the disc's top.
    """

    toys: tuple[Toy, ...]
    ground: str = "none"
    ground_height: float = 0.0
    ground_radius: float = 0.9
    light: tuple[float, float, float] = (0.48, -0.36, 0.8)
    ambient: float = 0.5
    specular: float = 0.1
    background: tuple[float, float, float] = (0.9, 0.9, 0.9)
    texture_seed: float = 0.0


@cache
def kind_bounds(kind: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Lowest and highest corner of a kind's box in its own frame, and the radius of a sphere about its middle."""
    from rewardsds.toybox.render import kind_distance

    axis = np.linspace(-0.85, 0.85, 69, dtype=np.float32)
    height = np.linspace(-0.1, 1.6, 69, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis, height, indexing="ij"), -1).reshape(-1, 3)
    inside = points[kind_distance(KINDS.index(kind), points) < 0.02]
    low, high = inside.min(0), inside.max(0)
    radius = float(np.linalg.norm(inside - 0.5 * (low + high), axis=1).max())
    return low, high, radius


def build(spec: SceneSpec, rng: np.random.Generator) -> ToyScene:
    """A scene that the specification describes; everything it leaves open is drawn from `rng`."""
    groups = [[_toy(group.kind, group.colour, rng) for _ in range(group.count)] for group in spec.groups]
    toys = _arrange(groups, spec, rng)
    toys, floor, reach = _centre(toys, rng)
    angle = rng.uniform(0, 2 * math.pi)
    height = math.radians(rng.uniform(38, 72))
    light = (math.cos(height) * math.cos(angle), math.cos(height) * math.sin(angle), math.sin(height))
    grey = rng.uniform(0.35, 1.0)
    background = tuple(float(np.clip(grey + tint, 0, 1)) for tint in rng.uniform(-0.06, 0.06, 3))
    return ToyScene(
        toys=tuple(toys),
        ground=spec.ground,
        ground_height=floor,
        ground_radius=min(1.32 * reach + rng.uniform(0.0, 0.12), 1.0),
        light=light,
        ambient=float(rng.uniform(0.5, 0.72)),
        specular=float(rng.uniform(0.0, 0.25)),
        background=(background[0], background[1], background[2]),
        texture_seed=float(rng.uniform(0, 100)),
    )


def _kind(toy: Toy) -> Kind:
    return kinds()[toy.kind_index]


def _toy(kind: str, colour: str | None, rng: np.random.Generator) -> Toy:
    if colour is None:
        natural = NATURAL_COLOURS[kind]
        colour = natural[int(rng.integers(len(natural)))]
    shade = 1.0 + rng.uniform(-0.10, 0.10)
    tint = rng.uniform(-0.03, 0.03, 3)
    red, green, blue = (
        float(np.clip(c * shade + t, 0.02, 1.0)) for c, t in zip(COLOUR_RGB[colour], tint, strict=True)
    )
    description = kinds()[KINDS.index(kind)]
    return Toy(
        kind=kind,
        colour=colour,
        rgb=(red, green, blue),
        yaw=float(rng.uniform(-description.turns, description.turns)),
        size=float(rng.uniform(0.9, 1.12)),
    )


def _arrange(groups: list[list[Toy]], spec: SceneSpec, rng: np.random.Generator) -> list[Toy]:
    """Places the groups; order of the returned toys follows the caption."""
    mounted: dict[int, str] = {}  # groups that hang on groups[0] instead of standing in the row
    row: list[int] = [0]
    for index, relation in enumerate(spec.relations, start=1):
        if relation in ("wearing", "with", "on top of"):
            mounted[index] = relation
        elif relation == "right of":
            row.insert(0, index)
        elif relation == "left of" or rng.random() < 0.5:
            row.append(index)
        else:
            row.insert(0, index)

    # "A on top of B": B takes A's place in the row, A is put on it afterwards.
    base = next((i for i, relation in mounted.items() if relation == "on top of"), None)
    if base is not None:
        row = [base if i == 0 else i for i in row]
        del mounted[base]

    tilt = rng.uniform(-0.35, 0.35)
    cursor = 0.0
    placed: dict[int, list[Toy]] = {}
    last = 0.0
    for index in row:
        toys = []
        for toy in groups[index]:
            reach = toy.half_width()
            cursor += 0.0 if last == 0.0 else last + reach + rng.uniform(0.0, 0.12)
            last = reach
            sideways, forward = cursor, rng.uniform(-0.15, 0.15)
            x = forward * math.cos(tilt) - sideways * math.sin(tilt)
            y = forward * math.sin(tilt) + sideways * math.cos(tilt)
            toys.append(replace(toy, position=(x, y, 0.0)))
        placed[index] = toys

    if base is not None:
        lower = placed[base][0]
        rest = _kind(lower).rest
        top = kind_bounds(lower.kind)[1][2] if rest is None else rest
        x, y, z = lower.to_world((0.0, 0.0, float(top)))
        upper = groups[0][0]
        size = upper.size * STACKED_SIZE
        jitter = rng.uniform(-0.04, 0.04, 2)
        placed[0] = [replace(upper, size=size, position=(x + jitter[0], y + jitter[1], z - 0.01))]

    for index, relation in mounted.items():
        head = placed[0][0]
        if relation == "wearing":
            anchor = _kind(head).head
            assert anchor is not None, f"{head.kind} has no place for a hat"
            hat = groups[index][0]
            position = head.to_world((anchor[0], anchor[1], anchor[2] - 0.045))
            placed[index] = [replace(hat, size=head.size * anchor[3] * hat.size, position=position)]
        else:
            accessories = []
            side = 1.0 if rng.random() < 0.5 else -1.0
            for count, toy in enumerate(groups[index]):
                size = toy.size * ACCESSORY_SIZE
                toy = replace(toy, size=size)
                direction = side * (1.0 if count == 0 else -1.0)
                distance = 0.82 * (head.footprint() + toy.footprint()) + 0.03
                x, y, _ = head.position
                around = direction * rng.uniform(0.9, 1.35)  # beside and a little in front
                position = (x + distance * math.cos(around), y + distance * math.sin(around), 0.0)
                accessories.append(replace(toy, position=position))
            placed[index] = accessories
    return [toy for index in range(len(groups)) for toy in placed[index]]


def _centre(toys: list[Toy], rng: np.random.Generator) -> tuple[list[Toy], float, float]:
    """Moves and scales the toys to fill the picture about the origin; also the floor's height and their reach."""
    bottom = min(toy.position[2] for toy in toys)
    top = max(toy.to_world(kind_bounds(toy.kind)[1])[2] for toy in toys)
    spheres = [toy.bounding_sphere() for toy in toys]
    low = np.min([np.asarray(centre) - radius for centre, radius in spheres], axis=0)
    high = np.max([np.asarray(centre) + radius for centre, radius in spheres], axis=0)
    middle = np.array([0.5 * (low[0] + high[0]), 0.5 * (low[1] + high[1]), 0.5 * (bottom + top)])
    reach = max(
        math.hypot(toy.position[0] - middle[0], toy.position[1] - middle[1]) + 0.92 * toy.footprint()
        for toy in toys
    )
    if len(toys) == 1:
        scale = float(rng.uniform(0.66, 0.84)) / (0.9 * spheres[0][1])
    else:
        scale = float(rng.uniform(0.74, 0.90)) / max(reach, 0.55 * (top - bottom))
    moved = [
        replace(
            toy,
            position=(
                scale * (toy.position[0] - middle[0]),
                scale * (toy.position[1] - middle[1]),
                scale * (toy.position[2] - middle[2]),
            ),
            size=toy.size * scale,
        )
        for toy in toys
    ]
    return moved, scale * (bottom - middle[2]), scale * reach
