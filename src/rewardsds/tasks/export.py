"""A finished (or stopped) 3D run as a file for other programs."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from rewardsds.errors import RewardsdsError, SettingsError
from rewardsds.runs.settings import changed
from rewardsds.scenes.export import (
    fitting_distance,
    turntable_cameras,
    turntable_frames,
    write_contact_sheet,
    write_gif,
    write_video,
)
from rewardsds.scenes.gaussians.scene import GaussianScene
from rewardsds.scenes.mesh.files import obj_files, write_glb, write_obj
from rewardsds.scenes.mesh.make import make_mesh
from rewardsds.scenes.mesh.settings import MeshExportSettings
from rewardsds.scenes.mesh.viewer import write_html
from rewardsds.scenes.object3d import Object3D
from rewardsds.scenes.settings import ExportFormat, TurntableSettings
from rewardsds.tasks.objects import load_objects, read_run

GIF_PIXELS = 5e8  # all frames are there at once: more would take gigabytes
PICTURES: tuple[ExportFormat, ...] = ("mp4", "gif", "png")
VISIBLE = 1 / 255  # alpha below which a picture shows nothing


def export(
    run: Path,
    to: ExportFormat,
    out: Path | None = None,
    *,
    force: bool = False,
    device: str = "auto",
    turntable: TurntableSettings | None = None,
    mesh: MeshExportSettings | None = None,
    console: Console | None = None,
) -> list[Path]:
    """Writes the objects of a 3D run, one file a particle, and returns the files.

    to: glb and obj are textured meshes, html is a page that shows one; ply and splat are Gaussians; mp4 and gif go once
        around, png is a sheet of views.
    out: the file; without it RUN/object.<to>, or RUN/turntable.<to> and RUN/views.png. Of several particles the seed is
        put before the ending.
    force: replace files that exist.
    device: where it is rendered, whatever the run was made on.

    Raises RewardsdsError, in one line: no run, no 3D run, no checkpoint, a file that exists, an object without a shape
    or of which nothing is seen.
    """
    settings = read_run(run, device)
    out = out or default_target(run, to)
    if out.suffix.lower() != f".{to}":
        raise SettingsError(f"out is {out}, but what is written is {to}: give a name that ends in .{to}")
    targets = [_named(out, seed, len(settings.seeds)) for seed in settings.seeds]
    written = [file for target in targets for file in (obj_files(target) if to == "obj" else (target,))]
    for file in written:
        if file.exists() and not force:
            raise SettingsError(f"{file} exists: replace it with --force, or give another name with --out")
    turntable, mesh = turntable or TurntableSettings(), mesh or MeshExportSettings()
    if to == "mp4" and turntable.size % 2:
        raise SettingsError(f"size is {turntable.size}: the pictures of an mp4 have an even number of pixels")
    if to == "gif" and turntable.frames * turntable.size**2 > GIF_PIXELS:
        raise SettingsError(
            f"{turntable.frames} pictures of {turntable.size} × {turntable.size} pixels are too much for a gif: lower "
            "size, seconds or fps, or export an mp4"
        )
    objects = load_objects(run, console or Console(stderr=True, highlight=False), device)
    for one in objects:
        check_visible(one)
    say_unused(to, turntable, mesh, settings.backbone == "mesh")
    for target, one in zip(targets, objects, strict=True):
        if to in PICTURES:
            write_pictures(one, to, target, turntable)
        else:
            write_object(one, to, target, mesh, settings.prompt)
    return targets


def say_unused(
    to: ExportFormat, turntable: TurntableSettings, mesh: MeshExportSettings, is_mesh: bool
) -> None:
    """Warns of options that were given and change nothing of what is written."""
    unused = {"png": {"seconds", "fps"}, "mp4": {"views"}, "gif": {"views"}}
    look = unused.get(to, set(TurntableSettings.model_fields))
    makes_mesh = to in ("glb", "obj", "html") and not is_mesh
    extraction = set() if makes_mesh else set(MeshExportSettings.model_fields)
    given = [f"--{name.replace('_', '-')}" for name in changed(turntable) if name in look]
    given += [f"--mesh.{name.replace('_', '-')}" for name in changed(mesh) if name in extraction]
    if given:
        of = "a run whose object is a mesh already" if is_mesh and to not in PICTURES else to
        warnings.warn(f"not used for {of}: {', '.join(given)}", stacklevel=3)


def check_visible(one: Object3D) -> None:
    """Raises RewardsdsError where small pictures from four sides show nothing of an object."""
    with torch.no_grad():
        alpha = one.render(turntable_cameras(4).to(one.device), size=64).alpha
    if alpha is not None and not float(alpha.max()) >= VISIBLE:  # also where it is NaN
        raise RewardsdsError(
            "nothing is seen of the object: it is transparent, or out of sight; start the run again with a lower "
            "learning rate or guidance scale"
        )


def write_pictures(one: Object3D, to: ExportFormat, path: Path, look: TurntableSettings) -> None:
    frames = look.views if to == "png" else look.frames
    distance = look.relative_distance or fitting_distance(one, look.elevation, look.field_of_view)
    cameras = turntable_cameras(frames, look.elevation, look.field_of_view, distance, look.azimuth)
    images = turntable_frames(partial(one.render_images, background=look.background), cameras, look.size)
    if to == "mp4":
        write_video(images, path, look.fps)
    elif to == "gif":
        write_gif(images, path, look.fps)
    else:
        degrees = [f"{round(look.azimuth + 360 * view / frames) % 360}°" for view in range(frames)]
        write_contact_sheet(images, path, columns=4, captions=degrees)


def write_object(
    one: Object3D, to: ExportFormat, path: Path, settings: MeshExportSettings, title: str
) -> None:
    if to in ("ply", "splat") and isinstance(one, GaussianScene):
        one.export_ply(path) if to == "ply" else one.export_splat(path)
        return
    if to in ("ply", "splat"):
        raise RewardsdsError(
            f"{to} holds Gaussians, and this run's object is made of something else: export it as glb, obj or html"
        )
    mesh = make_mesh(one, settings)
    if to == "glb":
        write_glb(mesh, path)
    elif to == "obj":
        write_obj(mesh, path)
    else:
        write_html(mesh, path, title)


def default_target(run: Path, to: ExportFormat) -> Path:
    """Where an export goes that is given no other place."""
    name = {"png": "views", "mp4": "turntable", "gif": "turntable"}.get(to, "object")
    return run / f"{name}.{to}"


def _named(out: Path, seed: int, count: int) -> Path:
    return out if count == 1 else out.with_name(f"{out.stem}_{seed}{out.suffix}")
