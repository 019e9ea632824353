"""Times the numba rasteriser, forward and backward, over numbers of Gaussians and resolutions.

    python benchmarks/rasterizer_cost.py [--threads 2] [--rounds 4] [--repeats 6] [--out FILE]

The scene and what is reported are those of `rasterizer.py`; `plot_cost.py` draws the figures.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from rasterizer import seconds, summary
from record import write_record
from rewardsds.scenes.gaussians import rasterization

VIEWS = 4
COUNTS = (500, 1000, 2000, 4000, 8000, 16_000)
SIZES = (32, 64, 128, 256)


def measure_grid(rounds: int, repeats: int) -> list[dict[str, Any]]:
    """All numbers of Gaussians at all resolutions, in several rounds, so that a busy minute falls on none alone."""
    times: dict[tuple[int, int], list[tuple[float, float, float]]] = {}
    for _ in range(rounds):
        for count in COUNTS:
            for size in SIZES:
                found = seconds(rasterization.rasterization, VIEWS, size, count, repeats)
                times.setdefault((count, size), []).extend(found)
    return [
        {"views": VIEWS, "size": size, "gaussians": count, "numba": summary(found)}
        for (count, size), found in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="threads of torch and the kernels"
    )
    parser.add_argument("--rounds", type=int, default=4, help="rounds over all cells")
    parser.add_argument("--repeats", type=int, default=6, help="repeats of each cell in a round")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "rasterizer_cost.json"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    grid = measure_grid(options.rounds, options.repeats)
    table = Table("Gaussians", *(f"{size}²" for size in SIZES), title=f"{VIEWS} views, fastest milliseconds")
    for count in COUNTS:
        cells = [cell["numba"]["fastest_parts_ms"] for cell in grid if cell["gaussians"] == count]
        table.add_row(str(count), *map(str, cells))
    Console(width=120).print(table)
    result = {
        "benchmark": "Gaussian rasteriser over numbers of Gaussians and resolutions, RGB+ED",
        "kernel_threads": rasterization.threads(),
        "grid": grid,
    }
    write_record(options.out, result)


if __name__ == "__main__":
    main()
