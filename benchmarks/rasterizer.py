"""Times the Gaussian rasteriser, forward and backward: plain torch reference against numba kernels.

    python benchmarks/rasterizer.py [--threads 2] [--repeats 20] [--out benchmarks/results/rasterizer.json]

Views of Gaussians in a ball, as score distillation renders them. Wall-clock time is reported as the median, the
fastest of all repeats, and the fastest forward pass plus the fastest backward pass, after a warm-up that compiles the
kernels. Other load on the machine makes it longer; CPU time, summed over threads, changes less with load, and is then
the fairer basis of the ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from record import write_record
from rewardsds.scenes.cameras import sample_orbit_group
from rewardsds.scenes.gaussians import rasterization, reference

# views, pixels, Gaussians, and whether the reference is timed too
CASES = [
    (4, 64, 4000, True),
    (4, 64, 1000, True),
    (4, 64, 2000, False),
    (4, 128, 4000, False),
    (1, 256, 4000, False),
]


def gaussians(count: int) -> list[Tensor]:
    """A ball of radius 0.6 filled with Gaussians of mixed shape and opacity."""
    g = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1)
    spacing = 0.6 * (4 / 3 * torch.pi / count) ** (1 / 3)
    parameters = [
        0.6 * direction * torch.rand(count, 1, generator=g) ** (1 / 3),
        torch.randn(count, 4, generator=g),
        0.6 * spacing * torch.exp(0.4 * torch.randn(count, 3, generator=g)),
        0.05 + 0.9 * torch.rand(count, generator=g),
        torch.rand(count, 3, generator=g),
    ]
    return [parameter.requires_grad_() for parameter in parameters]


def seconds(
    render: Callable[..., Any], views: int, size: int, count: int, repeats: int
) -> list[tuple[float, float, float]]:
    """Seconds of (forward, backward, CPU time of both), one triple per repeat."""
    parameters = gaussians(count)
    cameras = sample_orbit_group(torch.Generator().manual_seed(1), views, field_of_view=(40.0, 40.0))
    viewmats, Ks = cameras.opencv_world_to_camera()[0], cameras.intrinsics(size, size)[0]
    times = []
    for repeat in range(repeats + 1):
        cpu_start = time.process_time()
        start = time.perf_counter()
        image, alpha, _ = render(*parameters, viewmats, Ks, size, size, render_mode="RGB+ED")
        middle = time.perf_counter()
        torch.autograd.grad(image.sum() + alpha.sum(), parameters)
        end = time.perf_counter()
        if repeat:  # the first one warms up
            times.append((middle - start, end - middle, time.process_time() - cpu_start))
    return times


def summary(times: list[tuple[float, float, float]]) -> dict[str, float]:
    total = [forward + backward for forward, backward, _ in times]
    return {
        "median_ms": round(1e3 * statistics.median(total), 2),
        "fastest_ms": round(1e3 * min(total), 2),
        "fastest_parts_ms": round(1e3 * (min(t[0] for t in times) + min(t[1] for t in times)), 2),
        "forward_median_ms": round(1e3 * statistics.median(t[0] for t in times), 2),
        "backward_median_ms": round(1e3 * statistics.median(t[1] for t in times), 2),
        "cpu_median_ms": round(1e3 * statistics.median(t[2] for t in times), 2),
        "repeats": len(times),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="threads of torch and the kernels"
    )
    parser.add_argument("--repeats", type=int, default=20, help="repeats of the kernels")
    parser.add_argument("--reference-repeats", type=int, default=1, help="repeats of the reference")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "rasterizer.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    columns = ["views", "pixels", "Gaussians", "numba median", "fastest", "CPU", "reference median", "CPU"]
    table = Table(*columns, "ratio", "CPU ratio", title="forward and backward, milliseconds")
    rows: list[dict[str, Any]] = []
    for views, size, count, with_reference in CASES:
        fast = summary(seconds(rasterization.rasterization, views, size, count, options.repeats))
        row: dict[str, Any] = {"views": views, "size": size, "gaussians": count, "numba": fast}
        cells = [views, f"{size}²", count, fast["median_ms"], fast["fastest_ms"], fast["cpu_median_ms"]]
        if with_reference:
            plain = summary(seconds(reference.rasterization, views, size, count, options.reference_repeats))
            row["reference"] = plain
            row["ratio_of_medians"] = round(plain["median_ms"] / fast["median_ms"], 1)
            row["ratio_of_cpu_time"] = round(plain["cpu_median_ms"] / fast["cpu_median_ms"], 1)
            cells += [plain["median_ms"], plain["cpu_median_ms"]]
            cells += [row["ratio_of_medians"], row["ratio_of_cpu_time"]]
        rows.append(row)
        table.add_row(*map(str, cells))
    Console(width=120).print(table)

    result = {
        "benchmark": "Gaussian rasteriser, forward and backward, RGB+ED",
        "kernel_threads": rasterization.threads(),
        "cases": rows,
    }
    write_record(options.out, result)


if __name__ == "__main__":
    main()
