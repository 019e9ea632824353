"""Times a NeRF's step on the CPU: render and backward, against resolution and samples per ray.

    python benchmarks/nerf.py [--threads 2] [--repeats 10] [--out benchmarks/results/nerf.json]

Four views, as score distillation renders them, of a NeRF that was fitted to a ball with a hat (a cone): opaque, its
occupancy grid learned. The first steps are timed too, in which all is fog and nothing hides anything. Wall-clock time
is reported as the median and the fastest of all repeats, after a warm-up that compiles the kernels; CPU time, summed
over threads, hardly changes with other load on the machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from record import write_record
from rewardsds.scenes.nerf.scene import NeRFScene
from rewardsds.scenes.nerf.settings import NeRFSettings
from rewardsds.scenes.settings import CameraSettings

TARGET_MS = 400
# pixels and samples per ray; the first case is what the target is about
CASES = [(64, 64), (32, 64), (96, 64), (128, 64), (64, 32), (64, 128), (64, 256)]


def inside(points: Tensor) -> Tensor:
    """A ball of radius 0.5 with a cone on top."""
    ball = (points + torch.tensor([0.0, 0.0, 0.2])).norm(dim=-1) < 0.5
    height = points[:, 2]
    cone = (points[:, :2].norm(dim=-1) < 0.4 * (0.8 - height)) & (height > 0.2) & (height < 0.8)
    return ball | cone


def surface(count: int) -> Tensor:
    """Points (count, 3) on the border of `inside`: the outermost of it along random directions."""
    g = torch.Generator().manual_seed(2)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1)
    steps = torch.linspace(0, 0.9, 200)
    full = torch.stack([inside(step * directions) for step in steps])  # steps count
    last = (full * torch.arange(200)[:, None]).amax(0)
    return steps[last, None] * directions


def make(size: int, samples: int) -> NeRFScene:
    settings = NeRFSettings(samples_per_ray=samples)
    return NeRFScene([torch.Generator().manual_seed(0)], settings, camera=CameraSettings(resolution=(size,)))


def fitted(steps: int) -> Mapping[str, Tensor]:
    """The state of a NeRF that shows the shape; it does not depend on how it is rendered."""
    scene, points = make(64, 64), surface(20_000)
    scene.start_from(points, 0.5 + 0.5 * points, inside, torch.Generator().manual_seed(1), steps)
    return scene.state_dict()


def seconds(scene: NeRFScene, repeats: int) -> list[tuple[float, float, float]]:
    """Seconds of (render, backward, CPU time of both), one triple per repeat; nothing is optimised."""
    g = torch.Generator().manual_seed(3)
    parameters = [p for group in scene.parameter_groups() for p in group["params"]]
    times = []
    for repeat in range(repeats + 2):
        cameras = scene.sample_cameras([g], 0)
        cpu_start, start = time.process_time(), time.perf_counter()
        rendering = scene.render(cameras, [g])
        middle = time.perf_counter()
        assert rendering.images is not None
        regularisation = scene.regularisation(rendering)
        loss = rendering.images.square().sum() + (0 if regularisation is None else regularisation)
        torch.autograd.grad(loss, parameters)
        end = time.perf_counter()
        if repeat >= 2:  # the first ones warm up
            times.append((middle - start, end - middle, time.process_time() - cpu_start))
    return times


def summary(times: list[tuple[float, float, float]]) -> dict[str, float]:
    total = [render + backward for render, backward, _ in times]
    return {
        "median_ms": round(1e3 * statistics.median(total), 1),
        "fastest_ms": round(1e3 * min(total), 1),
        "render_median_ms": round(1e3 * statistics.median(t[0] for t in times), 1),
        "backward_median_ms": round(1e3 * statistics.median(t[1] for t in times), 1),
        "cpu_median_ms": round(1e3 * statistics.median(t[2] for t in times), 1),
        "repeats": len(times),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="threads of torch and the kernels"
    )
    parser.add_argument("--repeats", type=int, default=10, help="repeats of each case")
    parser.add_argument("--fit-steps", type=int, default=80, help="steps in which the shape is fitted")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "nerf.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)  # as in a run

    table = Table("state", "pixels", "samples", "median", "fastest", "CPU", title="four views, milliseconds")
    rows: list[dict[str, Any]] = []

    def record(state: str, scene: NeRFScene, size: int, samples: int) -> None:
        found = summary(seconds(scene, options.repeats))
        rows.append({"state": state, "views": 4, "size": size, "samples_per_ray": samples, **found})
        cells = (state, f"{size}²", samples, found["median_ms"], found["fastest_ms"], found["cpu_median_ms"])
        table.add_row(*map(str, cells))

    record("first steps", make(64, 64), 64, 64)
    state = fitted(options.fit_steps)
    for size, samples in CASES:
        scene = make(size, samples)
        scene.load_state_dict(state)
        record("learned", scene, size, samples)
    Console(width=120).print(table)

    result = {
        "benchmark": "NeRF, four views, render and backward",
        "target_ms": TARGET_MS,
        "cases": rows,
    }
    write_record(options.out, result)


if __name__ == "__main__":
    main()
