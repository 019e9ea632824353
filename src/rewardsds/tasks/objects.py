"""The objects of 3D runs: how they are made, what they start from, and how they are read back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import torch
from rich.console import Console

from rewardsds.errors import CheckpointError, SettingsError
from rewardsds.runs import checkpoint
from rewardsds.runs.folder import RunFolder
from rewardsds.runs.loop import find_checkpoint
from rewardsds.runs.progress import say
from rewardsds.runs.randomness import generator
from rewardsds.scenes.base import Scene
from rewardsds.scenes.gaussians.scene import GaussianScene
from rewardsds.scenes.gaussians.settings import MAXIMUM_GAUSSIANS
from rewardsds.scenes.gaussians.starts import start_radius
from rewardsds.scenes.group import SceneGroup
from rewardsds.scenes.mesh.make import make_mesh
from rewardsds.scenes.mesh.scene import MeshScene
from rewardsds.scenes.mesh.shapes import ENDINGS, Part, Shape, is_gaussian_ply, read_shape
from rewardsds.scenes.mesh.textured import TexturedMesh
from rewardsds.scenes.nerf.scene import NeRFScene
from rewardsds.scenes.object3d import RADIUS, Object3D, into_ball
from rewardsds.scenes.settings import BackgroundSettings, CameraSettings
from rewardsds.tasks.settings import TextTo3DSettings

POINTS = 50_000  # of a surface, that a NeRF is fitted to


class Seen(TypedDict):
    """What every backbone is told alike."""

    camera: CameraSettings
    background: BackgroundSettings
    device: str


def make_objects(settings: TextTo3DSettings) -> list[Object3D]:
    """The objects of a run, one a seed, as their backbone has them at first. No model is loaded."""
    return [make_object(settings, seed) for seed in settings.seeds]


def make_object(settings: TextTo3DSettings, seed: int) -> Object3D:
    seen: Seen = {"camera": settings.camera, "background": settings.background, "device": settings.device}
    if settings.backbone == "gaussians":
        return GaussianScene([generator(seed, "init")], settings.gaussians, **seen)
    if settings.backbone == "nerf":
        return NeRFScene([generator(seed, "init")], settings.nerf, **seen)
    return MeshScene(None, settings.mesh, **seen)


def as_scene(objects: Sequence[Object3D]) -> Scene:
    """The objects of a run as the one scene that its loop and its checkpoints know."""
    return objects[0] if len(objects) == 1 else SceneGroup(objects)


def begin_from(
    settings: TextTo3DSettings, objects: Sequence[Object3D], console: Console | None = None
) -> None:
    """Brings new objects to `settings.init`, where it is given.

    Raises ValueError, in one line, for what is no shape, and for Gaussians of which nothing can be seen.
    """
    if settings.init is not None:
        _begin_from(settings.init, settings, objects, console or Console(stderr=True, highlight=False))
    for one in objects:
        if isinstance(one, GaussianScene):
            one.check_visible()


def _begin_from(
    init: Path, settings: TextTo3DSettings, objects: Sequence[Object3D], console: Console
) -> None:
    if init.is_dir():
        if not RunFolder(init).settings.is_file():
            raise SettingsError(
                f"init is {init}, a folder that holds no run (no {RunFolder(init).settings.name}): give the folder of "
                f"a 3D run, or a mesh, a point cloud or Gaussians ({', '.join(ENDINGS)})"
            )
        others = load_objects(init, console, settings.device)
        for index, (seed, one) in enumerate(zip(settings.seeds, objects, strict=True)):
            _begin_from_object(one, others[index % len(others)], settings, seed, console)
        return
    if not init.exists():
        raise SettingsError(
            f"init is {init}, and there is no such file or folder: give a mesh, a point cloud or Gaussians "
            f"({', '.join(ENDINGS)}), or the folder of a 3D run"
        )
    if is_gaussian_ply(init):
        _begin_from_ply(init, objects, settings, console)
        return
    shape = read_shape(init)
    for seed, one in zip(settings.seeds, objects, strict=True):
        _begin_from_shape(one, shape, settings, generator(seed, "start"))


def _begin_from_ply(
    path: Path, objects: Sequence[Object3D], settings: TextTo3DSettings, console: Console
) -> None:
    """Gaussians are taken as they are, and of them a mesh is made for other backbones."""
    for seed, one in zip(settings.seeds, objects, strict=True):
        if isinstance(one, GaussianScene):
            one.start_from_ply(path)
            continue
        # all of them, with what they show from one side alone; bounds are those of an object
        whole = {"initial_gaussians": 1, "max_gaussians": MAXIMUM_GAUSSIANS, "sh_degree": 3}
        gaussians = GaussianScene(
            [generator(seed, "init")],
            settings.gaussians.model_copy(update=whole),
            camera=settings.camera,
            background=settings.background,
            device=settings.device,
        )
        gaussians.start_from_ply(path)
        _begin_from_object(one, gaussians, settings, seed, console)


def _begin_from_object(
    one: Object3D, other: Object3D, settings: TextTo3DSettings, seed: int, console: Console
) -> None:
    """An object of the same kind is taken over, of others a mesh is made."""
    if isinstance(one, GaussianScene) and isinstance(other, GaussianScene):
        one.start_from_gaussians(other, str(settings.init))
        return
    if isinstance(one, NeRFScene) and isinstance(other, NeRFScene):
        different = one.start_from_nerf(other)
        if not different:
            return
        say(
            console,
            f"the NeRF of {settings.init} is of another build ({', '.join(different)}): a mesh is made of it, and "
            "the new one is fitted to that",
        )
    if isinstance(one, MeshScene):
        one.start_from(_mesh_to_paint(other, settings))
        return
    mesh = make_mesh(other, settings.extraction)
    vertices, colours = mesh.vertices, torch.ones_like(mesh.vertices)
    if isinstance(one, NeRFScene) and float(vertices.norm(dim=-1).max()) > RADIUS:
        fit = into_ball(vertices)
        vertices = fit.moved(vertices)
        say(
            console,
            f"the object of {settings.init} reaches out of the ball of radius {RADIUS:g}, where a NeRF is: it is taken "
            f"at {fit.factor:.0%} of its size",
        )
    part = Part(vertices, mesh.faces, colours, mesh.uvs, mesh.texture)
    shape = Shape(str(settings.init), "mesh", parts=(part,))
    _begin_from_shape(one, shape, settings, generator(seed, "start"))


def _mesh_to_paint(other: Object3D, settings: TextTo3DSettings) -> TexturedMesh:
    """With the atlas made for the texture's size in this run: in one for a larger texture charts lie too close."""
    size = settings.mesh.texture_size or settings.extraction.texture_size
    try:
        return make_mesh(other, settings.extraction.model_copy(update={"texture_size": size}))
    except ValueError:  # too many faces for a simple atlas of that size, or whatever is told again here
        return make_mesh(other, settings.extraction)


