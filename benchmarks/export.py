"""What a mesh of a finished text-to-3D run costs, and how well it shows the object.

    python benchmarks/export.py RUN [RUN …] [--threads 2] [--out benchmarks/results/export.json]

RUN: folders of `rewardsds 3d`. For each the whole export (surface, atlas, texture of 1024², GLB, OBJ, page) is timed,
in a process of its own whose peak memory is read, xatlas's included. Then the GLB is drawn by an independent renderer
(Embree through trimesh, which needs embreex) from views that the texture was not made from, drawn as training draws
its own, and compared with the object's own pictures on their background: PSNR at 256 × 256 pixels. Beside it that of
the object's own pictures with each pixel opaque, where its alpha exceeds a half, or background: about what an opaque
surface can reach of a soft object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from record import write_record
from rewardsds.scenes.base import Rendering
from rewardsds.scenes.cameras import sample_orbit_group
from rewardsds.scenes.mesh.files import write_glb, write_obj
from rewardsds.scenes.mesh.make import make_mesh
from rewardsds.scenes.mesh.viewer import write_html
from rewardsds.tasks.objects import load_objects, read_run

VIEWS, SIZE = 10, 256
# the independent renderer is that of the tests
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "scenes" / "mesh"))


def export(path: Path, threads: int, folder: Path) -> dict[str, Any]:
    """Figures of one export, whose files are left in a folder."""
    torch.set_num_threads(threads)
    settings = read_run(path)
    scene, *others = load_objects(path, Console(stderr=True))
    if others:
        raise SystemExit(f"{path} has several particles: give runs of one")
    start, cpu_start = time.perf_counter(), _cpu()
    mesh = make_mesh(scene)
    made = time.perf_counter()
    write_glb(mesh, folder / "object.glb")
    write_obj(mesh, folder / "object.obj")
    write_html(mesh, folder / "object.html", path.name)
    seconds, cpu_seconds = time.perf_counter() - start, _cpu() - cpu_start
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]

    independent = import_module("glb_renderer")
    cameras = sample_orbit_group(
        torch.Generator().manual_seed(123),
        views=1,
        batch=VIEWS,
        elevation=scene.camera.resolved_elevation,
        field_of_view=scene.camera.resolved_field_of_view,
        relative_distance=scene.camera.relative_distance,
    )
    with torch.no_grad():
        rendering = scene.render(cameras.to(scene.device), size=SIZE)
    wanted, alpha = pictures(rendering)
    flat = cameras[:, 0]
    background = scene.background.evaluation
    if len(set(background)) != 1:
        raise SystemExit("the independent renderer knows grey backgrounds only")
    figures = independent.psnr(
        independent.render_glb(folder / "object.glb", flat, SIZE, background[0], fine=3), wanted
    )
    opaque = torch.where(
        alpha > 0.5, (wanted - (1 - alpha) * background[0]) / alpha.clamp(min=0.5), background[0]
    )
    bounds = independent.psnr(opaque.clamp(0, 1), wanted)
    return {
        "run": path.name,
        "prompt": settings.prompt,
        "backbone": settings.backbone,
        "faces": len(mesh.faces),
        "texture": mesh.texture.shape[-1],
        "seconds": round(seconds, 2),
        "seconds_of_the_mesh": round(made - start, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "peak_memory_mb": round(peaks[0] / 1024),
        "peak_memory_of_xatlas_mb": round(peaks[1] / 1024),
        "psnr_mean_db": round(statistics.fmean(figures), 2),
        "psnr_worst_view_db": round(min(figures), 2),
        "psnr_of_opaque_pixels_db": round(statistics.fmean(bounds), 2),
        "glb_mb": round((folder / "object.glb").stat().st_size / 2**20, 2),
    }


def pictures(rendering: Rendering) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (V, 3, S, S) in [0, 1] and alpha (V, 1, S, S) of groups of one view, on the CPU."""
    assert rendering.images is not None
    assert rendering.alpha is not None
    return rendering.images[:, 0].clamp(0, 1).cpu(), rendering.alpha[:, 0].cpu()


def _cpu() -> float:
    """Seconds of all threads, and of processes that ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="threads of torch and the kernels"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "export.json")
    parser.add_argument("--single", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.single:
        with tempfile.TemporaryDirectory() as folder:
            figures = export(options.runs[0], options.threads, Path(folder))
        sys.stdout.write(json.dumps(figures) + "\n")
        return
    rows = []
    for run in options.runs:
        command = [sys.executable, __file__, str(run), "--single", "--threads", str(options.threads)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    columns = ["seconds", "cpu_seconds", "peak_memory_mb", "psnr_mean_db", "psnr_worst_view_db"]
    columns += ["psnr_of_opaque_pixels_db", "faces"]
    table = Table("run", *columns, title="mesh export of finished runs")
    for row in rows:
        table.add_row(row["run"], *(str(row[name]) for name in columns))
    Console(width=120).print(table)
    write_record(
        options.out,
        {"benchmark": "mesh export", "threads": options.threads, "views": VIEWS, "size": SIZE, "runs": rows},
    )


if __name__ == "__main__":
    main()
