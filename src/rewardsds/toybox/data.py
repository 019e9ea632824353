"""Data sets of the toybox world: four orthogonal views and a single front view of every scene, with captions."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

from rewardsds.scenes.cameras import orbit
from rewardsds.toybox import captions
from rewardsds.toybox.render import render
from rewardsds.toybox.specification import KINDS, SceneSpec
from rewardsds.toybox.splits import SPLITS
from rewardsds.toybox.world import ToyScene, build

SIZE = 64
VIEWS = 5  # four around, one from the front
CHUNK = 128
ELEVATION = (0.0, 30.0)  # degrees
FIELD_OF_VIEW = (30.0, 50.0)  # degrees
RELATIVE_DISTANCE = (0.9, 1.1)
FRONT_AZIMUTH = 50.0  # degrees either side


@dataclass(frozen=True)
class ToyboxData:
    """A data set on disk, memory-mapped.

    views: (M, 5, 64, 64, 3) uint8; views 0–3 are four orthogonal ones, view 4 is a single one from the front.
    poses: (M, 5, 4, 4) float32 camera-to-world (`scenes.cameras`).
    visible: (M, 5, 3) float32, share of the picture's pixels that show toy i.
    scenes: for each scene its `spec`, `toys` as (kind, colour) pairs in the order of `visible`, their `yaws` in
        radians from facing +X, and its `caption`.
    kinds: the kinds of toy that were drawn from.
    """

    views: np.ndarray
    poses: np.ndarray
    visible: np.ndarray
    scenes: list[dict[str, Any]]
    kinds: tuple[str, ...] = KINDS

    def __len__(self) -> int:
        return len(self.views)

    @property
    def has_yaws(self) -> bool:
        """Whether its scenes say which way their toys face; older data sets do not."""
        return all("yaws" in scene for scene in self.scenes)


def generate(
    folder: Path | str,
    sets: int,
    seed: int,
    split: str = "train",
    kinds: Sequence[str] = KINDS,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ToyboxData:
    """Writes `sets` scenes of one split of the grammar; a folder that is already complete is just loaded.

    Scene i depends on (seed, split, kinds, i) alone, so an interrupted generation can be begun anew and a longer one
    starts with the same scenes. workers: threads of the renderer. progress: called with (done, sets).
    """
    folder = Path(folder)
    marker = folder / "scenes.jsonl"
    if marker.exists():
        data = load(folder)
        if len(data) == sets:
            return data
        raise ValueError(
            f"{folder} already holds {len(data)} scenes, {sets} were asked for; delete it or name another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if workers:
        numba.set_num_threads(min(workers, numba.get_num_threads()))
    views = np.lib.format.open_memmap(
        folder / "views.npy", mode="w+", dtype=np.uint8, shape=(sets, VIEWS, SIZE, SIZE, 3)
    )
    poses = np.zeros((sets, VIEWS, 4, 4), np.float32)
    visible = np.zeros((sets, VIEWS, 3), np.float32)
    lines: list[str] = []
    for start in range(0, sets, CHUNK):
        stop = min(start + CHUNK, sets)
        scenes, angles = [], []
        for index in range(start, stop):
            rng = np.random.default_rng((seed, SPLITS.index(split), index))
            spec = _sample(split, kinds, rng)
            scene = build(spec, rng)
            scenes.append(scene)
            angles.append(_cameras(rng, scene))
            toys = [{"kind": toy.kind, "colour": toy.colour, "yaw": toy.yaw} for toy in scene.toys]
            line = {"spec": spec.to_dict(), "toys": toys, "caption": captions.describe(spec, rng)}
            lines.append(json.dumps(line))
        azimuth, elevation, distance, fov = (
            torch.tensor(np.stack(column), dtype=torch.float32) for column in zip(*angles, strict=True)
        )
        cameras = orbit(azimuth, elevation, distance, fov)
        matrices = cameras.camera_to_world.numpy()
        pictures = render(
            scenes,
            np.repeat(np.arange(len(scenes)), VIEWS),
            matrices.reshape(-1, 4, 4),
            cameras.field_of_view.numpy().reshape(-1),
            SIZE,
        )
        views[start:stop] = pictures.colour.reshape(-1, VIEWS, SIZE, SIZE, 3)
        poses[start:stop] = matrices
        seen = pictures.toy.reshape(-1, VIEWS, SIZE * SIZE)
        for toy in range(3):
            visible[start:stop, :, toy] = (seen == toy).mean(-1)
        if progress is not None:
            progress(stop, sets)
    views.flush()
    np.save(folder / "poses.npy", poses)
    np.save(folder / "visible.npy", visible)
    about = {"sets": sets, "seed": seed, "split": split, "kinds": list(kinds)}
    (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n")
    # Written last and at one stroke: its presence says that the folder is complete.
    temporary = marker.with_suffix(".tmp")
    temporary.write_text("\n".join(lines) + "\n")
    os.replace(temporary, marker)
    return load(folder)


def load(folder: Path | str) -> ToyboxData:
    """Opens a data set that `generate` has written."""
    folder = Path(folder)
    if not (folder / "scenes.jsonl").exists():
        raise ValueError(
            f"{folder} is not a complete toybox data set; write one with `rewardsds toybox train`"
        )
    scenes = []
    for line in (folder / "scenes.jsonl").read_text().splitlines():
        entry = json.loads(line)
        toys = [(toy["kind"], toy["colour"]) for toy in entry["toys"]]
        scene = {"spec": SceneSpec.from_dict(entry["spec"]), "toys": toys, "caption": entry["caption"]}
        if all("yaw" in toy for toy in entry["toys"]):  # older data sets lack them
            scene["yaws"] = [toy["yaw"] for toy in entry["toys"]]
        scenes.append(scene)
    return ToyboxData(
        views=np.load(folder / "views.npy", mmap_mode="r"),
        poses=np.load(folder / "poses.npy"),
        visible=np.load(folder / "visible.npy"),
        scenes=scenes,
        kinds=tuple(json.loads((folder / "about.json").read_text())["kinds"]),
    )


def _sample(split: str, kinds: Sequence[str], rng: np.random.Generator) -> SceneSpec:
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the splits are {', '.join(SPLITS)}")
    spec = captions.sample_spec(rng, kinds)
    # Scenes of one group belong to every split: there is no combination to hold out. The others are drawn again
    # among their like until one belongs, so that every split has the same share of each.
    single = len(spec.groups) == 1
    while not single and captions.split_of(spec) != split:
        spec = captions.sample_spec(rng, kinds)
        while len(spec.groups) == 1:
            spec = captions.sample_spec(rng, kinds)
    return spec


def _cameras(
    rng: np.random.Generator, scene: ToyScene
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    low = 4.0 if scene.ground != "none" else ELEVATION[0]
    start = rng.uniform(0, 2 * math.pi)
    front = math.radians(rng.uniform(-FRONT_AZIMUTH, FRONT_AZIMUTH))
    azimuth = np.array([*(start + np.arange(4) * math.pi / 2), front])

    def both(around: float, single: float) -> np.ndarray:
        return np.array([around] * 4 + [single])

    elevation = np.radians(both(rng.uniform(low, ELEVATION[1]), rng.uniform(low, ELEVATION[1])))
    fov = np.radians(both(rng.uniform(*FIELD_OF_VIEW), rng.uniform(*FIELD_OF_VIEW)))
    relative = both(rng.uniform(*RELATIVE_DISTANCE), rng.uniform(*RELATIVE_DISTANCE))
    return azimuth, elevation, relative / np.tan(0.5 * fov), fov