def _begin_from_shape(
    one: Object3D, shape: Shape, settings: TextTo3DSettings, draws: torch.Generator
) -> None:
    if isinstance(one, MeshScene):
        e = settings.extraction
        size = settings.mesh.texture_size or e.texture_size
        one.start_from(shape.textured(size, e.padding, e.atlas_faces, e.atlas_seconds))
    elif isinstance(one, GaussianScene):
        points, colours, normals = shape.surface_points(len(one), draws)
        if float(points.norm(dim=-1).max()) > one.settings.bounds:
            points = into_ball(points, start_radius(one.settings)).moved(points)
        one.start_from(points, colours, draws, normals)
    elif isinstance(one, NeRFScene):
        points, colours, _ = shape.surface_points(POINTS, draws)
        one.start_from(points, colours, shape.inside if shape.parts else None, draws)


def read_run(run: Path, device: str | None = None) -> TextTo3DSettings:
    """The settings of a 3D run; device: in place of the run's own.

    Raises RewardsdsError, in one line, for a folder without one.
    """
    values = dict(RunFolder(run).read_settings())
    if device is not None:
        values["device"] = device
    if values.pop("task", None) != TextTo3DSettings.task:
        raise SettingsError(f"{run} is no run of 3d: only those have an object")
    return TextTo3DSettings(**values).resolved()


def load_objects(run: Path, console: Console, device: str | None = None) -> list[Object3D]:
    """The objects of a 3D run, as its newest checkpoint has them. device: in place of the run's own.

    Raises RewardsdsError, in one line: no run, no 3D run, no checkpoint or only damaged ones.
    """
    folder, settings = RunFolder(run), read_run(run, device)
    found = find_checkpoint(folder, console)
    if found is None and folder.is_finished:
        ply = run / "object.ply"
        raise CheckpointError(
            f"{run} is finished, and its checkpoints were removed: make it again with `rewardsds 3d --config "
            f"{run / 'settings.yaml'} --out …`"
            + (f", or start from what it left with --init {ply}" * ply.is_file())
        )
    if found is None:
        raise CheckpointError(
            f"{run} has no checkpoint yet: let it make some steps with `rewardsds resume {run}`"
        )
    if not folder.is_finished:
        say(console, f"{run} is not finished: its object after step {found.steps_done} is taken")
    objects = make_objects(settings)
    scene = as_scene(objects)
    try:
        checkpoint.restore_scene(found, scene)
    except (KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"the checkpoint of step {found.steps_done} in {run} does not fit its settings ({reason})"
        ) from error
    scene.step = found.steps_done
    return objects
